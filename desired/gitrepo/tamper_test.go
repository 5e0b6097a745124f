// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestRewrittenHistoryFreezes moves the branch, behind the daemon's back, to histories that do not contain the
// accepted head. None may take its place, also not across a restart.
func TestRewrittenHistoryFreezes(t *testing.T) {
	shapes := map[string]func(t *testing.T, dir string) string{
		"rewound by one":      func(t *testing.T, dir string) string { return git(t, dir, "rev-parse", "main~1") },
		"rewound to the root": func(t *testing.T, dir string) string { return git(t, dir, "rev-list", "--max-parents=0", "main") },
		"squashed to one root": func(t *testing.T, dir string) string {
			return git(t, dir, "commit-tree", "main^{tree}", "-m", "squash")
		},
		"the same tree, amended": func(t *testing.T, dir string) string {
			return git(t, dir, "commit-tree", "main^{tree}", "-p", "main~1", "-m", "amended")
		},
		"an unrelated root": func(t *testing.T, dir string) string {
			git(t, dir, "hash-object", "-t", "tree", "-w", "/dev/null")
			return git(t, dir, "commit-tree", "4b825dc642cb6eb9a060e54bf8d69288fbee4904", "-m", "other")
		},
		"a sibling on top of the parent": func(t *testing.T, dir string) string {
			return git(t, dir, "commit-tree", "main~1^{tree}", "-p", "main~1", "-m", "sibling")
		},
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "acme.git")
			r := open(t, config(dir))
			for _, rule := range []string{"one", "two", "three"} {
				commit(t, r, Request{Edit: put(rule, "report"), Subject: "user:a"})
			}
			head := r.Head()
			to := shape(t, dir)
			git(t, dir, "update-ref", "refs/heads/main", to)
			eventually(t, "the freeze", func() bool { return r.Head().Frozen != "" })
			if got := r.Head(); got.Commit != head.Commit || got.Seq != head.Seq || got.Snapshot.Len() != 3 {
				t.Errorf("the accepted head went to %s seq %d", got.Commit, got.Seq)
			}
			if why := r.Head().Frozen; !strings.Contains(why, head.Commit) || !strings.Contains(why, "main") {
				t.Errorf("the reason names neither branch nor accepted head: %s", why)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r = open(t, config(dir))
			if got := r.Head(); got.Frozen == "" || got.Commit != head.Commit || got.Snapshot.Len() != 3 {
				t.Errorf("after a restart: frozen %q at %s with %d resources", got.Frozen, got.Commit, got.Snapshot.Len())
			}
		})
	}
}

// TestAMergeThatTakesFirstParenthood: a team member merged the accepted head into a line of their own and pushed the
// merge. The accepted head is contained, so it is accepted; seq goes on, never back.
func TestAMergeThatTakesFirstParenthood(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	r := open(t, config(dir))
	commit(t, r, Request{Edit: put("one", "report"), Subject: "user:a"})
	work := clone(t, serve(t, r))
	git(t, work, "checkout", "-q", "-b", "mine", "HEAD")
	write(t, work, "projects/shop/mine.yaml", yaml("mine", "revert"))
	commitAll(t, work, "mine")
	commit(t, r, Request{Edit: put("two", "report"), Subject: "user:a"})
	commit(t, r, Request{Edit: put("three", "report"), Subject: "user:a"})
	before := r.Head()
	git(t, work, "fetch", "-q", "origin")
	git(t, work, "merge", "-q", "--no-edit", "origin/main") // the accepted head becomes the second parent
	git(t, work, "push", "-q", "origin", "mine:main")
	after := r.Head()
	if after.Seq <= before.Seq || after.Snapshot.Len() != 4 {
		t.Errorf("seq %d after %d, %d resources, want more and 4", after.Seq, before.Seq, after.Snapshot.Len())
	}
	if e := mustGet(t, r, "two"); e.Changed.Principal != "user:a" {
		t.Errorf("provenance of what was there: %+v", e.Changed)
	}
	next := commit(t, r, Request{Edit: put("four", "report"), Subject: "user:a"})
	if next.Seq != after.Seq+1 {
		t.Errorf("the next write has seq %d after %d", next.Seq, after.Seq)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, config(dir))
	if got := r.Head(); got.Seq != next.Seq || got.Snapshot.Len() != 5 {
		t.Errorf("after a restart: seq %d with %d resources", got.Seq, got.Snapshot.Len())
	}
}

// TestReplayedSealsAndForgedNames: what a push claims about itself counts for nothing.
func TestReplayedSealsAndForgedNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	r := open(t, config(dir))
	commit(t, r, Request{Edit: put("one", "report"), Subject: "user:root", Key: "aa", Fingerprint: "bb"})
	url := serve(t, r)
	work := clone(t, url)

	// A sealed commit, carried over to another parent, keeps its trailers: refused.
	sealed := git(t, work, "rev-parse", "HEAD")
	write(t, work, "projects/shop/x.yaml", yaml("x", "report"))
	commitAll(t, work, "x")
	git(t, work, "rm", "-q", "-r", "projects/shop/drift-rules")
	git(t, work, "commit", "-q", "-m", "clear the way")
	git(t, work, "cherry-pick", "--allow-empty", sealed)
	if out, err := tryGit(work, "push", "origin", "main"); err == nil || !strings.Contains(out, "only Plumbline writes") {
		t.Errorf("a replayed seal was taken: %v\n%s", err, out)
	}

	// An author's name and a date are free text: the pusher is who answers.
	git(t, work, "reset", "-q", "--hard", "origin/main")
	write(t, work, "projects/shop/why.yaml", yaml("why", "report"))
	git(t, work, "add", "-A")
	git(t, work, "-c", "user.name=user:root", "commit", "-q", "--author=user:root <root@callers.plumbline.invalid>", "--date=2099-01-01T00:00:00Z", "-m", "y")
	git(t, work, "push", "-q", "origin", "main")
	if p := mustGet(t, r, "why").Changed; p.Principal != "user:pusher" || !strings.HasPrefix(p.Author, "user:root") {
		t.Errorf("provenance %+v: the principal must be the pusher", p)
	}
	rc := commit(t, r, Request{Edit: put("two", "report"), Subject: "user:b"})
	if rc.Seq != 3 {
		t.Errorf("seq %d after a commit of the year 2099, want 3", rc.Seq)
	}

	// Two refs in one push land together or not at all.
	git(t, work, "pull", "-q", "--rebase", "origin", "main")
	write(t, work, "projects/shop/bad.yaml", "kind: [\n")
	commitAll(t, work, "bad")
	if out, err := tryGit(work, "push", "--atomic", "origin", "main", "HEAD~1:refs/heads/side"); err == nil {
		t.Errorf("a bad push was taken:\n%s", out)
	}
	if out := git(t, dir, "for-each-ref", "refs/heads/side"); out != "" {
		t.Errorf("half of the push landed: %s", out)
	}
}

// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func repoRef(name string) desired.Ref {
	return desired.Ref{Tenant: "acme", Project: "shop", Kind: desired.KindRepository, Name: name}
}

func repository(name string, spec desired.RepositorySpec) adapters.Subject {
	return adapters.Subject{Ref: repoRef(name), Spec: &spec, Provider: adapters.Provider{Type: "local"}}
}

func child(parent adapters.Subject, kind desired.Kind, name string, spec desired.Spec) adapters.Subject {
	return adapters.Subject{Ref: parent.Ref.Sibling(kind, name), Spec: spec, Parent: &parent}
}

func branchOf(parent adapters.Subject, name string) adapters.Subject {
	return child(parent, desired.KindBranch, "b", &desired.BranchSpec{Repository: parent.Ref.Name, Name: name})
}

func commitOf(parent adapters.Subject, name string, spec desired.CommitSpec, files map[string]string) adapters.Subject {
	if spec.Message == "" {
		spec.Message = "feat: x"
	}
	s := child(parent, desired.KindCommit, name, &spec)
	s.Content = func(_ context.Context, path, _ string) ([]byte, error) { return []byte(files[path]), nil }
	return s
}

func (o *outside) apply(s adapters.Subject, op adapters.Op, fields ...string) (adapters.Outcome, error) {
	return o.local.Apply(o.t.Context(), adapters.Change{
		Subject: s, Op: op, Fields: fields, Tag: "tag-" + s.Ref.Name + "-" + string(op),
		Author: desired.Person{Name: "Grace", Email: "grace@example.com"}, Log: io.Discard,
	})
}

func (o *outside) must(s adapters.Subject, op adapters.Op, fields ...string) adapters.Outcome {
	o.t.Helper()
	out, err := o.apply(s, op, fields...)
	if err != nil || !out.Done {
		o.t.Fatalf("%s %s: got %+v and %v, want it done", op, s.Ref, out, err)
	}
	return out
}

func (o *outside) mustFail(s adapters.Subject, op adapters.Op, class desired.Class, says ...string) {
	o.t.Helper()
	_, err := o.apply(s, op)
	if got := desired.ClassOf(err); got != class {
		o.t.Errorf("%s %s: got class %q (%v), want %q", op, s.Ref, got, err, class)
		return
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			o.t.Errorf("%s %s: %q does not say %q", op, s.Ref, err, text)
		}
	}
}

func (o *outside) see(s adapters.Subject) adapters.Observation {
	o.t.Helper()
	got, err := o.local.Observe(o.t.Context(), []adapters.Subject{s})
	if err != nil {
		o.t.Fatal(err)
	}
	return got[0]
}

func (o *outside) want(s adapters.Subject, p adapters.Presence, says ...string) {
	o.t.Helper()
	got := o.see(s)
	if got.Presence != p {
		o.t.Errorf("%s: got %s (%s), want %s", s.Ref, got.Presence, got.Reason, p)
	}
	for _, text := range says {
		if !strings.Contains(got.Reason, text) {
			o.t.Errorf("%s: reason %q does not say %q", s.Ref, got.Reason, text)
		}
	}
}

func (o *outside) made(name string) adapters.Subject {
	o.t.Helper()
	r := repository(name, desired.RepositorySpec{})
	o.must(r, adapters.Create)
	return r
}

func TestSettingsThatCannotBeReadAreUnknown(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	path := settingsPath(o.local.path(r.Ref))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"torn":         "",
		"half":         string(good[:len(good)/2]),
		"unknown key":  strings.Replace(string(good), `"visibility"`, `"visiblity"`, 1),
		"two values":   string(good) + "{}",
		"other":        strings.Replace(string(good), `"v": 1`, `"v": 7`, 1),
		"wrong pull":   strings.Replace(string(good), `"v": 1`, `"v": 1, "pulls": [{"number": 0}]`, 1),
		"null pull":    strings.Replace(string(good), `"v": 1`, `"v": 1, "pulls": [null]`, 1),
		"strange pull": strings.Replace(string(good), `"v": 1`, `"v": 1, "pulls": [{"number": 1, "state": "draft"}]`, 1),
	} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, s := range []adapters.Subject{r, branchOf(r, "main"), branchOf(r, "gone")} {
			o.want(s, adapters.Unknown, "plumbline/host.json")
		}
		o.mustFail(r, adapters.Update, desired.Stalled, "host.json")
		now, err := os.ReadFile(path)
		if err != nil || string(now) != bad {
			t.Errorf("%s: the driver wrote over what a person has to repair", name)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	o.want(r, adapters.Unknown, "is missing")
	o.mustFail(r, adapters.Create, desired.Stalled, "is missing")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	o.want(r, adapters.Known)
}

func TestDamagedRepositoryIsUnknown(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	for name, damage := range map[string]func(dir string) error{
		"no-head":     func(dir string) error { return os.Remove(filepath.Join(dir, "HEAD")) },
		"no-objects":  func(dir string) error { return os.RemoveAll(filepath.Join(dir, "objects")) },
		"torn-ref":    func(dir string) error { return os.Truncate(filepath.Join(dir, "refs", "heads", "main"), 0) },
		"empty-dir":   func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
		"just-a-file": func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) },
	} {
		r := o.made(name)
		saved := filepath.Join(t.TempDir(), name)
		if err := os.CopyFS(saved, os.DirFS(o.local.path(r.Ref))); err != nil {
			t.Fatal(err)
		}
		if err := damage(o.local.path(r.Ref)); err != nil {
			t.Fatal(err)
		}
		o.restart()
		for _, s := range []adapters.Subject{r, branchOf(r, "main"), branchOf(r, "gone")} {
			if got := o.see(s); got.Presence != adapters.Unknown || got.Err == nil {
				t.Errorf("%s: %s is %s, want unknown with an error", name, s.Ref, got.Presence)
			}
		}
		if _, err := o.apply(r, adapters.Create); err == nil {
			t.Errorf("%s: a damaged repository was adopted", name)
		}
		// What a person brings back from a backup is seen at once, though the old one was open.
		if err := errors.Join(os.RemoveAll(o.local.path(r.Ref)), os.CopyFS(o.local.path(r.Ref), os.DirFS(saved))); err != nil {
			t.Fatal(err)
		}
		o.want(r, adapters.Known)
		o.want(branchOf(r, "gone"), adapters.Absent)
	}
}

// One torn reference hides what needs it, and nothing else.
func TestTornReferenceIsUnknown(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	o.must(branchOf(r, "b"), adapters.Create)
	path := filepath.Join(o.local.path(r.Ref), "refs", "heads", "main")
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := child(r, desired.KindPullRequest, "p", &desired.PullRequestSpec{Repository: "r", SourceBranch: "b", Title: "p"})
	o.must(p, adapters.Create)
	for _, torn := range []string{"", "12345", "ref: "} {
		if err := os.WriteFile(path, []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, s := range []adapters.Subject{r, branchOf(r, "main"), p} {
			o.want(s, adapters.Unknown)
		}
		o.want(branchOf(r, "b"), adapters.Known)
		o.want(branchOf(r, "gone"), adapters.Absent)
		o.mustFail(branchOf(r, "main"), adapters.Restore, desired.Stalled, "git fsck")
		o.mustFail(branchOf(r, "c"), adapters.Create, desired.Stalled)
	}
	if err := os.WriteFile(path, was, 0o600); err != nil {
		t.Fatal(err)
	}
	o.want(r, adapters.Known)
}

func TestReplacedRepositoryIsOpenedAnew(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	a, b := o.made("a"), o.made("b")
	head := o.push(b.Ref, "main", map[string]string{"x": "x\n"})
	o.want(a, adapters.Known)
	o.move(o.local.path(a.Ref), o.local.path(a.Ref)+".old")
	o.move(o.local.path(b.Ref), o.local.path(a.Ref))
	if got := o.see(branchOf(a, "main")).Actual.(*adapters.BranchActual).Head; got != head {
		t.Errorf("head: got %s, want that of the repository that is there now, %s", got, head)
	}
	o.move(o.local.path(a.Ref)+".old", o.local.path(b.Ref))
}

func TestRemovedRepositoryKeepsEverything(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	o.local.cfg.Now = func() time.Time { return time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC) } // two removals in the same instant
	r := o.made("r")
	first := o.push(r.Ref, "main", map[string]string{"a": "1\n"})
	o.must(r, adapters.Remove)
	o.must(r, adapters.Create)
	second := o.push(r.Ref, "main", map[string]string{"a": "2\n"})
	o.must(r, adapters.Remove)
	trash, err := os.ReadDir(o.local.trash())
	if err != nil || len(trash) != 2 {
		t.Fatalf("trash: got %v and %v, want both", trash, err)
	}
	for i, id := range []string{first, second} {
		git(t, filepath.Join(o.local.trash(), trash[i].Name()), "", "cat-file", "-e", id+"^{commit}")
	}
	o.must(r, adapters.Restore)
	if got := o.see(branchOf(r, "main")).Actual.(*adapters.BranchActual).Head; got != second {
		t.Errorf("restored: got head %s, want the last one removed, %s", got, second)
	}
	o.mustFail(repository("shop.r", desired.RepositorySpec{}), adapters.Restore, desired.Stalled)
}

func TestRepositoriesStayInTheirTenant(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	theirs := r
	theirs.Ref.Tenant = "evil"
	c := adapters.Change{Subject: theirs, Op: adapters.Rename, Former: r.Ref, Log: io.Discard}
	if _, err := o.local.Apply(t.Context(), c); desired.ClassOf(err) != desired.Denied {
		t.Errorf("rename to another tenant: got %v, want denied", err)
	}
	for _, ref := range []desired.Ref{
		{Tenant: "..", Project: "shop", Kind: desired.KindRepository, Name: "r"},
		{Tenant: "acme", Project: "", Kind: desired.KindRepository, Name: "r"},
		{Tenant: "acme", Project: "shop/../../evil", Kind: desired.KindRepository, Name: "r"},
		{Tenant: "acme", Project: "shop", Kind: desired.KindRepository, Name: "../r"},
		{Tenant: "acme", Project: "shop", Kind: desired.KindRepository, Name: "r\x00"},
		{Tenant: "acme", Project: "shop", Kind: desired.KindRepository, Name: ".."},
	} {
		s := adapters.Subject{Ref: ref, Spec: &desired.RepositorySpec{}}
		o.want(s, adapters.Unknown)
		o.mustFail(s, adapters.Create, desired.Invalid)
		o.mustFail(s, adapters.Remove, desired.Invalid)
		c := adapters.Change{Subject: r, Op: adapters.Rename, Former: ref, Log: io.Discard}
		if _, err := o.local.Apply(t.Context(), c); err == nil {
			t.Errorf("rename from %q: done", ref)
		}
	}
	o.want(r, adapters.Known)
}

func TestDeletedBranchOutlivesGarbageCollection(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	b := branchOf(r, "feature/x")
	o.must(b, adapters.Create)
	head := o.push(r.Ref, "feature/x", map[string]string{"x": "a day of work\n"})
	o.want(b, adapters.Known)
	o.git(r.Ref, "", "update-ref", "-d", "refs/heads/feature/x")
	o.git(r.Ref, "", "gc", "--prune=now", "--quiet")
	o.restart()
	o.want(b, adapters.Absent)
	out := o.must(b, adapters.Restore) // without a handle
	if got := out.Actual.(*adapters.BranchActual).Head; got != head {
		t.Errorf("restored at %s, want %s", got, head)
	}
}

func TestBranchNamesThatAreDirectoriesOfEachOther(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	a, ab := branchOf(r, "a"), branchOf(r, "a/b")
	o.must(a, adapters.Create)
	o.mustFail(ab, adapters.Create, desired.Stalled, "a/b")
	o.must(a, adapters.Remove)
	o.must(ab, adapters.Create) // though a's last head is pinned
	o.want(ab, adapters.Known)
	o.mustFail(a, adapters.Restore, desired.Stalled, "a")
	for _, name := range []string{strings.Repeat("x", 200), strings.Repeat("a/", 100) + "b", "100%", "a%2Fb", "ünï/cödé"} {
		b := branchOf(r, name)
		o.must(b, adapters.Create)
		o.must(b, adapters.Remove)
		o.must(b, adapters.Restore)
	}
	for _, bad := range []string{"", "-x", "a..b", "a b", "refs/../x", "x.lock", "a\nb", "HEAD"} {
		o.mustFail(branchOf(r, bad), adapters.Create, desired.Invalid)
	}
}

func TestHostileCommits(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	before := o.git(r.Ref, "", "rev-parse", "main")
	for _, path := range []string{"../x", "/etc/passwd", "a//b", ".git/config", "x/.GIT/hooks/post-update", "", "a/./b", "README.md/x", "git~1/x"} {
		o.mustFail(commitOf(r, "c", desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{{Path: path, Operation: "add"}}}, nil), adapters.Run, desired.Invalid)
	}
	for name, spec := range map[string]desired.CommitSpec{
		"forged trailer": {Branch: "main", Message: "x\n\nPlumbline-Change: another", Changes: []desired.FileChange{{Path: "a", Operation: "add"}}},
		"bad operation":  {Branch: "main", Changes: []desired.FileChange{{Path: "a", Operation: "chmod"}}},
		"bad mode":       {Branch: "main", Changes: []desired.FileChange{{Path: "a", Operation: "add", Mode: "120000"}}},
		"bad branch":     {Branch: "../x", Changes: []desired.FileChange{{Path: "a", Operation: "add"}}},
	} {
		t.Log(name)
		o.mustFail(commitOf(r, "c", spec, nil), adapters.Run, desired.Invalid)
	}
	if now := o.git(r.Ref, "", "rev-parse", "main"); now != before {
		t.Errorf("main moved from %s to %s", before, now)
	}
	c := commitOf(r, "c", desired.CommitSpec{
		Branch: "main", Message: "title\n\nbody\n\nSigned-off-by: Ada <ada@example.com>\n", Author: &desired.Person{Name: "E<v>i\nl", Email: "x>\ncommitter y"},
		Changes: []desired.FileChange{{Path: "a", Operation: "add"}},
	}, map[string]string{"a": "a"})
	o.must(c, adapters.Run)
	if got, want := o.git(r.Ref, "", "log", "-1", "--format=%an|%ae|%cn|%ce|%B", "main"),
		"Evi l|x committer y|Plumbline|plumbline@plumbline.invalid|title\n\nbody\n\nSigned-off-by: Ada <ada@example.com>\nPlumbline-Change: tag-c-run\n"; got != want {
		t.Errorf("commit: got %q, want %q", got, want)
	}
}

func TestCommitKeepsModesAndLinks(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	link := o.git(r.Ref, "README.md", "hash-object", "-w", "--stdin")
	o.git(r.Ref, "", "read-tree", "main")
	o.git(r.Ref, "120000 "+link+"\tlink\n", "update-index", "--add", "--index-info")
	o.git(r.Ref, "", "update-ref", "refs/heads/main", o.git(r.Ref, "x", "commit-tree", "-p", "main", o.git(r.Ref, "", "write-tree")))
	o.must(commitOf(r, "one", desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{
		{Path: "run", Operation: "add", Mode: "100755"}, {Path: "dir/f", Operation: "add"}, {Path: "moved", Operation: "rename", From: "link"},
	}},
		map[string]string{"run": "1", "dir/f": "f"}), adapters.Run)
	o.must(commitOf(r, "two", desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{
		{Path: "run", Operation: "modify"}, {Path: "dir/f", Operation: "modify", Mode: "100755"},
	}}, map[string]string{"run": "2", "dir/f": "f"}), adapters.Run)
	o.mustFail(commitOf(r, "three", desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{{Path: "dir", Operation: "delete"}}}, nil), adapters.Run, desired.Invalid, "is a directory")
	want := "100755 dir/f\n120000 moved\n100755 run"
	got := ""
	for line := range strings.Lines(o.git(r.Ref, "", "ls-tree", "-r", "main")) {
		f := strings.Fields(line)
		if f[3] != "README.md" {
			got += f[0] + " " + f[3] + "\n"
		}
	}
	if strings.TrimSpace(got) != want {
		t.Errorf("modes: got\n%swant\n%s", got, want)
	}
}

// Everybody writes at once: our driver, git in the directory, git gc. Every commit of ours is there once, none of
// theirs is lost.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	const each = 12
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprintf("w%d-%d", w, i)
				c := commitOf(r, name, desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{{Path: name, Operation: "add"}}}, map[string]string{name: name})
				for {
					_, err := o.apply(c, adapters.Run)
					if err == nil {
						break
					}
					if desired.ClassOf(err) != desired.Transient {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	theirs := 0
	wg.Go(func() {
		for range each {
			old := o.git(r.Ref, "", "rev-parse", "main")
			tree := o.git(r.Ref, "", "rev-parse", old+"^{tree}")
			id := o.git(r.Ref, "theirs\n", "commit-tree", tree, "-p", old)
			if gitCommand(o.local.path(r.Ref), "", "update-ref", "refs/heads/main", id, old).Run() == nil {
				theirs++
			}
		}
		o.git(r.Ref, "", "gc", "--quiet")
	})
	wg.Wait()
	log := o.git(r.Ref, "", "log", "--format=%B", "main")
	if got := strings.Count(log, "Plumbline-Change: "); got != 3*each {
		t.Errorf("our commits: got %d, want %d", got, 3*each)
	}
	if got := strings.Count(log, "theirs"); got != theirs {
		t.Errorf("their commits: got %d, want %d", got, theirs)
	}
	if got := len(o.files(r.Ref, "main")); got != 3*each+1 {
		t.Errorf("files: got %d, want %d", got, 3*each+1)
	}
}

func TestOnlySoManyRepositoriesAreOpen(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	o.local.cfg.MaxOpen = 2
	var all []adapters.Subject
	for i := range 6 {
		all = append(all, o.made(fmt.Sprint("r", i)))
	}
	got, err := o.local.Observe(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i].Presence != adapters.Known {
			t.Errorf("%s: got %s (%s)", all[i].Ref, got[i].Presence, got[i].Reason)
		}
	}
	if n := len(o.local.repos); n > 2 {
		t.Errorf("%d repositories are open, want at most 2", n)
	}
}

func TestRepositoryInUseIsNotMoved(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	_, release, err := o.local.use(t.Context(), r.Ref)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := o.local.Apply(ctx, adapters.Change{Subject: r, Op: adapters.Remove, Log: io.Discard}); desired.ClassOf(err) != desired.Transient {
		t.Errorf("remove while in use: got %v, want transient", err)
	}
	o.want(r, adapters.Known)
	removed := make(chan error)
	go func() {
		_, err := o.apply(r, adapters.Remove)
		removed <- err
	}()
	for o.see(r).Presence == adapters.Known { // until the removal has reserved it
		time.Sleep(time.Millisecond)
	}
	release()
	if err := <-removed; err != nil {
		t.Error(err)
	}
	o.want(r, adapters.Absent)
}

func TestApprovalsAndChecksAreOfOneHead(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	o.must(branchOf(r, "f"), adapters.Create)
	o.push(r.Ref, "f", map[string]string{"f": "1\n"})
	o.edit(r.Ref, func(s *settings) {
		s.Protection = []desired.BranchProtection{{Pattern: "*", RequiredApprovals: 2}, {Pattern: "main", RequiredChecks: []string{"build"}}}
	})
	p := child(r, desired.KindPullRequest, "p", &desired.PullRequestSpec{Repository: "r", SourceBranch: "f", Title: "p"})
	o.must(p, adapters.Create)
	approve := func(who ...string) {
		for _, by := range who {
			o.edit(r.Ref, func(s *settings) {
				s.Pulls[0].Approvals = append(s.Pulls[0].Approvals, approval{By: by, Head: o.git(r.Ref, "", "rev-parse", "f")})
			})
		}
	}
	post := func(name, status string) error {
		return o.local.PostCheck(t.Context(), p, adapters.Check{Name: name, Status: status, URL: "https://ci.example/1", Summary: "ok"})
	}
	for _, bad := range [][2]string{{"", "Succeeded"}, {"build", "green"}} {
		if err := post(bad[0], bad[1]); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("check %v: got %v, want invalid", bad, err)
		}
	}
	approve("ada", "ada")
	if err := post("build", "Succeeded"); err != nil {
		t.Fatal(err)
	}
	o.mustFail(p, adapters.Merge, desired.Waiting, "1 of 2 approvals")
	approve("eve")
	o.push(r.Ref, "f", map[string]string{"f": "something else\n"})
	o.mustFail(p, adapters.Merge, desired.Waiting, `check "build"`)
	if err := post("build", "Succeeded"); err != nil {
		t.Fatal(err)
	}
	o.mustFail(p, adapters.Merge, desired.Waiting, "0 of 2 approvals")
	approve("ada", "eve")
	o.must(p, adapters.Merge)
	if err := o.local.PostCheck(t.Context(), r, adapters.Check{Name: "x", Status: "Failed"}); desired.ClassOf(err) != desired.Invalid {
		t.Errorf("check on a repository: got %v, want invalid", err)
	}
}

func TestRetargetedPullRequestIsJudgedAnew(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	o.must(branchOf(r, "release"), adapters.Create)
	o.must(branchOf(r, "f"), adapters.Create)
	o.push(r.Ref, "f", map[string]string{"f": "1\n"})
	spec := &desired.PullRequestSpec{Repository: "r", SourceBranch: "f", Title: "p"}
	p := child(r, desired.KindPullRequest, "p", spec)
	o.must(p, adapters.Create)
	o.edit(r.Ref, func(s *settings) { s.Pulls[0].Approvals = []approval{{By: "ada", Head: "x"}} })
	spec.TargetBranch = "release"
	got := o.must(p, adapters.Update, "spec.targetBranch").Actual.(*adapters.PullRequestActual)
	o.edit(r.Ref, func(s *settings) {
		if got.TargetBranch != "release" || len(s.Pulls[0].Approvals) != 0 {
			t.Errorf("after retargeting: got target %s and approvals %v", got.TargetBranch, s.Pulls[0].Approvals)
		}
	})
	o.mustFail(child(r, desired.KindPullRequest, "same", &desired.PullRequestSpec{SourceBranch: "main", Title: "x"}), adapters.Create, desired.Invalid, "same branch")
}

// A branch that was reset to its target lost its commits; that is no merge.
func TestResetSourceIsNoMerge(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	o.must(branchOf(r, "f"), adapters.Create)
	o.push(r.Ref, "f", map[string]string{"f": "1\n"})
	p := child(r, desired.KindPullRequest, "p", &desired.PullRequestSpec{Repository: "r", SourceBranch: "f", Title: "p"})
	o.must(p, adapters.Create)
	o.push(r.Ref, "main", map[string]string{"m": "1\n"})
	o.git(r.Ref, "", "update-ref", "refs/heads/f", "refs/heads/main")
	for range 3 {
		o.see(branchOf(r, "f"))
		if got := o.see(p).Actual.(*adapters.PullRequestActual); got.State != "open" || got.Mergeable != "no" {
			t.Errorf("got %s, mergeable %s, want open and no", got.State, got.Mergeable)
		}
	}
	o.mustFail(p, adapters.Merge, desired.Waiting, "nothing to merge")
	o.git(r.Ref, "", "update-ref", "-d", "refs/heads/f")
	o.mustFail(p, adapters.Merge, desired.Stalled, "is gone")
}

func TestNewLocalRefusesAndCleans(t *testing.T) {
	t.Parallel()
	if _, err := NewLocal(LocalConfig{}); desired.ClassOf(err) != desired.Invalid {
		t.Errorf("no directory: got %v, want invalid", err)
	}
	o := newOutside(t)
	half := filepath.Join(o.local.nursery(), "acme.shop.half.git")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	o.restart()
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a crash left half made is still there: %v", err)
	}
}

func TestRemoteURLWithoutAPublicOneIsCloned(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	o.local.cfg.PublicURL = nil
	r := o.made("r")
	url := o.see(r).Actual.(*adapters.RepositoryActual).RemoteURL
	to := t.TempDir()
	git(t, to, "", "clone", "-q", url, "clone")
	if data, err := os.ReadFile(filepath.Join(to, "clone", "README.md")); err != nil || string(data) != "# r\n" {
		t.Errorf("README.md of the clone: got %q and %v", data, err)
	}
}

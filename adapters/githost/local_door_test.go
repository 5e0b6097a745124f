// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// served is a hosted repository behind a real HTTP server, with a clone of it.
func served(t *testing.T, o *outside, r adapters.Subject) (url, clone string) {
	t.Helper()
	door, err := o.local.Door(r.Ref.Tenant, r.Ref.Project, r.Ref.Name)
	if err != nil {
		t.Fatal(err)
	}
	prefix := "/git/hosted/acme/shop/" + r.Ref.Name + ".git"
	srv := httptest.NewServer(http.StripPrefix(prefix, door))
	t.Cleanup(srv.Close)
	clone = filepath.Join(t.TempDir(), "clone")
	git(t, ".", "", "clone", "-q", srv.URL+prefix, clone)
	return srv.URL + prefix, clone
}

// change commits one file in a clone.
func change(t *testing.T, clone, path, data string) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(clone, path), []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	git(t, clone, "", "add", path)
	git(t, clone, "", "commit", "-q", "-m", "change "+path)
	return strings.TrimSpace(git(t, clone, "", "rev-parse", "HEAD"))
}

func push(clone string, args ...string) (string, error) {
	out, err := gitCommand(clone, "", append([]string{"push", "origin"}, args...)...).CombinedOutput()
	return string(out), err
}

func TestDoorServesCloneAndPush(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	o.must(branchOf(r, "feature/x"), adapters.Create)
	url, clone := served(t, o, r)
	head := change(t, clone, "a.txt", "a\n")
	if out, err := push(clone, "HEAD:main", "HEAD:refs/heads/new"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"main", "new"} {
		if got := o.see(branchOf(r, name)).Actual.(*adapters.BranchActual).Head; got != head {
			t.Errorf("%s: got %s, want %s", name, got, head)
		}
	}
	if refs := git(t, clone, "", "ls-remote", url); strings.Contains(refs, "plumbline") || !strings.Contains(refs, "refs/heads/feature/x") {
		t.Errorf("refs at the door: %s", refs)
	}
	if out, err := push(clone, "HEAD:refs/plumbline/keep/evil"); err == nil {
		t.Errorf("a push to a hidden ref was taken: %s", out)
	}
	if out, err := push(clone, "--delete", "new"); err != nil {
		t.Errorf("deletion of an unprotected branch: %v\n%s", err, out)
	}
	git(t, clone, "", "reset", "-q", "--hard", "HEAD~1")
	change(t, clone, "b.txt", "b\n")
	if out, err := push(clone, "--force", "HEAD:main"); err != nil {
		t.Errorf("force push to an unprotected branch: %v\n%s", err, out)
	}
}

func TestDoorKeepsProtection(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	o.must(branchOf(r, "release/1"), adapters.Create)
	o.must(branchOf(r, "guarded"), adapters.Create)
	o.must(branchOf(r, "loose"), adapters.Create)
	r.Spec.(*desired.RepositorySpec).Protection = []desired.BranchProtection{
		{Pattern: "main", RequirePull: true, AllowForcePush: true},
		{Pattern: "release/*", AllowDeletion: true},
		{Pattern: "guarded"},
		{Pattern: "loose", AllowForcePush: true, AllowDeletion: true},
	}
	o.must(r, adapters.Update, "spec.protection")
	_, clone := served(t, o, r)
	change(t, clone, "a.txt", "a\n")
	git(t, clone, "", "branch", "other", "HEAD~1")
	git(t, clone, "", "switch", "-q", "other")
	change(t, clone, "other.txt", "o\n")
	for _, row := range []struct {
		args []string
		says string // "" = taken
	}{
		{[]string{"main"}, "pull request only"},
		{[]string{"main:guarded"}, ""},
		{[]string{"--force", "other:guarded"}, "without force"},
		{[]string{"--delete", "guarded"}, "allowDeletion"},
		{[]string{"main:release/1", "main:release/2"}, ""},
		{[]string{"--force", "other:release/1"}, "without force"},
		{[]string{"--delete", "release/2"}, ""},
		{[]string{"main:loose"}, ""},
		{[]string{"--force", "other:loose"}, ""},
		{[]string{"--delete", "loose"}, ""},
		{[]string{"--delete", "main"}, "main"},
		{[]string{"other:fine", "--force", "other:guarded"}, "guarded"},
	} {
		out, err := push(clone, row.args...)
		if (err == nil) != (row.says == "") || !strings.Contains(out, row.says) {
			t.Errorf("push %v: got %v, want it to say %q\n%s", row.args, err, row.says, out)
		}
	}
	if got := o.see(branchOf(r, "fine")); got.Presence != adapters.Absent {
		t.Errorf("a branch of a push that was refused is %s, want absent", got.Presence)
	}
	o.edit(r.Ref, func(s *settings) { s.Protection = nil })
	if out, err := push(clone, "--delete", "main"); err == nil || !strings.Contains(out, "default branch") {
		t.Errorf("deletion of the default branch: got %v\n%s", err, out)
	}
}

func TestDoorOfAnArchivedOrBrokenRepositoryIsReadOnly(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	url, clone := served(t, o, r)
	change(t, clone, "a.txt", "a\n")
	r.Spec.(*desired.RepositorySpec).Archived = true
	o.must(r, adapters.Update, "spec.archived")
	if out, err := push(clone, "HEAD:main"); err == nil || !strings.Contains(out, "archived") {
		t.Errorf("push to an archived repository: got %v\n%s", err, out)
	}
	git(t, clone, "", "fetch", "-q", url)
	if err := os.WriteFile(settingsPath(o.local.path(r.Ref)), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := push(clone, "HEAD:main"); err == nil || !strings.Contains(out, "settings") {
		t.Errorf("push without settings: got %v\n%s", err, out)
	}
	git(t, clone, "", "fetch", "-q", url)
}

func TestDoorMakesNothingAndLeadsNowhere(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	o.made("r")
	for _, path := range [][3]string{{"acme", "shop", "missing"}, {"acme", "shop", "../r"}, {"..", "shop", "r"}, {"acme", "", "r"}, {"evil", "shop", "r"}, {"acme", "shop", ""}, {".trash", "x", "y"}} {
		if _, err := o.local.Door(path[0], path[1], path[2]); desired.ClassOf(err) != desired.NotFound {
			t.Errorf("door of %q: got %v, want not-found", path, err)
		}
	}
	if _, err := os.Stat(filepath.Join(o.dir, "acme", "shop", "missing.git")); err == nil {
		t.Error("a door made a repository")
	}
	r := repository("r", desired.RepositorySpec{})
	url, clone := served(t, o, r)
	o.must(r, adapters.Remove)
	if out, err := gitCommand(clone, "", "ls-remote", url).CombinedOutput(); err == nil || !strings.Contains(string(out), "not found") {
		t.Errorf("ls-remote of a removed repository: got %v\n%s", err, out)
	}
	repair := o.breakAll()
	if _, err := o.local.Door("acme", "shop", "r"); err == nil || desired.ClassOf(err) == desired.NotFound {
		t.Errorf("door while the disk is away: got %v, want it not to be not-found", err)
	}
	repair()
}

// A pull request from the first push to the merge, through the door, and a fetch of the result.
func TestDoorAndPullRequest(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	r := o.made("r")
	r.Spec.(*desired.RepositorySpec).Protection = []desired.BranchProtection{{Pattern: "main", RequirePull: true}}
	o.must(r, adapters.Update, "spec.protection")
	_, clone := served(t, o, r)
	git(t, clone, "", "switch", "-q", "-c", "feature/x")
	change(t, clone, "a.txt", "a\n")
	if out, err := push(clone, "HEAD"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := child(r, desired.KindPullRequest, "p", &desired.PullRequestSpec{Repository: "r", SourceBranch: "feature/x", Title: "Add a", DeleteSourceBranch: true})
	o.must(p, adapters.Create)
	merged := o.must(p, adapters.Merge).Actual.(*adapters.PullRequestActual)
	git(t, clone, "", "fetch", "-q", "--prune", "origin")
	if got := strings.TrimSpace(git(t, clone, "", "rev-parse", "origin/main")); got != merged.MergeCommit {
		t.Errorf("main of the clone: got %s, want the merge commit %s", got, merged.MergeCommit)
	}
	if got := git(t, clone, "", "branch", "-r"); strings.Contains(got, "feature/x") {
		t.Errorf("the source branch is still there: %s", got)
	}
}

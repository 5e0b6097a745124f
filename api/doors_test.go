// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/connectsoft/plumbline/api/auth"
)

// git runs the git program as a person would, with an access token as password.
func (w *world) git(dir, token string, args ...string) (string, error) {
	w.t.Helper()
	c := exec.CommandContext(w.t.Context(), "git", append([]string{"-c", "credential.helper=", "-c", "user.name=alice", "-c", "user.email=alice@example.org"}, args...)...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+w.t.TempDir(), "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: Bearer "+token)
	out, err := c.CombinedOutput()
	return string(out), err
}

func TestTeamsWorkThroughTheDoors(t *testing.T) {
	w := newRealWorld(t)
	w.listen()
	w.provision("web")
	token, dir := w.token(tenantA, "alice"), t.TempDir()
	must := func(dir string, args ...string) {
		t.Helper()
		if out, err := w.git(dir, token, args...); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	must(dir, "clone", "-q", w.base+"/git/control/connectsoft.git", "control")
	control := filepath.Join(dir, "control")
	file := filepath.Join(control, "projects", "proj", "team.yaml")
	doc := "apiVersion: plumbline.dev/v1\nkind: DriftRule\nmetadata: {name: ours}\nspec: {action: %s}\n"
	w.ok(os.WriteFile(file, []byte(strings.ReplaceAll(doc, "%s", "report")), 0o644))
	must(control, "add", ".")
	must(control, "commit", "-q", "-m", "ours")
	must(control, "push", "-q", "origin", "HEAD")
	e := w.want(w.do("GET", "/drift-rules", nil), 200, "list")
	if e.text("items.0.name") != "ours" || e.text("items.0.source.path") != "projects/proj/team.yaml" || e.text("items.0.source.principal") != "user:alice" {
		t.Errorf("after the push: %s", e.raw)
	}
	w.ok(os.WriteFile(file, []byte(strings.ReplaceAll(doc, "%s", "explode")), 0o644))
	must(control, "commit", "-qam", "worse")
	if out, err := w.git(control, token, "push", "-q", "origin", "HEAD"); err == nil || !strings.Contains(out, "projects/proj/team.yaml:4") {
		t.Errorf("a bad file was pushed: %v\n%s", err, out)
	}
	must(control, "reset", "-q", "--hard", "HEAD^")
	for what, other := range map[string]string{
		"read only":     w.token(tenantA, "bob", "control.read"),
		"another":       w.token(tenantB, "eve"),
		"not logged in": "nothing",
	} {
		if out, err := w.git(control, other, "push", "origin", "HEAD:refs/heads/x"); err == nil {
			t.Errorf("%s: pushed\n%s", what, out)
		}
	}
	must(dir, "clone", "-q", w.base+"/git/hosted/connectsoft/proj/web.git", "web")
	if _, err := w.git(dir, w.token(tenantB, "eve"), "clone", "-q", w.base+"/git/hosted/connectsoft/proj/web.git", "stolen"); err == nil {
		t.Error("another tenant cloned a hosted repository")
	}
	platform := w.token(tenantP, "root")
	if out, err := w.git(dir, platform, "clone", "-q", w.base+"/git/platform.git", "platform"); err != nil {
		t.Errorf("platform: %v\n%s", err, out)
	}
	if _, err := w.git(dir, token, "ls-remote", w.base+"/git/platform.git"); err == nil {
		t.Error("a tenant read the platform repository")
	}
}

func TestOnlySmartHTTPIsTakenApart(t *testing.T) {
	for _, c := range []struct {
		method, target string
		door           auth.Door
		write, ok      bool
	}{
		{"GET", "/git/control/acme.git/info/refs?service=git-upload-pack", auth.DoorControl, false, true},
		{"GET", "/git/control/acme.git/info/refs?service=git-receive-pack", auth.DoorControl, true, true},
		{"POST", "/git/platform.git/git-upload-pack", auth.DoorPlatform, false, true},
		{"POST", "/git/hosted/acme/proj/web.git/git-receive-pack", auth.DoorHosted, true, true},
		{"GET", "/git/control/acme.git/info/refs", "", false, false},
		{"GET", "/git/control/acme.git/info/refs?service=git-upload-archive", "", false, false},
		{"POST", "/git/control/acme.git/info/refs?service=git-upload-pack", "", false, false},
		{"GET", "/git/control/acme.git/git-receive-pack", "", false, false},
		{"GET", "/git/control/acme.git/objects/info/packs", "", false, false},
		{"GET", "/git/control/acme/info/refs?service=git-upload-pack", "", false, false},
		{"GET", "/git/control/a/b.git/info/refs?service=git-upload-pack", "", false, false},
		{"GET", "/git/hosted/acme/web.git/info/refs?service=git-upload-pack", "", false, false},
		{"GET", "/git/attic/acme.git/info/refs?service=git-upload-pack", "", false, false},
		{"GET", "/git/.git/info/refs?service=git-upload-pack", "", false, false},
	} {
		d, ok := readDoor(httptest.NewRequestWithContext(t.Context(), c.method, c.target, nil))
		if ok != c.ok || ok && (d.door != c.door || d.write != c.write) {
			t.Errorf("%s %s: %+v %v", c.method, c.target, d, ok)
		}
	}
}

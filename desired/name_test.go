// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"os/exec"
	"strings"
	"testing"
)

var refNames = []string{
	"main", "feature/x", "feature/x.y", "a-b", "a.lock", "a.lock/b", "x/.y", ".x", "x.", "x..y", "x//y", "/x", "x/", "-x", "x-", "@", "@x", "x@{y",
	"HEAD", "head", "x y", "x\ty", "x~y", "x^y", "x:y", "x?y", "x*y", "x[y", `x\y`, "x]y", "x{y}", "é", "日本/語", "x\x7fy", "x\x00y", "refs/heads/x",
	"x.lockx", "...", "x/@/y", "1e3", "#1", "!x", "$(id)", "x;rm", "x|y", "x'y", `x"y`, "",
}

// TestValidRefName compares with git itself.
func TestValidRefName(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	for _, s := range refNames {
		if strings.Contains(s, "\x00") {
			continue // cannot be an argument
		}
		want := exec.CommandContext(t.Context(), "git", "check-ref-format", "--branch", s).Run() == nil
		if s == "HEAD" || s == "@" {
			want = false // git resolves them
		}
		if got := ValidRefName(s) == nil; got != want {
			t.Errorf("%q: got %v, git says %v", s, got, want)
		}
	}
	for _, s := range []string{"x\x00y", "x\xff", "x\u0085y", strings.Repeat("a", 256)} {
		if ValidRefName(s) == nil {
			t.Errorf("%q: accepted", s)
		}
	}
}

func TestValidName(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "0": true, "a.b_c-d": true, strings.Repeat("a", 128): true,
		"": false, ".a": false, "-a": false, "_a": false, "A": false, "a b": false, "a/b": false, "é": false, strings.Repeat("a", 129): false,
	} {
		if got := ValidName(s) == nil; got != want {
			t.Errorf("name %.20q: got %v", s, got)
		}
	}
	for s, want := range map[string]bool{
		"a": true, "a-b": true, "0": true, strings.Repeat("a", 63): true,
		"": false, "a.b": false, "-a": false, "a_b": false, "A": false, strings.Repeat("a", 64): false,
	} {
		if got := ValidTenant(s) == nil; got != want {
			t.Errorf("tenant %.20q: got %v", s, got)
		}
	}
}

func TestPath(t *testing.T) {
	for _, row := range []struct {
		ref  Ref
		want string
	}{
		{Ref{"acme", "booking", KindRepository, "web"}, "projects/booking/repositories/4b/web.yaml"},
		{Ref{"acme", "booking", KindPullRequest, "01jd"}, "projects/booking/pull-requests/6b/01jd.yaml"},
		{Ref{"acme", "booking", KindDriftRule, "r"}, "projects/booking/drift-rules/45/r.yaml"},
		{Ref{"acme", "", KindDriftRule, "r"}, "policies/r.yaml"},
		{Ref{"acme", "", KindProvider, "gitea"}, "providers/gitea.yaml"},
		{Ref{"", "", KindTenant, "acme"}, "tenants/acme.yaml"},
		{Ref{"acme", "", KindRepository, "web"}, ""},
		{Ref{"acme", "booking", KindProvider, "gitea"}, ""},
		{Ref{"acme", "booking", "Nonsense", "x"}, ""},
	} {
		got := Path(row.ref)
		if got != row.want {
			t.Errorf("%v: got %q, want %q", row.ref, got, row.want)
		}
		if got != "" && !(Place{Tenant: row.ref.Tenant, Path: got}).Managed() {
			t.Errorf("%q is not managed", got)
		}
	}
	if got, want := AttachedPath("projects/p/commits/ab/c.yaml", "c", "sha256:00ff"), "projects/p/commits/ab/c.d/00ff"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestManaged(t *testing.T) {
	for _, row := range []struct {
		tenant, path string
		want         bool
		fault        string // of ParseFile
	}{
		{"acme", "projects/p/a.yaml", true, ""},
		{"acme", "projects/p/deep/er/a.yml", true, ""},
		{"acme", "providers/a.yaml", true, ""},
		{"acme", "policies/x/a.yaml", true, ""},
		{"acme", "projects/p/README.md", false, ""},
		{"acme", "projects/p/commits/ab/c.d/00ff", false, ""},
		{"acme", "tenants/a.yaml", false, ""},
		{"acme", "a.yaml", false, ""},
		{"acme", "projects", false, ""},
		{"", "tenants/a.yaml", true, ""},
		{"", "projects/p/a.yaml", false, ""},
		{"acme", "projects/a.yaml", true, "files of a project belong in projects/<project>/"},
		{"acme", "projects/P/a.yaml", true, "every part of the path must consist of"},
		{"acme", "projects/p.q/a.yaml", true, "the project's folder must have"},
		{"acme", "projects/p/A.YAML", true, "every part of the path must consist of"},
		{"acme", "projects/p/../q/a.yaml", true, "every part of the path must consist of"},
		{"acme", "projects/p//a.yaml", true, "every part of the path must consist of"},
		{"acme", "projects/p/a b.yaml", true, "every part of the path must consist of"},
	} {
		p := Place{Tenant: row.tenant, Path: row.path}
		if got := p.Managed(); got != row.want {
			t.Errorf("%v: got %v, want %v", p, got, row.want)
		}
		if !row.want {
			continue
		}
		_, err := ParseFile(p, nil)
		if (err == nil) != (row.fault == "") || err != nil && !strings.Contains(err.Error(), row.fault) {
			t.Errorf("%v: got %v, want %q", p, err, row.fault)
		}
	}
}

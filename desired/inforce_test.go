// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// load makes a snapshot of documents, given as "path: kind name spec".
func load(t *testing.T, tenant string, docs ...string) *Snapshot {
	t.Helper()
	var d Delta
	for _, doc := range docs {
		path, rest, _ := strings.Cut(doc, ": ")
		f := strings.SplitN(rest, " ", 3)
		d.Files = append(d.Files, File{Path: path, Data: fmt.Appendf(nil, "apiVersion: %s\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", APIVersion, f[0], f[1], f[2])})
	}
	s, c := Empty(tenant).Advance(d, nil)
	for _, q := range c.Quarantined {
		t.Fatal(q.Err)
	}
	return s
}

func refs(seq func(func(*Entry) bool)) string {
	var out []string
	for e := range seq {
		out = append(out, e.Ref.String())
	}
	return strings.Join(out, " ")
}

func TestListAndChildren(t *testing.T) {
	s := load(t, "acme",
		"projects/p/1.yaml: Repository web {}",
		"projects/p/2.yaml: Repository api {}",
		"projects/p/3.yaml: Branch web.x {repository: web, name: x}",
		"projects/p/4.yaml: PullRequest pr {repository: web, sourceBranch: x, title: t}",
		"projects/p/5.yaml: Branch api.x {repository: api, name: x}",
		"projects/p-2/1.yaml: Repository web {}",
		"projects/q/1.yaml: DriftRule r {action: report}",
		"projects/z/1.yaml: Branch web.x {repository: web, name: x}",
		"policies/1.yaml: DriftRule r {action: report}",
		"providers/1.yaml: Provider gitea {type: gitea}",
	)
	for _, row := range []struct {
		kind           Kind
		project, after string
		want           string
	}{
		{KindRepository, "p", "", "acme/p/Repository/api acme/p/Repository/web"},
		{KindRepository, "p", "acme/p/Repository/api", "acme/p/Repository/web"},
		{KindRepository, "p", "acme/p/Repository/web", ""},
		{KindRepository, "p", "acme/p/Repository/b", "acme/p/Repository/web"},
		{KindRepository, "", "", "acme/p-2/Repository/web acme/p/Repository/api acme/p/Repository/web"},
		{KindRepository, "", "acme/p-2/Repository/web", "acme/p/Repository/api acme/p/Repository/web"},
		{KindRepository, "", "acme/p/Repository/api", "acme/p/Repository/web"},
		{KindBranch, "", "", "acme/p/Branch/api.x acme/p/Branch/web.x acme/z/Branch/web.x"},
		{KindBranch, "", "acme/p/Branch/web.x", "acme/z/Branch/web.x"},
		{KindBranch, "", "acme/z/Branch/web.x", ""},
		{KindDriftRule, "", "", "acme/-/DriftRule/r acme/q/DriftRule/r"},
		{KindProvider, "", "", "acme/-/Provider/gitea"},
		{KindProvider, "p", "", ""},
		{KindTenant, "", "", ""},
	} {
		if got := refs(s.List(row.kind, row.project, row.after)); got != row.want {
			t.Errorf("%s of %q after %q: got %s, want %s", row.kind, row.project, row.after, got, row.want)
		}
	}
	web := Ref{"acme", "p", KindRepository, "web"}
	if got, want := refs(s.Children(web)), "acme/p/Branch/web.x acme/p/PullRequest/pr"; got != want {
		t.Errorf("children: got %s, want %s", got, want)
	}
	if e, ok := s.ByID(web.ID()); !ok || e.Ref != web {
		t.Errorf("by id: got %+v", e)
	}
	if _, ok := s.ByID("repo-aaaaaaaaaaaaaaaa"); ok {
		t.Error("an unknown id was found")
	}
	if f := s.File("projects/p/1.yaml"); len(f) != 1 || f[0].Ref != web || f[0].Line != 1 {
		t.Errorf("file: got %+v", f)
	}
	// A branch that moves to another repository moves in the index of children.
	s, _ = s.Advance(Delta{Files: []File{{Path: "projects/p/3.yaml", Data: []byte("apiVersion: plumbline.dev/v1\nkind: Branch\nmetadata: {name: web.x}\nspec: {repository: api, name: x}\n")}}}, nil)
	if got, want := refs(s.Children(web))+" | "+refs(s.Children(web.Sibling(KindRepository, "api"))), "acme/p/PullRequest/pr | acme/p/Branch/api.x acme/p/Branch/web.x"; got != want {
		t.Errorf("children: got %s, want %s", got, want)
	}
	for range s.All() { // stops when told to
		break
	}
	for range s.List(KindBranch, "", "") {
		break
	}
}

func TestProvider(t *testing.T) {
	platform := load(t, "",
		"tenants/a.yaml: Tenant acme {providers: [AzureDevOps, shared]}",
		"tenants/b.yaml: Tenant other {}",
		"providers/1.yaml: Provider azuredevops {type: azuredevops}",
		"providers/2.yaml: Provider shared {type: gitlab}",
		"providers/3.yaml: Provider secret {type: github}",
	)
	own := load(t, "acme",
		"providers/1.yaml: Provider shared {type: gitea}",
		"providers/2.yaml: Provider second {type: bitbucket}",
		"providers/3.yaml: Provider third {type: bitbucket}",
	)
	acme, other := own.WithPlatform(platform), Empty("other").WithPlatform(platform)
	for _, row := range []struct {
		s          *Snapshot
		name       string
		ref, typed string
		err        string
	}{
		{acme, "AzureDevOps", "-/-/Provider/azuredevops", "azuredevops", ""},
		{acme, "Shared", "acme/-/Provider/shared", "gitea", ""},
		{acme, "gitea", "acme/-/Provider/shared", "gitea", ""},
		{acme, "secret", "", "", "no such provider; known: azuredevops, local, second, shared, third"},
		{acme, "github", "", "", "no such provider; known: azuredevops, local, second, shared, third"},
		{acme, "gitlab", "", "", "no such provider; known: azuredevops, local, second, shared, third"},
		{acme, "bitbucket", "", "", "2 providers are of this type: name one of second, third"},
		{acme, "", "-/-/Provider/local", "local", ""},
		{acme, "LOCAL", "-/-/Provider/local", "local", ""},
		{other, "secret", "-/-/Provider/secret", "github", ""},
		{other, "shared", "-/-/Provider/shared", "gitlab", ""},
		{Empty("lone"), "", "-/-/Provider/local", "local", ""},
		{Empty("lone"), "gitea", "", "", "no such provider; known: local"},
	} {
		ref, spec, err := row.s.Provider(row.name)
		if row.err != "" {
			if ClassOf(err) != Invalid || !strings.Contains(err.Error(), row.err) {
				t.Errorf("%s %q: got %v, want %s", row.s.Tenant(), row.name, err, row.err)
			}
			continue
		}
		if err != nil || ref.String() != row.ref || spec.Type != row.typed {
			t.Errorf("%s %q: got %v %+v %v", row.s.Tenant(), row.name, ref, spec, err)
		}
	}
	if acme.Platform() != platform || own.Platform() != nil {
		t.Error("WithPlatform changed the snapshot that it was called on")
	}
	if got := load(t, "", "tenants/a.yaml: Tenant acme {stages: {booking: prod}}"); Empty("acme").WithPlatform(got).Stage("booking") != "prod" ||
		Empty("acme").WithPlatform(got).Stage("x") != "" || Empty("acme").Stage("booking") != "" {
		t.Error("stages are wrong")
	}
}

func TestRulesInForce(t *testing.T) {
	s := load(t, "acme",
		"projects/p/2.yaml: DriftRule b {action: report, reason: p-b}",
		"projects/p/1.yaml: DriftRule a {action: revert, reason: p-a, match: {kinds: [Branch]}}",
		"projects/p/3.yaml: DriftRule c {action: ignore, reason: p-c, until: 2026-01-01T00:00:00Z}",
		"projects/q/1.yaml: DriftRule a {action: revert, reason: q-a}",
		"policies/1.yaml: DriftRule a {action: ignore, reason: all, match: {labels: {team: x}}}",
		"projects/p/4.yaml: Suspension s {reason: p-s, match: {names: ['web.*']}, until: 2027-01-01T00:00:00Z}",
		"policies/2.yaml: Suspension t {reason: all, match: {labels: {team: x}}}",
	)
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	branch, web := Ref{"acme", "p", KindBranch, "web.x"}, Ref{"acme", "p", KindRepository, "web"}
	for _, row := range []struct {
		ref    Ref
		labels map[string]string
		now    time.Time
		rules  string
		susp   string
	}{
		{branch, nil, now, "p-a p-b", "p-s"},
		{web, nil, now, "p-b", ""},
		{web, map[string]string{"team": "x", "y": "z"}, now, "p-b all", "all"},
		{web, map[string]string{"team": "y"}, now, "p-b", ""},
		{branch, nil, now.AddDate(1, 0, 0), "p-a p-b", ""},
		{branch, nil, now.AddDate(-1, 0, 0), "p-a p-b p-c", "p-s"},
		{Ref{"acme", "r", KindBranch, "x"}, map[string]string{"team": "x"}, now, "all", "all"},
		{Ref{"acme", "", KindProvider, "x"}, map[string]string{"team": "x"}, now, "all", "all"},
	} {
		var got []string
		for _, r := range s.DriftRules(row.ref, row.labels, row.now) {
			got = append(got, r.Reason)
		}
		susp := ""
		if e, ok := s.Suspended(row.ref, row.labels, row.now); ok {
			susp = e.Resource.Spec.(*SuspensionSpec).Reason
		}
		if strings.Join(got, " ") != row.rules || susp != row.susp {
			t.Errorf("%v %v: got %v, %q; want %s, %q", row.ref, row.labels, got, susp, row.rules, row.susp)
		}
	}
}

func TestMatches(t *testing.T) {
	ref := Ref{"acme", "p", KindBranch, "web.feature"}
	for _, row := range []struct {
		m    Match
		want bool
	}{
		{Match{}, true},
		{Match{Kinds: []Kind{KindRepository, KindBranch}}, true},
		{Match{Kinds: []Kind{KindRepository}}, false},
		{Match{Names: []string{"x", "web.*"}}, true},
		{Match{Names: []string{"*"}}, true},
		{Match{Names: []string{"web"}}, false},
		{Match{Labels: map[string]string{"a": "b"}}, true},
		{Match{Labels: map[string]string{"a": "c"}}, false},
		{Match{Labels: map[string]string{"x": ""}}, false},
		{Match{Kinds: []Kind{KindBranch}, Names: []string{"web*"}, Labels: map[string]string{"a": "b"}}, true},
		{Match{Kinds: []Kind{KindBranch}, Names: []string{"web*"}, Labels: map[string]string{"a": "c"}}, false},
	} {
		if got := row.m.Matches(ref, map[string]string{"a": "b"}); got != row.want {
			t.Errorf("%+v: got %v", row.m, got)
		}
	}
	rule := DriftRuleSpec{Findings: []string{"BranchMissing"}, Fields: []string{"spec.a", "spec.p*"}}
	for _, row := range []struct {
		finding, field string
		want           bool
	}{
		{"BranchMissing", "spec.a", true},
		{"BranchMissing", "spec.ab", false},
		{"BranchMissing", "spec.protection.x", true},
		{"BranchMissing", "", false},
		{"BranchMoved", "spec.a", false},
	} {
		if got := rule.Covers(row.finding, row.field); got != row.want {
			t.Errorf("%s %s: got %v", row.finding, row.field, got)
		}
	}
}

func TestDefaults(t *testing.T) {
	var r RepositorySpec
	if r.DefaultBranchOr() != "main" || r.VisibilityOr() != "private" || r.ProviderOr() != "local" || r.DeletionPolicyOr(KindRepository) != Retain ||
		r.DeletionPolicyOr(KindTenant) != Delete || r.ApplyOr(ApplyAutomatic) != ApplyAutomatic || r.DriftOr(DriftReport) != DriftReport {
		t.Errorf("the defaults of a Repository are wrong")
	}
	r = RepositorySpec{
		DefaultBranch: "x", Visibility: "public", Provider: "y", CommonSpec: CommonSpec{DeletionPolicy: Delete, Sync: &Sync{Apply: ApplyManual, Drift: DriftRevert}},
		Protection: []BranchProtection{{Pattern: "release/*"}, {Pattern: "*"}, {Pattern: "main", RequirePull: true}},
	}
	if r.DefaultBranchOr() != "x" || r.VisibilityOr() != "public" || r.ProviderOr() != "y" || r.DeletionPolicyOr(KindRepository) != Delete ||
		r.ApplyOr(ApplyAutomatic) != ApplyManual || r.DriftOr(DriftReport) != DriftRevert {
		t.Errorf("what a Repository says is lost")
	}
	for branch, want := range map[string]string{"main": "main", "release/1": "release/*", "x": "*"} {
		if p, ok := r.ProtectionOf(branch); !ok || p.Pattern != want {
			t.Errorf("%s: got %+v", branch, p)
		}
	}
	if _, ok := new(RepositorySpec).ProtectionOf("main"); ok {
		t.Error("protection from nowhere")
	}
	var p PullRequestSpec
	if p.StateOr() != "open" || p.MergeStrategyOr() != "merge" || p.TargetBranchOr("main") != "main" {
		t.Error("the defaults of a PullRequest are wrong")
	}
	p = PullRequestSpec{State: "closed", MergeStrategy: "squash", TargetBranch: "x"}
	if p.StateOr() != "closed" || p.MergeStrategyOr() != "squash" || p.TargetBranchOr("main") != "x" {
		t.Error("what a PullRequest says is lost")
	}
	var c *ControlLocation
	if c.BranchOr() != "main" || (&ControlLocation{Branch: "x"}).BranchOr() != "x" {
		t.Error("the branch of a control repository is wrong")
	}
	if (&ProviderSpec{}).HostProject("p") != "p" || (&ProviderSpec{Projects: "cs-{project}"}).HostProject("p") != "cs-p" {
		t.Error("the project at the host is wrong")
	}
	m := Metadata{DependsOn: []string{"Repository/web"}}
	if d := m.Dependencies(Ref{"acme", "p", KindBranch, "x"}); !slices.Equal(d, []Ref{{"acme", "p", KindRepository, "web"}}) {
		t.Errorf("got %v", d)
	}
}

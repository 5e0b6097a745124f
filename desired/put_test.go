// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const someFile = `# Our repositories. Ask Ada before you change anything.
apiVersion: plumbline.dev/v1
kind: Repository
metadata: {name: web, labels: {team: a}}   # the shop
spec:
    provider:   AzureDevOps     # theirs
    # Never change this.
    defaultBranch: 'main'

    description: |  # for people
      The shop.

    protection:
    - pattern: main   # no pushes
      requirePullRequest: true
    -   pattern: "release/*"
        requiredChecks: [ build,  test ]
---
# The other one.
apiVersion: plumbline.dev/v1
kind: Repository
metadata: {name: api}
spec: {visibility: private,   moduleId: m-1}
`

// TestPutTouchesOnlyWhatDiffers shows, change by change, which lines of a page become which.
func TestPutTouchesOnlyWhatDiffers(t *testing.T) {
	web, api := Ref{"acme", "p", KindRepository, "web"}, Ref{"acme", "p", KindRepository, "api"}
	spec := func(r *Resource) *RepositorySpec { return r.Spec.(*RepositorySpec) }
	for _, row := range []struct {
		name     string
		ref      Ref
		change   func(*Resource)
		old, new string // the part of the page that changes
	}{
		{"plain value", web, func(r *Resource) { spec(r).Provider = "local" }, "provider:   AzureDevOps     # theirs", "provider:   local     # theirs"},
		{"value that needs quotes", web, func(r *Resource) { spec(r).Provider = "No" }, "AzureDevOps     #", "\"No\"     #"},
		{"single quotes", web, func(r *Resource) { spec(r).DefaultBranch = "it's" }, "'main'", "'it''s'"},
		{"literal text", web, func(r *Resource) { spec(r).Description = "The shop.\n\nIt sells.\n" }, "      The shop.\n", "      The shop.\n\n      It sells.\n"},
		{"literal without line break at its end", web, func(r *Resource) { spec(r).Description = "a\nb" }, "|  # for people\n      The shop.\n", "|-  # for people\n      a\n      b\n"},
		{"literal becomes one line", web, func(r *Resource) { spec(r).Description = "The shop" }, "|  # for people\n      The shop.\n", "The shop  # for people\n"},
		{"removed key", web, func(r *Resource) { spec(r).Provider = "" }, "    provider:   AzureDevOps     # theirs\n", ""},
		{"removed text", web, func(r *Resource) { spec(r).Description = "" }, "    description: |  # for people\n      The shop.\n", ""},
		{
			"added keys in their places", web, func(r *Resource) { spec(r).ModuleID, spec(r).Archived = "m", true },
			"     # theirs\n    # Never change this.\n    defaultBranch: 'main'\n\n    description: |  # for people\n      The shop.\n\n    protection:\n    - pattern: main   # no pushes\n      requirePullRequest: true\n    -   pattern: \"release/*\"\n        requiredChecks: [ build,  test ]\n",
			"     # theirs\n    moduleId: m\n    # Never change this.\n    defaultBranch: 'main'\n\n    description: |  # for people\n      The shop.\n\n    protection:\n    - pattern: main   # no pushes\n      requirePullRequest: true\n    -   pattern: \"release/*\"\n        requiredChecks: [ build,  test ]\n    archived: true\n",
		},
		{"nested object", web, func(r *Resource) { spec(r).Sync = &Sync{Drift: DriftRevert} }, "        requiredChecks: [ build,  test ]\n", "        requiredChecks: [ build,  test ]\n    sync:\n      drift: revert\n"},
		{"label between brackets", web, func(r *Resource) { r.Metadata.Labels["owner"] = "b" }, "{team: a}}", "{owner: b, team: a}}"},
		{"last label", web, func(r *Resource) { r.Metadata.Labels = nil }, "{name: web, labels: {team: a}}", "{name: web}"},
		{"item between brackets", web, func(r *Resource) { spec(r).Protection[1].RequiredChecks = []string{"build", "lint", "test"} }, "[ build,  test ]", "[ build, lint,  test ]"},
		{"item between brackets goes", web, func(r *Resource) { spec(r).Protection[1].RequiredChecks = []string{"test"} }, "[ build,  test ]", "[ test ]"},
		{"first item", web, func(r *Resource) { spec(r).Protection = spec(r).Protection[1:] }, "    - pattern: main   # no pushes\n      requirePullRequest: true\n", ""},
		{"last item", web, func(r *Resource) { spec(r).Protection = spec(r).Protection[:1] }, "    -   pattern: \"release/*\"\n        requiredChecks: [ build,  test ]\n", ""},
		{"new item", web, func(r *Resource) {
			spec(r).Protection = slices.Insert(spec(r).Protection, 1, BranchProtection{Pattern: "x", RequiredApprovals: 2})
		}, "      requirePullRequest: true\n", "      requirePullRequest: true\n    - pattern: x\n      requiredApprovals: 2\n"},
		{"key of an item", web, func(r *Resource) { spec(r).Protection[0].AllowDeletion = true }, "      requirePullRequest: true\n", "      requirePullRequest: true\n      allowDeletion: true\n"},
		{"flow document", api, func(r *Resource) { spec(r).Visibility = "public" }, "{visibility: private,   ", "{visibility: public,   "},
		{"flow document, key before all", api, func(r *Resource) { spec(r).Provider = "x" }, "{visibility", "{provider: x, visibility"},
		{"flow document, last key", api, func(r *Resource) { spec(r).Visibility, spec(r).ModuleID = "", "" }, "{visibility: private,   moduleId: m-1}", "{}"},
	} {
		t.Run(row.name, func(t *testing.T) {
			v := newTree("acme", map[string]string{"projects/p/repos.yaml": someFile})
			writes, err := Mutate(row.ref, "", func(r *Resource) error { row.change(r); return nil })(v)
			if err != nil || len(writes) != 1 || strings.Count(someFile, row.old) != 1 {
				t.Fatalf("%d writes, %v; the part is there %d times", len(writes), err, strings.Count(someFile, row.old))
			}
			if got, want := string(writes[0].Data), strings.Replace(someFile, row.old, row.new, 1); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestPut(t *testing.T) {
	ref := Ref{"acme", "p", KindBranch, "web.x"}
	r := &Resource{Metadata: Metadata{Labels: map[string]string{"a": "b"}}, Spec: &BranchSpec{Repository: "web", Name: "x"}}
	other := &Resource{Spec: &BranchSpec{Repository: "web", Name: "y"}}
	v := newTree("acme", nil)
	writes, err := Put(ref, r, PutOptions{Create: true, Attached: []Write{{Path: "projects/p/branches/8c/web.x.d/ff", Data: []byte("x")}}})(v)
	if err != nil || len(writes) != 2 || writes[0].Path != Path(ref) {
		t.Fatalf("got %v, %v", writes, err)
	}
	want := "apiVersion: plumbline.dev/v1\nkind: Branch\nmetadata:\n  name: web.x\n  labels:\n    a: b\nspec:\n  repository: web\n  name: x\n"
	if got := string(writes[0].Data); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if r.Kind != "" || r.Metadata.Name != "" {
		t.Error("the caller's resource was changed")
	}
	v.land(writes)
	e, _ := v.s.Get(ref)

	for _, row := range []struct {
		name   string
		edit   Edit
		writes int
		class  Class
		text   string
	}{
		{"the same again", Put(ref, r, PutOptions{}), 0, "", ""},
		{"created again", Put(ref, r, PutOptions{Create: true}), 0, "", ""},
		{"created again without its labels", Put(ref, &Resource{Spec: r.Spec}, PutOptions{Create: true}), 0, "", ""},
		{"created with another spec", Put(ref, other, PutOptions{Create: true}), 0, Conflict, e.ID},
		{"replaced", Put(ref, other, PutOptions{}), 1, "", ""},
		{"replaced as read", Put(ref, other, PutOptions{IfMatch: e.Digest}), 1, "", ""},
		{"replaced, stale", Put(ref, other, PutOptions{IfMatch: "stale"}), 0, Conflict, e.ID},
		{"replaced, absent", Put(Ref{"acme", "p", KindBranch, "web.z"}, other, PutOptions{IfMatch: e.Digest}), 0, Conflict, "branch-"},
		{"removed, stale", Remove(ref, "stale"), 0, Conflict, e.ID},
		{"changed, stale", Mutate(ref, "stale", nil), 0, Conflict, e.ID},
		{"removed", Remove(ref, e.Digest), 1, "", ""},
		{"removed, absent", Remove(ref.Sibling(KindBranch, "z"), ""), 0, NotFound, "no such document"},
		{"changed, absent", Mutate(ref.Sibling(KindBranch, "z"), "", nil), 0, NotFound, "no such document"},
		{"another tenant's", Put(Ref{"other", "p", KindBranch, "x"}, r, PutOptions{}), 0, Invalid, "another repository"},
		{"another tenant's removed", Remove(Ref{"other", "p", KindBranch, "x"}, ""), 0, Invalid, "another repository"},
		{"without a project", Put(Ref{"acme", "", KindBranch, "x"}, r, PutOptions{}), 0, Invalid, "/kind: Branch documents belong to a project"},
		{"another kind's spec", Put(ref.Sibling(KindRepository, "x"), r, PutOptions{}), 0, Invalid, "/spec: must be the spec of a Repository"},
		{"another kind", Put(ref, &Resource{Kind: KindRepository, Spec: &RepositorySpec{}}, PutOptions{}), 0, Invalid, "does not agree with the kind"},
		{"another name", Put(ref, &Resource{Metadata: Metadata{Name: "x"}, Spec: r.Spec}, PutOptions{}), 0, Invalid, "does not agree with the name"},
		{"no spec", Put(ref, &Resource{}, PutOptions{}), 0, Invalid, "must be the spec of a Branch"},
		{"nil spec", Put(ref, &Resource{Spec: (*BranchSpec)(nil)}, PutOptions{}), 0, Invalid, "must be the spec of a Branch"},
		{"invalid", Put(ref, &Resource{Spec: &BranchSpec{Repository: "web", Name: "a b"}}, PutOptions{}), 0, Invalid, "/spec/name: a branch name must not contain spaces"},
		{"not UTF-8", Put(ref, &Resource{Metadata: Metadata{Annotations: map[string]string{"a": "\xff"}}, Spec: r.Spec}, PutOptions{}), 0, Invalid, "/metadata/annotations/a: must be valid UTF-8"},
		{"tenant document in a tenant's repository", Put(Ref{"acme", "", KindTenant, "x"}, &Resource{Spec: &TenantSpec{}}, PutOptions{}), 0, Invalid, "/kind: Tenant documents belong in the platform repository"},
		{"the function's error", Mutate(ref, "", func(*Resource) error { return Errorf("op", ref, Denied, "no") }), 0, Denied, "no"},
		{"renamed by the function", Mutate(ref, "", func(r *Resource) error { r.Metadata.Name = "y"; return nil }), 0, Invalid, "does not agree with the name"},
	} {
		writes, err := row.edit(v)
		if len(writes) != row.writes || ClassOf(err) != row.class || err != nil && !strings.Contains(text(err), row.text) {
			t.Errorf("%s: got %d writes, %v", row.name, len(writes), text(err))
		}
		if stale := strings.HasSuffix(row.name, "stale") || row.name == "replaced, absent"; errors.Is(err, ErrPrecondition) != stale {
			t.Errorf("%s: a precondition: %v", row.name, err)
		}
	}
	if now, _ := v.s.Get(ref); now != e {
		t.Error("an edit changed the snapshot")
	}
}

// text is an error with all its field errors.
func text(err error) string {
	if err == nil {
		return ""
	}
	s := err.Error()
	for _, f := range fieldsOf(err) {
		s += "\n" + f.String()
	}
	return s
}

// What is in quarantine must be mended by hand: an edit would have to guess what its file means.
func TestEditsLeaveQuarantineAlone(t *testing.T) {
	file := "projects/p/rules.yaml"
	v := newTree("acme", map[string]string{file: rules("x", "a"), "projects/p/z.yaml": rules("x", "free") + rules("x", "a")})
	v.land([]Write{{Path: file, Data: []byte("[")}})
	a, free := Ref{"acme", "p", KindDriftRule, "a"}, Ref{"acme", "p", KindDriftRule, "free"}
	rule := &Resource{Spec: &DriftRuleSpec{Action: ActionIgnore}}
	same, _ := v.s.Get(a)
	for name, edit := range map[string]Edit{
		"put":                     Put(a, rule, PutOptions{}),
		"remove":                  Remove(a, ""),
		"mutate":                  Mutate(a, "", func(r *Resource) error { r.Metadata.Labels = map[string]string{"a": "b"}; return nil }),
		"put of a waiting one":    Put(free, rule, PutOptions{}),
		"put of the same as good": Put(a, same.Resource, PutOptions{Create: false, IfMatch: "x"}),
	} {
		writes, err := edit(v)
		if ClassOf(err) != Conflict || len(writes) > 0 {
			t.Errorf("%s: got %d writes, %v", name, len(writes), err)
		}
		if name != "put of the same as good" && !strings.Contains(err.Error(), "in quarantine and must be mended first") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// A broken file at the place where a new document would go.
	fresh := Ref{"acme", "p", KindDriftRule, "fresh"}
	v.land([]Write{{Path: Path(fresh), Data: []byte("[")}})
	if _, err := Put(fresh, rule, PutOptions{})(v); ClassOf(err) != Conflict {
		t.Errorf("got %v", err)
	}
}

// Two kinds may share a file name outside projects: the second document goes into the same file.
func TestPutBesideAnother(t *testing.T) {
	v := newTree("acme", nil)
	rule, stop := Ref{"acme", "", KindDriftRule, "x"}, Ref{"acme", "", KindSuspension, "x"}
	writes, err := Join(
		Put(rule, &Resource{Spec: &DriftRuleSpec{Action: ActionReport}}, PutOptions{}),
		Put(stop, &Resource{Spec: &SuspensionSpec{Reason: "why"}}, PutOptions{}),
	)(v)
	if err != nil || len(writes) != 1 {
		t.Fatalf("%d writes, %v", len(writes), err)
	}
	v.land(writes)
	if v.s.Len() != 2 || len(v.s.File("policies/x.yaml")) != 2 {
		t.Errorf("got\n%s", v.files["policies/x.yaml"])
	}
	writes, err = Remove(rule, "")(v)
	if err != nil || len(writes) != 1 || writes[0].Delete || strings.Contains(string(writes[0].Data), "DriftRule") {
		t.Errorf("got %+v, %v", writes, err)
	}
}

func TestRemoveTakesAttachedFiles(t *testing.T) {
	ref := Ref{"acme", "p", KindCommit, "c1"}
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	spec := &CommitSpec{Repository: "web", Branch: "main", Message: "m", Changes: []FileChange{
		{Path: "a", Operation: OpAdd, Digest: digest("a")},
		{Path: "b", Operation: OpAdd, Digest: digest("a")},
		{Path: "c", Operation: OpAdd, Digest: digest("b")},
		{Path: "d", Operation: OpDelete},
	}}
	v := newTree("acme", nil)
	attached := Write{Path: AttachedPath(Path(ref), "c1", digest("a")), Data: []byte("content")}
	writes, err := Put(ref, &Resource{Spec: spec}, PutOptions{Create: true, Attached: []Write{attached}})(v)
	if err != nil {
		t.Fatal(err)
	}
	v.land(writes)
	writes, err = Remove(ref, "")(v)
	if err != nil || len(writes) != 2 || !writes[0].Delete || !writes[1].Delete || writes[1].Path != attached.Path {
		t.Errorf("got %+v, %v", writes, err)
	}
	v.land(writes)
	if v.s.Len() != 0 || len(v.files) != 0 {
		t.Errorf("left over: %v", v.files)
	}
}

func TestJoin(t *testing.T) {
	ref := func(name string) Ref { return Ref{"acme", "p", KindDriftRule, name} }
	put := func(name, action string) Edit {
		return Put(ref(name), &Resource{Spec: &DriftRuleSpec{Action: action}}, PutOptions{Create: true})
	}
	v := newTree("acme", map[string]string{"projects/p/rules.yaml": rules("x", "old")})
	writes, err := Join(put("b", "report"), put("a", "ignore"), Remove(ref("b"), ""), put("b", "revert"), Remove(ref("old"), ""))(v)
	var got []string
	for _, w := range writes {
		got = append(got, fmt.Sprint(w.Path, " ", w.Delete))
	}
	want := []string{Path(ref("a")) + " false", Path(ref("b")) + " false", "projects/p/rules.yaml true"}
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	// One that fails fails all; one that undoes another leaves nothing.
	if writes, err := Join(put("c", "report"), put("c", "ignore"))(v); ClassOf(err) != Conflict || len(writes) > 0 {
		t.Errorf("got %v, %v", writes, err)
	}
	if writes, err := Join(put("c", "report"), Remove(ref("c"), ""))(v); err != nil || len(writes) > 0 {
		t.Errorf("got %v, %v", writes, err)
	}
	bad := func(View) ([]Write, error) {
		return []Write{{Path: "projects/p/bad.yaml", Data: []byte("[")}}, nil
	}
	if writes, err := Join(put("c", "report"), bad)(v); ClassOf(err) != Invalid || len(writes) > 0 {
		t.Errorf("got %v, %v", writes, err)
	}
	if writes, err := Join()(v); err != nil || len(writes) > 0 {
		t.Errorf("got %v, %v", writes, err)
	}
	broken := errors.New("disk")
	if _, err := Put(ref("old"), &Resource{Spec: &DriftRuleSpec{Action: ActionIgnore}}, PutOptions{})(failing{v, broken}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// failing is a View whose files cannot be read.
type failing struct {
	View
	err error
}

func (f failing) Read(string) ([]byte, bool, error) { return nil, false, f.err }

// TestCut covers the layouts in which documents would run together.
func TestCut(t *testing.T) {
	doc := func(name string) string {
		return "apiVersion: plumbline.dev/v1\nkind: DriftRule\nmetadata: {name: " + name + "}\nspec: {action: report}\n"
	}
	for _, row := range []struct{ name, before, after string }{
		{"first without marker", doc("x") + "---\n" + doc("b"), "---\n" + doc("b")},
		{"first with marker", "---\n" + doc("x") + "---\n" + doc("b"), "---\n" + doc("b")},
		{"last", doc("a") + "---\n" + doc("x"), doc("a")},
		{"last, with end marker", doc("a") + "...\n---\n" + doc("x") + "...\n", doc("a") + "...\n"},
		{"middle", doc("a") + "--- # m\n" + doc("x") + "---\n" + doc("b"), doc("a") + "---\n" + doc("b")},
		{"middle, bare one follows", doc("a") + "---\n" + doc("x") + "...\n" + doc("b"), doc("a") + "---\n" + doc("b")},
		{"comments between", doc("a") + "---\n# only\n---\n" + doc("x"), doc("a") + "---\n# only\n"},
		{"byte order mark", "\ufeff" + doc("x") + "---\n" + doc("b"), "\ufeff---\n" + doc("b")},
	} {
		got, err := cut(fuzzPlace, []byte(row.before), Ref{"acme", "booking", KindDriftRule, "x"})
		if err != nil || string(got) != row.after {
			t.Errorf("%s: got %v\n%s\nwant\n%s", row.name, err, got, row.after)
		}
	}
}

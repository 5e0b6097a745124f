// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// story drives one snapshot through commits and renders what each did.
type story struct {
	t *testing.T
	s *Snapshot
	n int
}

// commit applies files ("path", "content" pairs; content "" deletes) and compares what Advance says.
func (y *story) commit(want string, files ...string) {
	y.t.Helper()
	y.n++
	at := time.Date(2026, 11, 1, 12, y.n, 0, 0, time.UTC)
	d := Delta{Commit: fmt.Sprint("c", y.n), Change: Provenance{Commit: fmt.Sprint("c", y.n), Seq: uint64(y.n), Author: "Ada", At: at}}
	for i := 0; i < len(files); i += 2 {
		d.Files = append(d.Files, File{
			Path: files[i], Blob: fmt.Sprintf("b%d.%d", y.n, i), Data: []byte(files[i+1]), Deleted: files[i+1] == "",
		})
	}
	next, c := y.s.Advance(d, nil)
	y.s = next
	var b strings.Builder
	list := func(word string, refs []Ref) {
		for _, r := range refs {
			fmt.Fprintf(&b, "%s %s\n", word, r.Name)
		}
	}
	list("added", c.Added)
	list("changed", c.Changed)
	list("removed", c.Removed)
	for _, q := range c.Quarantined {
		fmt.Fprintf(&b, "quarantined %s, good %q, keeps %d: %s\n", q.Path, q.LastGood, len(q.Refs), q.Err.Fields[0])
	}
	for _, p := range c.Released {
		fmt.Fprintf(&b, "released %s\n", p)
	}
	if got, want := strings.TrimSpace(b.String()), strings.TrimSpace(strings.ReplaceAll(want, "\t", "")); got != want {
		y.t.Errorf("commit %d: got\n%s\nwant\n%s", y.n, got, want)
	}
	if next.Commit() != d.Commit {
		y.t.Errorf("commit %d: the snapshot says %q", y.n, next.Commit())
	}
}

// force renders what is in force: name, place, reason, commit of the last change.
func (y *story) force(want ...string) {
	y.t.Helper()
	var got []string
	for e := range y.s.All() {
		spec, _ := e.Resource.Spec.(*DriftRuleSpec)
		got = append(got, fmt.Sprintf("%s %s:%d %s %s %s", e.Ref.Name, e.Path, e.Line, spec.Reason, e.Blob, e.Changed.Commit))
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		y.t.Errorf("after commit %d: in force\n%s\nwant\n%s", y.n, g, w)
	}
}

func rules(reason string, names ...string) string { return string(ruleFile(reason, names...)) }

// The story of a file that breaks, is mended, breaks again and goes away.
func TestQuarantineOfBrokenFile(t *testing.T) {
	y := &story{t: t, s: Empty("acme")}
	y.commit("added a\nadded b", "projects/p/1.yaml", rules("x", "a", "b"))
	y.commit(`quarantined projects/p/1.yaml, good "b1.0", keeps 2: projects/p/1.yaml:1:1: this is not valid YAML: a value or a closing bracket is missing`,
		"projects/p/1.yaml", "kind: [")
	y.force("a projects/p/1.yaml:2 x b1.0 c1", "b projects/p/1.yaml:7 x b1.0 c1")
	y.commit("added c", "projects/p/2.yaml", rules("x", "c"))
	y.commit(`quarantined projects/p/1.yaml, good "b1.0", keeps 2: projects/p/1.yaml:1:7: /kind: is no known kind; did you mean "DriftRule"?; known: Tenant, Provider, Repository, Branch, Commit, PullRequest, DriftRule, Suspension`,
		"projects/p/1.yaml", "kind: DriftRules\napiVersion: plumbline.dev/v1\nmetadata: {name: a}\nspec: {}")
	y.commit("changed a\nremoved b\nreleased projects/p/1.yaml", "projects/p/1.yaml", rules("y", "a"))
	y.force("a projects/p/1.yaml:2 y b5.0 c5", "c projects/p/2.yaml:2 x b3.0 c3")
	y.commit(`quarantined projects/p/1.yaml, good "b5.0", keeps 1: projects/p/1.yaml:1:1: this is not valid YAML: a value or a closing bracket is missing`,
		"projects/p/1.yaml", "kind: [")
	if q := y.s.Quarantined(); len(q) != 1 || q[0].Since.Commit != "c6" || q[0].Blob != "b6.0" {
		t.Errorf("got %+v", q)
	}
	y.commit("removed a\nreleased projects/p/1.yaml", "projects/p/1.yaml", "")
	y.force("c projects/p/2.yaml:2 x b3.0 c3")
}

// The story of two files that declare one resource.
func TestQuarantineOfDuplicate(t *testing.T) {
	y := &story{t: t, s: Empty("acme")}
	dup := func(path, good string, keeps int, line int, other string) string {
		return fmt.Sprintf("quarantined %s, good %q, keeps %d: %s:%d: /metadata/name: this resource is declared in %s already: remove one of the two or rename it", path, good, keeps, path, line, other)
	}
	y.commit("added a\n"+dup("projects/p/2.yaml", "", 0, 2, "projects/p/1.yaml:2"),
		"projects/p/2.yaml", rules("two", "a", "b"), "projects/p/1.yaml", rules("one", "a"))
	y.force("a projects/p/1.yaml:2 one b1.2 c1")
	// A newly arriving file loses even where its path comes first.
	y.commit(dup("projects/p/0.yaml", "", 0, 2, "projects/p/1.yaml:2"), "projects/p/0.yaml", rules("zero", "a"))
	// A change of the holder moves the line that the errors name.
	y.commit(strings.Join([]string{
		"added h",
		dup("projects/p/0.yaml", "", 0, 2, "projects/p/1.yaml:7"), dup("projects/p/2.yaml", "", 0, 2, "projects/p/1.yaml:7"),
	}, "\n"),
		"projects/p/1.yaml", rules("one", "h", "a"))
	// The holder goes: the first by path that waits comes into force, with the provenance of its own commit.
	y.commit(strings.Join([]string{"changed a", "removed h", dup("projects/p/2.yaml", "", 0, 2, "projects/p/0.yaml:2"), "released projects/p/0.yaml"}, "\n"),
		"projects/p/1.yaml", "")
	y.force("a projects/p/0.yaml:2 zero b2.0 c2")
	// It gives way without being deleted.
	y.commit("added b\nadded z\nchanged a\nreleased projects/p/2.yaml", "projects/p/0.yaml", rules("zero", "z"))
	y.force("a projects/p/2.yaml:2 two b1.0 c1", "b projects/p/2.yaml:7 two b1.0 c1", "z projects/p/0.yaml:2 zero b5.0 c5")
}

// Resources that move between files in one commit are no duplicates, and keep their last change.
func TestMoveBetweenFiles(t *testing.T) {
	y := &story{t: t, s: Empty("acme")}
	y.commit("added a\nadded b", "projects/p/1.yaml", rules("x", "a"), "projects/p/2.yaml", rules("x", "b"))
	y.commit("", "projects/p/1.yaml", rules("x", "b"), "projects/p/2.yaml", rules("x", "a"))
	y.force("a projects/p/2.yaml:2 x b2.2 c1", "b projects/p/1.yaml:2 x b2.0 c1")
	// One after the other: the first half waits, the second half completes the swap.
	y.commit(`quarantined projects/p/1.yaml, good "b2.0", keeps 1: projects/p/1.yaml:2: /metadata/name: this resource is declared in projects/p/2.yaml:2 already: remove one of the two or rename it`,
		"projects/p/1.yaml", rules("x", "a"))
	y.commit("released projects/p/1.yaml", "projects/p/2.yaml", rules("x", "b"))
	y.force("a projects/p/1.yaml:2 x b3.0 c1", "b projects/p/2.yaml:2 x b4.0 c1")
}

func TestAdvanceLooksAtManagedFilesOnly(t *testing.T) {
	s, c := Empty("acme").Advance(Delta{Commit: "c", Files: []File{
		{Path: "README.yaml", Data: []byte("[")},
		{Path: "projects/p/notes.txt", Data: []byte("[")},
		{Path: "tenants/x.yaml", Data: []byte("[")},
		{Path: "projects/p/gone.yaml", Deleted: true},
		{Path: "projects/p/empty.yaml", Data: []byte("# nothing yet\n")},
	}}, nil)
	if s.Len() != 0 || len(c.Quarantined)+len(c.Added)+len(c.Released) != 0 {
		t.Errorf("got %+v", c)
	}
}

func TestProvenanceByPath(t *testing.T) {
	s, _ := Empty("acme").Advance(Delta{
		Commit: "c2", Change: Provenance{Commit: "c2"}, ByPath: map[string]Provenance{"projects/p/1.yaml": {Commit: "c1"}},
		Files: []File{{Path: "projects/p/1.yaml", Data: ruleFile("x", "a")}, {Path: "projects/p/2.yaml", Data: ruleFile("x", "b")}},
	}, nil)
	for name, want := range map[string]string{"a": "c1", "b": "c2"} {
		if e, ok := s.Get(Ref{"acme", "p", KindDriftRule, name}); !ok || e.Changed.Commit != want {
			t.Errorf("%s: got %+v, want %s", name, e, want)
		}
	}
}

// A start from a persisted quarantine has the last good version in force at once.
func TestGoodVersionAtStart(t *testing.T) {
	file := File{Path: "projects/p/1.yaml", Blob: "bad", Data: []byte("["), Good: ruleFile("x", "a"), GoodBlob: "good"}
	s, c := Empty("acme").Advance(Delta{Commit: "c", Files: []File{file}}, nil)
	if e, ok := s.Get(Ref{"acme", "p", KindDriftRule, "a"}); !ok || e.Blob != "good" {
		t.Errorf("got %+v", e)
	}
	if len(c.Added) != 1 || len(c.Quarantined) != 1 || c.Quarantined[0].LastGood != "good" || len(c.Quarantined[0].Refs) != 1 {
		t.Errorf("got %+v", c)
	}
	// Where the file is known, or good, the persisted version does not matter.
	file.Data, file.Blob = ruleFile("x", "b"), "mended"
	for _, from := range []*Snapshot{Empty("acme"), s} {
		next, _ := from.Advance(Delta{Commit: "d", Files: []File{file}}, nil)
		if _, old := next.Get(Ref{"acme", "p", KindDriftRule, "a"}); old || next.Len() != 1 {
			t.Errorf("the good version is in force beside the mended one")
		}
	}
}

func TestCache(t *testing.T) {
	c := NewCache(2)
	place := func(path string) Place { return Place{Tenant: "acme", Path: path} }
	c.Add(Prepare(place("projects/p/1.yaml"), "b1", ruleFile("x", "a")))
	// The content of the delta is not looked at where the blob is known at the place.
	s, _ := Empty("acme").Advance(Delta{Files: []File{{Path: "projects/p/1.yaml", Blob: "b1", Data: []byte("[")}, {Path: "projects/q/1.yaml", Blob: "b1", Data: ruleFile("x", "b")}}}, c)
	if _, ok := s.Get(Ref{"acme", "p", KindDriftRule, "a"}); !ok || s.Len() != 2 {
		t.Errorf("got %s", snapshotState(s))
	}
	bad := Prepare(place("projects/p/2.yaml"), "b2", []byte("["))
	if bad.Err() == nil {
		t.Error("a bad file has no error")
	}
	c.Add(bad)
	c.Add(Prepare(place("projects/p/3.yaml"), "", nil)) // no blob: not remembered
	if c.order.Len() != 2 || len(c.byKey) != 2 {
		t.Errorf("got %d, %d files, want 2", c.order.Len(), len(c.byKey))
	}
	s, ch := s.Advance(Delta{Files: []File{{Path: "projects/p/2.yaml", Blob: "b2", Data: ruleFile("x", "c")}}}, c)
	if len(ch.Quarantined) != 1 || s.Len() != 2 {
		t.Errorf("got %+v", ch)
	}
	var none *Cache
	if s, _ := Empty("acme").Advance(Delta{Files: []File{{Path: "projects/p/1.yaml", Blob: "b1", Data: ruleFile("x", "a")}}}, none); s.Len() != 1 {
		t.Error("a nil cache does not do")
	}
}

// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// tree is a View over files in memory.
type tree struct {
	tenant string
	files  map[string]string
	s      *Snapshot
}

func newTree(tenant string, files map[string]string) *tree {
	t := &tree{tenant: tenant, files: map[string]string{}, s: Empty(tenant)}
	var writes []Write
	for path, text := range files {
		writes = append(writes, Write{Path: path, Data: []byte(text)})
	}
	t.land(writes)
	return t
}

func (t *tree) Snapshot() *Snapshot { return t.s }

func (t *tree) Read(path string) ([]byte, bool, error) {
	text, ok := t.files[path]
	return []byte(text), ok, nil
}

func (t *tree) land(writes []Write) Changes {
	d := Delta{Commit: "c"}
	for _, w := range writes {
		if w.Delete {
			delete(t.files, w.Path)
		} else {
			t.files[w.Path] = string(w.Data)
		}
		d.Files = append(d.Files, File{Path: w.Path, Data: w.Data, Deleted: w.Delete})
	}
	var c Changes
	t.s, c = t.s.Advance(d, nil)
	return c
}

// valueAt follows a pointer in a value.
func valueAt(v value, pointer string) (value, bool) {
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		switch {
		case v.kind == dictValue:
			x, ok := v.get(pointerKey(token))
			if !ok {
				return value{}, false
			}
			v = x
		case v.kind == listValue:
			return v, true // items move: the list as a whole is compared
		}
	}
	return v, true
}

// change makes another resource of the same kind from r: some fields of another one, or all.
func genChange(rt *rapid.T, ref Ref, r *Resource) *Resource {
	o := genResource(rt, ref)
	out := *r
	if rapid.Bool().Draw(rt, "metadata too") {
		out.Metadata = o.Metadata
	}
	if rapid.Bool().Draw(rt, "spec too") {
		out.Spec = o.Spec
	}
	return &out
}

// TestPutSplices puts changed resources into files as people write them. The file must then say exactly what is
// wanted, the other documents must keep their bytes, and so must comments about what did not change.
func TestPutSplices(t *testing.T) {
	for _, info := range Kinds() {
		t.Run(string(info.Kind), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { checkPut(rt, info.Kind) })
		})
	}
}

func checkPut(rt *rapid.T, kind Kind) {
	l := &layout{rt: rt, eol: rapid.SampledFrom([]string{"\n", "\n", "\r\n"}).Draw(rt, "eol")}
	var refs []Ref
	var rs []*Resource
	var notes [][]note
	for i := range rapid.IntRange(1, 3).Draw(rt, "documents") {
		ref := testRef(kind, fmt.Sprintf("n%d", i))
		r := genResource(rt, ref)
		l.notes = nil
		l.document(r, i == 0)
		refs, rs, notes = append(refs, ref), append(rs, r), append(notes, l.notes)
	}
	text := l.out.String()
	if rapid.IntRange(0, 4).Draw(rt, "bom") == 0 {
		text = "\xef\xbb\xbf" + text
	}
	if rapid.IntRange(0, 3).Draw(rt, "no line break at the end") == 0 && !strings.HasSuffix(text, "|"+l.eol) {
		if cut := strings.TrimSuffix(text, l.eol); parses(refs[0], cut) == nil && len(documents(refs[0], cut)) == len(rs) && documents(refs[0], cut)[len(rs)-1].Digest == Digest(rs[len(rs)-1]) {
			text = cut
		}
	}
	path := somewhere(refs[0])
	v := newTree(refs[0].Tenant, map[string]string{path: text})
	if q := v.s.Quarantined(); len(q) > 0 {
		rt.Fatalf("the layout is bad: %v\n%s", q[0].Err, text)
	}
	i := rapid.IntRange(0, len(refs)-1).Draw(rt, "target")
	want := genChange(rt, refs[i], rs[i])
	writes, err := Put(refs[i], want, PutOptions{})(v)
	if err != nil {
		rt.Fatalf("%v\n%s", err, text)
	}
	if Equal(want, rs[i]) {
		if len(writes) > 0 {
			rt.Fatalf("an equal document was written")
		}
		return
	}
	if len(writes) != 1 || writes[0].Path != path {
		rt.Fatalf("got %d writes, want the file itself", len(writes))
	}
	out := string(writes[0].Data)
	docs := documents(refs[0], out)
	for j, d := range docs {
		w := rs[j]
		if j == i {
			w = want
		}
		if d.Ref != refs[j] || d.Digest != Digest(w) {
			rt.Fatalf("document %d: got %+v, want %+v\n%s\n=>\n%s", j, d.Resource, w, text, out)
		}
	}
	checkBytes(rt, text, out, i)
	old, now := resourceValue(rs[i], true), resourceValue(want, true)
	for _, n := range notes[i] {
		a, before := valueAt(old, n.pointer)
		b, after := valueAt(now, n.pointer)
		if before && after && bytes.Equal(canonical(nil, a), canonical(nil, b)) && strings.Count(out, n.text) != 1 {
			rt.Fatalf("%s: the comment is there %d times\n%s\n=>\n%s", n.text, strings.Count(out, n.text), text, out)
		}
	}
	v.land(writes)
	if again, err := Put(refs[i], want, PutOptions{})(v); err != nil || len(again) > 0 {
		rt.Fatalf("a second put: %d writes, %v", len(again), err)
	}
}

// checkBytes demands that every document but the i-th keeps its bytes.
func checkBytes(rt *rapid.T, before, after string, i int) {
	a, b := contentChunks([]byte(before)), contentChunks([]byte(after))
	if len(a) != len(b) {
		rt.Fatalf("%d documents, want %d\n%s\n=>\n%s", len(b), len(a), before, after)
	}
	for j := range a {
		if j != i && before[a[j].lo:a[j].hi] != after[b[j].lo:b[j].hi] {
			rt.Fatalf("document %d changed\n%s\n=>\n%s", j, before, after)
		}
	}
}

func somewhere(ref Ref) string {
	if ref.Project != "" {
		return "projects/" + ref.Project + "/team/all.yaml"
	}
	info, _ := ref.Kind.Info()
	return info.Root + "/all.yml"
}

func parses(ref Ref, text string) error {
	_, err := ParseFile(Place{Tenant: ref.Tenant, Path: somewhere(ref)}, []byte(text))
	return err
}

func documents(ref Ref, text string) []Document {
	docs, _ := ParseFile(Place{Tenant: ref.Tenant, Path: somewhere(ref)}, []byte(text))
	return docs
}

// TestRemoveKeepsOthers removes one document of several; the others keep their bytes.
func TestRemoveKeepsOthers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := &layout{rt: rt, eol: "\n"}
		var refs []Ref
		for i := range rapid.IntRange(2, 4).Draw(rt, "documents") {
			ref := testRef(KindSuspension, fmt.Sprintf("n%d", i))
			l.document(genResource(rt, ref), i == 0)
			refs = append(refs, ref)
		}
		text, path := l.out.String(), somewhere(refs[0])
		v := newTree("acme", map[string]string{path: text})
		i := rapid.IntRange(0, len(refs)-1).Draw(rt, "target")
		writes, err := Remove(refs[i], "")(v)
		if err != nil || len(writes) != 1 {
			rt.Fatalf("%d writes, %v\n%s", len(writes), err, text)
		}
		before, after := contentChunks([]byte(text)), contentChunks(writes[0].Data)
		before = slices.Delete(before, i, i+1)
		for j := range before {
			a, b := text[before[j].start:before[j].end], string(writes[0].Data[after[j].start:after[j].end])
			if a != b {
				rt.Fatalf("document %d changed\n%s\n=>\n%s", j, text, writes[0].Data)
			}
		}
		c := v.land(writes)
		if !slices.Equal(c.Removed, []Ref{refs[i]}) || len(c.Changed)+len(c.Added)+len(c.Quarantined) > 0 {
			rt.Fatalf("got %+v, want only %v removed", c, refs[i])
		}
	})
}

// TestCoarserSplices: what rewrite falls back on where a layout defeats the splice of single nodes says what is
// wanted too, each by itself.
func TestCoarserSplices(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		kind := rapid.SampledFrom(Kinds()).Draw(rt, "kind").Kind
		l := &layout{rt: rt, eol: rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(rt, "eol")}
		a, b := testRef(kind, "n0"), testRef(kind, "n1")
		r, other := genResource(rt, a), genResource(rt, b)
		l.document(r, true)
		l.document(other, false)
		text, p := []byte(l.out.String()), Place{Tenant: a.Tenant, Path: somewhere(a)}
		want := genChange(rt, a, r)
		docs, err := ParseFile(p, text)
		if err != nil {
			rt.Fatal(err)
		}
		docs[0].Digest = Digest(want)
		c, v := contentChunks(text)[0], resourceValue(want, true)
		for name, attempt := range map[string]func(*splice, *yaml.Node, value){"parts": spliceParts, "root": spliceRoot} {
			root, err := parseTree(text[c.lo:c.end])
			if err != nil {
				rt.Fatal(err)
			}
			s := newSplice(text[c.lo:c.end])
			attempt(s, root, v)
			if out := slices.Concat(text[:c.lo], s.apply(), text[c.end:]); !says(p, out, docs) {
				rt.Fatalf("%s:\n%s\n=>\n%s", name, text, out)
			}
		}
		if out := replaceChunk(text, c, v); !says(p, out, docs) {
			rt.Fatalf("chunk:\n%s\n=>\n%s", text, out)
		}
	})
}

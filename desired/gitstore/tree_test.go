// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/connectsoft/plumbline/desired"
)

// files lists a tree the slow way.
func listFiles(t testing.TB, r Reader, root Hash) map[string]TreeEntry {
	t.Helper()
	out := make(map[string]TreeEntry)
	var walk func(dir string, h Hash)
	walk = func(dir string, h Hash) {
		entries, err := r.Tree(h)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			path := dir + e.Name
			if e.Mode == modeTree {
				walk(path+"/", e.Hash)
				continue
			}
			out[path] = e
		}
	}
	walk("", root)
	return out
}

// apply is WriteTree on a map: ok is false when the changes put a file and a directory in one place.
func apply(files, changes map[string]TreeEntry) (map[string]TreeEntry, bool) {
	out := maps.Clone(files)
	for path, e := range changes {
		if e.Mode != 0 {
			continue
		}
		for have := range files {
			if have == path || strings.HasPrefix(have, path+"/") {
				delete(out, have)
			}
		}
	}
	for path, e := range changes {
		if e.Mode != 0 {
			out[path] = TreeEntry{Name: path[strings.LastIndexByte(path, '/')+1:], Mode: e.Mode, Hash: e.Hash}
		}
	}
	for path := range out {
		for dir, _ := splitLast(path); dir != ""; dir, _ = splitLast(dir) {
			if _, ok := out[dir]; ok {
				return nil, false
			}
		}
	}
	return out, true
}

var pathGen = rapid.Custom(func(t *rapid.T) string {
	part := rapid.SampledFrom([]string{"a", "a-", "a.", "a0", "b", "ab", "zz"})
	return strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "parts"), "/")
})

func TestWriteTreeAgreesWithAMap(t *testing.T) {
	s := newStore(t)
	rapid.Check(t, func(rt *rapid.T) {
		b := s.NewBatch()
		root := b.AddTree(nil, Zero)
		model := map[string]TreeEntry{}
		for round := range rapid.IntRange(1, 6).Draw(rt, "rounds") {
			changes := map[string]TreeEntry{}
			for i, path := range rapid.SliceOfNDistinct(pathGen, 0, 12, rapid.ID[string]).Draw(rt, "paths") {
				if rapid.Bool().Draw(rt, "delete") {
					changes[path] = TreeEntry{}
					continue
				}
				changes[path] = TreeEntry{Mode: 0o100644, Hash: b.AddBlob(fmt.Append(nil, round, i))}
			}
			want, ok := apply(model, changes)
			got, err := b.WriteTree(root, changes)
			if !ok {
				if desired.ClassOf(err) != desired.Conflict {
					rt.Fatalf("clash of files and directories: got %v, want conflict", err)
				}
				continue
			}
			if err != nil {
				rt.Fatal(err)
			}
			if have := listFiles(t, b, got); !maps.Equal(have, want) {
				rt.Fatalf("got %v\nwant %v", have, want)
			}
			checkDiff(t, rt, b, root, got, model, want)
			if fresh, err := b.WriteTree(Zero, want); err != nil || fresh != got {
				rt.Fatalf("the same files written at once make %s, %v, want %s", fresh, err, got)
			}
			root, model = got, want
		}
	})
}

// checkDiff compares DiffTrees with the difference of two maps.
func checkDiff(t testing.TB, rt *rapid.T, r Reader, a, b Hash, old, new map[string]TreeEntry) {
	var want []FileChange
	for path, e := range old {
		if new[path] != e {
			want = append(want, FileChange{path, e, new[path]})
		}
	}
	for path, e := range new {
		if _, ok := old[path]; !ok {
			want = append(want, FileChange{path, TreeEntry{}, e})
		}
	}
	slices.SortFunc(want, func(x, y FileChange) int { return strings.Compare(x.Path, y.Path) })
	var got []FileChange
	err := DiffTrees(r, a, b, func(c FileChange) error {
		got = append(got, c)
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		rt.Fatalf("diff: %v\ngot  %v\nwant %v", err, got, want)
	}
	for path, e := range new {
		if have, ok, err := Lookup(r, b, path); err != nil || !ok || have != e {
			rt.Fatalf("lookup %s: got %v, %v, %v, want %v", path, have, ok, err, e)
		}
	}
	if _, ok, err := Lookup(r, b, "zz/nowhere"); ok || err != nil {
		rt.Fatalf("lookup of nothing: %v, %v", ok, err)
	}
}

// A name that turns from file to directory, or back, moves to another place in its directory.
func TestFilesAndDirectoriesChangePlaces(t *testing.T) {
	s := newStore(t)
	b := s.NewBatch()
	e := TreeEntry{Mode: 0o100644, Hash: b.AddBlob([]byte("x"))}
	file := map[string]TreeEntry{"a": e, "a-": e, "a.b": e, "a0": e}
	dir := map[string]TreeEntry{"a/x": e, "a-": e, "a.b": e, "a0": e}
	build := func(files map[string]TreeEntry) Hash {
		h, err := b.WriteTree(Zero, files)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	asFile, asDir := build(file), build(dir)
	rows := []struct {
		what     string
		from, to Hash
		changes  map[string]TreeEntry
	}{
		{"file to directory", asFile, asDir, map[string]TreeEntry{"a": {}, "a/x": e}},
		{"directory to file", asDir, asFile, map[string]TreeEntry{"a": e, "a/x": {}}},
		{"nothing", asDir, asDir, map[string]TreeEntry{"a/x": e, "none": {}, "a/none/x": {}}},
		{"whole directory away", asDir, build(map[string]TreeEntry{"a-": e, "a.b": e, "a0": e}), map[string]TreeEntry{"a": {}}},
		{"everything away", asDir, b.AddTree(nil, Zero), map[string]TreeEntry{"a": {}, "a-": {}, "a.b": {}, "a0": {}}},
		{"a directory set at once", asFile, asDir, map[string]TreeEntry{"a": {Mode: modeTree, Hash: build(map[string]TreeEntry{"x": e})}}},
	}
	for _, row := range rows {
		if got, err := b.WriteTree(row.from, row.changes); err != nil || got != row.to {
			t.Errorf("%s: got %s, %v, want %s", row.what, got, err, row.to)
		}
	}
	for what, changes := range map[string]map[string]TreeEntry{
		"a file over a directory": {"a": e}, "below a file": {"a-/x": e}, "both at once": {"n": e, "n/m": e},
	} {
		if _, err := b.WriteTree(asDir, changes); desired.ClassOf(err) != desired.Conflict {
			t.Errorf("%s: got %v, want conflict", what, err)
		}
	}
}

func TestTreesBuiltByManyEditsSatisfyFsck(t *testing.T) {
	s := newStore(t)
	b := s.NewBatch()
	head := Zero
	var parents []Hash
	for i := range 120 {
		files := map[string]string{fmt.Sprintf("p/%02x/%d.yaml", i*7%256, i%9): fmt.Sprint(i), "hot": fmt.Sprint(i)}
		if i%10 == 9 {
			files[fmt.Sprintf("p/%02x/%d.yaml", (i-5)*7%256, (i-5)%9)] = ""
		}
		head = add(t, b, files, parents...)
		parents = []Hash{head}
	}
	deltas, deepest := 0, 0
	for _, o := range b.objects {
		if o.delta != nil {
			deltas++
			deepest = max(deepest, o.depth)
		}
	}
	if deltas < 100 || deepest > maxDepth {
		t.Errorf("%d deltas, %d deep; want over 100 and at most %d", deltas, deepest, maxDepth)
	}
	b.Set(RefUpdate{"refs/heads/main", Zero, head})
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	fsck(t, s)
	pack := (*s.packs.Load())[0]
	out := git(t, s.Dir(), "index-pack", "--strict", "-o", t.TempDir()+"/x.idx", pack.path)
	if !strings.Contains(out, strings.TrimPrefix(pack.name, "pack-")) {
		t.Errorf("git index-pack says %q, want %s", out, pack.name)
	}
	verify := git(t, s.Dir(), "verify-pack", "-v", pack.idxPath())
	if !strings.Contains(verify, "chain length = 40") {
		t.Error("git sees no long delta chain")
	}
	fresh := reopen(t, s)
	for _, o := range b.objects {
		typ, data, err := fresh.Object(o.hash)
		if err != nil || typ != o.typ || string(data) != string(o.data) {
			t.Fatalf("%s %s reads back as %s of %d bytes, %v", o.typ, o.hash, typ, len(data), err)
		}
	}
}

func TestWriteTreeRefusesPathsThatEscape(t *testing.T) {
	s := newStore(t)
	b := s.NewBatch()
	e := TreeEntry{Mode: 0o100644, Hash: b.AddBlob(nil)}
	for _, path := range []string{
		"", "/a", "a/", "a//b", ".", "..", "a/../b", ".git/config", "x/.GIT", "a/.git ", "git~1", "GIT~1/x",
		".g\u200cit", ".git::$INDEX_ALLOCATION", "a\\.git", "a\x00b",
	} {
		if _, err := b.WriteTree(Zero, map[string]TreeEntry{path: e}); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("%q: got %v, want invalid", path, err)
		}
	}
	for _, path := range []string{".gitignore", "git", "a.git", "git~2", "...", "ü/x"} {
		if _, err := b.WriteTree(Zero, map[string]TreeEntry{path: e}); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	for _, e := range []TreeEntry{{Mode: 0o100664, Hash: e.Hash}, {Mode: 0o100644}, {Mode: 7, Hash: e.Hash}} {
		if _, err := b.WriteTree(Zero, map[string]TreeEntry{"a": e}); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("%v: got %v, want invalid", e, err)
		}
	}
}

func TestBatchesInARow(t *testing.T) {
	s := newStore(t)
	first := put(t, s, "main", map[string]string{"a": "1"})
	b := s.NewBatch()
	second := add(t, b, map[string]string{"b": "2"}, first)
	b.Set(RefUpdate{"refs/heads/main", first, second})
	n := b.Next()
	third := add(t, n, map[string]string{"c": "3"}, second)
	n.Set(RefUpdate{"refs/heads/main", second, third})
	if err := s.Write(t.Context(), n); desired.ClassOf(err) != desired.Conflict {
		t.Errorf("writing the second batch first: got %v, want conflict", err)
	}
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), b); desired.ClassOf(err) != desired.Conflict {
		t.Errorf("writing a batch twice: got %v, want conflict", err)
	}
	if err := s.Write(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if got := git(t, s.Dir(), "ls-tree", "--name-only", "main"); got != "a\nb\nc" {
		t.Errorf("tree holds %q, want a b c", got)
	}
	d := s.NewBatch()
	kept := d.AddBlob([]byte("kept"))
	mark := d.Len()
	dropped := add(t, d, map[string]string{"x": "y"}, third)
	d.Truncate(mark)
	if d.Has(dropped) || !d.Has(kept) || d.Len() != 1 {
		t.Error("Truncate dropped the wrong objects")
	}
	fsck(t, s)
}

// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// ruleFile is a file of DriftRules, or a bad one.
func ruleFile(reason string, names ...string) []byte {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "---\napiVersion: %s\nkind: DriftRule\nmetadata: {name: %s}\nspec: {action: report, reason: %q}\n", APIVersion, n, reason)
	}
	return []byte(b.String())
}

// model is Advance written without indexes and without cleverness: whole passes over plain maps. It follows the
// rules of Advance's comment and of settle.
type model struct {
	files map[string]*modelFile
}

type modelFile struct {
	blob  string
	force []Document // in force
	good  string
	bad   bool
	docs  []Document // what the bad file declares, nil when it cannot be decoded
	class int
}

func (m *model) holder(ref Ref, but string) (string, int) {
	for path, f := range m.files {
		for _, d := range f.force {
			if d.Ref == ref && path != but {
				return path, d.Line
			}
		}
	}
	return "", 0
}

func (m *model) advance(files map[string]File) {
	for _, f := range m.files {
		f.class = idle
	}
	concerned := map[Ref]bool{} // what changed files had or wanted, have or want
	note := func(f *modelFile) {
		for _, d := range slices.Concat(f.force, f.docs) {
			concerned[d.Ref] = true
		}
	}
	for path, f := range files {
		now := m.files[path]
		if f.Deleted {
			if now != nil {
				note(now)
			}
			delete(m.files, path)
			continue
		}
		if now == nil {
			now = &modelFile{}
			m.files[path] = now
		} else if now.blob == f.Blob {
			continue
		}
		note(now)
		docs, err := ParseFile(Place{Tenant: "t", Path: path}, f.Data)
		if err != nil {
			docs = nil
		}
		now.blob, now.bad, now.docs, now.class = f.Blob, true, docs, arrived
		if err != nil {
			now.class = idle
		}
		note(now)
	}
	for again := true; again; {
		again = false
		for _, f := range m.files {
			if f.bad && f.class == idle && slices.ContainsFunc(f.docs, func(d Document) bool { return concerned[d.Ref] }) {
				f.class, again = waiting, true
				note(f)
			}
		}
	}
	m.settle()
}

// idle files take no part in a delta.
const idle = -1

func (m *model) settle() {
	for {
		var all []string
		for class := waiting; class <= held; class++ {
			for _, path := range slices.Sorted(maps.Keys(m.files)) {
				if f := m.files[path]; f.bad && f.class == class {
					all = append(all, path)
				}
			}
		}
		winners, excluded := []string(nil), map[string]bool{}
		for again := true; again; {
			winners, again = m.round(all, excluded)
		}
		if len(winners) == 0 {
			return
		}
		for _, path := range winners {
			f := m.files[path]
			f.force, f.good, f.bad, f.docs = f.docs, f.blob, false, nil
		}
	}
}

func declares(docs []Document, ref Ref) bool {
	return slices.ContainsFunc(docs, func(d Document) bool { return d.Ref == ref })
}

func (m *model) round(all []string, excluded map[string]bool) (winners []string, again bool) {
	in := map[string]bool{}
	for _, path := range all {
		in[path] = !excluded[path]
	}
	blocked := func(path string) bool {
		for _, d := range m.files[path].docs {
			h, _ := m.holder(d.Ref, path)
			if h != "" && (!in[h] || declares(m.files[h].docs, d.Ref)) {
				return true
			}
		}
		return false
	}
	stable := func() {
		for again := true; again; {
			again = false
			for _, path := range all {
				if in[path] && blocked(path) {
					in[path], again = false, true
				}
			}
		}
	}
	stable()
	beat := map[string]bool{}
	for i, path := range all {
		for _, other := range all[:i] {
			clash := slices.ContainsFunc(m.files[path].docs, func(d Document) bool { return declares(m.files[other].docs, d.Ref) })
			if clash && in[other] && in[path] {
				in[path], beat[other] = false, true
				stable()
			}
		}
	}
	for _, path := range all {
		if in[path] {
			winners = append(winners, path)
		}
		if beat[path] && !in[path] {
			excluded[path], again = true, true
		}
	}
	return winners, again
}

// state renders what is in force and what is in quarantine.
func (m *model) state() string {
	var lines []string
	for path, f := range m.files {
		for _, d := range f.force {
			lines = append(lines, fmt.Sprintf("%s %s:%d %s %s", d.Ref, path, d.Line, f.good, d.Digest))
		}
		if f.bad {
			var why []string
			for _, d := range f.docs {
				if h, line := m.holder(d.Ref, path); h != "" {
					why = append(why, fmt.Sprintf("%d:%s:%d", d.Line, h, line))
				}
			}
			lines = append(lines, fmt.Sprintf("bad %s %s good=%s %s", path, f.blob, f.good, strings.Join(why, " ")))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func snapshotState(s *Snapshot) string {
	var lines []string
	for e := range s.All() {
		lines = append(lines, fmt.Sprintf("%s %s:%d %s %s", e.Ref, e.Path, e.Line, e.Blob, e.Digest))
	}
	for _, q := range s.Quarantined() {
		var why []string
		for _, f := range q.Err.Fields {
			if at, ok := strings.CutPrefix(f.Detail, "this resource is declared in "); ok {
				why = append(why, fmt.Sprintf("%d:%s", f.Line, strings.Fields(at)[0]))
			}
		}
		lines = append(lines, fmt.Sprintf("bad %s %s good=%s %s", q.Path, q.Blob, q.LastGood, strings.Join(why, " ")))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func genFile(rt *rapid.T, path string) File {
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}), 0, 3, rapid.ID[string]).Draw(rt, "names")
	reason := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "reason")
	f := File{Path: path, Data: ruleFile(reason, names...), Blob: reason + "-" + strings.Join(names, "")}
	switch rapid.IntRange(0, 9).Draw(rt, "fate") {
	case 0:
		f.Data, f.Blob = []byte("kind: [\n"), "broken-"+reason
	case 1, 2:
		f = File{Path: path, Deleted: true}
	}
	if len(names) == 0 && f.Blob == reason+"-" {
		f.Blob = "empty" + reason
	}
	return f
}

// TestAdvanceEqualsModel drives random deltas, with broken files, duplicates, moves and deletions, through the
// snapshot and through the model.
func TestAdvanceEqualsModel(t *testing.T) {
	paths := []string{"projects/p/1.yaml", "projects/p/2.yaml", "projects/p/3.yaml", "projects/p/4.yaml", "projects/p/5.yaml"}
	rapid.Check(t, func(rt *rapid.T) {
		s, m := Empty("t"), &model{files: map[string]*modelFile{}}
		cache := NewCache(3)
		var all []Changes
		for step := range rapid.IntRange(1, 12).Draw(rt, "steps") {
			d, files := Delta{Commit: fmt.Sprint(step)}, map[string]File{}
			for _, path := range rapid.SliceOfNDistinct(rapid.SampledFrom(paths), 1, 5, rapid.ID[string]).Draw(rt, "paths") {
				f := genFile(rt, path)
				files[path] = f
				d.Files = append(d.Files, f)
			}
			before := s
			var c Changes
			s, c = s.Advance(d, cache)
			m.advance(files)
			if got, want := snapshotState(s), m.state(); got != want {
				rt.Fatalf("step %d\n got:\n%s\nwant:\n%s", step, got, want)
			}
			checkIndexes(rt, s)
			checkChanges(rt, before, s, c)
			all = append(all, c)
		}
		checkMerged(rt, s, MergeChanges(all))
	})
}

// checkMerged compares the folded changes since the empty snapshot with what is there.
func checkMerged(rt *rapid.T, s *Snapshot, c Changes) {
	var there, gone int
	for _, r := range slices.Concat(c.Added, c.Changed) {
		if _, ok := s.Get(r); !ok {
			rt.Fatalf("%v is among the changes and not there", r)
		}
		there++
	}
	for _, r := range c.Removed {
		if _, ok := s.Get(r); ok {
			gone++
		}
	}
	if there != s.Len() || gone > 0 || len(c.Changed) > 0 || len(c.Removed) > 0 {
		rt.Fatalf("got %+v for %d entries", c, s.Len())
	}
	for _, q := range s.Quarantined() {
		i := slices.IndexFunc(c.Quarantined, func(o Quarantine) bool { return o.Path == q.Path })
		if i < 0 || !slices.Equal(c.Quarantined[i].Err.Fields, q.Err.Fields) {
			rt.Fatalf("%s is not among the changes as it is", q.Path)
		}
	}
	for _, path := range c.Released {
		if _, bad := s.InQuarantine(path); bad {
			rt.Fatalf("%s: released and in quarantine", path)
		}
	}
}

// checkIndexes compares every index with the entries and the files.
func checkIndexes(rt *rapid.T, s *Snapshot) {
	fromFiles := map[Ref]*Entry{}
	for f := range s.files.from("", "") {
		for i, e := range f.entries {
			if e.Index != i || e.Path != f.path || e.Blob != f.good {
				rt.Fatalf("entry %v of %s: %+v", i, f.path, e)
			}
			fromFiles[e.Ref] = e
		}
		if _, bad := s.bad.get(f.path); bad != (f.bad != nil) {
			rt.Fatalf("%s: in the index of quarantines: %v", f.path, bad)
		}
	}
	if s.Len() != len(fromFiles) || s.ids.size != len(fromFiles) {
		rt.Fatalf("entries %d, ids %d, files hold %d", s.Len(), s.ids.size, len(fromFiles))
	}
	for e := range s.All() {
		if byID, ok := s.ByID(e.Ref.ID()); fromFiles[e.Ref] != e || !ok || byID != e {
			rt.Fatalf("%v: the indexes disagree", e.Ref)
		}
	}
	wanted := 0
	for f := range s.bad.from("", "") {
		wanted += len(f.bad.docs)
	}
	if s.wanted.size != wanted {
		rt.Fatalf("wanted has %d keys, want %d", s.wanted.size, wanted)
	}
}

// checkChanges compares what Advance said with what it did.
func checkChanges(rt *rapid.T, before, after *Snapshot, c Changes) {
	var added, changed, removed []Ref
	for e := range after.All() {
		if was, ok := before.Get(e.Ref); !ok {
			added = append(added, e.Ref)
		} else if was.Digest != e.Digest {
			changed = append(changed, e.Ref)
		}
	}
	for e := range before.All() {
		if _, ok := after.Get(e.Ref); !ok {
			removed = append(removed, e.Ref)
		}
	}
	if !slices.Equal(added, c.Added) || !slices.Equal(changed, c.Changed) || !slices.Equal(removed, c.Removed) {
		rt.Fatalf("got %+v\nwant added %v changed %v removed %v", c, added, changed, removed)
	}
	for _, path := range c.Released {
		if _, still := after.InQuarantine(path); still {
			rt.Fatalf("%s: released and in quarantine", path)
		}
	}
	for _, q := range after.Quarantined() {
		was, before := before.InQuarantine(q.Path)
		fresh := !before || was.Blob != q.Blob || !slices.Equal(was.Err.Fields, q.Err.Fields)
		if told := slices.ContainsFunc(c.Quarantined, func(o Quarantine) bool { return o.Path == q.Path }); told != fresh {
			rt.Fatalf("%s: told %v, want %v", q.Path, told, fresh)
		}
	}
}

// TestRestartReproduces: a snapshot loaded at once from a head, with what was persisted of its quarantines, has in
// force and in quarantine what the one had that saw every commit.
func TestRestartReproduces(t *testing.T) {
	paths := []string{"projects/p/1.yaml", "projects/p/2.yaml", "projects/p/3.yaml", "projects/p/4.yaml"}
	rapid.Check(t, func(rt *rapid.T) {
		s, head, blobs := Empty("t"), map[string]File{}, map[string][]byte{}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			var d Delta
			for _, path := range rapid.SliceOfNDistinct(rapid.SampledFrom(paths), 1, 3, rapid.ID[string]).Draw(rt, "paths") {
				f := genFile(rt, path)
				d.Files, blobs[f.Blob] = append(d.Files, f), f.Data
				if head[path] = f; f.Deleted {
					delete(head, path)
				}
			}
			s, _ = s.Advance(d, nil)
		}
		var d Delta
		for _, f := range head {
			if q, bad := s.InQuarantine(f.Path); bad {
				f.Held, f.Good, f.GoodBlob = true, blobs[q.LastGood], q.LastGood
			}
			d.Files = append(d.Files, f)
		}
		again, _ := Empty("t").Advance(d, nil)
		if got, want := snapshotState(again), snapshotState(s); got != want {
			rt.Fatalf("got:\n%s\nwant:\n%s", got, want)
		}
	})
}

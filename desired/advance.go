// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
)

// Advance applies a delta. Bad files are quarantined and listed in Changes; a caller that wants to refuse them
// drops the new snapshot. Parsed files are taken from cache when their blob id is known there (nil is allowed).
//
// A file that cannot be decoded is bad. So is a file that declares a resource which another file has in force: of
// two files in one delta the later by path, else the one that arrived later. The last good version of a bad file
// stays in force. A file that was bad only for another's sake is judged again when a file that has or wants one of
// its resources changes, and comes into force when nothing stands in its way.
func (s *Snapshot) Advance(d Delta, cache *Cache) (*Snapshot, Changes) {
	a := &advance{
		old: s, delta: &d, cache: cache,
		entries: s.entries.edit(), ids: s.ids.edit(), children: s.children.edit(),
		files: s.files.edit(), bad: s.bad.edit(), wanted: s.wanted.edit(),
		touched: map[string]*Entry{}, judged: map[string]bool{}, candidates: map[string]*candidate{},
	}
	files := a.normal()
	a.install(files)
	a.take(files)
	a.callUp()
	a.settle()
	next := &Snapshot{
		tenant: s.tenant, commit: d.Commit, platform: s.platform,
		entries: a.entries.done(), ids: a.ids.done(), children: a.children.done(),
		files: a.files.done(), bad: a.bad.done(), wanted: a.wanted.done(),
	}
	return next, a.changes(next)
}

// advance is one run of Snapshot.Advance.
type advance struct {
	old   *Snapshot
	delta *Delta
	cache *Cache

	entries            *indexEdit[*Entry]
	ids, children      *indexEdit[string]
	files, bad, wanted *indexEdit[*stored]

	touched    map[string]*Entry     // what was there before of the entries that were removed or written, or nil
	judged     map[string]bool       // paths whose quarantine may have changed
	candidates map[string]*candidate // by path
}

// candidate is a file that can be decoded and is to come into force if no other file has its resources.
type candidate struct {
	path  string
	blob  string
	docs  []Document
	keys  []string // Ref.String of the documents
	since Provenance
	class int     // of two that want one resource the lower class wins, then the path
	now   *stored // nil when the path is new
	out   bool    // lost against another in the present round
}

// The classes of candidates.
const (
	waiting = iota // in quarantine since an earlier delta
	arrived        // in this delta
	held           // in this delta, and in quarantine before the start
)

// normal is the delta's managed files in order of path, the last word on each, without those that are there.
func (a *advance) normal() []File {
	last := make(map[string]int, len(a.delta.Files))
	for i, f := range a.delta.Files {
		last[f.Path] = i
	}
	out := make([]File, 0, len(last))
	for i, f := range a.delta.Files {
		if last[f.Path] != i || !a.place(f.Path).Managed() {
			continue
		}
		now, there := a.files.get(f.Path)
		if f.Deleted && !there || !f.Deleted && there && f.Blob != "" && now.blob == f.Blob {
			continue
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(x, y File) int { return cmp.Compare(x.Path, y.Path) })
	return out
}

func (a *advance) place(path string) Place { return Place{Tenant: a.old.tenant, Path: path} }

func (a *advance) provenance(path string) Provenance {
	if p, ok := a.delta.ByPath[path]; ok {
		return p
	}
	return a.delta.Change
}

// install brings the persisted last good versions of unknown files into force, as they were before the delta.
func (a *advance) install(files []File) {
	for _, f := range files {
		if _, there := a.files.get(f.Path); there || f.Deleted || f.Good == nil {
			continue
		}
		p := a.cache.prepare(a.place(f.Path), f.GoodBlob, f.Good)
		if p.err != nil {
			continue
		}
		c := newCandidate(f.Path, f.GoodBlob, p.docs, a.provenance(f.Path), arrived)
		if len(a.conflicts(c)) == 0 {
			a.promote([]*candidate{c})
		}
	}
}

func newCandidate(path, blob string, docs []Document, since Provenance, class int) *candidate {
	c := &candidate{path: path, blob: blob, docs: docs, since: since, class: class, keys: make([]string, len(docs))}
	for i := range docs {
		c.keys[i] = docs[i].Ref.String()
	}
	return c
}

// take removes deleted files, quarantines what cannot be decoded, and makes candidates of the rest.
func (a *advance) take(files []File) {
	for _, f := range files {
		now, there := a.files.get(f.Path)
		if there {
			a.giveUp(now)
		}
		delete(a.candidates, f.Path) // it may have been called for what it wanted before
		if f.Deleted {
			a.drop(now)
			continue
		}
		p := a.cache.prepare(a.place(f.Path), f.Blob, f.Data)
		if p.err != nil {
			a.quarantine(f.Path, f.Blob, &badFile{err: p.err, since: a.provenance(f.Path)})
			continue
		}
		c := newCandidate(f.Path, f.Blob, p.docs, a.provenance(f.Path), arrived)
		if f.Held || f.Good != nil {
			c.class = held
		}
		c.now = now
		a.candidates[f.Path] = c
	}
}

// drop removes a file and what it had in force. Files that wait for its resources become candidates.
func (a *advance) drop(f *stored) {
	for _, e := range f.entries {
		a.remove(e)
		a.call(e.key)
	}
	a.files.delete(f.path)
	a.bad.delete(f.path)
	a.judged[f.path] = true
}

// touch remembers the entry of a key as it was before the delta.
func (a *advance) touch(key string) *Entry {
	was, done := a.touched[key]
	if !done {
		was, _ = a.old.entries.get(key)
		a.touched[key] = was
	}
	return was
}

func (a *advance) remove(e *Entry) {
	a.touch(e.key)
	a.entries.delete(e.key)
	a.ids.delete(e.ID)
	if k := childKey(e.Ref, e.Resource.Spec); k != "" {
		a.children.delete(k)
	}
}

// unwant takes a file out of the index of those that wait for a resource.
func (a *advance) unwant(f *stored) {
	if f.bad == nil {
		return
	}
	for _, d := range f.bad.docs {
		a.wanted.delete(d.Ref.String() + "\x00" + f.path)
	}
}

// giveUp is unwant for good: those that wanted the same resources have one rival less.
func (a *advance) giveUp(f *stored) {
	a.unwant(f)
	if f.bad == nil {
		return
	}
	for _, d := range f.bad.docs {
		a.call(d.Ref.String())
	}
}

// quarantine makes a file bad; what it has in force stays.
func (a *advance) quarantine(path, blob string, why *badFile) {
	f := stored{path: path, blob: blob, bad: why}
	if now, there := a.files.get(path); there {
		f.good, f.entries = now.good, now.entries
		if now.bad != nil && now.blob == blob {
			why.since = now.bad.since
		}
	}
	for _, d := range why.docs {
		a.wanted.set(d.Ref.String()+"\x00"+path, &f)
	}
	a.files.set(path, &f)
	a.bad.set(path, &f)
	a.judged[path] = true
}

// callUp makes candidates of the waiting files whose case may have changed: those that want a resource which a
// candidate has or wants. What they have in force may be wanted by others, and so on.
func (a *advance) callUp() {
	for _, path := range slices.Sorted(maps.Keys(a.candidates)) {
		a.callFor(a.candidates[path])
	}
}

func (a *advance) callFor(c *candidate) {
	for _, key := range c.keys {
		a.call(key)
	}
	if c.now != nil {
		for _, e := range c.now.entries {
			a.call(e.key)
		}
	}
}

// call makes candidates of the waiting files that want a resource.
func (a *advance) call(key string) {
	found := slices.Collect(a.wanted.from(key+"\x00", ""))
	for _, f := range found {
		a.unwant(f)
		c := newCandidate(f.path, f.blob, f.bad.docs, f.bad.since, waiting)
		c.now = f
		a.candidates[f.path] = c
		a.callFor(c)
	}
}

// settle decides which candidates come into force, in rounds, because one that does may give way for others. The
// rest goes into quarantine.
func (a *advance) settle() {
	left := slices.Collect(maps.Values(a.candidates))
	slices.SortFunc(left, func(x, y *candidate) int {
		return cmp.Or(cmp.Compare(x.class, y.class), cmp.Compare(x.path, y.path))
	})
	for len(left) > 0 {
		winners, losers := a.round(left)
		if len(winners) == 0 {
			break
		}
		a.promote(winners)
		left = losers
	}
	for _, c := range left {
		err := &Error{Class: Invalid, Op: "load file", Fields: a.conflicts(c)}
		a.quarantine(c.path, c.blob, &badFile{err: err, docs: c.docs, since: c.since})
	}
}

// round finds candidates that can come into force together. A candidate that beat another and then lost itself has
// no say: the round is run again without it.
func (a *advance) round(all []*candidate) (winners, losers []*candidate) {
	r := round{entries: a.entries, all: all, in: make(map[string]*candidate, len(all)), wanting: make(map[string][]*candidate, len(all))}
	for _, c := range all {
		r.in[c.path] = c
		for _, key := range c.keys {
			r.wanting[key] = append(r.wanting[key], c)
		}
	}
	for excluded := map[*candidate]bool{}; r.run(excluded); {
	}
	for _, c := range all {
		if c.out {
			losers = append(losers, c)
		} else {
			winners = append(winners, c)
		}
	}
	return winners, losers
}

type round struct {
	entries *indexEdit[*Entry]
	all     []*candidate            // in order of precedence
	in      map[string]*candidate   // by path
	wanting map[string][]*candidate // by Ref.String
}

// run lets all candidates in, then out goes each that wants what a file outside has in force (or a file inside
// keeps), and of two that want the same the later one. Whoever goes out keeps its last good version in force, and
// so may put out others. It adds those that beat another in vain to excluded and reports whether there are any.
func (r *round) run(excluded map[*candidate]bool) bool {
	for _, c := range r.all {
		c.out = false
	}
	for _, c := range r.all {
		if excluded[c] {
			r.putOut(c)
		}
		for _, key := range c.keys {
			e, taken := r.entries.get(key)
			if !taken || e.Path == c.path {
				continue
			}
			if h := r.in[e.Path]; h == nil || slices.Contains(h.keys, key) {
				r.putOut(c)
			}
		}
	}
	claimed, beat := make(map[string]*candidate, len(r.all)), map[*candidate]bool{}
	for _, c := range r.all {
		for _, key := range c.keys {
			if o := claimed[key]; o != nil && !o.out && !c.out {
				beat[o] = true
				r.putOut(c)
			}
		}
		if !c.out {
			for _, key := range c.keys {
				claimed[key] = c
			}
		}
	}
	again := false
	for c := range beat {
		if c.out {
			excluded[c], again = true, true
		}
	}
	return again
}

// putOut takes a candidate out of a round, and with it all that want what it keeps in force.
func (r *round) putOut(c *candidate) {
	todo := []*candidate{c}
	for len(todo) > 0 {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if c.out {
			continue
		}
		c.out = true
		if c.now == nil {
			continue
		}
		for _, e := range c.now.entries {
			for _, o := range r.wanting[e.key] {
				if o != c && !o.out {
					todo = append(todo, o)
				}
			}
		}
	}
}

// conflicts lists the documents of a candidate that other files have in force.
func (a *advance) conflicts(c *candidate) []FieldError {
	var out []FieldError
	for i, key := range c.keys {
		if e, taken := a.entries.get(key); taken && e.Path != c.path {
			out = append(out, FieldError{
				Pointer: "/metadata/name", File: c.path, Line: c.docs[i].Line,
				Detail: "this resource is declared in " + e.Path + ":" + strconv.Itoa(e.Line) + " already: remove one of the two or rename it",
			})
		}
	}
	return out
}

// promote brings candidates into force: first all give up what they had, then each takes what it declares.
func (a *advance) promote(winners []*candidate) {
	for _, c := range winners {
		if c.now == nil {
			continue
		}
		for _, e := range c.now.entries {
			if !c.keeps(e) {
				a.remove(e)
			}
		}
	}
	for _, c := range winners {
		f := &stored{path: c.path, blob: c.blob, good: c.blob, entries: make([]*Entry, len(c.docs))}
		for i := range c.docs {
			f.entries[i] = a.insert(c, i)
		}
		a.files.set(c.path, f)
		if c.now != nil && c.now.bad != nil {
			a.bad.delete(c.path)
			a.judged[c.path] = true
		}
	}
}

// keeps reports whether the new version of a file writes over an entry under all of its keys.
func (c *candidate) keeps(e *Entry) bool {
	for i := range c.docs {
		if c.docs[i].Ref == e.Ref {
			return childKey(e.Ref, e.Resource.Spec) == childKey(e.Ref, c.docs[i].Resource.Spec)
		}
	}
	return false
}

func (a *advance) insert(c *candidate, i int) *Entry {
	d, key := &c.docs[i], c.keys[i]
	was := a.touch(key)
	e := &Entry{
		Ref: d.Ref, Resource: d.Resource, Path: c.path, Line: d.Line, Index: d.Index,
		Blob: c.blob, Digest: d.Digest, Changed: c.since,
	}
	if was != nil {
		e.ID, e.key = was.ID, was.key
		if was.Digest == e.Digest {
			e.Changed = was.Changed
		}
	} else {
		e.ID, e.key = d.Ref.ID(), key
	}
	if p, ok := a.delta.ByRef[key]; ok {
		e.Changed = p
	}
	if _, there := a.entries.get(key); !there {
		a.ids.set(e.ID, e.key)
		if k := childKey(e.Ref, e.Resource.Spec); k != "" {
			a.children.set(k, e.key)
		}
	}
	a.entries.set(e.key, e)
	return e
}

// changes compares what was touched before and after.
func (a *advance) changes(next *Snapshot) Changes {
	var out Changes
	for _, key := range slices.Sorted(maps.Keys(a.touched)) {
		was := a.touched[key]
		switch is, after := next.entries.get(key); {
		case was != nil && !after:
			out.Removed = append(out.Removed, was.Ref)
		case was == nil && after:
			out.Added = append(out.Added, is.Ref)
		case was != nil && was.Digest != is.Digest:
			out.Changed = append(out.Changed, is.Ref)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(a.judged)) {
		was, before := a.old.bad.get(path)
		is, after := next.bad.get(path)
		switch {
		case before && !after:
			out.Released = append(out.Released, path)
		case after && (!before || was.blob != is.blob || !slices.Equal(was.bad.err.Fields, is.bad.err.Fields)):
			out.Quarantined = append(out.Quarantined, is.quarantine())
		}
	}
	return out
}

// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"iter"
	"slices"
	"time"
)

// Provenance says which accepted commit last changed a resource. The zero value means "not known yet": while the
// last-change index catches up after a loss the field is absent, never guessed.
type Provenance struct {
	Commit    string    `json:"commit,omitempty"`
	Seq       uint64    `json:"seq,omitempty"`
	Author    string    `json:"author,omitempty"`    // "Name <email>", free text of git
	Principal string    `json:"principal,omitempty"` // verified: sealed subject, pusher, or "unknown"
	At        time.Time `json:"at,omitzero"`
}

// Entry is one resource in a snapshot. Immutable.
type Entry struct {
	Ref      Ref
	ID       string
	Resource *Resource
	Path     string
	Line     int
	Index    int    // document index in the file
	Blob     string // git blob id of the file
	Digest   string
	Changed  Provenance

	key string // Ref.String
}

// Quarantine is a file whose current blob is bad; its last good version, if any, stays in force.
type Quarantine struct {
	Path     string
	Blob     string // the bad blob
	LastGood string // blob id in force, "" when there never was a good one
	Err      *Error // Invalid, with places
	Refs     []Ref  // resources that the last good version keeps alive
	Since    Provenance
}

// File is one changed file in a Delta.
type File struct {
	Path    string
	Blob    string
	Data    []byte
	Deleted bool
	// Good is the content to keep in force when Data is bad and this snapshot has not seen the path before
	// (start-up from a persisted quarantine). Ignored otherwise.
	Good     []byte
	GoodBlob string
	// Held says that the file was in quarantine when the head was persisted: where two files of this delta declare
	// one resource, the file that is not Held is the earlier one. A file with Good counts as held.
	Held bool
}

// Delta is what one accepted head changed.
type Delta struct {
	Commit string
	Change Provenance // provenance of everything that changed; Files may override by ByPath
	ByPath map[string]Provenance
	ByRef  map[string]Provenance // by Ref.String; wins over both (start-up from a persisted index)
	Files  []File                // only managed paths are looked at
}

// Changes tells what an Advance did. Refs are in order of their String, files in order of their paths. A resource
// that only moved, to another file or line, is not among the Changed.
type Changes struct {
	Added, Changed, Removed []Ref
	Quarantined             []Quarantine // newly bad in this delta, or bad for another cause than before
	Released                []string     // paths no longer in quarantine
}

// Snapshot is all resources of one repository at exactly one commit. Immutable and safe for concurrent use;
// Advance shares structure, so it costs what changed and not what is there.
type Snapshot struct {
	tenant   string
	commit   string
	platform *Snapshot

	entries  *index[*Entry]  // by Ref.String
	ids      *index[string]  // id -> Ref.String; such keys last as long as the resource, entries as long as its file
	children *index[string]  // Ref.String of the Repository, NUL, Ref.String -> Ref.String
	files    *index[*stored] // by path
	bad      *index[*stored] // those of files that are in quarantine
	wanted   *index[*stored] // files in quarantine for a duplicate, by Ref.String of each document, NUL, path
}

// stored is what a snapshot knows of one file. Immutable.
type stored struct {
	path    string
	blob    string   // at the snapshot's commit
	good    string   // blob in force, "" when none is
	entries []*Entry // in force
	bad     *badFile // nil unless in quarantine
}

// badFile is why a file is in quarantine.
type badFile struct {
	err   *Error
	docs  []Document // of a file that is in quarantine only because other files declare its resources
	since Provenance
}

// Empty is the snapshot of a repository without commits; tenant "" is the platform repository.
func Empty(tenant string) *Snapshot {
	return &Snapshot{
		tenant:   tenant,
		entries:  newIndex[*Entry](),
		ids:      newIndex[string](),
		children: newIndex[string](),
		files:    newIndex[*stored](),
		bad:      newIndex[*stored](),
		wanted:   newIndex[*stored](),
	}
}

// Tenant is whose snapshot it is, "" for the platform repository.
func (s *Snapshot) Tenant() string { return s.tenant }

// Commit is the commit id this snapshot was read at, "" before the first commit.
func (s *Snapshot) Commit() string { return s.commit }

// WithPlatform returns a copy of s that resolves shared providers, tenants and policies in p.
func (s *Snapshot) WithPlatform(p *Snapshot) *Snapshot {
	c := *s
	c.platform = p
	return &c
}

// Platform is the platform snapshot, nil when none is attached.
func (s *Snapshot) Platform() *Snapshot { return s.platform }

// Get finds an entry of this repository (not the platform's).
func (s *Snapshot) Get(r Ref) (*Entry, bool) { return s.entries.get(r.String()) }

// ByID finds an entry by its derived id.
func (s *Snapshot) ByID(id string) (*Entry, bool) {
	key, ok := s.ids.get(id)
	if !ok {
		return nil, false
	}
	return s.entries.get(key)
}

// Len is the number of entries.
func (s *Snapshot) Len() int { return s.entries.size }

// All walks the entries in order of Ref.String.
func (s *Snapshot) All() iter.Seq[*Entry] { return s.entries.from("", "") }

// List walks the entries of one kind, of one project when project is not empty, in order of Ref.String, starting
// after the ref string after ("" = from the start).
func (s *Snapshot) List(k Kind, project, after string) iter.Seq[*Entry] {
	if after != "" {
		after += "\x00"
	}
	if project != "" {
		return s.entries.from(Ref{Tenant: s.tenant, Project: project, Kind: k}.String(), after)
	}
	return func(yield func(*Entry) bool) {
		// Project by project: from each to where its entries of the kind begin, and on to the next.
		for next := after; ; {
			here := first(s.entries.from("", next))
			switch {
			case here == nil:
				return
			case here.Ref.Kind < k:
				next = Ref{Tenant: s.tenant, Project: here.Ref.Project, Kind: k}.String()
				continue
			case here.Ref.Kind == k:
				for e := range s.entries.from(Ref{Tenant: s.tenant, Project: here.Ref.Project, Kind: k}.String(), next) {
					if !yield(e) {
						return
					}
				}
			}
			next = dash(s.tenant) + "/" + dash(here.Ref.Project) + "0" // '0' follows '/'
		}
	}
}

func first(seq iter.Seq[*Entry]) *Entry {
	for e := range seq {
		return e
	}
	return nil
}

// File returns the entries that come from a path (its last good version when quarantined).
func (s *Snapshot) File(path string) []*Entry {
	f, ok := s.files.get(path)
	if !ok {
		return nil
	}
	return slices.Clone(f.entries)
}

// Children walks the resources whose spec.repository names the Repository r, in order.
func (s *Snapshot) Children(r Ref) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for key := range s.children.from(r.String()+"\x00", "") {
			if e, ok := s.entries.get(key); ok && !yield(e) {
				return
			}
		}
	}
}

// childKey is the key of a resource in the index of children, "" for one that names no repository.
func childKey(ref Ref, spec Spec) string {
	var repository string
	switch s := spec.(type) {
	case *BranchSpec:
		repository = s.Repository
	case *CommitSpec:
		repository = s.Repository
	case *PullRequestSpec:
		repository = s.Repository
	default:
		return ""
	}
	return ref.Sibling(KindRepository, repository).String() + "\x00" + ref.String()
}

// Quarantined lists the files in quarantine by path.
func (s *Snapshot) Quarantined() []Quarantine {
	var out []Quarantine
	for f := range s.bad.from("", "") {
		out = append(out, f.quarantine())
	}
	return out
}

// InQuarantine returns the quarantine of a path, false when its file is good or absent.
func (s *Snapshot) InQuarantine(path string) (Quarantine, bool) {
	f, ok := s.bad.get(path)
	if !ok {
		return Quarantine{}, false
	}
	return f.quarantine(), true
}

func (f *stored) quarantine() Quarantine {
	q := Quarantine{Path: f.path, Blob: f.blob, LastGood: f.good, Err: f.bad.err, Since: f.bad.since}
	for _, e := range f.entries {
		q.Refs = append(q.Refs, e.Ref)
	}
	return q
}

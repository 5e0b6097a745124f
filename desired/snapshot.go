// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"iter"
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
}

// Delta is what one accepted head changed.
type Delta struct {
	Commit string
	Change Provenance // provenance of everything that changed; Files may override by ByPath
	ByPath map[string]Provenance
	Files  []File // only managed paths are looked at
}

// Changes tells what an Advance did. Refs are in order of their String.
type Changes struct {
	Added, Changed, Removed []Ref
	Quarantined             []Quarantine // newly bad in this delta
	Released                []string     // paths no longer in quarantine
}

// Snapshot is all resources of one repository at exactly one commit. Immutable and safe for concurrent use;
// Advance shares structure, so it costs what changed and not what is there.
type Snapshot struct {
	tenant   string
	commit   string
	platform *Snapshot
	// built by the package
	impl snapshotImpl
}

type snapshotImpl struct{}

// Empty is the snapshot of a repository without commits; tenant "" is the platform repository.
func Empty(tenant string) *Snapshot { return &Snapshot{tenant: tenant} }

// Tenant, Commit: whose snapshot and of which commit ("" before the first).
func (s *Snapshot) Tenant() string { return s.tenant }

// Commit is the commit id this snapshot was read at, "" before the first commit.
func (s *Snapshot) Commit() string { return s.commit }

// WithPlatform returns a copy of s that resolves shared providers, tenants and policies in p.
func (s *Snapshot) WithPlatform(p *Snapshot) *Snapshot { panic("not built") }

// Platform is the platform snapshot, nil when none is attached.
func (s *Snapshot) Platform() *Snapshot { return s.platform }

// Advance applies a delta. Bad files are quarantined and listed in Changes; a caller that wants to refuse them
// drops the new snapshot. Parsed files are taken from cache when their blob id is known there (nil is allowed).
func (s *Snapshot) Advance(d Delta, cache *Cache) (*Snapshot, Changes) { panic("not built") }

// Cache remembers parsed files by place and blob id. It is bounded. It is not safe for concurrent use: its owner
// is the goroutine that advances; Prepare results may be handed in with Add.
type Cache struct{}

// NewCache returns a cache of at most n files.
func NewCache(n int) *Cache { panic("not built") }

// Get finds an entry of this repository (not the platform's).
func (s *Snapshot) Get(r Ref) (*Entry, bool) { panic("not built") }

// ByID finds an entry by its derived id.
func (s *Snapshot) ByID(id string) (*Entry, bool) { panic("not built") }

// Len is the number of entries.
func (s *Snapshot) Len() int { panic("not built") }

// All walks the entries in order of Ref.String.
func (s *Snapshot) All() iter.Seq[*Entry] { panic("not built") }

// List walks the entries of one kind, of one project when project is not empty, in order, starting after the ref
// string after ("" = from the start).
func (s *Snapshot) List(k Kind, project, after string) iter.Seq[*Entry] { panic("not built") }

// File returns the entries that come from a path (its last good version when quarantined).
func (s *Snapshot) File(path string) []*Entry { panic("not built") }

// Children walks the resources whose spec.repository names the Repository r, in order.
func (s *Snapshot) Children(r Ref) iter.Seq[*Entry] { panic("not built") }

// Quarantined lists the files in quarantine by path.
func (s *Snapshot) Quarantined() []Quarantine { panic("not built") }

// Provider resolves a Repository's provider name: the tenant's own Provider document, then the platform's (within
// what the Tenant document allows), without regard to case; else its type when exactly one of that type is there;
// else the built-in "local". The error is Invalid and lists the known names.
func (s *Snapshot) Provider(name string) (Ref, *ProviderSpec, error) { panic("not built") }

// DriftRules and Suspensions in force for a ref at now: project's first, then tenant-wide, each in name order.
func (s *Snapshot) DriftRules(r Ref, labels map[string]string, now time.Time) []*DriftRuleSpec {
	panic("not built")
}

// Suspended returns the suspension in force for a ref at now.
func (s *Snapshot) Suspended(r Ref, labels map[string]string, now time.Time) (*Entry, bool) {
	panic("not built")
}

// Stage is the stage of a project by the Tenant document, "" when undeclared.
func (s *Snapshot) Stage(project string) string { panic("not built") }

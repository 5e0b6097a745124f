// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"time"
)

// Hash is a SHA-1 object id.
type Hash [20]byte

// Zero is the id that stands for "no object".
var Zero Hash

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h stands for no object.
func (h Hash) IsZero() bool { return h == Zero }

// ParseHash reads 40 hex digits.
func ParseHash(s string) (Hash, error) { panic("not built") }

// Type is an object type.
type Type uint8

// Object types, numbered as in a pack.
const (
	CommitObject Type = 1
	TreeObject   Type = 2
	BlobObject   Type = 3
	TagObject    Type = 4
)

// Sentinels. Everything else that goes wrong with a repository is a *desired.Error or an I/O error.
var (
	ErrNotFound = errors.New("object not found")
	ErrNoRef    = errors.New("reference not found")
	ErrCorrupt  = errors.New("repository is corrupt")
	// ErrBroken: an fsync failed. The store accepts no further write until it is opened again.
	ErrBroken = errors.New("storage failed: no further write is accepted")
)

// TreeEntry is one entry of a tree. Mode is git's octal mode: 0o100644, 0o100755, 0o120000, 0o160000, 0o40000.
type TreeEntry struct {
	Name string
	Mode uint32
	Hash Hash
}

// Signature is an author or committer line.
type Signature struct {
	Name, Email string
	When        time.Time
}

// Commit is a commit object. Raw is the object's exact bytes when it was read.
type Commit struct {
	Hash      Hash
	Tree      Hash
	Parents   []Hash
	Author    Signature
	Committer Signature
	Message   string // with trailers
	Extra     []byte // further header lines (gpgsig, encoding), verbatim
	Raw       []byte
}

// Trailers parses the last paragraph of the message as git-interpret-trailers does.
func (c *Commit) Trailers() []Trailer { panic("not built") }

// Trailer is one "Key: value" line.
type Trailer struct{ Key, Value string }

// Ref is a reference with its value.
type Ref struct {
	Name string // full: refs/heads/main
	Hash Hash
}

// RefUpdate moves a reference. A zero Old demands that it does not exist; a zero New deletes it.
type RefUpdate struct {
	Name     string
	Old, New Hash
}

// Reader reads objects. Store and Push implement it. Results are shared: do not modify them.
type Reader interface {
	Object(Hash) (Type, []byte, error)
	Blob(Hash) ([]byte, error)
	Tree(Hash) ([]TreeEntry, error)
	Commit(Hash) (*Commit, error)
	Has(Hash) bool
}

// Options of Open.
type Options struct {
	Create        bool   // make the repository when the directory is not one
	DefaultBranch string // of a new repository; "main"
	PackLimit     int    // packs before a merge round is due; 0 = 50
}

// Store is one bare repository. Safe for concurrent use. One process owns its writes (the caller's business);
// other programs may read, push and gc by git's rules.
type Store struct{ dir string }

// Open opens or creates a repository: it removes what a crash left behind (our own temporary files and our own
// ref locks, never another program's) and verifies the refs.
func Open(dir string, o Options) (*Store, error) { panic("not built") }

// Close releases files. Writes in flight fail.
func (s *Store) Close() error { panic("not built") }

// Dir is the repository's directory.
func (s *Store) Dir() string { return s.dir }

// Object, Blob, Tree, Commit, Has implement Reader.
func (s *Store) Object(h Hash) (Type, []byte, error) { panic("not built") }
func (s *Store) Blob(h Hash) ([]byte, error)         { panic("not built") }
func (s *Store) Tree(h Hash) ([]TreeEntry, error)    { panic("not built") }
func (s *Store) Commit(h Hash) (*Commit, error)      { panic("not built") }
func (s *Store) Has(h Hash) bool                     { panic("not built") }

// Resolve reads a reference as git does (loose, then packed). An empty or torn loose ref is ErrCorrupt, never a
// fall back to packed-refs. ErrNoRef when absent.
func (s *Store) Resolve(name string) (Hash, error) { panic("not built") }

// Refs lists references with a prefix ("refs/heads/"), sorted by name.
func (s *Store) Refs(prefix string) ([]Ref, error) { panic("not built") }

// Head returns the branch that HEAD names, as a full ref name.
func (s *Store) Head() (string, error) { panic("not built") }

// SetHead points HEAD at a branch, durably.
func (s *Store) SetHead(ctx context.Context, ref string) error { panic("not built") }

// Batch collects objects and ref updates for one durable write. Not safe for concurrent use. It is a Reader of its
// own objects over the store's.
type Batch struct{ store *Store }

// NewBatch starts a batch.
func (s *Store) NewBatch() *Batch { panic("not built") }

// Blob adds a blob and returns its id.
func (b *Batch) AddBlob(data []byte) Hash { panic("not built") }

// AddTree adds a tree; entries are sorted by git's rule. base, when not zero, is a tree in this batch that the new
// one resembles: it is stored as a delta of it.
func (b *Batch) AddTree(entries []TreeEntry, base Hash) Hash { panic("not built") }

// AddCommit adds a commit; Hash and Raw of c are ignored. encode, when not nil, may rewrite the finished object
// bytes before they are hashed (the seal).
func (b *Batch) AddCommit(c *Commit, seal func(raw []byte) []byte) Hash { panic("not built") }

// AddObject adds an object of any type by its raw bytes.
func (b *Batch) AddObject(t Type, data []byte) Hash { panic("not built") }

func (b *Batch) Object(h Hash) (Type, []byte, error) { panic("not built") }
func (b *Batch) Blob(h Hash) ([]byte, error)         { panic("not built") }
func (b *Batch) Tree(h Hash) ([]TreeEntry, error)    { panic("not built") }
func (b *Batch) Commit(h Hash) (*Commit, error)      { panic("not built") }
func (b *Batch) Has(h Hash) bool                     { panic("not built") }

// Len is the number of new objects.
func (b *Batch) Len() int { panic("not built") }

// Set adds a ref update to the batch.
func (b *Batch) Set(u RefUpdate) { panic("not built") }

// RefError says that a reference was not what an update expected, or is locked by another program.
type RefError struct {
	Name     string
	Expected Hash
	Actual   Hash
	Locked   bool
}

func (e *RefError) Error() string { panic("not built") }

// Write makes a batch durable: ref locks, compare, pack and index synced (files and directory), refs written,
// synced, renamed, directories synced. On nil everything is durable; on *RefError nothing was changed. ctx is
// honoured until the first ref is renamed; a cancelled ctx means nothing was modified.
func (s *Store) Write(ctx context.Context, b *Batch) error { panic("not built") }

// FileChange is one difference between two trees.
type FileChange struct {
	Path     string
	Old, New TreeEntry // zero Mode = absent; Name is the last path element
}

// DiffTrees walks two trees (zero = empty) and reports each file that differs, in path order, skipping equal
// subtrees by id. fn stops the walk by returning an error.
func DiffTrees(r Reader, old, new Hash, fn func(FileChange) error) error { panic("not built") }

// WriteTree applies file writes to a tree inside a batch and returns the new root; an entry with zero Mode deletes
// the path. Empty directories vanish. Cost: the directories on the changed paths.
func (b *Batch) WriteTree(root Hash, changes map[string]TreeEntry) (Hash, error) { panic("not built") }

// Lookup finds the entry at a path in a tree; false when absent.
func Lookup(r Reader, root Hash, path string) (TreeEntry, bool, error) { panic("not built") }

// IsAncestor reports whether a is b or an ancestor of b.
func IsAncestor(ctx context.Context, r Reader, a, b Hash) (bool, error) { panic("not built") }

// FirstParents walks from h along first parents, newest first, until fn returns false.
func FirstParents(ctx context.Context, r Reader, h Hash, fn func(*Commit) (bool, error)) error {
	panic("not built")
}

// NewCommits walks every commit reachable from h and not from any of not, in topological order, parents first.
func NewCommits(ctx context.Context, r Reader, h Hash, not []Hash, fn func(*Commit) error) error {
	panic("not built")
}

// Merge is the result of a three-way merge.
type Merge struct {
	Tree      Hash     // zero when there are conflicts
	Conflicts []string // paths
	Base      Hash     // merge base, zero for unrelated histories
}

// Merge computes a real three-way merge of two commits with git merge-tree in a quarantine object directory. The
// new objects are added to b; the store itself is not changed.
func (s *Store) Merge(ctx context.Context, b *Batch, ours, theirs Hash) (Merge, error) {
	panic("not built")
}

// MaintenanceStats tells what a round did.
type MaintenanceStats struct{ Packs, Merged, Removed int }

// Maintain runs one round of background packing: small packs are merged tier by tier, loose objects of others are
// left to git gc. Durable in the order: new pack and index synced, renamed, directory synced, old packs removed.
func (s *Store) Maintain(ctx context.Context) (MaintenanceStats, error) { panic("not built") }

// Push is a push being judged: its commands and its objects, in quarantine. It is a Reader over store + quarantine.
type Push struct {
	Updates []RefUpdate
	Options []string  // push options
	Remote  io.Writer // lines for the pusher ("remote: …")
}

func (p *Push) Object(h Hash) (Type, []byte, error) { panic("not built") }
func (p *Push) Blob(h Hash) ([]byte, error)         { panic("not built") }
func (p *Push) Tree(h Hash) ([]TreeEntry, error)    { panic("not built") }
func (p *Push) Commit(h Hash) (*Commit, error)      { panic("not built") }
func (p *Push) Has(h Hash) bool                     { panic("not built") }

// Land moves the quarantined pack into the store and the refs to their new values, durably; *RefError when a ref
// moved meanwhile. It must be called at most once, inside Door.Accept.
func (p *Push) Land(ctx context.Context) error { panic("not built") }

// Door serves one repository over git smart HTTP: info/refs, git-upload-pack, git-receive-pack below its mount
// point (the caller strips the prefix). Authorization is the caller's business.
type Door struct {
	Store *Store
	// ReadOnly refuses pushes with this sentence when not empty.
	ReadOnly func() string
	// Hide leaves refs out of what clones and pushes see; pushes to them are refused.
	HiddenRefs []string
	// Accept judges a push and calls Land. The error text of a *desired.Error reaches the pusher on remote: lines,
	// field errors one a line; nil after Land reports ok. Nil Accept lands every push that passes the built-in
	// checks (ref names, complete objects, no non-fast-forward unless AllowForce).
	Accept func(ctx context.Context, p *Push) error
	// AllowForce permits non-fast-forward updates and deletions per ref name; nil = never.
	AllowForce func(ref string) bool
	MaxPack    int64         // bytes of one push; 0 = 512 MiB
	Timeout    time.Duration // of one upload-pack process; 0 = 1 h
}

func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) { panic("not built") }

// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// Options of Open.
type Options struct {
	Create        bool   // make the repository when the directory is not one
	DefaultBranch string // of a new repository; "main"
	PackLimit     int    // packs before a merge round is due; 0 = 50
}

// Sizes of what a store keeps in memory.
const (
	objectCache    = 32 << 20 // trees and commits
	deltaCache     = 8 << 20  // bases of delta chains
	openPacks      = 128      // pack and index files
	maxReceives    = 2        // packs from outside being checked at a time
	maxGitPrograms = 16       // upload-pack and merge-tree processes at a time
)

// Store is one bare repository. Safe for concurrent use. One process owns its writes (the caller's business);
// other programs may read, push and gc by git's rules.
type Store struct {
	dir       string
	packLimit int
	patience  time.Duration // for locks of other programs
	reads     *packReader
	objects   *lru[Hash, cachedObject]
	names     nameLocks     // refs that this process is writing
	deflates  sync.Pool     // *deflater
	receives  chan struct{} // slots for packs from outside being checked
	programs  chan struct{} // slots for git processes
	broken    atomic.Pointer[error]
	watcher   func(diskStep) error // nil outside tests
	closed    atomic.Bool
	packed    packedRefs

	merging sync.Mutex // held by a round of maintenance

	packMu   sync.Mutex // guards changes of the fields below; packs may be read without it
	packs    atomic.Pointer[[]*pack]
	landing  map[string]int // packs whose refs have not moved yet, by name
	damaged  error          // why a pack could not be used, nil when all could
	scanned  time.Time      // when objects/pack was read last
	modified time.Time      // its modification time then

	latest atomic.Pointer[pack] // where the last lookup succeeded
}

type cachedObject struct {
	typ  Type
	data []byte
}

// Open opens or creates a repository: it removes what a crash left behind (our own temporary files and our own
// ref locks, never another program's) and verifies the refs: each must be whole and its object must be there.
func Open(dir string, o Options) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		dir:       abs,
		packLimit: o.PackLimit,
		patience:  lockPatience,
		reads:     newPackReader(openPacks, deltaCache),
		objects:   newLRU[Hash, cachedObject](objectCache),
		receives:  make(chan struct{}, maxReceives),
		programs:  make(chan struct{}, maxGitPrograms),
		landing:   make(map[string]int),
	}
	if s.packLimit <= 0 {
		s.packLimit = 50
	}
	s.packs.Store(&[]*pack{})
	if err := s.prepare(o); err != nil {
		s.reads.files.close()
		return nil, err
	}
	return s, nil
}

func (s *Store) prepare(o Options) error {
	if _, err := os.Lstat(s.path("HEAD")); errors.Is(err, fs.ErrNotExist) {
		if !o.Create {
			return desired.Errorf("open repository", desired.Ref{}, desired.NotFound, "%s is not a git repository", s.dir)
		}
		if err := s.create(o.DefaultBranch); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := s.checkFormat(); err != nil {
		return err
	}
	for _, d := range []string{"plumbline/locks", "plumbline/incoming", "objects/pack"} {
		if err := os.MkdirAll(s.path(d), 0o777); err != nil {
			return err
		}
	}
	if err := s.cleanUp(); err != nil {
		return err
	}
	if err := s.createFile(keepFile, keepNote); err != nil {
		return err
	}
	if _, err := s.rescan(); err != nil {
		return err
	}
	return s.verifyRefs()
}

// path joins elements to the repository's directory.
func (s *Store) path(elem string) string { return filepath.Join(s.dir, filepath.FromSlash(elem)) }

func (s *Store) packDir() string { return s.path("objects/pack") }

// Close releases files. Writes in flight fail.
func (s *Store) Close() error {
	s.closed.Store(true)
	s.reads.files.close()
	return nil
}

// Dir is the repository's directory.
func (s *Store) Dir() string { return s.dir }

// writable says why the store accepts no write.
func (s *Store) writable() error {
	if s.closed.Load() {
		return fmt.Errorf("repository %s is closed: %w", filepath.Base(s.dir), fs.ErrClosed)
	}
	if p := s.broken.Load(); p != nil {
		return *p
	}
	return nil
}

// fail records that a sync failed: the kernel has forgotten which pages were not written, so nothing that this
// process believes about the disk holds any more. The first cause is kept.
func (s *Store) fail(cause error) error {
	err := fmt.Errorf("%w: %w", ErrBroken, cause)
	s.broken.CompareAndSwap(nil, &err)
	return *s.broken.Load()
}

// Blob returns the bytes of a blob.
func (s *Store) Blob(h Hash) ([]byte, error) { return readBlob(s, h) }

// Tree returns the entries of a tree in the order in which they are stored.
func (s *Store) Tree(h Hash) ([]TreeEntry, error) { return readTree(s, h) }

// Commit returns a commit.
func (s *Store) Commit(h Hash) (*Commit, error) { return readCommit(s, h) }

// Object returns the type and the bytes of an object. What it returns hashes to h; ErrNotFound when no file of the
// repository holds the object, ErrCorrupt when all that hold it are damaged.
func (s *Store) Object(h Hash) (Type, []byte, error) {
	if o, ok := s.objects.get(h); ok {
		return o.typ, o.data, nil
	}
	var bad error
	for range maxLooks {
		before := s.packs.Load()
		t, data, err := s.fromPacks(h)
		if err == nil {
			return t, data, nil
		}
		if !errors.Is(err, ErrNotFound) {
			bad = err
		}
		if t, data, err = s.fromLoose(h); err == nil {
			return t, data, nil
		}
		if !errors.Is(err, ErrNotFound) {
			bad = err
		}
		again, err := s.changed(before)
		if err != nil {
			return 0, nil, err
		}
		if !again {
			break
		}
	}
	if bad == nil {
		bad = s.damage() // the object may well be in the pack that cannot be read
	}
	if bad != nil {
		return 0, nil, fmt.Errorf("object %s: %w", h, bad)
	}
	return 0, nil, fmt.Errorf("%s: %w", h, ErrNotFound)
}

// maxLooks bounds how often an object is looked for again because the packs changed under us.
const maxLooks = 8

// changed reports whether there are other packs now than those in before.
func (s *Store) changed(before *[]*pack) (bool, error) {
	found, err := s.rescan()
	return found || s.packs.Load() != before, err
}

func (s *Store) damage() error {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	return s.damaged
}

// Has reports whether the repository holds an object. It does not read it.
func (s *Store) Has(h Hash) bool {
	if _, ok := s.objects.get(h); ok {
		return true
	}
	for range maxLooks {
		before := s.packs.Load()
		for _, p := range *before {
			if p.gone.Load() {
				continue
			}
			if i, err := p.find(h); err == nil && i >= 0 {
				return true
			}
		}
		if _, err := os.Lstat(s.loosePath(h)); err == nil {
			return true
		}
		if again, err := s.changed(before); err != nil || !again {
			return false
		}
	}
	return false
}

// fromPacks reads an object from any pack that has it whole.
func (s *Store) fromPacks(h Hash) (Type, []byte, error) {
	var bad error
	if p := s.latest.Load(); p != nil {
		if t, data, err := s.fromPack(p, h); err == nil {
			return t, data, nil
		}
	}
	for _, p := range *s.packs.Load() {
		t, data, err := s.fromPack(p, h)
		if err == nil {
			s.latest.Store(p)
			return t, data, nil
		}
		if !errors.Is(err, ErrNotFound) && !p.gone.Load() {
			bad = err
		}
	}
	if bad != nil {
		return 0, nil, bad
	}
	return 0, nil, ErrNotFound
}

func (s *Store) fromPack(p *pack, h Hash) (Type, []byte, error) {
	if p.gone.Load() {
		return 0, nil, ErrNotFound
	}
	i, err := p.find(h)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			p.gone.Store(true)
		}
		return 0, nil, err
	}
	if i < 0 {
		return 0, nil, ErrNotFound
	}
	off, err := p.offset(i)
	if err != nil {
		return 0, nil, err
	}
	t, data, err := s.reads.read(p, off)
	if err != nil {
		return 0, nil, err
	}
	return t, data, s.checked(h, t, data)
}

// checked compares an object with its id and keeps it for the next reader when it is likely to be read again.
func (s *Store) checked(h Hash, t Type, data []byte) error {
	if hashObject(t, data) != h {
		return fmt.Errorf("its bytes have another id: %w", ErrCorrupt)
	}
	if t != BlobObject {
		s.objects.add(h, cachedObject{t, data}, len(data))
	}
	return nil
}

func (s *Store) loosePath(h Hash) string {
	x := h.String()
	return filepath.Join(s.dir, "objects", x[:2], x[2:])
}

// fromLoose reads an object that another program stored in a file of its own.
func (s *Store) fromLoose(h Hash) (Type, []byte, error) {
	f, err := os.Open(s.loosePath(h))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, ErrNotFound
	}
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	t, data, err := readLoose(f)
	if err != nil {
		return 0, nil, err
	}
	return t, data, s.checked(h, t, data)
}

// readLoose decodes a loose object file.
func readLoose(f *os.File) (Type, []byte, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, nil, err
	}
	in := &inflater{}
	in.chunk.reset(f, 0, info.Size(), pieceSize)
	if err := in.start(); err != nil {
		return 0, nil, cutShort(err)
	}
	t, size, err := looseHeader(in)
	if err != nil {
		return 0, nil, err
	}
	data, err := in.body(size)
	if err != nil {
		return 0, nil, err
	}
	return t, data, nil
}

// looseHeader reads "type size\0" from a stream.
func looseHeader(in *inflater) (Type, int64, error) {
	var head []byte
	var one [1]byte
	for len(head) < 32 {
		if n, err := in.z.Read(one[:]); n == 0 {
			if err == nil {
				continue
			}
			return 0, 0, badStream(err)
		}
		if one[0] == 0 {
			break
		}
		head = append(head, one[0])
	}
	name, number, _ := bytes.Cut(head, []byte(" "))
	t, ok := parseType(string(name))
	var size int64
	if _, err := fmt.Sscanf(string(number), "%d", &size); err != nil || !ok || size < 0 || size > maxObject {
		return 0, 0, fmt.Errorf("loose object header is malformed: %w", ErrCorrupt)
	}
	return t, size, nil
}

// rescan reads objects/pack and takes over what other programs changed there. It reports whether the list of packs
// is another one than before.
func (s *Store) rescan() (bool, error) {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	info, err := os.Stat(s.packDir())
	if err != nil {
		return false, err
	}
	// A time stamp that is older than the last look by more than its grain proves that nothing changed since.
	const grain = 50 * time.Millisecond
	mod := info.ModTime()
	if mod.Equal(s.modified) && s.scanned.Sub(mod) > grain && !anyGone(*s.packs.Load()) {
		return false, nil
	}
	now := time.Now()
	entries, err := os.ReadDir(s.packDir())
	if err != nil {
		return false, err
	}
	changed, err := s.takeOver(entries)
	if err != nil {
		return changed, err
	}
	s.scanned, s.modified = now, mod
	return changed, nil
}

func anyGone(packs []*pack) bool {
	return slices.ContainsFunc(packs, func(p *pack) bool { return p.gone.Load() })
}

// takeOver makes the list of packs that of a directory listing. Packs that vanish while we look are left out.
func (s *Store) takeOver(entries []os.DirEntry) (bool, error) {
	there := make(map[string]os.DirEntry)
	for _, e := range entries {
		there[e.Name()] = e
	}
	var list, dropped []*pack
	for _, p := range *s.packs.Load() {
		if there[p.name+".pack"] == nil || there[p.name+".idx"] == nil || p.gone.Load() {
			dropped = append(dropped, p)
			continue
		}
		list = append(list, p)
		delete(there, p.name+".pack")
	}
	s.damaged = nil
	found := 0
	for file, e := range there {
		name, ok := strings.CutSuffix(file, ".pack")
		if !ok || there[name+".idx"] == nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // gone already
		}
		p, err := s.reads.openPack(s.packDir(), name, info.Size())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if errors.Is(err, ErrCorrupt) {
			s.damaged = err
			continue
		}
		if err != nil {
			return false, err
		}
		list = append(list, p)
		found++
	}
	for _, p := range dropped {
		s.dropPack(p)
	}
	if found+len(dropped) == 0 {
		return false, nil
	}
	s.setPacks(list)
	return true, nil
}

// dropPack forgets a pack that left the directory. Readers that hold it open finish undisturbed.
func (s *Store) dropPack(p *pack) {
	p.gone.Store(true)
	s.latest.CompareAndSwap(p, nil)
	s.reads.files.forget(p.path)
	s.reads.files.forget(p.idxPath())
}

// setPacks publishes a new list. The caller holds packMu.
func (s *Store) setPacks(list []*pack) { s.packs.Store(&list) }

// addPack publishes a pack that was just installed, first in the list because it is asked for most.
func (s *Store) addPack(p *pack) {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	list := make([]*pack, 0, len(*s.packs.Load())+1)
	list = append(list, p)
	for _, q := range *s.packs.Load() {
		if q.name != p.name {
			list = append(list, q)
		}
	}
	s.setPacks(list)
}

// PackCount is the number of packs, as far as this process has seen them.
func (s *Store) PackCount() int { return len(*s.packs.Load()) }

// readBlob, readTree and readCommit are the typed reads of every Reader.
func readBlob(r Reader, h Hash) ([]byte, error) {
	return readAs(r, h, BlobObject)
}

func readTree(r Reader, h Hash) ([]TreeEntry, error) {
	raw, err := readAs(r, h, TreeObject)
	if err != nil {
		return nil, err
	}
	entries, err := parseTree(raw)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", h, err)
	}
	return entries, nil
}

func readCommit(r Reader, h Hash) (*Commit, error) {
	raw, err := readAs(r, h, CommitObject)
	if err != nil {
		return nil, err
	}
	return parseCommit(h, raw)
}

// readAs reads an object that must be of one type.
func readAs(r Reader, h Hash, want Type) ([]byte, error) {
	t, data, err := r.Object(h)
	if err != nil {
		return nil, err
	}
	if t != want {
		return nil, desired.Errorf("read object", desired.Ref{}, desired.Invalid, "%s is a %s, not a %s", h, t, want)
	}
	return data, nil
}

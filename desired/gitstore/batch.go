// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"slices"
	"sync/atomic"

	"github.com/connectsoft/plumbline/desired"
)

// Batch collects objects and ref updates for one durable write. Not safe for concurrent use, but it may be read
// while it is being written. It is a Reader of its own objects over the store's.
type Batch struct {
	store   *Store
	before  atomic.Pointer[Batch] // not written yet when this batch was begun; nil once it is
	objects []newObject
	index   map[Hash]int
	updates []RefUpdate
	hasher  hasher
	written atomic.Bool
}

type newObject struct {
	hash  Hash
	typ   Type
	data  []byte
	base  Hash   // of delta
	delta []byte // how it is stored, nil = whole
	depth int    // of its delta chain
	stale bool   // another tree of the batch was made from it
}

// NewBatch starts a batch.
func (s *Store) NewBatch() *Batch {
	return &Batch{store: s, index: make(map[Hash]int)}
}

// Next starts a batch that reads over b before b is written, so that a writer can prepare one batch while the one
// before it is being synced. Writing it fails unless b was written. b must not be added to any more.
func (b *Batch) Next() *Batch {
	n := b.store.NewBatch()
	if !b.written.Load() {
		n.before.Store(b)
	}
	return n
}

// AddBlob adds a blob and returns its id. data must not be modified afterwards.
func (b *Batch) AddBlob(data []byte) Hash { return b.AddObject(BlobObject, data) }

// AddTree adds a tree; entries are sorted by git's rule. base, when not zero, is a tree in this batch that the new
// one resembles: it is stored as a delta of it.
func (b *Batch) AddTree(entries []TreeEntry, base Hash) Hash {
	sorted := slices.Clone(entries)
	sortEntries(sorted)
	return b.addTree(encodeTree(sorted), base)
}

// addTree adds an encoded tree, as a delta on base when that is in the batch.
func (b *Batch) addTree(raw []byte, base Hash) Hash {
	h := b.hasher.hash(TreeObject, raw)
	if i, ok := b.index[h]; ok {
		b.objects[i].stale = false // the content is back
		return h
	}
	o := newObject{hash: h, typ: TreeObject, data: raw}
	if i, ok := b.index[base]; ok && base != h {
		from := &b.objects[i]
		from.stale = true
		if from.typ == TreeObject && from.depth < maxDepth {
			if d := makeDelta(from.data, raw); d != nil {
				o.base, o.delta, o.depth = base, d, from.depth+1
			}
		}
	}
	b.add(o)
	return h
}

// AddCommit adds a commit; Hash and Raw of c are ignored. seal, when not nil, may rewrite the finished object
// bytes before they are hashed.
func (b *Batch) AddCommit(c *Commit, seal func(raw []byte) []byte) Hash {
	raw := encodeCommit(c)
	if seal != nil {
		raw = seal(raw)
	}
	return b.AddObject(CommitObject, raw)
}

// AddObject adds an object of any type by its raw bytes, which must not be modified afterwards.
func (b *Batch) AddObject(t Type, data []byte) Hash {
	h := b.hasher.hash(t, data)
	if _, ok := b.index[h]; !ok {
		b.add(newObject{hash: h, typ: t, data: data})
	}
	return h
}

func (b *Batch) add(o newObject) {
	b.index[o.hash] = len(b.objects)
	b.objects = append(b.objects, o)
}

// Truncate drops the objects that were added after Len was n: a member of a group commit that failed leaves
// nothing behind.
func (b *Batch) Truncate(n int) {
	for _, o := range b.objects[n:] {
		delete(b.index, o.hash)
	}
	clear(b.objects[n:])
	b.objects = b.objects[:n]
}

// Object returns an object of the batch, of the batch before it, or of the store.
func (b *Batch) Object(h Hash) (Type, []byte, error) {
	for at := b; at != nil; at = at.before.Load() {
		if i, ok := at.index[h]; ok {
			return at.objects[i].typ, at.objects[i].data, nil
		}
	}
	return b.store.Object(h)
}

// Blob returns the bytes of a blob.
func (b *Batch) Blob(h Hash) ([]byte, error) { return readBlob(b, h) }

// Tree returns the entries of a tree in the order in which they are stored.
func (b *Batch) Tree(h Hash) ([]TreeEntry, error) { return readTree(b, h) }

// Commit returns a commit.
func (b *Batch) Commit(h Hash) (*Commit, error) { return readCommit(b, h) }

// Has reports whether the batch or what it reads over holds an object.
func (b *Batch) Has(h Hash) bool {
	for at := b; at != nil; at = at.before.Load() {
		if _, ok := at.index[h]; ok {
			return true
		}
	}
	return b.store.Has(h)
}

// Len is the number of new objects.
func (b *Batch) Len() int { return len(b.objects) }

// Set adds a ref update to the batch. A later one for the same name replaces it.
func (b *Batch) Set(u RefUpdate) {
	i := slices.IndexFunc(b.updates, func(v RefUpdate) bool { return v.Name == u.Name })
	if i >= 0 {
		b.updates[i] = u
		return
	}
	b.updates = append(b.updates, u)
}

// stage encodes the batch as a pack and makes it durable under temporary names.
func (b *Batch) stage() (*staged, error) {
	w, err := b.store.newPackWriter(len(b.objects))
	if err != nil {
		return nil, err
	}
	for i := range b.objects {
		o := &b.objects[i]
		if o.delta != nil {
			err = w.delta(o.hash, o.base, o.delta)
		} else {
			err = w.object(o.hash, o.typ, o.data)
		}
		if err != nil {
			w.abandon()
			return nil, err
		}
	}
	st, err := w.finish()
	if err != nil {
		w.abandon()
		return nil, err
	}
	return st, nil
}

// keepWarm puts what the next batch is likely to build on where it is found at once.
func (b *Batch) keepWarm() {
	for i := range b.objects {
		if o := &b.objects[i]; o.typ != BlobObject && !o.stale {
			b.store.objects.add(o.hash, cachedObject{o.typ, o.data}, len(o.data))
		}
	}
}

// ready says whether the batch may be written.
func (b *Batch) ready(s *Store) error {
	refuse := func(why string) error {
		return desired.Errorf("write batch", desired.Ref{}, desired.Conflict, "%s", why)
	}
	if b.store != s {
		return refuse("the batch belongs to another repository")
	}
	if b.written.Load() {
		return refuse("the batch was written already")
	}
	if before := b.before.Load(); before != nil {
		if !before.written.Load() {
			return refuse("the batch that this one builds on was not written")
		}
		b.before.Store(nil)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"

	githash "github.com/go-git/go-git/v5/plumbing/hash"

	"github.com/connectsoft/plumbline/desired"
)

// Limits on what a pusher may send, beside the size of the pack.
const (
	maxPushedObject  = 100 << 20 // bytes of one object
	maxPushedMeta    = 32 << 20  // bytes of one commit, tree or tag
	maxPushedObjects = 2_000_000
	maxPushedChain   = 4095      // deltas on deltas: the most that git itself can write
	maxLiveBytes     = 512 << 20 // objects held at once while deltas are resolved
	inflateFactor    = 64        // a pack may inflate to so many times its size, and a GiB more
	inflateBase      = 1 << 30
)

// errPack is a fault in a pack that was sent to us. Its text may be shown to the sender.
func errPack(format string, args ...any) error {
	return desired.Errorf("receive pack", desired.Ref{}, desired.Invalid, format, args...)
}

// quarantine is a pack from outside: complete, indexed and checked object by object, but in no repository yet.
type quarantine struct {
	store   *Store
	dir     string
	file    *os.File
	size    int64
	sum     [20]byte
	entries []packEntry
	types   map[Hash]Type
	pack    *pack
}

// receive stores a pack in a directory of its own and checks it. Nothing in the repository changes. Any number of
// slow clients may send; few packs are checked at a time, for that takes memory.
func (s *Store) receive(ctx context.Context, r io.Reader, limit int64) (*quarantine, error) {
	q := &quarantine{store: s, dir: filepath.Join(s.path("plumbline/incoming"), uniqueName())}
	if err := s.mkdir(q.dir); err != nil {
		return nil, err
	}
	sound := false
	defer func() { // also after a panic
		if !sound {
			q.discard()
		}
	}()
	path := filepath.Join(q.dir, "incoming.pack")
	var err error
	if q.file, err = s.createNew(path, 0o444); err != nil {
		return nil, err
	}
	if err := q.spool(ctx, r, limit); err != nil {
		return nil, err
	}
	if err := q.index(ctx); err != nil {
		return nil, err
	}
	sound = true
	return q, nil
}

// index finds and checks the objects of the pack.
func (q *quarantine) index(ctx context.Context) error {
	select {
	case q.store.receives <- struct{}{}:
		defer func() { <-q.store.receives }()
	case <-ctx.Done():
		return ctx.Err()
	}
	x := indexer{q: q}
	if err := x.run(ctx); err != nil {
		return err
	}
	t, err := newTable(encodeIdx(slices.Clone(q.entries), q.sum))
	if err != nil {
		return err
	}
	q.pack = &pack{table: t, name: "incoming", path: q.file.Name(), size: q.size}
	return q.checkModules(x.modules)
}

// spool copies the pack into the quarantine and compares its checksum.
func (q *quarantine) spool(ctx context.Context, r io.Reader, limit int64) error {
	sum := &trailerHash{sum: sha1.New()}
	to := io.MultiWriter(fileWriter{q.store, q.file}, sum)
	n := int64(0)
	for err := error(nil); err == nil && n <= limit; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var m int64
		m, err = io.CopyN(to, r, 1<<20)
		if n += m; err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if n > limit {
		return errPack("the pack is larger than %d bytes; push in smaller steps", limit)
	}
	if n < 32 {
		return errPack("the pack ends early")
	}
	q.size = n
	sum.sum.Sum(q.sum[:0])
	if !bytes.Equal(q.sum[:], sum.tail) {
		return errPack("the checksum of the pack does not match: it was damaged on the way")
	}
	return nil
}

// discard removes the quarantine.
func (q *quarantine) discard() {
	if q.pack != nil {
		q.store.reads.files.forget(q.pack.path)
	}
	if q.file != nil {
		_ = q.file.Close()
	}
	_ = os.RemoveAll(q.dir) // the next Open removes what stays
}

func (q *quarantine) object(h Hash) (Type, []byte, error) {
	i, err := q.pack.find(h)
	if err != nil {
		return 0, nil, err
	}
	if i < 0 {
		return 0, nil, ErrNotFound
	}
	off, err := q.pack.offset(i)
	if err != nil {
		return 0, nil, err
	}
	return q.store.reads.read(q.pack, off)
}

// fileWriter writes to a file of a store.
type fileWriter struct {
	store *Store
	file  *os.File
}

func (w fileWriter) Write(p []byte) (int, error) { return w.store.write(w.file, p) }

// trailerHash hashes everything but the last 20 bytes, which it keeps.
type trailerHash struct {
	sum  hash.Hash
	tail []byte
}

func (t *trailerHash) Write(p []byte) (int, error) {
	t.tail = append(t.tail, p...)
	if n := len(t.tail) - 20; n > 0 {
		t.sum.Write(t.tail[:n])
		t.tail = append(t.tail[:0], t.tail[n:]...)
	}
	return len(p), nil
}

// indexer finds the objects of a pack from outside, computes their ids and checks their contents.
type indexer struct {
	q        *quarantine
	in       inflater // runs through the pack
	again    inflater // reads entries a second time
	objects  []inEntry
	inflated int64 // bytes so far
	live     int64 // bytes held while deltas are resolved
	sums     outsideHasher
	modules  []Hash // blobs named .gitmodules
	byOffset []inChild
	byRef    []inChild
}

// inEntry is one entry of the pack.
type inEntry struct {
	off   int64
	hash  Hash
	typ   Type // 0 while it is an unresolved delta
	delta bool
	crc   uint32
}

// inChild is a delta, sorted under its base.
type inChild struct {
	off   int64 // of the base, for ofsDelta
	ref   Hash  // of the base, for refDelta
	entry int32
}

func (x *indexer) run(ctx context.Context) error {
	if err := x.scan(ctx); err != nil {
		return err
	}
	if err := x.resolve(ctx); err != nil {
		return err
	}
	return x.finish()
}

// scan reads the pack from start to end: plain objects get their ids, deltas are noted under their bases.
func (x *indexer) scan(ctx context.Context) error {
	var head [12]byte
	if err := readFull(x.q.file, head[:], 0); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[8:])
	if string(head[:4]) != "PACK" || binary.BigEndian.Uint32(head[4:]) != packVersion {
		return errPack("this is no pack of version 2")
	}
	if n > maxPushedObjects {
		return errPack("the pack holds %d objects, more than %d; push in smaller steps", n, maxPushedObjects)
	}
	x.in.chunk.reset(x.q.file, 12, x.q.size-20, 64<<10)
	for range n {
		if len(x.objects)%256 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if err := x.scanEntry(); err != nil {
			return packFault(err, x.in.chunk.offset())
		}
	}
	if x.in.chunk.offset() != x.q.size-20 {
		return errPack("the pack holds more than its %d objects", n)
	}
	return nil
}

// packFault words an error for the sender; our own I/O errors pass as they are.
func packFault(err error, off int64) error {
	var known *desired.Error
	if errors.As(err, &known) || !errors.Is(err, ErrCorrupt) {
		return err
	}
	return errPack("the pack is damaged before byte %d: %v", off, err)
}

func (x *indexer) scanEntry() error {
	c := &x.in.chunk
	c.beginEntry()
	e := inEntry{off: c.offset()}
	h, err := readEntryHeader(c, e.off)
	if err != nil {
		return err
	}
	if err := x.admit(h.kind, h.size); err != nil {
		return err
	}
	i := int32(len(x.objects))
	e.delta = h.kind == ofsDelta || h.kind == refDelta
	switch {
	case h.kind == ofsDelta:
		x.byOffset = append(x.byOffset, inChild{off: h.base, entry: i})
		err = x.in.skip(h.size)
	case h.kind == refDelta:
		x.byRef = append(x.byRef, inChild{ref: h.ref, entry: i})
		err = x.in.skip(h.size)
	default:
		e.typ = Type(h.kind)
		e.hash, err = x.plain(e.typ, h.size)
	}
	if err != nil {
		return err
	}
	e.crc = c.endEntry()
	x.objects = append(x.objects, e)
	return nil
}

// admit applies the limits on sizes, before anything is inflated.
func (x *indexer) admit(kind byte, size int64) error {
	limit := int64(maxPushedObject)
	if t := Type(kind); t == CommitObject || t == TreeObject || t == TagObject {
		limit = maxPushedMeta
	}
	if size > limit {
		return errPack("the pack holds an object of %d bytes, more than %d", size, limit)
	}
	if x.inflated += size; x.inflated > inflateBase+inflateFactor*x.q.size {
		return errPack("the pack inflates to far more than its size; push in smaller steps")
	}
	return nil
}

// plain reads an object that is no delta. Blobs are not held in memory.
func (x *indexer) plain(t Type, size int64) (Hash, error) {
	if t != BlobObject {
		data, err := x.in.inflate(size)
		if err != nil {
			return Zero, err
		}
		return x.judge(t, data)
	}
	if err := x.in.start(); err != nil {
		return Zero, err
	}
	x.sums.begin(t, size)
	if _, err := io.CopyN(x.sums.digest, x.in.z, size); err != nil {
		return Zero, cutShort(badStream(err))
	}
	if err := x.in.finish(); err != nil {
		return Zero, err
	}
	return x.sums.end()
}

// judge computes the id of an object and checks its content.
func (x *indexer) judge(t Type, data []byte) (Hash, error) {
	x.sums.begin(t, int64(len(data)))
	x.sums.digest.Write(data)
	h, err := x.sums.end()
	if err != nil {
		return Zero, err
	}
	modules, err := checkObject(t, data)
	if err != nil {
		return Zero, errPack("%s %s: %v", t, h, err)
	}
	x.modules = append(x.modules, modules...)
	return h, nil
}

// skip reads a stream of size bytes and forgets it.
func (in *inflater) skip(size int64) error {
	if err := in.start(); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, in.z, size); err != nil {
		return cutShort(badStream(err))
	}
	return in.finish()
}

// outsideHasher computes ids of objects that others made, and detects attempts at SHA-1 collisions.
type outsideHasher struct {
	digest hash.Hash
	head   [32]byte
}

func (o *outsideHasher) begin(t Type, size int64) {
	if o.digest == nil {
		o.digest = githash.New(crypto.SHA1)
	}
	o.digest.Reset()
	o.digest.Write(objectHeader(o.head[:0], t, int(size)))
}

func (o *outsideHasher) end() (Hash, error) {
	var h Hash
	detector, ok := o.digest.(interface {
		CollisionResistantSum([]byte) ([]byte, bool)
	})
	if !ok {
		o.digest.Sum(h[:0])
		return h, nil
	}
	if _, attack := detector.CollisionResistantSum(h[:0]); attack {
		return h, errPack("an object is part of a SHA-1 collision attack")
	}
	return h, nil
}

// resolve builds every delta on its base, depth first, so that only one path of objects is in memory.
func (x *indexer) resolve(ctx context.Context) error {
	slices.SortFunc(x.byOffset, func(a, b inChild) int { return cmp.Compare(a.off, b.off) })
	slices.SortFunc(x.byRef, func(a, b inChild) int { return bytes.Compare(a.ref[:], b.ref[:]) })
	for i := range x.objects {
		if x.objects[i].delta {
			continue // reached from its base
		}
		kids := x.children(&x.objects[i])
		if len(kids) == 0 {
			continue
		}
		if err := x.family(ctx, i, kids); err != nil {
			return packFault(err, x.objects[i].off)
		}
	}
	return nil
}

// children returns the deltas whose base is e, and takes them off the lists.
func (x *indexer) children(e *inEntry) []int32 {
	var out []int32
	i, _ := slices.BinarySearchFunc(x.byOffset, e.off, func(c inChild, off int64) int { return cmp.Compare(c.off, off) })
	for ; i < len(x.byOffset) && x.byOffset[i].off == e.off; i++ {
		out = append(out, x.byOffset[i].entry)
	}
	j, _ := slices.BinarySearchFunc(x.byRef, e.hash, func(c inChild, h Hash) int { return bytes.Compare(c.ref[:], h[:]) })
	for ; j < len(x.byRef) && x.byRef[j].ref == e.hash; j++ {
		// The same object twice in a pack would resolve its deltas twice; finish refuses such a pack.
		if x.objects[x.byRef[j].entry].typ == 0 {
			out = append(out, x.byRef[j].entry)
		}
	}
	return out
}

// inFrame is an object on the path from a plain object to the delta at hand.
type inFrame struct {
	data []byte
	kids []int32
}

// family resolves all deltas that build on a plain object.
func (x *indexer) family(ctx context.Context, root int, kids []int32) error {
	typ := x.objects[root].typ
	data, err := x.inflateAt(root)
	if err != nil {
		return err
	}
	path := []inFrame{{data, kids}}
	x.live = int64(len(data))
	for len(path) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		top := &path[len(path)-1]
		if len(top.kids) == 0 {
			x.live -= int64(len(top.data))
			path = path[:len(path)-1]
			continue
		}
		kid := int(top.kids[0])
		top.kids = top.kids[1:]
		data, err := x.grow(kid, typ, top.data)
		if err != nil {
			return err
		}
		if len(top.kids) == 0 { // not needed any more: a long chain holds two objects, not all
			x.live -= int64(len(top.data))
			top.data = nil
		}
		if kids := x.children(&x.objects[kid]); len(kids) > 0 {
			path = append(path, inFrame{data, kids})
			x.live += int64(len(data))
		}
		if len(path) > maxPushedChain {
			return errPack("the pack holds a chain of more than %d deltas", maxPushedChain)
		}
		if x.live > maxLiveBytes {
			return errPack("the deltas of the pack need too much memory; push it with --no-thin after git repack -adf")
		}
	}
	return nil
}

// grow builds one delta on its base and judges the result.
func (x *indexer) grow(i int, typ Type, base []byte) ([]byte, error) {
	e := &x.objects[i]
	if e.typ != 0 {
		return nil, errPack("two entries of the pack claim one delta")
	}
	delta, err := x.inflateAt(i)
	if err != nil {
		return nil, err
	}
	_, rest, _ := deltaSize(delta)
	size, _, ok := deltaSize(rest)
	if !ok {
		return nil, fmt.Errorf("delta is malformed: %w", ErrCorrupt)
	}
	if err := x.admit(byte(typ), size); err != nil {
		return nil, err
	}
	data, err := applyDelta(base, delta)
	if err != nil {
		return nil, err
	}
	if e.hash, err = x.judge(typ, data); err != nil {
		return nil, err
	}
	e.typ = typ
	return data, nil
}

// inflateAt reads the bytes of an entry that scan has seen to be sound.
func (x *indexer) inflateAt(i int) ([]byte, error) {
	e := &x.objects[i]
	x.again.chunk.reset(x.q.file, e.off, x.q.size-20, pieceSize)
	h, err := readEntryHeader(&x.again.chunk, e.off)
	if err != nil {
		return nil, err
	}
	return x.again.inflate(h.size)
}

// finish collects the index and refuses packs that are not complete in themselves.
func (x *indexer) finish() error {
	q := x.q
	q.entries = make([]packEntry, 0, len(x.objects))
	q.types = make(map[Hash]Type, len(x.objects))
	for _, e := range x.objects {
		if e.typ == 0 {
			return errPack("a delta in the pack has no base in the pack; push with --no-thin")
		}
		if _, twice := q.types[e.hash]; twice {
			return errPack("the pack holds object %s twice", e.hash)
		}
		q.types[e.hash] = e.typ
		q.entries = append(q.entries, packEntry{hash: e.hash, offset: uint64(e.off), crc: e.crc})
	}
	return nil
}

// checkModules looks into the .gitmodules files that the pack brings.
func (q *quarantine) checkModules(blobs []Hash) error {
	seen := make(map[Hash]bool)
	for _, h := range blobs {
		if seen[h] || q.types[h] == 0 {
			continue // checked already, or an old file
		}
		seen[h] = true
		_, data, err := q.object(h)
		if err != nil {
			return err
		}
		if why := badModules(data); why != "" {
			return errPack("blob %s (.gitmodules): %s", h, why)
		}
	}
	return nil
}

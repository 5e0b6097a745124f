// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"compress/zlib"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Limits on what is read from a repository: other programs write into it, so nothing there is trusted.
const (
	maxObject = 512 << 20 // bytes of one object in memory
	maxChain  = 10_000    // deltas on deltas
	maxDeltas = 256 << 20 // bytes of the deltas of one chain
	pieceSize = 4096      // read at a time
)

// The entry types of a pack that are no object types.
const (
	ofsDelta = 6
	refDelta = 7
)

// pack is one pack file with its index.
type pack struct {
	*table
	name string // "pack-<hex>"
	path string // with ".pack"
	size int64
	gone atomic.Bool // removed from the directory by somebody
	sick atomic.Bool // damaged: not merged with others any more
}

func (p *pack) idxPath() string { return p.path[:len(p.path)-len(".pack")] + ".idx" }

// packReader reads entries of packs. Safe for concurrent use.
type packReader struct {
	files    *files
	bases    *lru[baseKey, baseObject]
	inflates sync.Pool // *inflater
}

type baseKey struct {
	pack *pack
	off  int64
}

type baseObject struct {
	typ  Type
	data []byte
}

func newPackReader(openFiles, baseBytes int) *packReader {
	return &packReader{files: newFiles(openFiles), bases: newLRU[baseKey, baseObject](baseBytes)}
}

// openPack loads the index of a pack in dir.
func (r *packReader) openPack(dir, name string, size int64) (*pack, error) {
	p := &pack{name: name, path: filepath.Join(dir, name+".pack"), size: size}
	f, err := r.files.get(p.idxPath())
	if err != nil {
		return nil, err
	}
	defer r.files.put(f)
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p.table, err = openTable(info.Size(), func(b []byte, off int64) error {
		return r.readAt(p.idxPath(), b, off)
	})
	if err != nil {
		return nil, fmt.Errorf("pack index %s: %w", name, err)
	}
	if p.data != nil {
		r.files.forget(p.idxPath())
	}
	return p, nil
}

// readAt fills b from a file or fails.
func (r *packReader) readAt(path string, b []byte, off int64) error {
	f, err := r.files.get(path)
	if err != nil {
		return err
	}
	defer r.files.put(f)
	return readFull(f, b, off)
}

func readFull(f io.ReaderAt, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("file ends early: %w", ErrCorrupt)
	}
	return err
}

// entryHeader is the start of a pack entry.
type entryHeader struct {
	kind byte // an object type, ofsDelta or refDelta
	size int64
	base int64 // ofsDelta: offset of the base in the pack
	ref  Hash  // refDelta: id of the base
	body int64 // offset of the compressed bytes
}

// read returns the object whose entry starts at off.
func (r *packReader) read(p *pack, off int64) (Type, []byte, error) {
	f, err := r.files.get(p.path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			p.gone.Store(true)
		}
		return 0, nil, err
	}
	defer r.files.put(f)
	type link struct {
		off   int64
		delta []byte
	}
	var chain []link
	var base baseObject
	for pending := 0; ; {
		if b, ok := r.bases.get(baseKey{p, off}); ok {
			base = b
			break
		}
		h, data, err := r.inflate(f, p, off)
		if err != nil {
			return 0, nil, fmt.Errorf("pack %s at %d: %w", p.name, off, err)
		}
		if h.kind < ofsDelta {
			base = baseObject{Type(h.kind), data}
			if len(chain) > 0 {
				r.bases.add(baseKey{p, off}, base, len(data))
			}
			break
		}
		chain = append(chain, link{off, data})
		if pending += len(data); len(chain) > maxChain || pending > maxDeltas {
			return 0, nil, fmt.Errorf("pack %s at %d: delta chain is too long: %w", p.name, off, ErrCorrupt)
		}
		if off, err = r.baseOffset(p, h); err != nil {
			return 0, nil, err
		}
	}
	for i := len(chain) - 1; i >= 0; i-- {
		data, err := applyDelta(base.data, chain[i].delta)
		if err != nil {
			return 0, nil, fmt.Errorf("pack %s at %d: %w", p.name, chain[i].off, err)
		}
		base.data = data
		if i > 0 {
			r.bases.add(baseKey{p, chain[i].off}, base, len(data))
		}
	}
	return base.typ, base.data, nil
}

// baseOffset finds the base of a delta, which must be in the same pack.
func (r *packReader) baseOffset(p *pack, h entryHeader) (int64, error) {
	if h.kind == ofsDelta {
		return h.base, nil
	}
	i, err := p.find(h.ref)
	if err != nil {
		return 0, err
	}
	if i < 0 {
		return 0, fmt.Errorf("pack %s: delta base %s is not in the pack: %w", p.name, h.ref, ErrCorrupt)
	}
	return p.offset(i)
}

// inflate reads the entry at off: its header and its bytes, which are a delta for the delta kinds.
func (r *packReader) inflate(f io.ReaderAt, p *pack, off int64) (entryHeader, []byte, error) {
	in, _ := r.inflates.Get().(*inflater)
	if in == nil {
		in = &inflater{}
	}
	defer r.inflates.Put(in)
	if off < 12 || off >= p.size-20 {
		return entryHeader{}, nil, fmt.Errorf("entry lies outside the pack: %w", ErrCorrupt)
	}
	in.chunk.reset(f, off, p.size-20, pieceSize)
	h, err := readEntryHeader(&in.chunk, off)
	if err != nil {
		return h, nil, err
	}
	h.body = in.chunk.offset()
	if h.size > maxObject {
		return h, nil, fmt.Errorf("object of %d bytes is larger than the limit of %d: %w", h.size, maxObject, ErrCorrupt)
	}
	data, err := in.inflate(h.size)
	return h, data, err
}

// readEntryHeader reads type, size and base of the entry that starts at off.
func readEntryHeader(r io.ByteReader, off int64) (entryHeader, error) {
	var h entryHeader
	c, err := r.ReadByte()
	if err != nil {
		return h, cutShort(err)
	}
	h.kind = c >> 4 & 7
	h.size = int64(c & 15)
	for shift := 4; c&0x80 != 0; shift += 7 {
		if c, err = r.ReadByte(); err != nil {
			return h, cutShort(err)
		}
		if shift > 50 {
			return h, fmt.Errorf("entry size is out of range: %w", ErrCorrupt)
		}
		h.size |= int64(c&0x7f) << shift
	}
	switch h.kind {
	case byte(CommitObject), byte(TreeObject), byte(BlobObject), byte(TagObject):
		return h, nil
	case ofsDelta:
		rel, err := readOffset(r)
		if err != nil {
			return h, err
		}
		h.base = off - rel
		if rel <= 0 || h.base < 12 {
			return h, fmt.Errorf("delta base lies outside the pack: %w", ErrCorrupt)
		}
		return h, nil
	case refDelta:
		for i := range h.ref {
			if h.ref[i], err = r.ReadByte(); err != nil {
				return h, cutShort(err)
			}
		}
		return h, nil
	}
	return h, fmt.Errorf("unknown entry type %d: %w", h.kind, ErrCorrupt)
}

// readOffset reads the distance to the base of an ofsDelta.
func readOffset(r io.ByteReader) (int64, error) {
	c, err := r.ReadByte()
	if err != nil {
		return 0, cutShort(err)
	}
	v := int64(c & 0x7f)
	for n := 0; c&0x80 != 0; n++ {
		if c, err = r.ReadByte(); err != nil {
			return 0, cutShort(err)
		}
		if n > 7 {
			return 0, fmt.Errorf("delta distance is out of range: %w", ErrCorrupt)
		}
		v = (v+1)<<7 | int64(c&0x7f)
	}
	return v, nil
}

// cutShort turns the end of a file in the wrong place into ErrCorrupt.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("data ends early: %w", ErrCorrupt)
	}
	return err
}

// inflater decompresses one entry after another with the same buffers.
type inflater struct {
	chunk chunkReader
	z     io.ReadCloser
}

// start begins a new zlib stream at the chunk reader's place.
func (in *inflater) start() error {
	if in.z == nil {
		z, err := zlib.NewReader(&in.chunk)
		if err != nil {
			return badStream(err)
		}
		in.z = z
		return nil
	}
	return badStream(in.z.(zlib.Resetter).Reset(&in.chunk, nil))
}

// inflate reads a stream that must hold exactly size bytes.
func (in *inflater) inflate(size int64) ([]byte, error) {
	if err := in.start(); err != nil {
		return nil, err
	}
	return in.body(size)
}

// body reads the rest of a stream, which must hold exactly size bytes.
func (in *inflater) body(size int64) ([]byte, error) {
	// A header may promise much and hold little: memory grows with what really comes.
	const step = 1 << 20
	data := make([]byte, min(size, step))
	for n := 0; ; {
		m, err := io.ReadFull(in.z, data[n:])
		if err != nil {
			return nil, badStream(err)
		}
		if n += m; int64(n) == size {
			break
		}
		grown := make([]byte, min(size, 2*int64(n)))
		copy(grown, data)
		data = grown
	}
	return data, in.finish()
}

// finish demands the end of the stream, where its checksum is compared.
func (in *inflater) finish() error {
	var one [1]byte
	n, err := io.ReadFull(in.z, one[:])
	if n != 0 {
		return fmt.Errorf("entry is longer than its header says: %w", ErrCorrupt)
	}
	if !errors.Is(err, io.EOF) {
		return badStream(err)
	}
	return nil
}

// badStream marks errors of the decompressor as corruption and passes I/O errors on.
func badStream(err error) error {
	if err == nil || errors.Is(err, ErrCorrupt) {
		return err
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) || errors.Is(err, fs.ErrClosed) {
		return err
	}
	return fmt.Errorf("compressed data: %w: %w", ErrCorrupt, err)
}

// chunkReader reads a range of a file in pieces. As an io.ByteReader it never takes more than it was asked for,
// so its offset is exact.
type chunkReader struct {
	src  io.ReaderAt
	next int64  // file offset after buf
	end  int64  // of the range
	size int    // of a piece
	mem  []byte // the piece at hand
	buf  []byte // its unread part
	mark int    // bytes of mem that are in crc already
	crc  uint32 // of what was taken since beginEntry
}

// reset starts at off. size is that of the pieces.
func (c *chunkReader) reset(src io.ReaderAt, off, end int64, size int) {
	if cap(c.mem) < size {
		c.mem = make([]byte, 0, size)
	}
	c.mem = c.mem[:0] // nothing was read yet
	c.src, c.next, c.end, c.size = src, off, end, size
	c.buf, c.mark, c.crc = nil, 0, 0
}

func (c *chunkReader) offset() int64 { return c.next - int64(len(c.buf)) }

func (c *chunkReader) fill() error {
	if c.next >= c.end {
		return io.EOF
	}
	c.sumUp()
	n := int(min(int64(c.size), c.end-c.next))
	c.mem = c.mem[:n]
	if err := readFull(c.src, c.mem, c.next); err != nil {
		return err
	}
	c.buf, c.mark = c.mem, 0
	c.next += int64(n)
	return nil
}

// sumUp brings crc up to date with what was taken.
func (c *chunkReader) sumUp() {
	if at := len(c.mem) - len(c.buf); at > c.mark {
		c.crc = crc32.Update(c.crc, crc32.IEEETable, c.mem[c.mark:at])
		c.mark = at
	}
}

// beginEntry starts a new checksum, endEntry returns it.
func (c *chunkReader) beginEntry() {
	c.sumUp()
	c.crc = 0
}

func (c *chunkReader) endEntry() uint32 {
	c.sumUp()
	return c.crc
}

func (c *chunkReader) ReadByte() (byte, error) {
	if len(c.buf) == 0 {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	b := c.buf[0]
	c.buf = c.buf[1:]
	return b, nil
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if len(c.buf) == 0 {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf)
	c.buf = c.buf[n:]
	return n, nil
}

// applyDelta builds an object from its base and a delta.
func applyDelta(base, delta []byte) ([]byte, error) {
	from, delta, ok := deltaSize(delta)
	if !ok || from != int64(len(base)) {
		return nil, fmt.Errorf("delta does not fit its base: %w", ErrCorrupt)
	}
	to, delta, ok := deltaSize(delta)
	if !ok || to > maxObject {
		return nil, fmt.Errorf("delta makes an object larger than the limit of %d: %w", maxObject, ErrCorrupt)
	}
	out := make([]byte, 0, min(to, int64(len(base)+len(delta)+1<<20)))
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		var piece []byte
		switch {
		case op&0x80 != 0:
			piece, delta, ok = deltaCopy(base, op, delta)
		case op != 0 && int(op) <= len(delta):
			piece, delta = delta[:op], delta[op:]
		default:
			ok = false
		}
		if !ok || int64(len(out)+len(piece)) > to {
			return nil, fmt.Errorf("delta is malformed: %w", ErrCorrupt)
		}
		out = append(out, piece...)
	}
	if int64(len(out)) != to {
		return nil, fmt.Errorf("delta is malformed: %w", ErrCorrupt)
	}
	return out, nil
}

// deltaSize reads one of the two sizes at the start of a delta.
func deltaSize(b []byte) (int64, []byte, bool) {
	var v int64
	for i := 0; i < len(b) && i < 8; i++ {
		v |= int64(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			return v, b[i+1:], true
		}
	}
	return 0, nil, false
}

// deltaCopy reads a copy instruction and returns the piece of the base that it names.
func deltaCopy(base []byte, op byte, b []byte) (piece, rest []byte, ok bool) {
	var off, size uint64
	for i := range 7 {
		if op&(1<<i) == 0 {
			continue
		}
		if len(b) == 0 {
			return nil, nil, false
		}
		if i < 4 {
			off |= uint64(b[0]) << (8 * i)
		} else {
			size |= uint64(b[0]) << (8 * (i - 4))
		}
		b = b[1:]
	}
	if size == 0 {
		size = 0x10000
	}
	if off+size > uint64(len(base)) {
		return nil, nil, false
	}
	return base[off : off+size], b, true
}

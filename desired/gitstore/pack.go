// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"hash"
	"hash/adler32"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/connectsoft/plumbline/internal/fp"
)

const (
	packVersion = 2
	flushAt     = 1 << 20 // bytes buffered before they are written
	storedBelow = 2048    // payloads up to this size are stored: compressing them costs more than writing them
	maxDepth    = 50      // deltas on deltas that we write; git's own default
)

// deflater compresses payloads with one zlib writer, which costs more to make than to use.
type deflater struct {
	buf bytes.Buffer
	z   *zlib.Writer
}

// append appends the zlib stream of data to dst.
func (d *deflater) append(dst, data []byte) []byte {
	if len(data) <= storedBelow {
		return appendStored(dst, data)
	}
	d.buf.Reset()
	if d.z == nil {
		d.z, _ = zlib.NewWriterLevel(&d.buf, zlib.BestSpeed) // the level is valid
	} else {
		d.z.Reset(&d.buf)
	}
	_, _ = d.z.Write(data) // a bytes.Buffer takes everything
	_ = d.z.Close()
	return append(dst, d.buf.Bytes()...)
}

// appendStored writes a zlib stream of one uncompressed block. data must be shorter than 64 KiB.
func appendStored(dst, data []byte) []byte {
	n := uint16(len(data))
	dst = append(dst, 0x78, 0x01, 0x01, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
	dst = append(dst, data...)
	return binary.BigEndian.AppendUint32(dst, adler32.Checksum(data))
}

// appendEntryHeader writes the type and the inflated size of an entry.
func appendEntryHeader(dst []byte, kind byte, size int) []byte {
	c := kind<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		dst = append(dst, c|0x80)
		c = byte(size & 0x7f)
	}
	return append(dst, c)
}

// packWriter writes a pack file under a temporary name and collects its index.
type packWriter struct {
	store    *Store
	f        *os.File
	buf      []byte
	sum      hash.Hash
	off      uint64 // of the next entry
	entries  []packEntry
	deflate  *deflater
	unsynced int // bytes written since the last sync; see spread
	spread   bool
}

// newPackWriter starts a pack of n objects.
func (s *Store) newPackWriter(n int) (*packWriter, error) {
	fp.Hit("pack.write")
	f, err := s.createNew(s.tempName("pack"), 0o444)
	if err != nil {
		return nil, err
	}
	d, _ := s.deflates.Get().(*deflater)
	if d == nil {
		d = &deflater{}
	}
	w := &packWriter{store: s, f: f, sum: sha1.New(), off: 12, entries: make([]packEntry, 0, n), deflate: d}
	w.buf = append(w.buf, "PACK"...)
	w.buf = binary.BigEndian.AppendUint32(w.buf, packVersion)
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(n))
	return w, nil
}

func (s *Store) tempName(what string) string {
	return filepath.Join(s.packDir(), tempPrefix+uniqueName()+"-"+what+tempSuffix)
}

// object adds a whole object.
func (w *packWriter) object(h Hash, t Type, data []byte) error {
	from := len(w.buf)
	w.buf = appendEntryHeader(w.buf, byte(t), len(data))
	w.buf = w.deflate.append(w.buf, data)
	return w.added(h, from)
}

// delta adds an object as a delta on another one of the same pack.
func (w *packWriter) delta(h, base Hash, delta []byte) error {
	from := len(w.buf)
	w.buf = appendEntryHeader(w.buf, refDelta, len(delta))
	w.buf = append(w.buf, base[:]...)
	w.buf = w.deflate.append(w.buf, delta)
	return w.added(h, from)
}

// added records the entry that starts at from in the buffer.
func (w *packWriter) added(h Hash, from int) error {
	entry := w.buf[from:]
	w.entries = append(w.entries, packEntry{hash: h, offset: w.off, crc: crc32.ChecksumIEEE(entry)})
	w.off += uint64(len(entry))
	if len(w.buf) < flushAt {
		return nil
	}
	return w.flush()
}

func (w *packWriter) flush() error {
	w.sum.Write(w.buf)
	n, err := w.store.write(w.f, w.buf)
	if err != nil {
		return err
	}
	w.buf = w.buf[:0]
	// One sync of a large file would hold up the small syncs of writers: sync as we go.
	if w.unsynced += n; w.spread && w.unsynced >= 8<<20 {
		w.unsynced = 0
		return w.store.syncFile(w.f)
	}
	return nil
}

// abandon removes the file. It may be called after finish.
func (w *packWriter) abandon() {
	_ = w.f.Close()
	_ = w.store.remove(w.f.Name()) // the next Open removes what stays
}

// finish writes the trailer and makes pack and index durable under their temporary names.
func (w *packWriter) finish() (*staged, error) {
	defer w.store.deflates.Put(w.deflate)
	if err := w.flush(); err != nil {
		return nil, err
	}
	var sum [20]byte
	w.sum.Sum(sum[:0])
	if _, err := w.store.write(w.f, sum[:]); err != nil {
		return nil, err
	}
	return w.store.stage(w.f, int64(w.off)+20, w.entries, sum)
}

// staged is a pack that is durable under temporary names.
type staged struct {
	name     string // that it will have: "pack-<hex>"
	packFile string
	idxFile  string
	size     int64
	table    *table
}

// stage writes the index of a pack, and makes both durable under temporary names. It closes f.
func (s *Store) stage(f *os.File, size int64, entries []packEntry, sum [20]byte) (*staged, error) {
	idx := encodeIdx(entries, sum)
	st := &staged{name: "pack-" + Hash(sum).String(), packFile: f.Name(), idxFile: s.tempName("idx"), size: size}
	var err error
	if st.table, err = newTable(idx); err != nil {
		_ = f.Close()
		return nil, err
	}
	var g errgroup.Group
	g.Go(func() error {
		fp.Hit("pack.fsync")
		err := s.syncFile(f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return err
	})
	g.Go(func() error { return s.writeIdx(st.idxFile, idx) })
	if err := g.Wait(); err != nil {
		s.abandon(st)
		return nil, err
	}
	return st, nil
}

func (s *Store) writeIdx(path string, idx []byte) error {
	f, err := s.createNew(path, 0o444)
	if err != nil {
		return err
	}
	_, err = s.write(f, idx)
	if err == nil {
		fp.Hit("idx.fsync")
		err = s.syncFile(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// abandon removes both files of a staged pack.
func (s *Store) abandon(st *staged) {
	_ = s.remove(st.packFile) // the next Open removes what stays
	_ = s.remove(st.idxFile)
}

// install renames a staged pack into place, durably, and makes it readable. A .keep file protects it from the
// repacking of other programs until release is called, which must be after its refs have moved.
func (s *Store) install(st *staged) (release func(), err error) {
	s.packMu.Lock()
	s.landing[st.name]++
	s.packMu.Unlock()
	if err := s.moveIn(st); err != nil {
		s.landed(st.name)
		return nil, err
	}
	s.addPack(&pack{table: st.table, name: st.name, path: filepath.Join(s.packDir(), st.name+".pack"), size: st.size})
	return func() { s.landed(st.name) }, nil
}

// moveIn renames the files of a pack, its index last: a pack without index is not there for anybody.
func (s *Store) moveIn(st *staged) error {
	base := filepath.Join(s.packDir(), st.name)
	// A link, because making a file is dear where thousands are made and removed in a minute.
	if err := s.link(s.path(keepFile), base+".keep"); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	fp.Hit("pack.rename")
	if err := s.rename(st.packFile, base+".pack"); err != nil {
		return err
	}
	if err := s.rename(st.idxFile, base+".idx"); err != nil {
		if _, serr := os.Lstat(base + ".idx"); errors.Is(serr, fs.ErrNotExist) {
			_ = s.remove(base + ".pack") // of no use to anybody without its index
		}
		return err
	}
	fp.Hit("dir.fsync")
	return s.syncDir(s.packDir())
}

// landed removes the .keep file of a pack when nobody else lands the very same pack.
func (s *Store) landed(name string) {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	if s.landing[name]--; s.landing[name] > 0 {
		return
	}
	delete(s.landing, name)
	path := filepath.Join(s.packDir(), name+".keep")
	ours, err := os.Lstat(s.path(keepFile))
	if err != nil {
		return // the next Open removes what stays
	}
	if there, err := os.Lstat(path); err == nil && os.SameFile(ours, there) {
		_ = s.remove(path)
	}
}

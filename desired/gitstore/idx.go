// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sort"
)

// packEntry is one object of a pack as its index knows it.
type packEntry struct {
	hash   Hash
	offset uint64
	crc    uint32
}

// table is the index of a pack: object id to offset. Small ones are held in memory, large ones are read from the
// file piece by piece.
type table struct {
	n      int
	fanout [256]uint32
	// data holds the whole index file when it is small, else nil and at reads it.
	data []byte
	at   func(p []byte, off int64) error
	wide int   // entries with 64-bit offsets
	max  int64 // size of the file
}

const (
	idxHeader = 8 + 256*4
	idxInCore = 1 << 20 // index files up to this size are held in memory
)

func (t *table) names() int64   { return idxHeader }
func (t *table) offsets() int64 { return idxHeader + int64(t.n)*24 }
func (t *table) wides() int64   { return idxHeader + int64(t.n)*28 }

// read fills p from the index at off.
func (t *table) read(p []byte, off int64) error {
	if t.data != nil {
		if off < 0 || off+int64(len(p)) > int64(len(t.data)) {
			return fmt.Errorf("index is too short: %w", ErrCorrupt)
		}
		copy(p, t.data[off:])
		return nil
	}
	return t.at(p, off)
}

// openTable checks an index file of version 2 and prepares it for lookups. at reads the file.
func openTable(size int64, at func(p []byte, off int64) error) (*table, error) {
	head := make([]byte, idxHeader)
	if size < idxHeader+40 {
		return nil, fmt.Errorf("index is too short: %w", ErrCorrupt)
	}
	if err := at(head, 0); err != nil {
		return nil, err
	}
	t := &table{at: at, max: size}
	if err := t.parseHeader(head, size); err != nil {
		return nil, err
	}
	if err := t.verify(); err != nil {
		return nil, err
	}
	if size <= idxInCore {
		data := make([]byte, size)
		if err := at(data, 0); err != nil {
			return nil, err
		}
		t.data, t.at = data, nil
	}
	return t, nil
}

func (t *table) parseHeader(head []byte, size int64) error {
	if !bytes.Equal(head[:8], []byte("\xfftOc\x00\x00\x00\x02")) {
		return fmt.Errorf("index is not of version 2: %w", ErrCorrupt)
	}
	last := uint32(0)
	for i := range t.fanout {
		t.fanout[i] = binary.BigEndian.Uint32(head[8+4*i:])
		if t.fanout[i] < last {
			return fmt.Errorf("index fan-out goes backwards: %w", ErrCorrupt)
		}
		last = t.fanout[i]
	}
	t.n = int(last)
	extra := size - t.wides() - 40
	if extra < 0 || extra%8 != 0 || extra/8 > int64(t.n) {
		return fmt.Errorf("index has the wrong size for %d objects: %w", t.n, ErrCorrupt)
	}
	t.wide = int(extra / 8)
	return nil
}

// verify compares the checksum of the index file: a flipped bit must not make an object seem absent.
func (t *table) verify() error {
	d := sha1.New()
	r := io.NewSectionReader(readerAt(t.read), 0, t.max)
	if _, err := io.CopyN(d, r, t.max-20); err != nil {
		return err
	}
	var want [20]byte
	if err := t.read(want[:], t.max-20); err != nil {
		return err
	}
	if !bytes.Equal(d.Sum(nil), want[:]) {
		return fmt.Errorf("index checksum does not match: %w", ErrCorrupt)
	}
	return nil
}

// readerAt makes an io.ReaderAt of a function that reads in full or fails.
type readerAt func(p []byte, off int64) error

func (f readerAt) ReadAt(p []byte, off int64) (int, error) {
	if err := f(p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

// find returns the position of an object in the index, -1 when it is not there.
func (t *table) find(h Hash) (int, error) {
	lo, hi := 0, int(t.fanout[h[0]])
	if h[0] > 0 {
		lo = int(t.fanout[h[0]-1])
	}
	if t.data != nil {
		names := t.data[idxHeader : idxHeader+t.n*20]
		i := lo + sort.Search(hi-lo, func(i int) bool {
			at := (lo + i) * 20
			return bytes.Compare(names[at:at+20], h[:]) >= 0
		})
		if i < hi && bytes.Equal(names[i*20:i*20+20], h[:]) {
			return i, nil
		}
		return -1, nil
	}
	return t.findOnDisk(h, lo, hi)
}

// findOnDisk guesses where among [lo,hi) the id lies (ids are spread evenly) and reads a window around that place,
// narrowing the range until the window holds the answer.
func (t *table) findOnDisk(h Hash, lo, hi int) (int, error) {
	const window = 128
	var buf [window * 20]byte
	share := float64(binary.BigEndian.Uint32(h[1:5])) / (1 << 32)
	for first := true; lo < hi; first = false {
		mid := lo + (hi-lo)/2
		if first {
			mid = lo + int(share*float64(hi-lo))
		}
		from := max(lo, min(mid-window/2, hi-window))
		n := min(window, hi-from)
		part := buf[:n*20]
		if err := t.read(part, t.names()+int64(from)*20); err != nil {
			return -1, err
		}
		switch {
		case bytes.Compare(h[:], part[:20]) < 0:
			hi = from
		case bytes.Compare(h[:], part[(n-1)*20:]) > 0:
			lo = from + n
		default:
			i := sort.Search(n, func(i int) bool { return bytes.Compare(part[i*20:i*20+20], h[:]) >= 0 })
			if bytes.Equal(part[i*20:i*20+20], h[:]) {
				return from + i, nil
			}
			return -1, nil
		}
	}
	return -1, nil
}

// offset is where in the pack the i-th object starts.
func (t *table) offset(i int) (int64, error) {
	var b [8]byte
	if err := t.read(b[:4], t.offsets()+int64(i)*4); err != nil {
		return 0, err
	}
	v := binary.BigEndian.Uint32(b[:4])
	if v&(1<<31) == 0 {
		return int64(v), nil
	}
	j := int64(v &^ (1 << 31))
	if j >= int64(t.wide) {
		return 0, fmt.Errorf("index points past its table of large offsets: %w", ErrCorrupt)
	}
	if err := t.read(b[:], t.wides()+j*8); err != nil {
		return 0, err
	}
	off := binary.BigEndian.Uint64(b[:])
	if off >= 1<<62 {
		return 0, fmt.Errorf("index holds an impossible offset: %w", ErrCorrupt)
	}
	return int64(off), nil
}

// entries reads the whole index, in order of object ids.
func (t *table) entries() ([]packEntry, error) {
	body := make([]byte, t.max-idxHeader)
	if err := t.read(body, idxHeader); err != nil {
		return nil, err
	}
	out := make([]packEntry, t.n)
	for i := range out {
		copy(out[i].hash[:], body[i*20:])
		out[i].crc = binary.BigEndian.Uint32(body[t.n*20+i*4:])
		v := binary.BigEndian.Uint32(body[t.n*24+i*4:])
		out[i].offset = uint64(v)
		if v&(1<<31) != 0 {
			j := int(v &^ (1 << 31))
			if j >= t.wide {
				return nil, fmt.Errorf("index points past its table of large offsets: %w", ErrCorrupt)
			}
			out[i].offset = binary.BigEndian.Uint64(body[t.n*28+j*8:])
		}
	}
	return out, nil
}

// encodeIdx renders an index file of version 2. It sorts entries by id; duplicates must have been removed.
func encodeIdx(entries []packEntry, packSum [20]byte) []byte {
	slices.SortFunc(entries, func(a, b packEntry) int { return compareHashes(&a.hash, &b.hash) })
	n := len(entries)
	out := make([]byte, 0, idxHeader+n*28+40)
	out = append(out, "\xfftOc\x00\x00\x00\x02"...)
	i := 0
	for first := range 256 {
		for i < n && int(entries[i].hash[0]) <= first {
			i++
		}
		out = binary.BigEndian.AppendUint32(out, uint32(i))
	}
	for i := range entries {
		out = append(out, entries[i].hash[:]...)
	}
	for i := range entries {
		out = binary.BigEndian.AppendUint32(out, entries[i].crc)
	}
	var wide []byte
	for i := range entries {
		off := entries[i].offset
		if off < 1<<31 {
			out = binary.BigEndian.AppendUint32(out, uint32(off))
			continue
		}
		out = binary.BigEndian.AppendUint32(out, 1<<31|uint32(len(wide)/8))
		wide = binary.BigEndian.AppendUint64(wide, off)
	}
	out = append(out, wide...)
	out = append(out, packSum[:]...)
	sum := sha1.Sum(out)
	return append(out, sum[:]...)
}

// compareHashes orders ids; their first bytes nearly always decide.
func compareHashes(a, b *Hash) int {
	x, y := binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(b[:])
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return bytes.Compare(a[8:], b[8:])
}

// newTable wraps an index that was just encoded.
func newTable(data []byte) (*table, error) {
	t := &table{data: data, max: int64(len(data))}
	if err := t.parseHeader(data[:idxHeader], t.max); err != nil {
		return nil, err
	}
	return t, nil
}

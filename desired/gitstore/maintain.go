// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/internal/fp"
)

// MaintenanceStats tells what a round did.
type MaintenanceStats struct{ Packs, Merged, Removed int }

// Packs are merged within classes of size, so that each byte is copied once for every factor of eight by which the
// repository grows, and the number of packs stays in proportion to the number of classes.
const (
	firstClass  = 1 << 20 // bytes: what is smaller is in class 0
	classFactor = 8
	classCount  = 3 // packs above 64 MiB stay as they are
	mergeWidth  = 8 // packs of one class that are worth merging
	mergeMost   = 200
	mergeDepth  = 250 // deltas on deltas in a merged pack; deeper ones are written whole
)

// Maintain runs one round of background packing: small packs are merged tier by tier, loose objects of others are
// left to git gc. Durable in the order: new pack and index synced, renamed, directory synced, old packs removed. It
// never drops an object. A round does nothing while there are fewer packs than Options.PackLimit, while another
// round is running, or while the packs belong to an incremental multi-pack-index of git. Packs is the number
// before, Merged how many went into new packs, Removed how many of these were removed.
func (s *Store) Maintain(ctx context.Context) (MaintenanceStats, error) {
	var st MaintenanceStats
	if err := s.writable(); err != nil {
		return st, err
	}
	if !s.merging.TryLock() {
		return st, nil
	}
	defer s.merging.Unlock()
	if _, err := s.rescan(); err != nil {
		return st, err
	}
	st.Packs = s.PackCount()
	if !s.MaintenanceDue() {
		return st, nil
	}
	for class := range classCount {
		group, err := s.mergeable(class)
		if err != nil {
			return st, err
		}
		for len(group) >= mergeWidth || class == 0 && len(group) > 1 {
			n := min(len(group), mergeMost)
			if err := s.merge(ctx, group[:n], &st); err != nil {
				return st, err
			}
			group = group[n:]
		}
	}
	return st, nil
}

// MaintenanceDue reports whether there are enough packs for a round of Maintain. Those that have their final size do
// not count.
func (s *Store) MaintenanceDue() bool {
	n := 0
	for _, p := range *s.packs.Load() {
		if sizeClass(p.size) < classCount {
			n++
		}
	}
	return n >= s.packLimit
}

// mergeable lists the packs of a class that nobody else has a claim on.
func (s *Store) mergeable(class int) ([]*pack, error) {
	claimed, err := s.claimed()
	if err != nil || claimed == nil {
		return nil, err
	}
	s.packMu.Lock()
	defer s.packMu.Unlock()
	var out []*pack
	for _, p := range *s.packs.Load() {
		if s.landing[p.name] == 0 && !claimed[p.name] && !p.gone.Load() && !p.sick.Load() && sizeClass(p.size) == class {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *pack) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

func sizeClass(size int64) int {
	c := 0
	for limit := int64(firstClass); size > limit; limit *= classFactor {
		c++
	}
	return c
}

// claimed lists packs with a file beside them that says somebody counts on them: kept, cruft, promised or indexed
// with others. nil means that nothing may be merged.
func (s *Store) claimed() (map[string]bool, error) {
	entries, err := os.ReadDir(s.packDir())
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool)
	for _, e := range entries {
		switch ext := filepath.Ext(e.Name()); {
		case e.Name() == "multi-pack-index.d":
			return nil, nil
		case e.Name() == "multi-pack-index":
			data, err := os.ReadFile(filepath.Join(s.packDir(), e.Name()))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			for _, name := range midxPacks(data) {
				out[name] = true
			}
		case ext == ".keep" || ext == ".promisor" || ext == ".mtimes" || ext == ".bitmap":
			out[strings.TrimSuffix(e.Name(), ext)] = true
		}
	}
	return out, nil
}

// midxPacks reads the names of packs in a multi-pack-index: NUL-terminated strings in its chunk PNAM.
func midxPacks(data []byte) []string {
	if len(data) < 12 || string(data[:4]) != "MIDX" {
		return nil
	}
	var out []string
	for i := range int(data[6]) {
		at := 12 + i*12
		if at+24 > len(data) {
			return nil
		}
		from, to := binary.BigEndian.Uint64(data[at+4:]), binary.BigEndian.Uint64(data[at+16:])
		if string(data[at:at+4]) != "PNAM" || from > to || to > uint64(len(data)) {
			continue
		}
		for name := range bytes.SplitSeq(data[from:to], []byte{0}) {
			if base, ok := strings.CutSuffix(string(name), ".idx"); ok {
				out = append(out, base)
			}
		}
	}
	return out
}

// mergeItem is one object on its way into a new pack.
type mergeItem struct {
	packEntry
	source int32 // index of its pack
}

// merge copies the objects of packs into one new pack and removes the old ones.
func (s *Store) merge(ctx context.Context, packs []*pack, stats *MaintenanceStats) error {
	m := merger{store: s}
	defer m.close()
	if err := m.open(packs); err != nil {
		return err
	}
	if len(m.sources) < 2 {
		return nil
	}
	fp.Hit("gc.mark")
	st, err := m.copy(ctx)
	if err != nil {
		return err
	}
	release, err := s.install(st)
	if err != nil {
		s.abandon(st)
		return err
	}
	defer release()
	stats.Merged += len(m.sources)
	removed, err := s.sweep(st.name, m.sources)
	stats.Removed += removed
	return err
}

// merger copies entries from packs into one, as they are compressed.
type merger struct {
	store   *Store
	sources []*source
	items   []mergeItem
	depth   map[Hash]int // of deltas that were written
}

// source is a pack that is being copied. Its file stays open, so it may vanish meanwhile.
type source struct {
	*pack
	file   *openFile
	order  []packEntry // by offset
	window []byte      // a piece of the file
	from   int64       // where the piece begins
}

func (m *merger) close() {
	for _, src := range m.sources {
		m.store.reads.files.put(src.file)
	}
}

// open opens the packs and decides which copy of each object is taken: that of the first pack that has it. Then the
// base of a delta comes from the same pack or an earlier one, and chains cannot run in circles.
func (m *merger) open(packs []*pack) error {
	for _, p := range packs {
		file, err := m.store.reads.files.get(p.path)
		if errors.Is(err, fs.ErrNotExist) {
			p.gone.Store(true) // another program repacked it
			continue
		}
		if err != nil {
			return err
		}
		src := &source{pack: p, file: file}
		m.sources = append(m.sources, src)
		if src.order, err = p.entries(); err != nil {
			return err
		}
		for _, e := range src.order {
			m.items = append(m.items, mergeItem{e, int32(len(m.sources) - 1)})
		}
		slices.SortFunc(src.order, func(a, b packEntry) int { return cmp.Compare(a.offset, b.offset) })
	}
	slices.SortFunc(m.items, func(a, b mergeItem) int {
		if c := compareHashes(&a.hash, &b.hash); c != 0 {
			return c
		}
		return int(a.source - b.source)
	})
	m.items = slices.CompactFunc(m.items, func(a, b mergeItem) bool { return a.hash == b.hash })
	slices.SortFunc(m.items, func(a, b mergeItem) int {
		if a.source != b.source {
			return int(a.source - b.source)
		}
		return cmp.Compare(a.offset, b.offset)
	})
	if len(m.items) > math.MaxUint32 {
		return fmt.Errorf("merge packs: %d objects are too many", len(m.items))
	}
	return nil
}

// copy writes the new pack under temporary names.
func (m *merger) copy(ctx context.Context) (*staged, error) {
	w, err := m.store.newPackWriter(len(m.items))
	if err != nil {
		return nil, err
	}
	w.spread = true
	m.depth = make(map[Hash]int)
	for i, it := range m.items {
		if i%64 == 0 {
			err = ctx.Err()
		}
		if err == nil {
			err = m.entry(w, it)
		}
		if err != nil {
			w.abandon()
			return nil, fmt.Errorf("merge packs: %w", err)
		}
	}
	st, err := w.finish()
	if err != nil {
		w.abandon()
		return nil, err
	}
	return st, nil
}

// entry copies one object. What was damaged on the disk is not copied: the checksum in the index tells.
func (m *merger) entry(w *packWriter, it mergeItem) error {
	src := m.sources[it.source]
	raw, err := src.raw(it.offset)
	if err != nil {
		return err
	}
	if crc32.ChecksumIEEE(raw) != it.crc {
		src.sick.Store(true)
		return fmt.Errorf("pack %s: object %s is damaged: %w", src.name, it.hash, ErrCorrupt)
	}
	r := bytes.NewReader(raw)
	h, err := readEntryHeader(r, int64(it.offset))
	if err != nil {
		return err
	}
	if h.kind == ofsDelta {
		i, ok := src.at(uint64(h.base))
		if !ok {
			return fmt.Errorf("pack %s: object %s has no base: %w", src.name, it.hash, ErrCorrupt)
		}
		h.ref = src.order[i].hash
	}
	if h.kind < ofsDelta {
		return w.copied(it.hash, raw, nil)
	}
	depth := m.depth[h.ref] + 1
	if depth > mergeDepth {
		t, data, err := m.store.reads.read(src.pack, int64(it.offset))
		if err != nil {
			return err
		}
		return w.object(it.hash, t, data)
	}
	m.depth[it.hash] = depth
	head := appendEntryHeader(nil, refDelta, int(h.size))
	return w.copied(it.hash, append(head, h.ref[:]...), raw[len(raw)-r.Len():])
}

// at finds the entry that starts at an offset.
func (src *source) at(off uint64) (int, bool) {
	return slices.BinarySearchFunc(src.order, off, func(e packEntry, off uint64) int { return cmp.Compare(e.offset, off) })
}

// raw returns the bytes of an entry, until the next call: it ends where the next one begins.
func (src *source) raw(off uint64) ([]byte, error) {
	i, ok := src.at(off)
	end := uint64(src.size - 20)
	if i+1 < len(src.order) {
		end = src.order[i+1].offset
	}
	if !ok || end <= off || end > uint64(src.size-20) || end-off > maxObject {
		return nil, fmt.Errorf("pack %s: offset %d is out of place: %w", src.name, off, ErrCorrupt)
	}
	from, to := int64(off)-src.from, int64(end)-src.from
	if from < 0 || to > int64(len(src.window)) { // entries are read in order: take a large piece
		const piece = 1 << 20
		n := min(max(int64(end-off), piece), src.size-int64(off))
		src.window = slices.Grow(src.window[:0], int(n))[:n]
		src.from = int64(off)
		if err := readFull(src.file, src.window, src.from); err != nil {
			return nil, err
		}
		from, to = 0, int64(end-off)
	}
	return src.window[from:to], nil
}

// copied adds an entry that is encoded already.
func (w *packWriter) copied(h Hash, head, body []byte) error {
	from := len(w.buf)
	w.buf = append(w.buf, head...)
	w.buf = append(w.buf, body...)
	return w.added(h, from)
}

// sweepFile lists packs that are being removed after the pack on its first line has taken their objects: a crash in
// the middle must not leave half of a pack.
const sweepFile = "plumbline/sweep"

// sweep removes packs whose objects are all in a new one.
func (s *Store) sweep(into string, sources []*source) (int, error) {
	names := []string{into}
	for _, src := range sources {
		if src.name != into {
			names = append(names, src.name)
		}
	}
	if len(names) == 1 {
		return 0, nil
	}
	if err := s.createFile(sweepFile, strings.Join(names, "\n")+"\n"); err != nil {
		return 0, err
	}
	if err := s.syncDir(s.path("plumbline")); err != nil {
		return 0, err
	}
	return s.removePacks(names[1:])
}

// removePacks removes packs from the list, then their files, then the note about them.
func (s *Store) removePacks(names []string) (int, error) {
	s.packMu.Lock()
	var keep []*pack
	for _, p := range *s.packs.Load() {
		if slices.Contains(names, p.name) {
			s.dropPack(p)
			continue
		}
		keep = append(keep, p)
	}
	s.setPacks(keep)
	s.packMu.Unlock()
	for i, name := range names {
		fp.Hit("gc.sweep")
		for _, ext := range []string{".idx", ".rev", ".pack"} {
			if err := s.remove(filepath.Join(s.packDir(), name+ext)); err != nil {
				return i, err
			}
		}
	}
	if err := s.syncDir(s.packDir()); err != nil {
		return len(names), err
	}
	return len(names), s.remove(s.path(sweepFile))
}

// finishSweep completes a removal that a crash cut short, provided that the new pack is whole.
func (s *Store) finishSweep() error {
	data, err := os.ReadFile(s.path(sweepFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names := strings.Fields(string(data))
	whole := len(names) > 1
	for _, ext := range []string{".pack", ".idx"} {
		if whole {
			_, err := os.Lstat(filepath.Join(s.packDir(), names[0]+ext))
			whole = err == nil
		}
	}
	for _, n := range names {
		whole = whole && strings.HasPrefix(n, "pack-") && !strings.Contains(n, "/")
	}
	if !whole {
		return s.remove(s.path(sweepFile))
	}
	_, err = s.removePacks(names[1:])
	return err
}

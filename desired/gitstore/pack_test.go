// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

func TestDeltaOfTwoTexts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.SliceOfN(rapid.Byte(), 0, 400)
		head, tail := text.Draw(rt, "head"), text.Draw(rt, "tail")
		base := bytes.Join([][]byte{head, text.Draw(rt, "old"), tail}, nil)
		target := bytes.Join([][]byte{head, text.Draw(rt, "new"), tail}, nil)
		d := makeDelta(base, target)
		if d == nil {
			return // not worth it
		}
		got, err := applyDelta(base, d)
		if err != nil || !bytes.Equal(got, target) {
			rt.Fatalf("delta %x of %x to %x: %v", d, base, target, err)
		}
	})
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<21) // copies of more than 16 MiB need two instructions
	changed := append([]byte("x"), big...)
	if got, err := applyDelta(big, makeDelta(big, changed)); err != nil || !bytes.Equal(got, changed) {
		t.Errorf("delta of a large object: %v", err)
	}
}

func TestIndexInMemoryAndOnDisk(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 3, 500, 40_000} {
		entries := make([]packEntry, n)
		for i := range entries {
			for j := 0; j < 20; j++ {
				entries[i].hash[j] = byte(rnd.Uint32())
			}
			if n == 500 { // all in one bucket, and close together
				copy(entries[i].hash[:], "\xab\xcd\xef")
			}
			entries[i].offset = uint64(i) * (1 << 20) // past 31 bits from 2048 on
			entries[i].crc = rnd.Uint32()
		}
		data := encodeIdx(entries, [20]byte{1})
		disk := func(p []byte, off int64) error { return readFull(bytes.NewReader(data), p, off) }
		inCore, err := openTable(int64(len(data)), disk)
		if err != nil {
			t.Fatal(err)
		}
		onDisk := *inCore
		onDisk.data, onDisk.at = nil, disk
		for _, tb := range []*table{inCore, &onDisk} {
			for i := 0; i < n; i += 1 + n/1000 {
				e := entries[i]
				at, err := tb.find(e.hash)
				if err != nil || at != i {
					t.Fatalf("%d of %d: found at %d, %v", i, n, at, err)
				}
				if off, err := tb.offset(at); err != nil || uint64(off) != e.offset {
					t.Fatalf("%d of %d: offset %d, %v, want %d", i, n, off, err, e.offset)
				}
				e.hash[19] ^= 0x55
				if at, err := tb.find(e.hash); err != nil || at != -1 {
					t.Fatalf("an absent id near %d of %d is found at %d, %v", i, n, at, err)
				}
			}
			all, err := tb.entries()
			if err != nil || len(all) != n {
				t.Fatalf("entries: %d, %v, want %d", len(all), err, n)
			}
			for i := range all {
				if all[i] != entries[i] {
					t.Fatalf("entry %d: got %v, want %v", i, all[i], entries[i])
				}
			}
		}
	}
}

// A flipped bit or a lost end anywhere in a repository's files must be noticed: an object reads back right or not
// at all, and never as "not found" when it was there.
func TestDamageIsNoticed(t *testing.T) {
	s := newStore(t)
	head := grow(t, s, Zero, 4)
	git(t, s.Dir(), "gc", "-q")
	grow(t, s, head, 1)
	s.Close()
	want := allObjects(t, reopen(t, s))
	files, err := filepath.Glob(filepath.Join(s.packDir(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, path := range files {
		if filepath.Ext(path) == ".rev" {
			continue // only git reads it
		}
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			bad := bytes.Clone(good)
			if at := rnd.IntN(len(bad)); rnd.IntN(4) == 0 {
				bad = bad[:at]
			} else {
				bad[at] ^= 1 << rnd.IntN(8)
			}
			replace(t, path, bad)
			checkDamaged(t, s.Dir(), want, filepath.Base(path))
		}
		replace(t, path, good)
	}
}

func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o444); err != nil {
		t.Fatal(err)
	}
}

func checkDamaged(t *testing.T, dir string, want map[Hash]string, what string) {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: Open gives %v, want ErrCorrupt", what, err)
		}
		return
	}
	defer s.Close()
	for h, data := range want {
		typ, got, err := s.Object(h)
		if err == nil && typ.String()+string(got) != data {
			t.Fatalf("%s: %s reads back as something else", what, h)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%s: %s: got %v, want ErrCorrupt", what, h, err)
		}
	}
}

// An index that names the wrong object for an id must not make a reader believe it.
func TestReadsCompareTheID(t *testing.T) {
	s := newStore(t)
	w, err := s.newPackWriter(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.object(Hash{1}, BlobObject, []byte("not what it says")); err != nil {
		t.Fatal(err)
	}
	st, err := w.finish()
	if err != nil {
		t.Fatal(err)
	}
	release, err := s.install(st)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if data, err := s.Blob(Hash{1}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %q, %v, want ErrCorrupt", data, err)
	}
}

func TestReadsSurviveOneDamagedCopy(t *testing.T) {
	s := newStore(t)
	b := s.NewBatch()
	h := b.AddBlob(bytes.Repeat([]byte("precious "), 1000))
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	first := (*s.packs.Load())[0]
	again := s.NewBatch()
	again.AddBlob(bytes.Repeat([]byte("precious "), 1000))
	again.AddBlob([]byte("another"))
	if err := s.Write(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	damage(t, first.path, first.size/2)
	s = reopen(t, s)
	if data, err := s.Blob(h); err != nil || len(data) != 9000 {
		t.Errorf("got %d bytes, %v, want the copy in the other pack", len(data), err)
	}
}

// FuzzPackReader: a pack and its index of any bytes never crash a reader, and what they yield has its id.
func FuzzPackReader(f *testing.F) {
	s := newStore(f)
	grow(f, s, Zero, 2)
	addPackSeeds(f, s)
	git(f, s.Dir(), "gc", "-q")
	addPackSeeds(f, s)
	dir := f.TempDir()
	n := 0
	f.Fuzz(func(t *testing.T, pack, idx []byte) {
		n++
		name := fmt.Sprint("pack-", n)
		path := filepath.Join(dir, name)
		write(t, path+".pack", string(pack))
		if len(idx) > 40 { // let the fuzzer past the checksum
			idx = sealPack(idx[:len(idx)-20])
		}
		write(t, path+".idx", string(idx))
		defer os.Remove(path + ".pack")
		defer os.Remove(path + ".idx")
		p, err := s.reads.openPack(dir, name, int64(len(pack)))
		if err != nil {
			return
		}
		defer s.reads.files.forget(p.path)
		entries, err := p.entries()
		if err != nil {
			return
		}
		for _, e := range entries {
			typ, data, err := s.fromPack(p, e.hash)
			if err == nil && hashObject(typ, data) != e.hash {
				t.Fatalf("%s reads back as something else", e.hash)
			}
		}
	})
}

func addPackSeeds(f *testing.F, s *Store) {
	packs, err := filepath.Glob(filepath.Join(s.packDir(), "*.pack"))
	if err != nil || len(packs) == 0 {
		f.Fatal("no packs", err)
	}
	for _, path := range packs {
		pack, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		idx, err := os.ReadFile(path[:len(path)-len(".pack")] + ".idx")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pack, idx)
	}
}

// FuzzReceivePack: a push of any bytes never crashes the door, and what it accepts satisfies git fsck's rules.
func FuzzReceivePack(f *testing.F) {
	s := newStore(f)
	good, tip := goodPack(f, s)
	add := func(pack []byte, tip Hash) {
		command := appendPkt(nil, fmt.Sprintf("%s %s refs/heads/x\x00 report-status side-band-64k push-options\n", Zero, tip))
		f.Add(append(append(append(command, flushPkt...), flushPkt...), pack...))
	}
	add(good, tip)
	for i, h := range hostileTrees {
		if i%4 == 0 {
			add(commitOn(f, s, h.raw(f, s)))
		}
	}
	for _, h := range hostileEntries(f, s) {
		if len(h.pack) < 1<<12 {
			add(h.pack, h.tip)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := bytes.NewReader(body)
		q, err := readPushRequest(r)
		if err != nil || len(q.updates) == 0 {
			return
		}
		rest := body[len(body)-r.Len():]
		if len(rest) > 32 { // let the fuzzer past the checksum
			rest = sealPack(rest[:len(rest)-20])
			if binary.BigEndian.Uint32(rest[8:]) > 1000 {
				return
			}
		}
		in, err := s.receive(t.Context(), bytes.NewReader(rest), 1<<20)
		if err != nil {
			return
		}
		defer in.discard()
		p := &Push{Updates: q.updates, store: s, in: in}
		for _, e := range in.entries {
			typ, data, err := p.Object(e.hash)
			if err != nil || hashObject(typ, data) != e.hash {
				t.Fatalf("%s was accepted and reads back wrong: %v", e.hash, err)
			}
		}
		_ = p.verify(t.Context())
	})
}

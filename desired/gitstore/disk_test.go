// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// image is a directory tree in memory, with hard links, as a disk holds it.
type image struct {
	names map[string]int // path below the root to inode; directories are -1
	data  map[int][]byte
}

func (m image) clone() image { return image{maps.Clone(m.names), maps.Clone(m.data)} }

// photograph reads a directory.
func photograph(t testing.TB, root string) image {
	t.Helper()
	m := image{names: map[string]int{}, data: map[int][]byte{}}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			m.names[rel] = -1
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		ino := int(info.Sys().(*syscall.Stat_t).Ino)
		m.names[rel] = ino
		m.data[ino], err = os.ReadFile(path)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return m
}

// develop writes an image into a new directory.
func (m image) develop(t testing.TB, root string) {
	t.Helper()
	first := map[int]string{}
	for _, rel := range slices.Sorted(maps.Keys(m.names)) {
		path, ino := filepath.Join(root, rel), m.names[rel]
		if _, ok := m.names[filepath.Dir(rel)]; !ok && rel != "." {
			delete(m.names, rel) // lost with its directory
			continue
		}
		var err error
		switch {
		case ino == -1:
			err = os.MkdirAll(path, 0o777)
		case first[ino] != "":
			err = os.Link(first[ino], path)
		default:
			first[ino] = path
			err = os.WriteFile(path, m.data[ino], 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// film is what a store did to its disk.
type film struct {
	mu    sync.Mutex
	root  string
	start image
	steps []diskStep
}

func (f *film) watch(s diskStep) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	rel := func(p string) string {
		r, err := filepath.Rel(f.root, p)
		if err != nil {
			return p
		}
		return r
	}
	s.path, s.data = rel(s.path), bytes.Clone(s.data)
	if s.to != "" {
		s.to = rel(s.to)
	}
	f.steps = append(f.steps, s)
	return nil
}

// cut returns what a power cut after k steps may leave. reached says which changes of names are on the disk; of bytes
// that were not synced there are all ("kept"), none ("lost"), half or zeros.
func (f *film) cut(k int, reached func(step int, dir string) bool, unsynced string) image {
	disk, live := f.start.clone(), f.start.clone() // live is what programs see
	safe := map[int][]byte{}
	next := 1 << 40
	set := func(i int, path string, ino int) {
		live.names[path] = ino
		if reached(i, filepath.Dir(path)) {
			disk.names[path] = ino
		}
	}
	unset := func(i int, path string) {
		delete(live.names, path)
		if reached(i, filepath.Dir(path)) {
			delete(disk.names, path)
		}
	}
	for i, s := range f.steps[:k] {
		switch s.op {
		case opCreate:
			next++
			safe[next] = nil
			set(i, s.path, next)
		case opWrite, opTrim:
			ino := live.names[s.path]
			if _, ok := safe[ino]; !ok {
				safe[ino] = live.data[ino]
			}
			if s.op == opTrim {
				live.data[ino] = nil
			}
			live.data[ino] = slices.Concat(live.data[ino], s.data)
		case opSync:
			delete(safe, live.names[s.path])
		case opRename:
			set(i, s.to, live.names[s.path])
			unset(i, s.path)
		case opLink:
			_, taken := live.names[s.to]
			if _, ok := live.names[filepath.Dir(s.to)]; ok && !taken { // else the attempt failed
				set(i, s.to, live.names[s.path])
			}
		case opRemove:
			unset(i, s.path)
		case opMkdir:
			set(i, s.path, -1)
		}
	}
	disk.data = live.data
	for ino, old := range safe {
		disk.data[ino] = damaged(old, live.data[ino], unsynced)
	}
	return disk
}

// journal is a disk that keeps the order of changes: the first j have reached it.
func journal(j int) func(int, string) bool {
	return func(step int, _ string) bool { return step < j }
}

func damaged(old, now []byte, how string) []byte {
	switch how {
	case "lost":
		return old
	case "half":
		return now[:len(now)/2]
	case "zeros":
		return make([]byte, len(now))
	}
	return now
}

// pinned is how many steps at least have reached the disk after k: all up to the last sync of a directory, because
// a journal keeps the order.
func (f *film) pinned(k int) int {
	for i := k - 1; i >= 0; i-- {
		if f.steps[i].op == opSyncD {
			return i + 1
		}
	}
	return 0
}

// eachCut calls check with every state that a power cut after any number of steps k may leave.
func (f *film) eachCut(t *testing.T, check func(what, dir string, k int)) int {
	t.Helper()
	n := 0
	dir := scratch(t)
	for k := range len(f.steps) + 1 {
		for j := f.pinned(k); j <= k; j++ {
			for _, how := range []string{"kept", "lost", "half", "zeros"} {
				f.cut(k, journal(j), how).develop(t, dir)
				check(fmt.Sprintf("cut after %d of %d steps, names of %d, bytes %s", k, len(f.steps), j, how), dir, k)
				os.RemoveAll(dir)
				n++
			}
		}
	}
	return n
}

// eachLoss calls check with states that a cut may leave on a disk without order: what was done to the names in a
// directory is safe only once that very directory was synced. After each step, every choice of directories is tried
// that lose what was not synced.
func (f *film) eachLoss(t *testing.T, check func(what, dir string, k int)) {
	t.Helper()
	dir := scratch(t)
	for k := range len(f.steps) + 1 {
		synced, dirty := f.directories(k)
		for choice := range 1 << len(dirty) {
			reached := func(step int, d string) bool {
				i := slices.Index(dirty, d)
				return step < synced[d] || i >= 0 && choice&(1<<i) == 0
			}
			f.cut(k, reached, "lost").develop(t, dir)
			check(fmt.Sprintf("cut after %d of %d steps, loss %b of %v", k, len(f.steps), choice, dirty), dir, k)
			os.RemoveAll(dir)
		}
	}
}

// directories tells up to which step the names in each directory are safe after k steps, and where that is not all.
func (f *film) directories(k int) (synced map[string]int, dirty []string) {
	synced = map[string]int{}
	changed := map[string]int{}
	for i, s := range f.steps[:k] {
		switch s.op {
		case opSyncD:
			synced[s.path] = i
		case opCreate, opMkdir, opRemove:
			changed[filepath.Dir(s.path)] = i
		case opLink:
			changed[filepath.Dir(s.to)] = i
		case opRename:
			changed[filepath.Dir(s.path)], changed[filepath.Dir(s.to)] = i, i
		}
	}
	for d, i := range changed {
		if i > synced[d] || synced[d] == 0 {
			dirty = append(dirty, d)
		}
	}
	slices.Sort(dirty)
	return synced, dirty
}

// scratch is a directory in memory where there is one: an image needs no durable disk, and there are many.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "gitstore")
	if err != nil {
		return filepath.Join(t.TempDir(), "r")
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "r")
}

// play records what a scenario does to a store that exists.
func play(t testing.TB, s *Store, scenario func()) *film {
	t.Helper()
	f := &film{root: s.Dir(), start: photograph(t, s.Dir())}
	s.watcher = f.watch
	scenario()
	s.watcher = nil
	if len(f.steps) < 3 {
		t.Fatalf("only %d steps were recorded", len(f.steps))
	}
	return f
}

// openAfter opens what a cut left, which must work, and proves that writes work too.
func openAfter(t *testing.T, what, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Create: true, PackLimit: 2})
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	s.patience = 0 // a lock that is there is one of ours that was not recognised
	return s
}

// wholeRef reads a ref and everything below it; zero when it is not there.
func wholeRef(t *testing.T, what string, s *Store, name string) Hash {
	t.Helper()
	h, err := s.Resolve(name)
	if errors.Is(err, ErrNoRef) {
		return Zero
	}
	if err != nil {
		t.Fatalf("%s: %s: %v", what, name, err)
	}
	err = FirstParents(t.Context(), s, h, func(c *Commit) (bool, error) { return true, readAll(s, c.Hash) })
	if err != nil {
		t.Fatalf("%s: %s: %v", what, name, err)
	}
	return h
}

func stillWrites(t *testing.T, what string, s *Store, main Hash) {
	t.Helper()
	b := s.NewBatch()
	var parents []Hash
	if !main.IsZero() {
		parents = []Hash{main}
	}
	b.Set(RefUpdate{"refs/heads/main", main, add(t, b, map[string]string{"after": what}, parents...)})
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatalf("%s: next write: %v", what, err)
	}
}

func TestPowerCutDuringWrite(t *testing.T) {
	s := newStore(t)
	old := put(t, s, "main", map[string]string{"a": "1", "d/b": "2"})
	var mid, last Hash
	f := play(t, s, func() {
		b := s.NewBatch()
		mid = add(t, b, map[string]string{"a": "2"}, old)
		b.Set(RefUpdate{"refs/heads/main", old, mid})
		b.Set(RefUpdate{"refs/heads/new/deep", Zero, mid})
		if err := s.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		last = put(t, s, "main", map[string]string{"a": "3"}, mid)
	})
	n := f.eachCut(t, func(what, dir string, k int) {
		s := openAfter(t, what, dir)
		defer s.Close()
		main, deep := wholeRef(t, what, s, "refs/heads/main"), wholeRef(t, what, s, "refs/heads/new/deep")
		if main != old && main != mid && main != last || deep != Zero && deep != mid {
			t.Fatalf("%s: main is at %s, new/deep at %s", what, main, deep)
		}
		if k == len(f.steps) && (main != last || deep != mid) {
			t.Fatalf("%s: an acknowledged write is lost", what)
		}
		stillWrites(t, what, s, main)
	})
	t.Logf("%d states of %d steps", n, len(f.steps))
}

// On a disk without order an own lock may stay without the name by which it is recognised; a person has to remove it
// then. But no reference may name what is not there, and nothing acknowledged may be gone.
func TestPowerCutOnADiskWithoutOrder(t *testing.T) {
	s := newStore(t)
	s.packLimit = 2
	old := put(t, s, "main", map[string]string{"a": "1"})
	if err := move(t, s, RefUpdate{"refs/heads/gone", Zero, old}); err != nil {
		t.Fatal(err)
	}
	git(t, s.Dir(), "pack-refs", "--all", "--prune")
	side := put(t, s, "gone", map[string]string{"a": "2"}, old)
	var head Hash
	write := play(t, s, func() {
		b := s.NewBatch()
		head = add(t, b, map[string]string{"a": "3"}, old)
		b.Set(RefUpdate{"refs/heads/main", old, head})
		b.Set(RefUpdate{"refs/heads/new/deep", Zero, head})
		b.Set(RefUpdate{"refs/heads/gone", side, Zero})
		if err := s.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	})
	write.eachLoss(t, func(what, dir string, k int) {
		s := openAfter(t, what, dir)
		defer s.Close()
		main, deep, gone := wholeRef(t, what, s, "refs/heads/main"), wholeRef(t, what, s, "refs/heads/new/deep"), wholeRef(t, what, s, "refs/heads/gone")
		if main != old && main != head || deep != Zero && deep != head || gone != side && gone != Zero {
			t.Fatalf("%s: main %s, new/deep %s, gone %s", what, main, deep, gone)
		}
		if k == len(write.steps) && (main != head || deep != head || gone != Zero) {
			t.Fatalf("%s: an acknowledged write is lost", what)
		}
	})
	deep := play(t, s, func() {
		if err := move(t, s, RefUpdate{"refs/heads/very/new/deep", Zero, head}); err != nil {
			t.Fatal(err)
		}
	})
	deep.eachLoss(t, func(what, dir string, k int) {
		s := openAfter(t, what, dir)
		defer s.Close()
		got := wholeRef(t, what, s, "refs/heads/very/new/deep")
		if got != head && (got != Zero || k == len(deep.steps)) {
			t.Fatalf("%s: very/new/deep is at %s", what, got)
		}
	})
	want := allObjects(t, s)
	merge := play(t, s, func() {
		if st, err := s.Maintain(t.Context()); err != nil || st.Merged == 0 {
			t.Fatal(st, err)
		}
	})
	merge.eachLoss(t, func(what, dir string, _ int) {
		s := openAfter(t, what, dir)
		defer s.Close()
		for h := range want {
			if _, _, err := s.Object(h); err != nil {
				t.Fatalf("%s: object %s is lost: %v", what, h, err)
			}
		}
	})
}

func TestPowerCutAtTheAcknowledgement(t *testing.T) {
	s := newStore(t)
	head := put(t, s, "main", map[string]string{"a": "1"})
	for i := range 3 {
		var next Hash
		f := play(t, s, func() { next = put(t, s, "main", map[string]string{"a": fmt.Sprint(i)}, head) })
		for j := f.pinned(len(f.steps)); j <= len(f.steps); j++ {
			for _, how := range []string{"kept", "lost", "half", "zeros"} {
				what := fmt.Sprintf("cut after the acknowledgement, names of %d of %d steps, bytes %s", j, len(f.steps), how)
				dir := scratch(t)
				f.cut(len(f.steps), journal(j), how).develop(t, dir)
				s := openAfter(t, what, dir)
				if got := wholeRef(t, what, s, "refs/heads/main"); got != next {
					t.Errorf("%s: main is at %s, want %s", what, got, next)
				}
				s.Close()
			}
		}
		head = next
	}
}

func TestPowerCutDuringDelete(t *testing.T) {
	s := newStore(t)
	a := put(t, s, "main", map[string]string{"f": "a"})
	if err := move(t, s, RefUpdate{"refs/heads/x", Zero, a}); err != nil {
		t.Fatal(err)
	}
	git(t, s.Dir(), "pack-refs", "--all", "--prune")
	b := put(t, s, "x", map[string]string{"f": "b"}, a)
	f := play(t, s, func() {
		if err := move(t, s, RefUpdate{"refs/heads/x", b, Zero}); err != nil {
			t.Fatal(err)
		}
	})
	f.eachCut(t, func(what, dir string, k int) {
		s := openAfter(t, what, dir)
		defer s.Close()
		x := wholeRef(t, what, s, "refs/heads/x")
		if x != b && x != Zero || k == len(f.steps) && x != Zero {
			t.Fatalf("%s: x is at %s, want %s or gone, and gone at the end", what, x, b)
		}
		stillWrites(t, what, s, wholeRef(t, what, s, "refs/heads/main"))
		if err := move(t, s, RefUpdate{"refs/heads/x", x, a}); err != nil {
			t.Fatalf("%s: next write of x: %v", what, err)
		}
	})
}

func TestPowerCutDuringMaintenance(t *testing.T) {
	s := newStore(t)
	s.packLimit = 2
	head := grow(t, s, Zero, 3)
	want := allObjects(t, s)
	f := play(t, s, func() {
		if st, err := s.Maintain(t.Context()); err != nil || st.Removed != 3 {
			t.Fatal(st, err)
		}
	})
	f.eachCut(t, func(what, dir string, _ int) {
		s := openAfter(t, what, dir)
		defer s.Close()
		for h, data := range want {
			typ, got, err := s.Object(h)
			if err != nil || typ.String()+string(got) != data {
				t.Fatalf("%s: object %s is lost: %v", what, h, err)
			}
		}
		if packs, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*.pack")); len(packs) != s.PackCount() {
			t.Fatalf("%s: half of a pack is left: %v", what, packs)
		}
		stillWrites(t, what, s, head)
	})
}

func TestPowerCutDuringCreation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo.git")
	f := &film{root: dir}
	f.start = photograph(t, dir)
	s := &Store{}
	*s = Store{
		dir: dir, patience: lockPatience, reads: newPackReader(8, 1<<20), objects: newLRU[Hash, cachedObject](1 << 20),
		landing: map[string]int{}, watcher: f.watch,
	}
	s.packs.Store(&[]*pack{})
	if err := s.create("main"); err != nil {
		t.Fatal(err)
	}
	f.eachCut(t, func(what, dir string, k int) {
		s := openAfter(t, what, dir)
		defer s.Close()
		if head, err := s.Head(); err != nil || head != "refs/heads/main" {
			t.Fatalf("%s: head is %s, %v", what, head, err)
		}
		if conf, err := readConfig(filepath.Join(dir, "config")); err != nil || conf["core.fsync"] != "all" {
			t.Fatalf("%s: config is %v, %v", what, conf, err)
		}
		stillWrites(t, what, s, Zero)
	})
}

// Each step in turn fails, once: what was acknowledged stays, what failed changed nothing or all, and the store goes
// on, unless it was a sync that failed.
func TestEveryStepMayFail(t *testing.T) {
	base := newStore(t)
	base.packLimit = 2
	old := grow(t, base, Zero, 2)
	git(t, base.Dir(), "update-ref", "refs/heads/gone", old.String())
	git(t, base.Dir(), "pack-refs", "--all", "--prune")
	pack, tip := goodPack(t, base)
	start := photograph(t, base.Dir())
	scenarios := map[string]func(ctx context.Context, s *Store) (Hash, error){
		"write": func(ctx context.Context, s *Store) (Hash, error) {
			b := s.NewBatch()
			h := add(t, b, map[string]string{"x": "y"}, old)
			b.Set(RefUpdate{"refs/heads/main", old, h})
			b.Set(RefUpdate{"refs/heads/new/deep", Zero, h})
			b.Set(RefUpdate{"refs/heads/gone", old, Zero})
			return h, s.Write(ctx, b)
		},
		"push": func(ctx context.Context, s *Store) (Hash, error) { return land(ctx, s, old, pack, tip) },
		"maintain": func(ctx context.Context, s *Store) (Hash, error) {
			_, err := s.Maintain(ctx)
			return old, err
		},
	}
	for name, run := range scenarios {
		for n := 0; ; n++ {
			what := fmt.Sprintf("%s, step %d fails", name, n)
			dir := scratch(t)
			start.develop(t, dir)
			s := openAfter(t, what, dir)
			failed, hook := failAt(n)
			s.watcher = hook
			h, err := run(t.Context(), s)
			s.watcher = nil
			if failed.op == "" {
				if err != nil {
					t.Errorf("%s: nothing failed, got %v", name, err)
				}
				s.Close()
				break
			}
			checkFailed(t, fmt.Sprintf("%s (%s)", what, failed.op), s, failed, err)
			again, err2 := Open(dir, Options{})
			if err2 != nil {
				t.Fatalf("%s: open again: %v", what, err2)
			}
			main := wholeRef(t, what, again, "refs/heads/main")
			if main != h && (main != old || err == nil) {
				t.Errorf("%s: main is at %s after %v", what, main, err)
			}
			stillWrites(t, what, again, main)
			again.Close()
			s.Close()
		}
	}
}

// land receives a pack and lands it on main.
func land(ctx context.Context, s *Store, old Hash, pack []byte, tip Hash) (Hash, error) {
	in, err := s.receive(ctx, bytes.NewReader(pack), 1<<20)
	if err != nil {
		return tip, err
	}
	defer in.discard()
	p := &Push{Updates: []RefUpdate{{"refs/heads/main", old, tip}}, store: s, in: in}
	return tip, p.Land(ctx)
}

func TestPowerCutDuringPush(t *testing.T) {
	s := newStore(t)
	old := put(t, s, "main", map[string]string{"a": "1"})
	pack, tip := goodPack(t, s)
	f := play(t, s, func() {
		if _, err := land(t.Context(), s, old, pack, tip); err != nil {
			t.Fatal(err)
		}
	})
	check := func(what, dir string, k int) {
		s := openAfter(t, what, dir)
		defer s.Close()
		main := wholeRef(t, what, s, "refs/heads/main")
		if main != tip && (main != old || k == len(f.steps)) {
			t.Fatalf("%s: main is at %s", what, main)
		}
	}
	f.eachCut(t, check)
	f.eachLoss(t, check)
}

func checkFailed(t *testing.T, what string, s *Store, failed *diskStep, err error) {
	t.Helper()
	sync := failed.op == opSync || failed.op == opSyncD
	if sync && (!errors.Is(err, ErrBroken) || !errors.Is(s.writable(), ErrBroken)) {
		t.Errorf("%s: got %v, and the store takes writes: %v; want ErrBroken", what, err, s.writable())
	}
	if !sync && failed.op != opRemove && err == nil {
		t.Errorf("%s: the failure was not reported", what)
	}
}

// failAt makes the n-th step fail as a full or broken disk would.
func failAt(n int) (*diskStep, func(diskStep) error) {
	var mu sync.Mutex
	failed := &diskStep{}
	return failed, func(s diskStep) error {
		mu.Lock()
		defer mu.Unlock()
		if n--; n != -1 {
			return nil
		}
		*failed = s
		if s.op == opSync || s.op == opSyncD {
			return syscall.EIO
		}
		return syscall.ENOSPC
	}
}

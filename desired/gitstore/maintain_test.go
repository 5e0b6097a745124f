// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/connectsoft/plumbline/desired"
)

// allObjects reads every object that any pack of the store holds.
func allObjects(t testing.TB, s *Store) map[Hash]string {
	t.Helper()
	out := make(map[Hash]string)
	for _, p := range *s.packs.Load() {
		entries, err := p.entries()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			typ, data, err := s.Object(e.hash)
			if err != nil {
				t.Fatal(err)
			}
			out[e.hash] = typ.String() + string(data)
		}
	}
	return out
}

// grow writes n batches of a few commits each.
func grow(t testing.TB, s *Store, head Hash, n int) Hash {
	t.Helper()
	for i := range n {
		b := s.NewBatch()
		old := head
		for j := range 3 {
			var parents []Hash
			if !head.IsZero() {
				parents = []Hash{head}
			}
			head = add(t, b, map[string]string{fmt.Sprintf("d%d/f%d", i%5, j): fmt.Sprint(s.PackCount(), i, j)}, parents...)
		}
		b.AddBlob(fmt.Appendf(nil, "unreachable %d", i)) // must not be dropped either
		b.Set(RefUpdate{"refs/heads/main", old, head})
		if err := s.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	return head
}

func TestMaintainKeepsEveryObject(t *testing.T) {
	s := newStore(t)
	s.packLimit = 4
	head := grow(t, s, Zero, 3)
	if st, err := s.Maintain(t.Context()); err != nil || st != (MaintenanceStats{Packs: 3}) {
		t.Errorf("below the limit: got %+v, %v, want nothing done", st, err)
	}
	head = grow(t, s, head, 9)
	long := strings.Repeat("a line of a long file\n", 200)
	for i := range 5 {
		head = put(t, s, "main", map[string]string{"long": fmt.Sprint(long, i)}, head)
	}
	git(t, s.Dir(), "-c", "repack.writeBitmaps=false", "repack", "-q", "-adf", "--depth=20") // a pack of git's with OFS_DELTA
	if chains := git(t, s.Dir(), "verify-pack", "-v", (*reopen(t, s).packs.Load())[0].idxPath()); !strings.Contains(chains, "chain length = 1") {
		t.Error("git made no chain of deltas: the test proves too little")
	}
	if _, err := s.rescan(); err != nil {
		t.Fatal(err)
	}
	grow(t, s, head, 4)
	want := allObjects(t, s)
	st, err := s.Maintain(t.Context())
	if err != nil || st.Merged != st.Packs || st.Removed != st.Packs || s.PackCount() != 1 {
		t.Errorf("got %+v, %v, %d packs, want one", st, err, s.PackCount())
	}
	for _, r := range []*Store{s, reopen(t, s)} {
		got := allObjects(t, r)
		for h, data := range want {
			if got[h] != data {
				t.Fatalf("object %s is gone or changed", h)
			}
		}
	}
	fsck(t, s)
	packs, err := filepath.Glob(filepath.Join(s.Dir(), "objects/pack/*"))
	if err != nil || len(packs) != 2 {
		t.Errorf("objects/pack holds %v, want one pack and its index", packs)
	}
	git(t, s.Dir(), "index-pack", "--strict", "-o", t.TempDir()+"/x.idx", (*s.packs.Load())[0].path)
}

// A reader that began before a merge must look again, although the directory holds nothing that we do not know.
func TestReadersNoticeAMerge(t *testing.T) {
	s := newStore(t)
	s.packLimit = 2
	grow(t, s, Zero, 3)
	before := s.packs.Load()
	if again, err := s.changed(before); err != nil || again {
		t.Errorf("nothing happened: got %v, %v, want false", again, err)
	}
	if _, err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.rescan(); err != nil {
		t.Fatal(err)
	}
	if again, err := s.changed(before); err != nil || !again {
		t.Errorf("after a merge: got %v, %v, want true", again, err)
	}
}

func TestMaintainLeavesWhatOthersClaim(t *testing.T) {
	s := newStore(t)
	s.packLimit = 2
	head := grow(t, s, Zero, 3)
	git(t, s.Dir(), "multi-pack-index", "write")
	indexed := packNames(s)
	head = grow(t, s, head, 2)
	kept := (*s.packs.Load())[0].name
	write(t, filepath.Join(s.Dir(), "objects/pack", kept+".keep"), "by an operator")
	grow(t, s, head, 3)
	if _, err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := packNames(s)
	for _, name := range append(indexed, kept) {
		if !slices.Contains(left, name) {
			t.Errorf("%s was merged, though it is claimed", name)
		}
	}
	if len(left) != 5 {
		t.Errorf("%d packs are left, want 3 indexed, 1 kept, 1 merged", len(left))
	}
	fsck(t, s)
	git(t, s.Dir(), "multi-pack-index", "verify")
}

func packNames(s *Store) []string {
	var out []string
	for _, p := range *s.packs.Load() {
		out = append(out, p.name)
	}
	slices.Sort(out)
	return out
}

func TestMaintainStopsAtDamage(t *testing.T) {
	s := newStore(t)
	s.packLimit = 2
	grow(t, s, Zero, 4)
	before := packNames(s)
	victim := (*s.packs.Load())[1]
	damage(t, victim.path, victim.size/2)
	if _, err := s.Maintain(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
	if got := packNames(s); !slices.Equal(got, before) {
		t.Errorf("packs changed from %v to %v", before, got)
	}
	if _, err := s.Maintain(t.Context()); err != nil {
		t.Errorf("second round, without the damaged pack: %v", err)
	}
	if got := packNames(s); len(got) != 2 || !slices.Contains(got, victim.name) {
		t.Errorf("left %v, want the damaged pack and a merged one", got)
	}
}

// damage flips a bit of a file that is not open for writing to anybody.
func damage(t testing.TB, path string, at int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 0x10
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, string(data))
}

func TestSweepIsFinishedAfterACrash(t *testing.T) {
	s := newStore(t)
	s.packLimit = 2
	grow(t, s, Zero, 3)
	old := packNames(s)
	saved := map[string]string{}
	for _, n := range old {
		for _, ext := range []string{".pack", ".idx"} {
			data, err := os.ReadFile(filepath.Join(s.packDir(), n+ext))
			if err != nil {
				t.Fatal(err)
			}
			saved[n+ext] = string(data)
		}
	}
	if _, err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	into := packNames(s)[0]
	// The state in the middle of the sweep: the note is there, one pack is whole and one has lost its index.
	write(t, s.path(sweepFile), into+"\n"+strings.Join(old, "\n")+"\n")
	write(t, filepath.Join(s.packDir(), old[0]+".pack"), saved[old[0]+".pack"])
	write(t, filepath.Join(s.packDir(), old[1]+".pack"), saved[old[1]+".pack"])
	write(t, filepath.Join(s.packDir(), old[1]+".idx"), saved[old[1]+".idx"])
	s = reopen(t, s)
	if got := packNames(s); !slices.Equal(got, []string{into}) {
		t.Errorf("packs after the restart: %v, want %s", got, into)
	}
	// The new pack is not there: nothing may be removed.
	write(t, s.path(sweepFile), "pack-0000000000000000000000000000000000000000\n"+into+"\n")
	s = reopen(t, s)
	if got := packNames(s); !slices.Equal(got, []string{into}) {
		t.Errorf("packs after a note about an absent pack: %v, want %s", got, into)
	}
	fsck(t, s)
}

// Writes, reads, our maintenance and git's own gc, repack and clone all run at once. No acknowledged object may
// be missing at the end, and no read may fail on the way.
func TestGitMaintenanceWhileWeWrite(t *testing.T) {
	s := newStore(t)
	s.packLimit = 8
	first := put(t, s, "main", map[string]string{"f": "0"})
	heads := make(chan Hash, 1000)
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		defer close(heads)
		head := first
		for range 80 {
			head = grow(t, s, head, 1)
			heads <- head
		}
	})
	wg.Go(func() {
		for h := range heads {
			if err := readAll(s, h); err != nil {
				t.Error("read:", err)
			}
		}
	})
	wg.Go(func() {
		for running(done) {
			if _, err := s.Maintain(t.Context()); err != nil {
				t.Error("maintain:", err)
			}
		}
	})
	wg.Go(func() {
		dir := t.TempDir()
		for i := 0; running(done); i++ {
			for _, args := range [][]string{{"gc", "-q", "--prune=now"}, {"repack", "-q", "-ad"}, {"pack-refs", "--all"}} {
				if out, err := tryGit(t, s.Dir(), "", args...); err != nil {
					t.Errorf("git %v: %v\n%s", args, err, out)
				}
			}
			if out, err := tryGit(t, dir, "", "clone", "-q", "--no-local", s.Dir(), fmt.Sprint("c", i)); err != nil {
				t.Errorf("clone: %v\n%s", err, out)
			}
		}
	})
	wg.Wait()
	fsck(t, s)
	if got := git(t, s.Dir(), "rev-list", "--count", "main"); got != "241" {
		t.Errorf("history has %s commits, want 241", got)
	}
	fsck(t, reopen(t, s))
}

func running(done chan struct{}) bool {
	select {
	case <-done:
		return false
	default:
		return true
	}
}

// readAll reads a commit and everything below it past the cache.
func readAll(s *Store, h Hash) error {
	c, err := s.Commit(h)
	if err != nil {
		return err
	}
	return DiffTrees(s, Zero, c.Tree, func(f FileChange) error {
		_, err := s.Blob(f.New.Hash)
		return err
	})
}

func TestMerge(t *testing.T) {
	s := newStore(t)
	lines := strings.Repeat("line\n", 20)
	base := put(t, s, "main", map[string]string{"a": "1", "dir/long": "top\n" + lines + "end\n"})
	ours := put(t, s, "ours", map[string]string{"dir/long": "TOP\n" + lines + "end\n", "new/x": "1"}, base)
	theirs := put(t, s, "theirs", map[string]string{"dir/long": "top\n" + lines + "END\n", "a": ""}, base)
	clash := put(t, s, "clash", map[string]string{"dir/long": "TIP\n" + lines + "end\n", "a": "2"}, base)
	alone := put(t, s, "alone", map[string]string{"z": "1"})
	packs := state(t, s)
	b := s.NewBatch()
	m, err := s.Merge(t.Context(), b, ours, theirs)
	if err != nil || m.Base != base || len(m.Conflicts) != 0 {
		t.Fatalf("clean merge: got %+v, %v", m, err)
	}
	if after := state(t, s); after != packs {
		t.Errorf("the merge changed the store:\n%s\n%s", packs, after)
	}
	h := b.AddCommit(&Commit{Tree: m.Tree, Parents: []Hash{ours, theirs}, Author: someone, Committer: someone, Message: "merge\n"}, nil)
	b.Set(RefUpdate{"refs/heads/ours", ours, h})
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := git(t, s.Dir(), "show", h.String()+":dir/long"); got != "TOP\n"+lines+"END" {
		t.Errorf("merged file: %q", got)
	}
	if got := git(t, s.Dir(), "ls-tree", "-r", "--name-only", h.String()); got != "dir/long\nnew/x" {
		t.Errorf("merged tree: %q", got)
	}
	m, err = s.Merge(t.Context(), s.NewBatch(), ours, clash)
	if err != nil || !m.Tree.IsZero() || !slices.Equal(m.Conflicts, []string{"dir/long"}) || m.Base != base {
		t.Errorf("conflict: got %+v, %v", m, err)
	}
	m, err = s.Merge(t.Context(), s.NewBatch(), ours, alone)
	if err != nil || m.Tree.IsZero() || !m.Base.IsZero() {
		t.Errorf("unrelated histories: got %+v, %v, want a tree and no base", m, err)
	}
	m, err = s.Merge(t.Context(), s.NewBatch(), h, ours)
	if c, _ := s.Commit(h); err != nil || m.Tree != c.Tree || m.Base != ours {
		t.Errorf("merge of an ancestor: got %+v, %v", m, err)
	}
	if _, err := s.Merge(t.Context(), s.NewBatch(), h, Hash{1}); !errors.Is(err, ErrNotFound) {
		t.Errorf("absent commit: got %v, want ErrNotFound", err)
	}
	if _, err := s.Merge(t.Context(), s.NewBatch(), h, m.Tree); desired.ClassOf(err) != desired.Invalid {
		t.Errorf("a tree instead of a commit: got %v, want invalid", err)
	}
	fsck(t, s)
}

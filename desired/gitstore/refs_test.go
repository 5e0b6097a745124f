// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

func move(t testing.TB, s *Store, updates ...RefUpdate) error {
	t.Helper()
	b := s.NewBatch()
	for _, u := range updates {
		b.Set(u)
	}
	return s.Write(t.Context(), b)
}

func TestCheckRefNameAgreesWithGit(t *testing.T) {
	names := []string{
		"refs/heads/main", "refs/heads/a/b", "refs/heads/a..b", "refs/heads/.a", "refs/heads/a.", "refs/heads/a.lock",
		"refs/heads/a.lock/b", "refs/heads/a b", "refs/heads/a~b", "refs/heads/a^", "refs/heads/a:b", "refs/heads/a?",
		"refs/heads/a*", "refs/heads/a[b", `refs/heads/a\b`, "refs/heads//a", "refs/heads/a/", "refs/heads/@{a", "refs/heads/@",
		"refs/heads/a\x7f", "refs/heads/a\x01", "refs/heads/ü", "refs/heads/-x", "/refs/heads/a", "refs/heads/a/.b", "refs/heads/",
		"refs/heads/" + strings.Repeat("a/", 60) + "b",
	}
	for _, name := range names {
		_, err := tryGit(t, t.TempDir(), "", "check-ref-format", name)
		if got, want := CheckRefName(name) == nil, err == nil; got != want {
			t.Errorf("%q: valid %v, git says %v", name, got, want)
		}
	}
	for _, name := range []string{"HEAD", "main", "refs/main", "../refs/heads/x"} {
		if CheckRefName(name) == nil {
			t.Errorf("%q is accepted, want only names below refs/x/", name)
		}
	}
}

func TestUpdateComparesAndSwaps(t *testing.T) {
	s := newStore(t)
	a := put(t, s, "main", map[string]string{"f": "a"})
	b := put(t, s, "main", map[string]string{"f": "b"}, a)
	const name = "refs/heads/main"
	rows := []struct {
		what string
		u    RefUpdate
		want *RefError
	}{
		{"create of an existing ref", RefUpdate{name, Zero, a}, &RefError{Name: name, Actual: b}},
		{"stale old value", RefUpdate{name, a, a}, &RefError{Name: name, Expected: a, Actual: b}},
		{"stale delete", RefUpdate{name, a, Zero}, &RefError{Name: name, Expected: a, Actual: b}},
		{"update of an absent ref", RefUpdate{"refs/heads/x", a, b}, &RefError{Name: "refs/heads/x", Expected: a}},
		{"right old value", RefUpdate{name, b, a}, nil},
		{"no change", RefUpdate{name, a, a}, nil},
	}
	for _, row := range rows {
		err := move(t, s, row.u)
		var got *RefError
		if errors.As(err, &got); row.want == nil && err != nil || row.want != nil && (got == nil || *got != *row.want) {
			t.Errorf("%s: got %v, want %v", row.what, err, row.want)
		}
	}
	if h, err := s.Resolve(name); err != nil || h != a {
		t.Errorf("main: got %s, %v, want %s", h, err, a)
	}
	for _, dir := range []string{"plumbline/locks", "refs/heads"} {
		left, err := os.ReadDir(filepath.Join(s.Dir(), dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			if e.Name() != "main" {
				t.Errorf("%s/%s was left behind", dir, e.Name())
			}
		}
	}
	if tmp, _ := filepath.Glob(filepath.Join(s.Dir(), "objects/pack/*.[tk][me][pe]*")); len(tmp) > 0 {
		t.Errorf("left in objects/pack: %v", tmp)
	}
}

func TestDeleteOfPackedAndLooseRefs(t *testing.T) {
	s := newStore(t)
	a := put(t, s, "main", map[string]string{"f": "a"})
	for _, n := range []string{"packed", "both", "loose", "stays"} {
		if err := move(t, s, RefUpdate{"refs/heads/" + n, Zero, a}); err != nil {
			t.Fatal(err)
		}
	}
	git(t, s.Dir(), "tag", "-a", "-m", "x", "v1", "main")
	git(t, s.Dir(), "pack-refs", "--all", "--prune")
	b := put(t, s, "both", map[string]string{"f": "b"}, a) // loose over packed
	if err := move(t, s, RefUpdate{"refs/heads/fresh", Zero, a}); err != nil {
		t.Fatal(err)
	}
	err := move(t, s, RefUpdate{"refs/heads/packed", a, Zero}, RefUpdate{"refs/heads/both", b, Zero},
		RefUpdate{"refs/heads/fresh", a, Zero}, RefUpdate{"refs/heads/new/deep", Zero, b})
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%[1]s refs/heads/loose\n%[1]s refs/heads/main\n%[2]s refs/heads/new/deep\n%[1]s refs/heads/stays", a, b)
	if got := git(t, s.Dir(), "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads"); got != want {
		t.Errorf("git lists\n%s\nwant\n%s", got, want)
	}
	refs, err := s.Refs("refs/heads/")
	if err != nil {
		t.Fatal(err)
	}
	var mine []string
	for _, r := range refs {
		mine = append(mine, r.Hash.String()+" "+r.Name)
	}
	if got := strings.Join(mine, "\n"); got != want {
		t.Errorf("Refs lists\n%s\nwant\n%s", got, want)
	}
	if got := git(t, s.Dir(), "rev-parse", "v1^{commit}"); got != a.String() {
		t.Errorf("peeled tag: got %s, want %s", got, a)
	}
	fsck(t, s)
}

func TestRefNamesThatAreDirectories(t *testing.T) {
	s := newStore(t)
	a := put(t, s, "main", map[string]string{"f": "a"})
	for _, n := range []string{"loose/x", "packed/x", "gone/x/y"} {
		if err := move(t, s, RefUpdate{"refs/heads/" + n, Zero, a}); err != nil {
			t.Fatal(err)
		}
		if n == "packed/x" {
			git(t, s.Dir(), "pack-refs", "--all", "--prune")
		}
	}
	if err := move(t, s, RefUpdate{"refs/heads/gone/x/y", a, Zero}); err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{
		"loose": false, "packed": false, "loose/x/y": false, "packed/x/y": false, "main/x": false, "gone": true, "loose/y": true,
	} {
		err := move(t, s, RefUpdate{"refs/heads/" + name, Zero, a})
		if ok && err != nil || !ok && desired.ClassOf(err) != desired.Conflict {
			t.Errorf("create %s: got %v, want success %v", name, err, ok)
		}
	}
	err := move(t, s, RefUpdate{"refs/heads/n", Zero, a}, RefUpdate{"refs/heads/n/m", Zero, a})
	if desired.ClassOf(err) != desired.Conflict {
		t.Errorf("n and n/m in one write: got %v, want conflict", err)
	}
	if _, err := s.Resolve("refs/heads/n"); !errors.Is(err, ErrNoRef) {
		t.Errorf("n after the refusal: got %v, want ErrNoRef", err)
	}
	fsck(t, s)
}

func TestTornRefIsCorruptAndNeverAnOlderOne(t *testing.T) {
	s := newStore(t)
	a := put(t, s, "main", map[string]string{"f": "a"})
	git(t, s.Dir(), "pack-refs", "--all", "--prune")
	b := put(t, s, "main", map[string]string{"f": "b"}, a)
	path := filepath.Join(s.Dir(), "refs/heads/main")
	for _, content := range []string{"", "\n", b.String()[:20], strings.Repeat("\x00", 41), strings.Repeat("0", 40) + "\n", b.String() + "x", "ref: refs/heads/", "ref: "} {
		write(t, path, content)
		if h, err := s.Resolve("refs/heads/main"); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: got %s, %v, want ErrCorrupt", content, h, err)
		}
		if _, err := s.Refs("refs/"); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: Refs gives %v, want ErrCorrupt", content, err)
		}
		if err := move(t, s, RefUpdate{"refs/heads/main", a, b}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: update gives %v, want ErrCorrupt", content, err)
		}
		if _, err := Open(s.Dir(), Options{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: Open gives %v, want ErrCorrupt", content, err)
		}
	}
	write(t, path, Hash{7}.String()+"\n")
	if _, err := Open(s.Dir(), Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("ref to a missing object: Open gives %v, want ErrCorrupt", err)
	}
}

func TestForeignLockIsWaitedForAndKept(t *testing.T) {
	s := newStore(t)
	a := put(t, s, "main", map[string]string{"f": "a"})
	lock := filepath.Join(s.Dir(), "refs/heads/main.lock")
	write(t, lock, "")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	b := s.NewBatch()
	h := add(t, b, map[string]string{"f": "b"}, a)
	b.Set(RefUpdate{"refs/heads/main", a, h})
	if err := s.Write(ctx, b); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	if got, err := s.Resolve("refs/heads/main"); err != nil || got != a || s.PackCount() != 1 {
		t.Errorf("a cancelled write changed something: main %s, %v, %d packs", got, err, s.PackCount())
	}
	s.patience = 50 * time.Millisecond
	err := s.Write(t.Context(), b)
	var held *RefError
	if !errors.As(err, &held) || !held.Locked || held.Name != "refs/heads/main" || held.Expected != a {
		t.Errorf("got %v, want a RefError that says locked", err)
	}
	if _, err := os.Lstat(lock); err != nil {
		t.Fatalf("the foreign lock is gone: %v", err)
	}
	s.patience = lockPatience
	done := make(chan error)
	go func() { done <- s.Write(t.Context(), b) }()
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("after the lock was given up: %v", err)
	}
	fsck(t, s)
}

func TestSetHead(t *testing.T) {
	s := newStore(t)
	put(t, s, "trunk", map[string]string{"f": "a"})
	if err := s.SetHead(t.Context(), "refs/heads/trunk"); err != nil {
		t.Fatal(err)
	}
	if got := git(t, s.Dir(), "symbolic-ref", "HEAD"); got != "refs/heads/trunk" {
		t.Errorf("git says HEAD is %s, want refs/heads/trunk", got)
	}
	h, err := s.Resolve("HEAD")
	if err != nil || h.String() != git(t, s.Dir(), "rev-parse", "HEAD") {
		t.Errorf("HEAD resolves to %s, %v", h, err)
	}
	if err := s.SetHead(t.Context(), "refs/tags/x"); desired.ClassOf(err) != desired.Invalid {
		t.Errorf("HEAD at a tag: got %v, want invalid", err)
	}
}

func TestSyncFailureStopsWrites(t *testing.T) {
	s := newStore(t)
	a := put(t, s, "main", map[string]string{"f": "a"})
	if err := s.fail(errors.New("input/output error")); !errors.Is(err, ErrBroken) {
		t.Fatalf("fail gives %v, want ErrBroken", err)
	}
	if err := move(t, s, RefUpdate{"refs/heads/x", Zero, a}); !errors.Is(err, ErrBroken) {
		t.Errorf("write: got %v, want ErrBroken", err)
	}
	if err := s.SetHead(t.Context(), "refs/heads/x"); !errors.Is(err, ErrBroken) {
		t.Errorf("SetHead: got %v, want ErrBroken", err)
	}
	if _, err := s.Commit(a); err != nil {
		t.Errorf("reads must go on: %v", err)
	}
}

// Writers of three kinds move one branch at a time: this package, git update-ref and git push. Each acknowledged
// commit must be in the history of the end.
func TestNoLostUpdateAgainstGit(t *testing.T) {
	s := newStore(t)
	put(t, s, "main", map[string]string{"f": "0"})
	const rounds = 25
	var wg sync.WaitGroup
	acked := make([][]Hash, 4)
	for w := range 2 {
		wg.Go(func() { acked[w] = ownWriter(t, s, w, rounds) })
	}
	wg.Go(func() { acked[2] = updateRefWriter(t, s, rounds) })
	wg.Go(func() { acked[3] = pushWriter(t, s, rounds/2) })
	wg.Wait()
	history := "\n" + git(t, s.Dir(), "rev-list", "main") + "\n"
	for w, list := range acked {
		if len(list) == 0 {
			t.Errorf("writer %d never succeeded", w)
		}
		for _, h := range list {
			if !strings.Contains(history, "\n"+h.String()+"\n") {
				t.Errorf("writer %d: acknowledged commit %s is lost", w, h)
			}
		}
	}
	fsck(t, s)
}

func ownWriter(t *testing.T, s *Store, w, rounds int) (acked []Hash) {
	for i := range rounds {
		for {
			old, err := s.Resolve("refs/heads/main")
			if err != nil {
				t.Error(err)
				return acked
			}
			b := s.NewBatch()
			h := add(t, b, map[string]string{fmt.Sprintf("own%d/%d", w, i): "x"}, old)
			b.Set(RefUpdate{"refs/heads/main", old, h})
			err = s.Write(t.Context(), b)
			var moved *RefError
			if errors.As(err, &moved) {
				continue
			}
			if err != nil {
				t.Error(err)
				return acked
			}
			acked = append(acked, h)
			break
		}
	}
	return acked
}

func updateRefWriter(t *testing.T, s *Store, rounds int) (acked []Hash) {
	for i := range rounds {
		for range 200 {
			old, err := tryGit(t, s.Dir(), "", "rev-parse", "refs/heads/main")
			if err != nil {
				t.Error(err, old)
				return acked
			}
			old = strings.TrimSpace(old)
			out, err := tryGit(t, s.Dir(), "", "commit-tree", "-p", old, "-m", fmt.Sprint("update-ref ", i), old+"^{tree}")
			if err != nil {
				t.Error(err, out)
				return acked
			}
			h, err := ParseHash(strings.TrimSpace(out))
			if err != nil {
				t.Error(err)
				return acked
			}
			if _, err := tryGit(t, s.Dir(), "", "update-ref", "refs/heads/main", h.String(), old); err == nil {
				acked = append(acked, h)
				break
			}
		}
	}
	return acked
}

func pushWriter(t *testing.T, s *Store, rounds int) (acked []Hash) {
	work := filepath.Join(t.TempDir(), "work")
	if out, err := tryGit(t, ".", "", "clone", "-q", s.Dir(), work); err != nil {
		t.Error(err, out)
		return nil
	}
	run := func(args ...string) (string, error) { return tryGit(t, work, "", args...) }
	for i := range rounds {
		if out, err := run("commit", "--allow-empty", "-qm", fmt.Sprint("push ", i)); err != nil {
			t.Error(err, out)
			return acked
		}
		for range 100 {
			if _, err := run("push", "-q", "origin", "HEAD:main"); err == nil {
				out, _ := run("rev-parse", "HEAD")
				h, err := ParseHash(strings.TrimSpace(out))
				if err != nil {
					t.Error(err)
				}
				acked = append(acked, h)
				break
			}
			if out, err := run("pull", "-q", "--rebase", "origin", "main"); err != nil {
				var exit *exec.ExitError
				if !errors.As(err, &exit) {
					t.Error(err, out)
					return acked
				}
			}
		}
	}
	return acked
}

// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/internal/fp"
)

// lockPatience is how long a lock of another program is waited for.
const lockPatience = 3 * time.Second

// refLock is a lock in git's sense: <ref>.lock exists and no other program has it. The file is made under a name of
// our own in plumbline/locks and then linked, so that after a crash our locks can be told from those of others:
// both names are the same file.
type refLock struct {
	store  *Store
	ref    string // "refs/heads/main", "HEAD", "packed-refs"
	own    string // path in plumbline/locks
	target string // path of the ref
	held   bool
}

// newLock writes the future content of a ref under our own name. It is not durable and not yet a lock.
func (s *Store) newLock(ref string, content []byte) (*refLock, error) {
	l := &refLock{store: s, ref: ref, target: s.path(ref)}
	fp.Hit("ref.write")
	l.own = filepath.Join(s.path("plumbline/locks"), uniqueName())
	f, err := s.createNew(l.own, 0o666)
	if err != nil {
		return nil, err
	}
	_, err = s.write(f, content)
	if err == nil {
		fp.Hit("ref.fsync")
		err = s.syncFile(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

func uniqueName() string {
	var b [12]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (l *refLock) path() string { return l.target + ".lock" }

// acquire takes the lock. It waits a few seconds for another program to give it up.
func (l *refLock) acquire(ctx context.Context) error {
	patience := time.NewTimer(l.store.patience)
	defer patience.Stop()
	fp.Hit("lock.create")
	made := false
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := l.store.link(l.own, l.path())
		switch {
		case err == nil:
			l.held = true
			return nil
		case errors.Is(err, fs.ErrNotExist):
			if err := l.store.makeParents(l.ref, filepath.Dir(l.target)); err != nil {
				return err
			}
			if !made {
				made = true
				continue
			}
		case !errors.Is(err, fs.ErrExist):
			if errors.Is(err, syscall.ENOTDIR) {
				return blocked(l.ref)
			}
			return err
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-patience.C:
			pause.Stop()
			return &RefError{Name: l.ref, Locked: true}
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
	}
}

// blocked is the error for a ref below another ref.
func blocked(ref string) error {
	return desired.Errorf("update ref", desired.Ref{}, desired.Conflict,
		"%s cannot be created: a part of its name is itself a ref; delete that one or choose another name", ref)
}

// makeParents makes the directory of a ref and those above it, durably.
func (s *Store) makeParents(ref, dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return blocked(ref)
		}
		return nil
	}
	if err := s.makeParents(ref, filepath.Dir(dir)); err != nil {
		return err
	}
	err := s.mkdir(dir)
	if errors.Is(err, fs.ErrExist) {
		return s.makeParents(ref, dir)
	}
	if err != nil {
		return err
	}
	return s.syncDir(filepath.Dir(dir))
}

// commit renames the lock over the ref. The caller syncs the directory.
func (l *refLock) commit() error {
	fp.Hit("ref.rename")
	if err := l.store.rename(l.path(), l.target); err != nil {
		return err
	}
	l.held = false
	return nil
}

// release gives up the lock when it is held and removes our own name, in this order: a crash in between must leave
// the name by which the lock is recognised.
func (l *refLock) release() {
	if l.held {
		if err := l.store.remove(l.path()); err != nil {
			return // the next Open recognises and breaks it
		}
		l.held = false
	}
	_ = l.store.remove(l.own) // the next Open removes it
}

// breakOwnLocks removes the locks that a crash of ours left, and no other.
func (s *Store) breakOwnLocks() error {
	dir := s.path("plumbline/locks")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return err
	}
	var ours []fs.FileInfo
	for _, e := range entries {
		info, err := os.Lstat(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		ours = append(ours, info)
	}
	locks := []string{s.path("HEAD.lock"), s.path("packed-refs.lock")}
	err = filepath.WalkDir(s.path("refs"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another program is at work
		}
		if err == nil && strings.HasSuffix(path, ".lock") {
			locks = append(locks, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, path := range locks {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, own := range ours {
			if os.SameFile(own, info) {
				if err := s.remove(path); err != nil {
					return err
				}
			}
		}
	}
	for _, e := range entries {
		if err := s.remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// nameLocks serialises the writers of this process by ref, so that only strangers are met at the lock files.
type nameLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// lock takes all names, which must be sorted and without duplicates, and returns their release.
func (n *nameLocks) lock(ctx context.Context, names []string) (func(), error) {
	taken := 0
	unlock := func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, name := range names[:taken] {
			close(n.held[name])
			delete(n.held, name)
		}
	}
	for _, name := range names {
		for {
			n.mu.Lock()
			if n.held == nil {
				n.held = make(map[string]chan struct{})
			}
			busy, ok := n.held[name]
			if !ok {
				n.held[name] = make(chan struct{})
				n.mu.Unlock()
				break
			}
			n.mu.Unlock()
			select {
			case <-busy:
			case <-ctx.Done():
				unlock()
				return nil, ctx.Err()
			}
		}
		taken++
	}
	return unlock, nil
}

// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// hosted is one open repository. It lives until it is closed, moved, or its directory is another one.
type hosted struct {
	ref   desired.Ref
	dir   string
	info  fs.FileInfo // of dir when it was opened
	ready func() error
	store *gitstore.Store
	door  *gitstore.Door
	pairs pairs

	cached atomic.Pointer[cachedSettings]

	// Guarded by Local.mu.
	users   int
	used    uint64
	retired bool          // close it when its last user is gone
	idle    chan struct{} // closed when its last user is gone; nil = nobody waits

	mu      sync.Mutex // held while this process changes references or settings
	changes changes
}

// errMissing says that a repository is known not to be there.
var errMissing = errors.New("the repository is missing")

func (l *Local) path(r desired.Ref) string {
	return filepath.Join(l.cfg.Dir, r.Tenant, r.Project, r.Name+".git")
}

// nursery is where new repositories are built before they move to their place.
func (l *Local) nursery() string { return filepath.Join(l.cfg.Dir, ".new") }

// use opens a repository, or joins those who use it. The caller calls release when done.
func (l *Local) use(ctx context.Context, ref desired.Ref) (*hosted, func(), error) {
	info, err := l.stat(ref)
	if err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	if l.moving[ref] {
		l.mu.Unlock()
		return nil, nil, desired.Errorf("open repository", ref, desired.Transient, "it is just being created, renamed or removed")
	}
	h := l.repos[ref]
	if h != nil && !os.SameFile(h.info, info) {
		l.retireLocked(h)
		h = nil
	}
	if h == nil {
		h = &hosted{ref: ref, dir: l.path(ref), info: info}
		h.ready = sync.OnceValue(func() error { return l.open(h) })
		l.repos[ref] = h
		l.evict()
	}
	h.users++
	l.clock++
	h.used = l.clock
	l.mu.Unlock()
	release := func() { l.release(h) }
	if err := h.ready(); err != nil {
		l.retire(h)
		release()
		return nil, nil, err
	}
	return h, release, ended(ctx, "open repository", ref)
}

// stat finds the directory of a repository; errMissing only when it is certain that there is none.
func (l *Local) stat(ref desired.Ref) (fs.FileInfo, error) {
	info, err := os.Stat(l.path(ref))
	if !errors.Is(err, fs.ErrNotExist) {
		return info, err
	}
	if _, err := os.Stat(filepath.Join(l.cfg.Dir, marker)); err != nil {
		return nil, desired.Errorf("open repository", ref, desired.Stalled, "the directory of hosted repositories is not there (%w): mount or restore it", err)
	}
	return nil, errMissing
}

func (l *Local) open(h *hosted) error {
	s, err := gitstore.Open(h.dir, gitstore.Options{})
	if err != nil {
		return err
	}
	h.store = s
	h.door = l.doorOf(h)
	return nil
}

func (l *Local) release(h *hosted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.users--; h.users > 0 {
		return
	}
	if h.idle != nil {
		close(h.idle)
		h.idle = nil
	}
	if h.retired {
		_ = h.close() // it was only read, or its writes have failed: there is nothing left to lose
	}
}

// retire takes a repository out of use; it is opened anew next time.
func (l *Local) retire(h *hosted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retireLocked(h)
}

func (l *Local) retireLocked(h *hosted) {
	if h.retired {
		return
	}
	h.retired = true
	if l.repos[h.ref] == h {
		delete(l.repos, h.ref)
	}
	if h.users == 0 {
		_ = h.close()
	}
}

func (h *hosted) close() error {
	if h.store == nil {
		return nil
	}
	return h.store.Close()
}

// evict closes the least recently used repository when too many are open. mu is held.
func (l *Local) evict() {
	for len(l.repos) > l.cfg.MaxOpen {
		var oldest *hosted
		for _, h := range l.repos {
			if h.users == 0 && h.used > 0 && (oldest == nil || h.used < oldest.used) {
				oldest = h
			}
		}
		if oldest == nil {
			return
		}
		l.retireLocked(oldest)
	}
}

// reserve takes a repository's place for oneself: it waits until nobody uses it, and nobody can until the caller
// calls the function it returns.
func (l *Local) reserve(ctx context.Context, ref desired.Ref) (func(), error) {
	busy := desired.Errorf("reserve repository", ref, desired.Transient, "it is in use by a clone, a push or another change: this is tried again")
	l.mu.Lock()
	if l.moving[ref] {
		l.mu.Unlock()
		return nil, busy
	}
	l.moving[ref] = true
	var idle chan struct{}
	if h := l.repos[ref]; h != nil {
		if h.users > 0 {
			if h.idle == nil {
				h.idle = make(chan struct{})
			}
			idle = h.idle
		}
		l.retireLocked(h)
	}
	l.mu.Unlock()
	free := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.moving, ref)
	}
	if idle == nil {
		return free, nil
	}
	select {
	case <-idle:
		return free, nil
	case <-ctx.Done():
	case <-time.After(5 * time.Second):
	}
	free()
	return nil, busy
}

// view is what one look at a repository saw: references and settings.
type view struct {
	h       *hosted
	refs    map[string]gitstore.Hash // by full name, as far as they were read
	all     bool                     // refs holds every reference, as of one moment
	err     error                    // why a reference could not be read; its value must not be concluded from
	head    string                   // the default branch, without refs/heads/
	set     *settings
	pins    []gitstore.RefUpdate // what to remember of this look
	settled []settled            // pull requests that were seen to be merged
}

const (
	heads    = "refs/heads/"
	keeps    = "refs/plumbline/keep/" // last heads of branches
	pullRefs = "refs/plumbline/pull/" // last heads of pull requests that had something to merge
)

// look reads the whole repository, for a change. Any reference that cannot be read fails it.
func (h *hosted) look() (*view, error) {
	v, err := h.glance()
	if err != nil {
		return nil, err
	}
	refs, err := h.store.Refs("refs/")
	if err != nil {
		return nil, err
	}
	for _, r := range refs {
		v.refs[r.Name] = r.Hash
	}
	v.all = true
	return v, nil
}

// glance is a look that reads references when they are asked for, for an observation: what one branch costs must
// not depend on how many others there are. What could not be read is in err.
func (h *hosted) glance() (*view, error) {
	head, err := h.store.Head()
	if err != nil {
		return nil, err
	}
	set, err := h.settings()
	if err != nil {
		return nil, err
	}
	return &view{h: h, refs: map[string]gitstore.Hash{}, head: strings.TrimPrefix(head, heads), set: set}, nil
}

// ref is the value of a reference, Zero when there is none, or when v.err says that it could not be read.
func (v *view) ref(name string) gitstore.Hash {
	at, read := v.refs[name]
	if read || v.all {
		return at
	}
	at, err := v.h.store.Resolve(name)
	if err != nil && !errors.Is(err, gitstore.ErrNoRef) {
		v.err = errors.Join(v.err, err)
		return gitstore.Zero
	}
	v.refs[name] = at
	return at
}

// branch is the head of a branch, Zero when there is none.
func (v *view) branch(name string) gitstore.Hash { return v.ref(heads + name) }

// pin asks for a hidden reference to be moved after the look.
func (v *view) pin(name string, to gitstore.Hash) {
	if now := v.ref(name); !to.IsZero() && now != to {
		v.pins = append(v.pins, gitstore.RefUpdate{Name: name, Old: now, New: to})
		v.refs[name] = to
	}
}

// remember writes what a look wants to be kept: the heads that were seen, and pull requests that had been merged.
// Whoever moved a reference meanwhile has pinned it himself, or the next look will.
func (l *Local) remember(ctx context.Context, v *view) error {
	if len(v.pins) == 0 && len(v.settled) == 0 {
		return nil
	}
	v.h.mu.Lock()
	defer v.h.mu.Unlock()
	if len(v.pins) > 0 {
		b := v.h.store.NewBatch()
		for _, u := range v.pins {
			b.Set(u)
		}
		var moved *gitstore.RefError
		if err := l.write(ctx, v.h, b); err != nil && !errors.As(err, &moved) {
			return err
		}
	}
	if len(v.settled) == 0 {
		return nil
	}
	return l.modify(v.h, func(s *settings) error {
		for _, x := range v.settled {
			if p := s.pull(x.number); p != nil && p.State == stateOpen {
				p.State, p.MergeCommit, p.Head, p.ClosedBy = stateMerged, x.merge, x.head, ""
			}
		}
		return nil
	})
}

// write makes a batch durable.
func (l *Local) write(ctx context.Context, h *hosted, b *gitstore.Batch) error {
	if err := l.touch(); err != nil {
		return err
	}
	err := h.store.Write(ctx, b)
	if errors.Is(err, gitstore.ErrBroken) {
		l.retire(h) // it takes no further write: the next use opens and verifies it anew
	}
	return err
}

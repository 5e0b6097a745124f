// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/connectsoft/plumbline/desired"
)

// Watch implements adapters.Watcher: whenever branches, HEAD or settings of a repository are different from the
// last look, whoever changed them, its Repository is nudged. It is told by the file system where that works, and
// looks by itself every Poll. Between looks it merges packs where there are too many. It returns nil when ctx ends.
func (l *Local) Watch(ctx context.Context, nudge func(desired.Ref)) error {
	w := &watch{l: l, nudge: nudge, seen: map[desired.Ref]uint64{}, dirs: map[string]bool{}}
	events := make(<-chan fsnotify.Event)
	faults := make(<-chan error)
	if n, err := fsnotify.NewWatcher(); err == nil { // without it there is still the poll
		defer n.Close()
		w.notify, events, faults = n, n.Events, n.Errors
	}
	w.sweep(ctx, false)
	poll := time.NewTicker(l.cfg.Poll)
	defer poll.Stop()
	settle := time.NewTimer(time.Hour)
	defer settle.Stop()
	dirty := map[desired.Ref]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
				delete(w.dirs, e.Name) // should it come back, it is another one
			}
			ref, ours := l.refOf(e.Name)
			if !ours {
				ref = desired.Ref{} // a tenant or project came or went: look everywhere
			}
			dirty[ref] = true
			settle.Reset(20 * time.Millisecond) // a push touches several files
		case <-faults: // events were lost: look at everything
			w.sweep(ctx, true)
		case <-settle.C:
			if dirty[desired.Ref{}] {
				w.sweep(ctx, true)
			}
			for ref := range dirty {
				if !ref.IsZero() {
					w.look(ref, true)
				}
			}
			clear(dirty)
		case <-poll.C:
			w.sweep(ctx, true)
			l.maintain(ctx)
		}
	}
}

// watch is the state of one Watch; its goroutine owns it.
type watch struct {
	l      *Local
	nudge  func(desired.Ref)
	notify *fsnotify.Watcher
	seen   map[desired.Ref]uint64 // what each repository looked like
	dirs   map[string]bool        // that the file system was asked to tell about
}

// sweep looks at every repository, and at those that are gone.
func (w *watch) sweep(ctx context.Context, tell bool) {
	refs, err := w.l.all(w.follow)
	if err != nil {
		return // not knowing is no news: the reconciler finds out when it observes
	}
	there := map[desired.Ref]bool{}
	for _, ref := range refs {
		if ctx.Err() != nil {
			return
		}
		there[ref] = true
		w.look(ref, tell)
	}
	for ref := range w.seen {
		if !there[ref] {
			w.look(ref, tell)
		}
	}
}

// look nudges a repository when it is not what it was.
func (w *watch) look(ref desired.Ref, tell bool) {
	dir := w.l.path(ref)
	now := w.fingerprint(dir)
	was, known := w.seen[ref]
	if now == 0 {
		delete(w.seen, ref)
	} else {
		w.seen[ref] = now
	}
	if tell && (now != was || !known && now != 0) {
		w.nudge(ref)
	}
}

// fingerprint is a number that changes with every reference, HEAD and host.json of a repository; 0 when there is
// none. Files are replaced, never rewritten, by git and by us, so names, sizes and times tell.
func (w *watch) fingerprint(dir string) uint64 {
	sum := fnv.New64a()
	add := func(path string) bool {
		info, err := os.Stat(path)
		if err == nil {
			fmt.Fprintf(sum, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		}
		return err == nil
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	w.follow(dir)
	w.follow(filepath.Join(dir, "plumbline"))
	add(filepath.Join(dir, "HEAD"))
	add(filepath.Join(dir, "packed-refs"))
	add(settingsPath(dir))
	_ = filepath.WalkDir(filepath.Join(dir, "refs", "heads"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // it went away while we walked: that is a change too, and its event or the poll shows it
		case d.IsDir():
			w.follow(path)
		case !strings.HasSuffix(path, ".lock"):
			add(path)
		}
		return nil
	})
	return max(sum.Sum64(), 1)
}

// follow asks the file system to tell about a directory. Where it cannot, the poll does.
func (w *watch) follow(dir string) {
	if w.notify != nil && !w.dirs[dir] {
		w.dirs[dir] = w.notify.Add(dir) == nil
	}
}

// refOf finds the repository that a path lies in.
func (l *Local) refOf(path string) (desired.Ref, bool) {
	rel, err := filepath.Rel(l.cfg.Dir, path)
	parts := strings.Split(filepath.ToSlash(rel), "/")
	if err != nil || len(parts) < 3 {
		return desired.Ref{}, false
	}
	name, ok := strings.CutSuffix(parts[2], ".git")
	ref := desired.Ref{Tenant: parts[0], Project: parts[1], Kind: desired.KindRepository, Name: name}
	return ref, ok && checkRef("watch", ref) == nil
}

// maintain merges packs of open repositories that have too many. What fails is tried again at the next poll; a
// store whose disk failed says so to the next write.
func (l *Local) maintain(ctx context.Context) {
	l.mu.Lock()
	var open []*hosted
	for _, h := range l.repos {
		if h.users > 0 || h.used > 0 {
			h.users++
			open = append(open, h)
		}
	}
	l.mu.Unlock()
	for _, h := range open {
		if ctx.Err() == nil && h.ready() == nil && h.store.MaintenanceDue() {
			_, _ = h.store.Maintain(ctx)
		}
		l.release(h)
	}
}

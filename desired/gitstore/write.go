// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/internal/fp"
)

// Write makes a batch durable: ref locks, compare, pack and index synced (files and directory), refs written,
// synced, renamed, directories synced. On nil everything is durable; on *RefError nothing was changed. ctx is
// honoured until the pack is put in place, just before the first ref is renamed; a cancelled ctx means nothing was
// modified. After *RefError the batch may be written again with other updates.
func (s *Store) Write(ctx context.Context, b *Batch) error {
	if err := b.ready(s); err != nil {
		return err
	}
	c := change{store: s, updates: b.updates}
	if len(b.objects) > 0 {
		c.stage = b.stage
	}
	if err := c.write(ctx); err != nil {
		return err
	}
	b.keepWarm()
	b.written.Store(true)
	return nil
}

// change is one durable write: a pack to put in place, or none, and references to move.
type change struct {
	store   *Store
	updates []RefUpdate
	stage   func() (*staged, error) // makes the pack durable under temporary names

	locks   []*refLock // one for each update, in the same order
	deletes bool       // some update deletes, so packed-refs is locked too
	packed  *refLock
	list    packedList // what packed-refs holds while it is locked
}

func (c *change) write(ctx context.Context) error {
	if err := c.store.writable(); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	unlock, err := c.store.names.lock(ctx, c.lockNames())
	if err != nil {
		return err
	}
	defer unlock()
	defer func() {
		for _, l := range c.locks {
			l.release()
		}
		if c.packed != nil {
			c.packed.release()
		}
	}()
	st, err := c.lockAndStage(ctx)
	if err != nil {
		return err
	}
	if st != nil {
		release, err := c.store.install(st)
		if err != nil {
			c.store.abandon(st)
			return err
		}
		defer release()
	}
	return c.moveRefs()
}

// check puts the updates in the order of names and refuses what can never work.
func (c *change) check() error {
	c.updates = slices.Clone(c.updates)
	slices.SortFunc(c.updates, func(a, b RefUpdate) int { return strings.Compare(a.Name, b.Name) })
	created := make(map[string]bool)
	for i, u := range c.updates {
		if err := CheckRefName(u.Name); err != nil {
			return err
		}
		if i > 0 && c.updates[i-1].Name == u.Name {
			return desired.Errorf("update refs", desired.Ref{}, desired.Invalid, "%s is updated twice in one write", u.Name)
		}
		for dir, _ := splitLast(u.Name); dir != ""; dir, _ = splitLast(dir) {
			if created[dir] {
				return blocked(u.Name)
			}
		}
		created[u.Name] = true
		if u.New.IsZero() && !u.Old.IsZero() {
			c.deletes = true
		}
	}
	return nil
}

func (c *change) lockNames() []string {
	names := make([]string, 0, len(c.updates)+1)
	for _, u := range c.updates {
		names = append(names, u.Name)
	}
	if c.deletes {
		names = append(names, packedRefsFile) // sorts before refs/, but nobody waits for it while holding less
		slices.Sort(names)
	}
	return names
}

const packedRefsFile = "packed-refs"

// lockAndStage takes the ref locks and compares, while the pack is being written under temporary names. When it
// returns nil, both are done and nothing has been changed yet.
func (c *change) lockAndStage(ctx context.Context) (*staged, error) {
	var st *staged
	var g errgroup.Group
	if c.stage != nil {
		g.Go(func() (err error) {
			st, err = c.stage()
			return err
		})
	}
	err := c.lock(ctx)
	if err == nil {
		err = c.compare()
	}
	if werr := g.Wait(); err == nil {
		err = werr
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil && st != nil {
		c.store.abandon(st)
	}
	if err != nil {
		return nil, err
	}
	return st, nil
}

// lock writes the new values, makes them durable and takes all locks in the order of names.
func (c *change) lock(ctx context.Context) error {
	c.locks = make([]*refLock, len(c.updates))
	var g errgroup.Group
	g.SetLimit(16)
	for i, u := range c.updates {
		g.Go(func() error {
			l, err := c.store.newLock(u.Name, []byte(u.New.String()+"\n"))
			c.locks[i] = l
			return err
		})
	}
	err := g.Wait()
	c.locks = slices.DeleteFunc(c.locks, func(l *refLock) bool { return l == nil })
	if err != nil {
		return err
	}
	for i, l := range c.locks {
		if err := l.acquire(ctx); err != nil {
			var held *RefError
			if errors.As(err, &held) {
				held.Expected = c.updates[i].Old
			}
			return err
		}
	}
	if !c.deletes {
		return nil
	}
	c.packed, err = c.store.newLock(packedRefsFile, nil)
	if err != nil {
		return err
	}
	return c.packed.acquire(ctx)
}

// compare reads every ref under its lock.
func (c *change) compare() error {
	var err error
	if c.list, err = c.store.packed.load(c.store.path(packedRefsFile)); err != nil {
		return err
	}
	for _, u := range c.updates {
		actual, target, err := c.store.readRef(u.Name)
		switch {
		case errors.Is(err, ErrNoRef):
			actual = Zero
		case err != nil:
			return err
		case target != "":
			return desired.Errorf("update ref", desired.Ref{}, desired.Invalid, "%s is a symbolic ref to %s: update that one", u.Name, target)
		}
		if actual != u.Old {
			return &RefError{Name: u.Name, Expected: u.Old, Actual: actual}
		}
		if actual.IsZero() && !u.New.IsZero() {
			if err := c.roomFor(u.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// roomFor makes sure that a new ref is neither below nor above another one.
func (c *change) roomFor(name string) error {
	for dir, _ := splitLast(name); strings.Contains(dir, "/"); dir, _ = splitLast(dir) {
		if _, ok := c.list.find(dir); ok {
			return blocked(name)
		}
	}
	taken := desired.Errorf("update ref", desired.Ref{}, desired.Conflict,
		"%s cannot be created: there are refs below %s/; delete those or choose another name", name, name)
	if len(c.list.below(name+"/")) > 0 {
		return taken
	}
	path := c.store.path(name)
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		if err := c.store.removeEmptyDirs(path); err != nil {
			return taken
		}
	}
	return nil
}

// removeEmptyDirs removes a tree of directories that holds no file; git leaves such behind.
func (s *Store) removeEmptyDirs(path string) error {
	var dirs []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := s.remove(d); err != nil {
			return err
		}
	}
	return nil
}

// moveRefs renames the locks over the refs and removes deleted ones. An error after the first of these steps stops
// the store, because the refs may have moved in part.
func (c *change) moveRefs() error {
	dirs, err := c.openDirs()
	if err != nil {
		return err
	}
	defer func() {
		for _, d := range dirs {
			_ = d.Close() // read only: nothing can be lost
		}
	}()
	moved, err := c.forgetPacked()
	if err != nil {
		return err
	}
	for i, u := range c.updates {
		switch {
		case u.New == u.Old:
			continue
		case u.New.IsZero():
			fp.Hit("ref.rename")
			err = c.store.remove(c.locks[i].target)
		default:
			err = c.locks[i].commit()
		}
		if err != nil && moved {
			return c.store.fail(err)
		}
		if err != nil {
			return fmt.Errorf("update %s: %w", u.Name, err)
		}
		moved = true
	}
	fp.Hit("ref.dirsync")
	var g errgroup.Group
	g.SetLimit(16)
	for _, d := range dirs {
		g.Go(func() error { return c.store.syncOpenDir(d) })
	}
	return g.Wait()
}

// openDirs opens the directories that must be synced, before anything changes: later there is no way back.
func (c *change) openDirs() (map[string]*os.File, error) {
	dirs := make(map[string]*os.File)
	for _, u := range c.updates {
		dir := filepath.Dir(c.store.path(u.Name))
		if dirs[dir] != nil || u.New == u.Old {
			continue
		}
		f, err := os.Open(dir)
		if err != nil {
			for _, d := range dirs {
				_ = d.Close()
			}
			return nil, err
		}
		dirs[dir] = f
	}
	return dirs, nil
}

// forgetPacked rewrites packed-refs without the refs that are deleted, before their loose files go: after a crash
// in between the ref is still there with its last value, never with an older one. It reports whether it changed
// anything.
func (c *change) forgetPacked() (bool, error) {
	gone := make(map[string]bool)
	for _, u := range c.updates {
		if _, ok := c.list.find(u.Name); ok && u.New.IsZero() {
			gone[u.Name] = true
		}
	}
	if len(gone) == 0 {
		return false, nil
	}
	f, err := c.store.trim(c.packed.own)
	if err != nil {
		return false, err
	}
	_, err = c.store.write(f, encodePackedRefs(c.list, gone))
	if err == nil {
		err = c.store.syncFile(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return false, err
	}
	if err := c.packed.commit(); err != nil {
		return false, err
	}
	// The new list must be durable before a loose file goes, or that file's loss would bring the packed value back.
	if err := c.store.syncDir(c.store.dir); err != nil {
		return true, c.store.fail(err)
	}
	return true, nil
}

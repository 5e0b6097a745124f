// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"errors"
	"io/fs"
	"os"
)

// Every change to what must survive a power cut goes through the functions in this file, so that tests can make the
// n-th one fail and replay what a cut between any two of them leaves behind.

// diskStep is one change to the disk.
type diskStep struct {
	op   diskOp
	path string
	to   string // new name, for opRename and opLink
	data []byte // for opWrite
}

type diskOp string

const (
	opCreate diskOp = "create" // an empty file
	opWrite  diskOp = "write"  // at the end of a file
	opTrim   diskOp = "trim"   // a file to nothing
	opSync   diskOp = "sync"   // the bytes of a file
	opSyncD  diskOp = "syncdir"
	opRename diskOp = "rename"
	opLink   diskOp = "link"
	opRemove diskOp = "remove"
	opMkdir  diskOp = "mkdir"
)

// watch tells the test, if there is one, what comes next. An error is returned in place of the step.
func (s *Store) watch(step diskStep) error {
	if s.watcher == nil {
		return nil
	}
	return s.watcher(step)
}

// createNew makes a file that must not exist.
func (s *Store) createNew(path string, perm fs.FileMode) (*os.File, error) {
	if err := s.watch(diskStep{op: opCreate, path: path}); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, perm)
}

// trim opens a file and empties it.
func (s *Store) trim(path string) (*os.File, error) {
	if err := s.watch(diskStep{op: opTrim, path: path}); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
}

// write appends to a file.
func (s *Store) write(f *os.File, data []byte) (int, error) {
	if err := s.watch(diskStep{op: opWrite, path: f.Name(), data: data}); err != nil {
		return 0, err
	}
	return f.Write(data)
}

// syncFile makes a file's bytes durable. A failure stops the store: the kernel has forgotten which bytes were not
// written, so trying again would prove nothing.
func (s *Store) syncFile(f *os.File) error {
	err := s.watch(diskStep{op: opSync, path: f.Name()})
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return s.fail(err)
	}
	return nil
}

// syncOpenDir makes the names in an open directory durable.
func (s *Store) syncOpenDir(f *os.File) error {
	err := s.watch(diskStep{op: opSyncD, path: f.Name()})
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return s.fail(err)
	}
	return nil
}

// syncDir makes the names in a directory durable.
func (s *Store) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.syncOpenDir(f)
}

func (s *Store) rename(from, to string) error {
	if err := s.watch(diskStep{op: opRename, path: from, to: to}); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (s *Store) link(from, to string) error {
	if err := s.watch(diskStep{op: opLink, path: from, to: to}); err != nil {
		return err
	}
	return os.Link(from, to)
}

func (s *Store) mkdir(dir string) error {
	if err := s.watch(diskStep{op: opMkdir, path: dir}); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o777)
}

// remove deletes a file or an empty directory that may be gone already.
func (s *Store) remove(path string) error {
	if err := s.watch(diskStep{op: opRemove, path: path}); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// createFile makes a file whole: after a crash it is there with all its bytes or not at all.
func (s *Store) createFile(name, content string) error {
	tmp := s.path("plumbline/new-" + uniqueName())
	f, err := s.createNew(tmp, 0o666)
	if err != nil {
		return err
	}
	_, err = s.write(f, []byte(content))
	if err == nil {
		err = s.syncFile(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = s.rename(tmp, s.path(name))
	}
	if err != nil {
		_ = s.remove(tmp) // the next Open removes what stays
	}
	return err
}

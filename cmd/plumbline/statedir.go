// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/connectsoft/plumbline/desired"
)

// stateDir is the locked state directory of a running daemon.
type stateDir struct {
	path string
	lock *os.File
}

// openStateDir creates the directory (0700) and locks it for this process. The lock ends with the process, so a
// crash leaves none behind.
func openStateDir(path string) (*stateDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create the state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, desired.Errorf("lock the state directory", desired.Ref{}, desired.Throttled,
			"another plumbline serves %s: stop it, or give this one another --state-dir", path)
	}
	return &stateDir{path: path, lock: lock}, nil
}

// Close releases the lock.
func (d *stateDir) Close() error { return d.lock.Close() }

// join is a path below the directory.
func (d *stateDir) join(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// installationKey reads the key that seals commits, or makes it at the first start. A lost key means that the
// trailers of earlier commits no longer count, so a control repository without its key is refused.
func (d *stateDir) installationKey() ([]byte, error) {
	path := d.join("installation.key")
	key, err := os.ReadFile(path)
	if err == nil {
		if len(key) != 32 {
			return nil, fmt.Errorf("%s holds %d bytes instead of 32: restore it from a backup", path, len(key))
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the installation key: %w", err)
	}
	if _, err := os.Stat(d.join("platform.git")); err == nil {
		return nil, fmt.Errorf("%s is missing but there are control repositories: restore it from a backup", path)
	}
	key = make([]byte, 32)
	rand.Read(key)
	return key, writeDurably(path, key)
}

// writeAddresses tells other programs where the daemon listens, once it is ready.
func (d *stateDir) writeAddresses(http, grpc, admin string) error {
	data, err := json.Marshal(map[string]string{"http": http, "grpc": grpc, "admin": admin})
	if err != nil {
		return err
	}
	return writeDurably(d.join(addressesFile), append(data, '\n'))
}

// removeAddresses takes the file back: nobody listens there.
func (d *stateDir) removeAddresses() error {
	if err := os.Remove(d.join(addressesFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeDurably writes a private file aside, syncs and renames it, and syncs its directory.
func writeDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

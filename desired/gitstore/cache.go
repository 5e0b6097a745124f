// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"io/fs"
	"os"
	"sync"
)

// lru is a map that forgets what was least recently used once the sizes of its values exceed a limit. Safe for
// concurrent use.
type lru[K comparable, V any] struct {
	mu    sync.Mutex
	limit int
	used  int
	items map[K]*lruItem[K, V]
	root  lruItem[K, V] // ring: root.next is the newest
}

type lruItem[K comparable, V any] struct {
	key        K
	value      V
	size       int
	prev, next *lruItem[K, V]
}

// lruOverhead is what an item costs beside its value.
const lruOverhead = 128

func newLRU[K comparable, V any](limit int) *lru[K, V] {
	c := &lru[K, V]{limit: limit, items: make(map[K]*lruItem[K, V])}
	c.root.prev, c.root.next = &c.root, &c.root
	return c
}

func (c *lru[K, V]) get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it, ok := c.items[k]
	if !ok {
		var none V
		return none, false
	}
	c.unlink(it)
	c.link(it)
	return it.value, true
}

func (c *lru[K, V]) add(k K, v V, size int) {
	size += lruOverhead
	if size > c.limit/4 {
		return // one giant must not push everything else out
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if it, ok := c.items[k]; ok {
		c.unlink(it)
		c.link(it)
		return
	}
	it := &lruItem[K, V]{key: k, value: v, size: size}
	c.items[k] = it
	c.link(it)
	c.used += size
	for c.used > c.limit {
		last := c.root.prev
		c.unlink(last)
		delete(c.items, last.key)
		c.used -= last.size
	}
}

func (c *lru[K, V]) link(it *lruItem[K, V]) {
	it.prev, it.next = &c.root, c.root.next
	it.prev.next, it.next.prev = it, it
}

func (c *lru[K, V]) unlink(it *lruItem[K, V]) {
	it.prev.next, it.next.prev = it.next, it.prev
}

// files keeps a bounded number of files open for reading. A file that another program removed stays readable as
// long as it is open here. Safe for concurrent use.
type files struct {
	mu     sync.Mutex
	limit  int
	closed bool
	tick   int64
	open   map[string]*openFile
}

type openFile struct {
	*os.File
	users int
	used  int64
	stale bool // closed by the last user
}

func newFiles(limit int) *files { return &files{limit: limit, open: make(map[string]*openFile)} }

// get opens a file or takes the one that is open. Give it back with put.
func (s *files) get(path string) (*openFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fs.ErrClosed
	}
	s.tick++
	if f, ok := s.open[path]; ok {
		f.users++
		f.used = s.tick
		return f, nil
	}
	raw, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if len(s.open) >= s.limit {
		s.evict()
	}
	f := &openFile{File: raw, users: 1, used: s.tick}
	s.open[path] = f
	return f, nil
}

func (s *files) put(f *openFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.users--
	if f.stale && f.users == 0 {
		_ = f.File.Close() // read only: nothing can be lost
	}
}

// forget closes a file when its last user is done.
func (s *files) forget(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.open[path]; ok {
		s.drop(path, f)
	}
}

// evict forgets the least recently used file that nobody uses.
func (s *files) evict() {
	oldest, path := (*openFile)(nil), ""
	for p, f := range s.open {
		if f.users == 0 && (oldest == nil || f.used < oldest.used) {
			oldest, path = f, p
		}
	}
	if oldest != nil {
		s.drop(path, oldest)
	}
}

func (s *files) drop(path string, f *openFile) {
	delete(s.open, path)
	f.stale = true
	if f.users == 0 {
		_ = f.File.Close() // read only: nothing can be lost
	}
}

func (s *files) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for p, f := range s.open {
		s.drop(p, f)
	}
}

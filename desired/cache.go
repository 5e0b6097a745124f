// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"container/list"
	"errors"
)

// Prepared is a file that was parsed ahead of the Advance that needs it. Immutable.
type Prepared struct {
	place Place
	blob  string
	docs  []Document
	err   *Error
}

// Prepare parses a file. It is pure: files may be prepared side by side, and added to a cache by its owner.
func Prepare(p Place, blob string, data []byte) Prepared {
	docs, err := ParseFile(p, data)
	out := Prepared{place: p, blob: blob, docs: docs}
	errors.As(err, &out.err)
	return out
}

// Err is what is wrong with the file, nil when it is good.
func (p Prepared) Err() *Error { return p.err }

// Cache remembers parsed files by place and blob id. It is bounded. It is not safe for concurrent use: its owner
// is the goroutine that advances; Prepare results may be handed in with Add.
type Cache struct {
	limit int
	order *list.List // of Prepared, the latest used first
	byKey map[cacheKey]*list.Element
}

type cacheKey struct {
	place Place
	blob  string
}

// NewCache returns a cache of at most n files.
func NewCache(n int) *Cache {
	return &Cache{limit: n, order: list.New(), byKey: map[cacheKey]*list.Element{}}
}

// Add remembers a prepared file. Without a blob id it is not remembered.
func (c *Cache) Add(p Prepared) {
	key := cacheKey{p.place, p.blob}
	if c == nil || c.limit < 1 || p.blob == "" || c.byKey[key] != nil {
		return
	}
	if c.order.Len() >= c.limit {
		last := c.order.Back()
		old, _ := c.order.Remove(last).(Prepared)
		delete(c.byKey, cacheKey{old.place, old.blob})
	}
	c.byKey[key] = c.order.PushFront(p)
}

// prepare is Prepare by way of the cache.
func (c *Cache) prepare(p Place, blob string, data []byte) Prepared {
	if c != nil && blob != "" {
		if e := c.byKey[cacheKey{p, blob}]; e != nil {
			c.order.MoveToFront(e)
			out, _ := e.Value.(Prepared)
			return out
		}
	}
	out := Prepare(p, blob, data)
	c.Add(out)
	return out
}

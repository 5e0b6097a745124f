// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"iter"
	"slices"
	"sort"
	"strings"
)

// index is an immutable ordered map from string to T, a B+ tree. A changed one shares all pages with the one before
// it but for those on the way to the changes. A radix tree of a library did the same at four times the memory: a
// snapshot keeps four indexes of everything, so that decides.
type index[T any] struct {
	root *page[T]
	size int
}

// page is a leaf (values) or an inner page (kids). In an inner page keys[i] is not greater than any key below
// kids[i], and greater than every key below kids[i-1].
type page[T any] struct {
	keys   []string
	values []T
	kids   []*page[T]
	owner  *editToken // of the edit that made it and may change it, until it is done
}

// editToken tells edits apart. It is not the edit itself: pages must not keep old versions of the index alive.
type editToken struct{ _ byte }

// pageSize is the most entries of a page.
const pageSize = 32

func newIndex[T any]() *index[T] { return &index[T]{root: &page[T]{}} }

func (x *index[T]) get(key string) (T, bool) {
	p := x.root
	for p.kids != nil {
		p = p.kids[p.below(key)]
	}
	if i, ok := slices.BinarySearch(p.keys, key); ok {
		return p.values[i], true
	}
	var none T
	return none, false
}

// below is the kid under which a key belongs.
func (p *page[T]) below(key string) int {
	i := sort.Search(len(p.keys), func(i int) bool { return p.keys[i] > key })
	return max(i-1, 0)
}

// from walks the values in order of their keys: those that begin with prefix and are not less than start.
func (x *index[T]) from(prefix, start string) iter.Seq[T] {
	return func(yield func(T) bool) {
		x.root.walk(max(prefix, start), func(key string, v T) bool {
			return strings.HasPrefix(key, prefix) && yield(v)
		})
	}
}

// walk visits the entries from start on until visit returns false, and reports whether it never did.
func (p *page[T]) walk(start string, visit func(string, T) bool) bool {
	if p.kids == nil {
		first, _ := slices.BinarySearch(p.keys, start)
		for i := first; i < len(p.keys); i++ {
			if !visit(p.keys[i], p.values[i]) {
				return false
			}
		}
		return true
	}
	for i := p.below(start); i < len(p.kids); i++ {
		if !p.kids[i].walk(start, visit) {
			return false
		}
	}
	return true
}

// edit begins a change. Only done makes it visible.
func (x *index[T]) edit() *indexEdit[T] {
	return &indexEdit[T]{index: *x, token: new(editToken)}
}

// indexEdit is an index that is being changed. It may be read meanwhile.
type indexEdit[T any] struct {
	index[T]
	token *editToken
}

// done is the changed index. The edit must not be used any more.
func (e *indexEdit[T]) done() *index[T] { return &index[T]{root: e.root, size: e.size} }

// own returns a page that this edit may change: the page itself, or a copy of it.
func (e *indexEdit[T]) own(p *page[T]) *page[T] {
	if p.owner == e.token {
		return p
	}
	return &page[T]{keys: slices.Clone(p.keys), values: slices.Clone(p.values), kids: slices.Clone(p.kids), owner: e.token}
}

func (e *indexEdit[T]) set(key string, v T) {
	e.root = e.own(e.root)
	if right := e.insert(e.root, key, v); right != nil {
		e.root = &page[T]{keys: []string{e.root.keys[0], right.keys[0]}, kids: []*page[T]{e.root, right}, owner: e.token}
	}
}

// insert puts an entry below a page of its own; when the page had to be split it returns the right half.
func (e *indexEdit[T]) insert(p *page[T], key string, v T) *page[T] {
	if p.kids == nil {
		i, found := slices.BinarySearch(p.keys, key)
		if found {
			p.values[i] = v
			return nil
		}
		p.keys, p.values = slices.Insert(p.keys, i, key), slices.Insert(p.values, i, v)
		e.size++
		return e.split(p, i)
	}
	i := p.below(key)
	p.kids[i] = e.own(p.kids[i])
	right := e.insert(p.kids[i], key, v)
	p.keys[i] = min(p.keys[i], key)
	if right == nil {
		return nil
	}
	p.keys, p.kids = slices.Insert(p.keys, i+1, right.keys[0]), slices.Insert(p.kids, i+1, right)
	return e.split(p, i+1)
}

// split halves a page that is too large. One that grows at its end, as when keys come in order, keeps nearly all.
func (e *indexEdit[T]) split(p *page[T], at int) *page[T] {
	n := len(p.keys)
	if n <= pageSize {
		return nil
	}
	half := n / 2
	if at == n-1 {
		half = n - 2
	}
	right := &page[T]{keys: slices.Clone(p.keys[half:]), owner: e.token}
	p.keys = slices.Clip(slices.Delete(p.keys, half, n))
	if p.kids == nil {
		right.values = slices.Clone(p.values[half:])
		p.values = slices.Clip(slices.Delete(p.values, half, n))
	} else {
		right.kids = slices.Clone(p.kids[half:])
		p.kids = slices.Clip(slices.Delete(p.kids, half, n))
	}
	return right
}

func (e *indexEdit[T]) delete(key string) {
	if _, ok := e.get(key); !ok {
		return
	}
	e.root = e.own(e.root)
	e.remove(e.root, key)
	e.size--
	for len(e.root.kids) == 1 {
		e.root = e.root.kids[0]
	}
	if e.root.kids != nil && len(e.root.kids) == 0 {
		e.root = &page[T]{owner: e.token}
	}
}

// remove takes a key that is there from below a page of its own. Small pages are joined with a neighbour.
func (e *indexEdit[T]) remove(p *page[T], key string) {
	if p.kids == nil {
		i, _ := slices.BinarySearch(p.keys, key)
		p.keys, p.values = slices.Delete(p.keys, i, i+1), slices.Delete(p.values, i, i+1)
		return
	}
	i := p.below(key)
	kid := e.own(p.kids[i])
	p.kids[i] = kid
	e.remove(kid, key)
	if len(kid.keys) == 0 {
		p.keys, p.kids = slices.Delete(p.keys, i, i+1), slices.Delete(p.kids, i, i+1)
		return
	}
	if len(kid.keys) > pageSize/4 || len(p.kids) == 1 {
		return
	}
	left := max(i-1, 0)
	a, b := p.kids[left], p.kids[left+1]
	if len(a.keys)+len(b.keys) > pageSize {
		return
	}
	p.kids[left] = &page[T]{keys: slices.Concat(a.keys, b.keys), values: slices.Concat(a.values, b.values), kids: slices.Concat(a.kids, b.kids), owner: e.token}
	p.keys, p.kids = slices.Delete(p.keys, left+1, left+2), slices.Delete(p.kids, left+1, left+2)
}

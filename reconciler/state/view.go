// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// followed are the tables of a hub; a view keeps them in this order.
var followed = [...]Table{States, Findings, Horizons}

func slot(t Table) int { return slices.Index(followed[:], t) }

// view is what the hub knows of one tenant: the latest items, and its share of the ring. The hub's lock guards it;
// trees and the entries of a slice that was handed out never change.
type view struct {
	tenant  string
	tables  [len(followed)]*iradix.Tree[*Item] // by Item.ID
	records *iradix.Tree[*Item]                // findings by record id, so that a resource's lie together

	entries []entry // the share of the ring
	base    uint64  // position of entries[0]; positions only grow
	dropped int     // entries that the array behind the slice still pins
	rebuilt uint64  // positions before it were lost by listing again
	floor   int64   // changes at or before this revision are not held
	wake    chan struct{}
}

// entry is one change in the ring: what a record became, and what it was (nil = it was not there).
type entry struct{ item, prev *Item }

func newView(tenant string, floor int64) *view {
	v := &view{tenant: tenant, base: 1, wake: make(chan struct{})}
	v.clear(floor)
	return v
}

// clear forgets everything; cursors find their position gone.
func (v *view) clear(floor int64) {
	for i := range v.tables {
		v.tables[i] = iradix.New[*Item]()
	}
	v.records = iradix.New[*Item]()
	v.base = v.end() + 1
	v.rebuilt, v.entries, v.floor = v.base, nil, floor
}

func (v *view) end() uint64 { return v.base + uint64(len(v.entries)) }

func (v *view) get(t Table, id string) *Item {
	i, _ := v.tables[slot(t)].Get([]byte(id))
	return i
}

func (v *view) horizon() *Item { return v.get(Horizons, "head") }

// set makes item the latest of its key and returns what was there.
func (v *view) set(k Key, item *Item) (prev *Item) {
	s := slot(item.Table)
	id := []byte(item.ID)
	if item.Deleted {
		v.tables[s], prev, _ = v.tables[s].Delete(id)
		if item.Table == Findings {
			v.records, _, _ = v.records.Delete([]byte(k.ID))
		}
		return prev
	}
	v.tables[s], prev, _ = v.tables[s].Insert(id, item)
	if item.Table == Findings {
		v.records, _, _ = v.records.Insert([]byte(k.ID), item)
	}
	return prev
}

// evict drops the oldest entry. Slices that readers hold stay as they are.
func (v *view) evict() {
	v.floor = v.entries[0].item.Rev
	v.entries = v.entries[1:]
	v.base++
	if v.dropped++; v.dropped > len(v.entries)+64 {
		v.entries, v.dropped = slices.Clone(v.entries), 0
	}
}

// after is the position of the first change later than rev.
func (v *view) after(rev int64) uint64 {
	i, _ := slices.BinarySearchFunc(v.entries, rev+1, func(e entry, rev int64) int { return cmp.Compare(e.item.Rev, rev) })
	return v.base + uint64(i)
}

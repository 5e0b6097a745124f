// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"context"
	"slices"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/connectsoft/plumbline/desired"
)

// Update is what a cursor delivers next. Whoever applies all updates in order has, at every token, exactly the
// matching records that the store had at that revision.
type Update struct {
	// Reset: forget everything, Items is the full list (the first delivery of a cursor without a token, after a
	// gap, a compaction or another epoch). Why says which.
	Reset bool
	Why   string // "initial", "gap", "compacted", "epoch"
	Items []*Item
	// Token resumes after this update. An update without Items is a bookmark.
	Token   Token
	Horizon Horizon // as of the token
}

// Filter narrows a cursor; nil Match = everything of the tables, no Tables = all that the hub follows. A record that
// stops matching is delivered as Deleted.
type Filter struct {
	Tenant string
	Tables []Table
	Match  func(*Item) bool
}

const (
	maxScan      = 16384                  // changes that one step of a cursor looks at
	horizonDelay = 100 * time.Millisecond // between bookmarks that only tell of a new horizon
	aheadDelay   = 50 * time.Millisecond  // between looks when a token is ahead of the hub
)

// Cursor is one reader's place. Not safe for concurrent use.
type Cursor struct {
	h      *Hub
	v      *view
	filter Filter
	after  *Token // not placed yet: where to start

	pos     uint64 // next position in the view's ring; 0 = not placed
	rev     int64  // delivered up to here
	horizon *Horizon
	told    *Horizon // the horizon of the last update
	toldAt  time.Time
	timer   *time.Timer
	closed  bool
}

// Subscribe starts a cursor. after nil = from a fresh list. Close it when done.
func (h *Hub) Subscribe(f Filter, after *Token) (*Cursor, error) {
	if len(f.Tables) == 0 {
		f.Tables = followed[:]
	}
	for _, t := range f.Tables {
		if slot(t) < 0 {
			return nil, desired.Errorf("subscribe", desired.Ref{}, desired.Invalid, "table %q is not streamed; name states, findings or horizons", t)
		}
	}
	return &Cursor{h: h, v: h.view(f.Tenant), filter: f, after: after}, nil
}

// Close releases the cursor.
func (c *Cursor) Close() {
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

// Next blocks until there is something newer, heartbeat passes (a bookmark), or ctx ends. A reader that is slow
// gets each key's latest value only (coalesced); one that fell out of the ring gets a Reset with the full list.
func (c *Cursor) Next(ctx context.Context) (Update, error) {
	if c.closed {
		return Update{}, desired.Errorf("read stream", desired.Ref{}, desired.Invalid, "the cursor is closed")
	}
	if err := c.h.await(ctx, "read stream"); err != nil {
		return Update{}, err
	}
	beat := time.Now().Add(c.h.heartbeat)
	if err := c.rest(ctx); err != nil {
		return Update{}, err
	}
	for {
		u, wake, ok := c.step()
		if ok {
			return c.tell(u), nil
		}
		placed := c.pos != 0
		until := beat
		switch {
		case !placed: // other tenants' changes take the hub to the token, and do not wake this cursor
			until = time.Now().Add(min(time.Until(beat), aheadDelay))
		case c.horizon != c.told:
			until = c.toldAt.Add(horizonDelay)
		}
		switch late := !time.Now().Before(until); {
		case late && placed:
			return c.tell(Update{Token: Token{c.h.epoch, c.rev}}), nil
		case late: // a token of a revision that this store does not get to
			return c.tell(c.reset("epoch")), nil
		}
		select {
		case <-wake:
		case <-c.alarm(time.Until(until)):
		case <-ctx.Done():
			return Update{}, desired.E("read stream", desired.Ref{}, desired.Waiting, ctx.Err())
		case <-c.h.done:
			return Update{}, stopped("read stream")
		}
	}
}

// rest lets changes gather after an update: the first one after a quiet time is never delayed.
func (c *Cursor) rest(ctx context.Context) error {
	d := c.h.linger - time.Since(c.toldAt)
	if d <= 0 {
		return nil
	}
	select {
	case <-c.alarm(d):
		return nil
	case <-ctx.Done():
		return desired.E("read stream", desired.Ref{}, desired.Waiting, ctx.Err())
	case <-c.h.done:
		return stopped("read stream")
	}
}

func (c *Cursor) alarm(d time.Duration) <-chan time.Time {
	if c.timer == nil {
		c.timer = time.NewTimer(d)
	} else {
		c.timer.Reset(d)
	}
	return c.timer.C
}

// tell completes an update that is about to be delivered.
func (c *Cursor) tell(u Update) Update {
	c.told, c.toldAt = c.horizon, time.Now()
	if c.horizon != nil {
		u.Horizon = *c.horizon
	}
	return u
}

// step looks at what the ring has for the cursor; without anything to deliver it says what to wait for.
func (c *Cursor) step() (u Update, wake <-chan struct{}, ok bool) {
	for {
		c.h.mu.RLock()
		if c.pos == 0 {
			if why, wait := c.place(); why != "" || wait {
				wake = c.v.wake
				c.h.mu.RUnlock()
				if wait {
					return u, wake, false
				}
				return c.reset(why), nil, true
			}
		}
		if c.pos < c.v.base {
			why := "gap"
			if c.pos < c.v.rebuilt {
				why = "compacted"
			}
			c.h.mu.RUnlock()
			return c.reset(why), nil, true
		}
		window, rev := c.v.entries[c.pos-c.v.base:], c.h.rev
		wake = c.v.wake
		c.h.mu.RUnlock()
		items, n := c.take(window)
		c.pos += uint64(n)
		if c.rev = max(c.rev, rev); n < len(window) {
			c.rev = window[n-1].item.Rev
		}
		if len(items) > 0 {
			return Update{Items: items, Token: Token{c.h.epoch, c.rev}}, nil, true
		}
		if n == len(window) {
			return u, wake, false
		}
	}
}

// place finds the position of the cursor's token; why says that a full list is needed, wait that the hub is not as
// far as the token yet. The hub's lock is held.
func (c *Cursor) place() (why string, wait bool) {
	switch t := c.after; {
	case t == nil:
		return "initial", false
	case t.Epoch != c.h.epoch:
		return "epoch", false
	case t.Rev > c.h.rev:
		return "", true
	case t.Rev < c.h.start:
		return "compacted", false
	case t.Rev < c.v.floor:
		return "gap", false
	}
	c.pos, c.rev = c.v.after(c.after.Rev), c.after.Rev
	at := c.v.horizon()
	for _, e := range c.v.entries[c.pos-c.v.base:] {
		if e.item.Table == Horizons { // the first change of the horizon after the token says what it was before
			at = e.prev
			break
		}
	}
	c.horizon = horizonOf(at)
	c.told = c.horizon
	return "", false
}

func horizonOf(i *Item) *Horizon {
	if i == nil || i.Deleted {
		return nil
	}
	return i.Horizon
}

// reset delivers the full list and places the cursor behind it.
func (c *Cursor) reset(why string) Update {
	c.h.mu.RLock()
	c.pos, c.rev = c.v.end(), c.h.rev
	c.horizon = horizonOf(c.v.horizon())
	trees := make([]*iradix.Tree[*Item], 0, len(followed))
	for _, t := range c.filter.Tables {
		trees = append(trees, c.v.tables[slot(t)])
	}
	c.h.mu.RUnlock()
	u := Update{Reset: true, Why: why, Token: Token{c.h.epoch, c.rev}}
	for _, tree := range trees {
		u.Items = walk(u.Items, tree, nil, c.filter.Match)
	}
	return u
}

// change is what happened to one key within a step: whether the reader has it, and whether it shall.
type change struct {
	item     *Item
	had, has bool
}

// take selects what of the window the cursor delivers, up to a whole revision, and says how many entries that used.
// A long window means that the reader is behind: then only the latest of each key is delivered.
func (c *Cursor) take(window []entry) (items []*Item, n int) {
	var at map[itemKey]int
	if len(window) > c.h.batch {
		at = make(map[itemKey]int, c.h.batch)
	}
	var changes []change
	for n < len(window) {
		e := window[n]
		if n > 0 && (len(changes) >= c.h.batch || n >= maxScan) && e.item.Rev != window[n-1].item.Rev {
			break
		}
		n++
		if e.item.Table == Horizons {
			c.horizon = horizonOf(e.item)
		}
		if !slices.Contains(c.filter.Tables, e.item.Table) {
			continue
		}
		has := !e.item.Deleted && c.match(e.item)
		key := itemKey{e.item.Table, e.item.ID}
		if i, ok := at[key]; ok {
			changes[i].item, changes[i].has = e.item, has
			continue
		}
		had := e.prev != nil && c.match(e.prev)
		if !had && !has {
			continue
		}
		if at != nil {
			at[key] = len(changes)
		}
		changes = append(changes, change{e.item, had, has})
	}
	return selected(changes, at != nil), n
}

type itemKey struct {
	table Table
	id    string
}

func (c *Cursor) match(i *Item) bool { return c.filter.Match == nil || c.filter.Match(i) }

func selected(changes []change, coalesced bool) []*Item {
	if len(changes) == 0 {
		return nil
	}
	items := make([]*Item, 0, len(changes))
	for _, ch := range changes {
		switch {
		case ch.has || ch.had && ch.item.Deleted:
			items = append(items, ch.item)
		case ch.had:
			items = append(items, ch.item.gone(ch.item.Rev))
		}
	}
	if coalesced { // the latest of a key may be later than its place
		slices.SortStableFunc(items, func(a, b *Item) int { return cmp.Compare(a.Rev, b.Rev) })
	}
	return items
}

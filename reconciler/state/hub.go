// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/connectsoft/plumbline/desired"
)

// HubConfig of NewHub.
type HubConfig struct {
	Store     Store
	Ring      int           // changes kept for cursors, all tenants together; 0 = 65536
	Backfill  int           // revisions of history read at the start, so that tokens outlive a restart; 0 = 2048, <0 = none
	Heartbeat time.Duration // between bookmarks of an idle cursor; 0 = 10 s
	Linger    time.Duration // least time between two updates of a cursor, so that a busy time costs few wake-ups; 0 = 10 ms, <0 = none
	// Bad is told of a record that cannot be read; the last readable value stays. Nil ignores it. It must not block.
	Bad func(Key, error)
}

// Hub follows the States, Findings and Horizons tables by one upstream watch, keeps their latest values in memory
// and serves any number of cursors: a cursor is a position in a shared ring, it has no queue and no goroutine, and
// nothing a reader does or leaves undone can delay the hub. An empty tenant means the platform's. All methods are
// safe for concurrent use.
type Hub struct {
	store     Store
	epoch     string
	ring      int
	backfill  int64
	heartbeat time.Duration
	linger    time.Duration
	batch     int // items of an update, before the rest of its revision
	bad       func(Key, error)
	ready     chan struct{}
	done      chan struct{}

	mu      sync.RWMutex
	rev     int64 // everything up to here is in
	goal    int64 // ready once rev reaches it
	start   int64 // changes at or before it were never held
	tenants map[string]*view
	order   []*view // whose the entries of the ring are, oldest at head
	head    int
	size    int
}

// NewHub returns a hub that has to be Run, once.
func NewHub(c HubConfig) (*Hub, error) {
	if c.Store == nil {
		return nil, desired.Errorf("start hub", desired.Ref{}, desired.Invalid, "a store is needed")
	}
	h := &Hub{
		store: c.Store, epoch: c.Store.Epoch(), ring: c.Ring, backfill: int64(c.Backfill), heartbeat: c.Heartbeat,
		linger: c.Linger, bad: c.Bad,
		batch: 256, ready: make(chan struct{}), done: make(chan struct{}), tenants: map[string]*view{},
	}
	if h.ring <= 0 {
		h.ring = 65536
	}
	if h.backfill == 0 {
		h.backfill = 2048
	}
	if h.heartbeat <= 0 {
		h.heartbeat = 10 * time.Second
	}
	if h.linger == 0 {
		h.linger = 10 * time.Millisecond
	}
	if h.bad == nil {
		h.bad = func(Key, error) {}
	}
	return h, nil
}

// Run follows the store until ctx ends (nil) or the store cannot be followed any more; what passes is retried. It
// lists again after ErrCompacted, and cursors then get a Reset.
func (h *Hub) Run(ctx context.Context) error {
	defer close(h.done)
	listed := false
	retry := 50 * time.Millisecond
	for {
		var err error
		if !listed {
			err = h.list(ctx)
			listed = err == nil
		}
		if err == nil {
			began := h.revision()
			err = h.store.Watch(ctx, began, followed[:], h.apply)
			if h.revision() > began {
				retry = 50 * time.Millisecond
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrCompacted):
			listed = false
		case err != nil && desired.ClassOf(err) != desired.Transient && desired.ClassOf(err) != desired.Throttled:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
			retry = min(2*retry, 5*time.Second)
		}
	}
}

// list reads everything: the first time as of some revisions ago, so that the watch that follows fills the ring with
// history; later, and when that history is gone, as of now.
func (h *Hub) list(ctx context.Context) error {
	now, err := h.store.Revision(ctx)
	if err != nil {
		return err
	}
	at := int64(0)
	if h.revision() == 0 && h.backfill > 0 {
		at = max(1, now-h.backfill)
	}
	kvs, rev, err := h.read(ctx, at)
	if at > 0 && errors.Is(err, ErrCompacted) {
		kvs, rev, err = h.read(ctx, 0)
	}
	if err != nil {
		return err
	}
	if have := h.revision(); rev < have {
		return desired.Errorf("follow store", desired.Ref{}, desired.Stalled,
			"the state store went back from revision %d to %d: it was restored while in use; restart this process", have, rev)
	}
	items := make([]*Item, len(kvs))
	for i, kv := range kvs {
		if items[i], err = itemOf(kv); err != nil {
			items[i] = nil
			h.bad(kv.Key, err)
		}
	}
	h.rebuild(kvs, items, rev, now)
	return nil
}

// read lists all followed tables at one revision.
func (h *Hub) read(ctx context.Context, at int64) (all []KV, rev int64, err error) {
	for _, t := range followed {
		kvs, r, err := h.store.ListAt(ctx, at, "", t)
		if err != nil {
			return nil, 0, err
		}
		all, at, rev = append(all, kvs...), r, r
	}
	return all, rev, nil
}

func (h *Hub) rebuild(kvs []KV, items []*Item, rev, goal int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.tenants {
		v.clear(rev)
		defer close(v.wake)
		v.wake = make(chan struct{})
	}
	h.start, h.order, h.head, h.size = rev, nil, 0, 0
	for i, item := range items {
		if item != nil {
			h.viewLocked(item.Tenant).set(kvs[i].Key, item)
		}
	}
	h.goal = goal
	h.reached(rev)
}

// reached notes how far the hub is.
func (h *Hub) reached(rev int64) {
	h.rev = max(h.rev, rev)
	select {
	case <-h.ready:
	default:
		if h.rev >= h.goal {
			close(h.ready)
		}
	}
}

// apply takes in what the watch delivers.
func (h *Hub) apply(b Batch) error {
	items := make([]*Item, len(b.Events))
	for i, e := range b.Events {
		if e.Deleted {
			continue
		}
		item, err := itemOf(e.KV)
		if err != nil {
			h.bad(e.KV.Key, err)
			continue
		}
		items[i] = item
	}
	for _, wake := range h.merge(b, items) {
		close(wake)
	}
	return nil
}

// merge applies a batch as one step for readers and returns whom to wake.
func (h *Hub) merge(b Batch, items []*Item) []chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	touched := map[*view]bool{}
	for i, e := range b.Events {
		v := h.viewLocked(e.KV.Key.Tenant)
		item := items[i]
		if e.Deleted {
			last := v.get(e.KV.Key.Table, itemID(e.KV.Key))
			if last == nil {
				continue // it never was readable, so nobody has it
			}
			item = last.gone(e.KV.Rev)
		}
		if item == nil {
			continue
		}
		prev := v.set(e.KV.Key, item)
		h.remember(v, entry{item, prev})
		touched[v] = true
	}
	h.reached(b.Rev)
	var wake []chan struct{}
	for v := range touched {
		wake = append(wake, v.wake)
		v.wake = make(chan struct{})
	}
	return wake
}

// remember puts a change into the ring; the oldest one of all tenants makes room.
func (h *Hub) remember(v *view, e entry) {
	if h.size == h.ring {
		h.order[h.head].evict()
		h.order[h.head] = v
		h.head = (h.head + 1) % h.ring
	} else {
		h.order = append(h.order, v)
		h.size++
	}
	v.entries = append(v.entries, e)
}

// viewLocked finds or makes the view of a tenant; h.mu is held for writing.
func (h *Hub) viewLocked(tenant string) *view {
	tenant = tenantOf(tenant)
	v := h.tenants[tenant]
	if v == nil {
		v = newView(tenant, h.start)
		h.tenants[tenant] = v
	}
	return v
}

func (h *Hub) view(tenant string) *view {
	h.mu.RLock()
	v := h.tenants[tenantOf(tenant)]
	h.mu.RUnlock()
	if v == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		v = h.viewLocked(tenant)
	}
	return v
}

func (h *Hub) revision() int64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.rev
}

// Ready is closed once the hub is as far as the store was when Run began.
func (h *Hub) Ready() <-chan struct{} { return h.ready }

// State returns the latest sync state of a ref id.
func (h *Hub) State(tenant, id string) (*Item, bool) { return h.item(tenant, States, id) }

// Finding returns a finding by id.
func (h *Hub) Finding(tenant, id string) (*Item, bool) { return h.item(tenant, Findings, id) }

// Horizon returns the tenant's horizon; ok is false before its first head.
func (h *Hub) Horizon(tenant string) (Horizon, bool) {
	if i, ok := h.item(tenant, Horizons, "head"); ok {
		return *i.Horizon, true
	}
	return Horizon{}, false
}

func (h *Hub) item(tenant string, t Table, id string) (*Item, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	v := h.tenants[tenantOf(tenant)]
	if v == nil {
		return nil, false
	}
	i := v.get(t, id)
	return i, i != nil
}

// List returns the latest items of a table of a tenant, sorted by id, and the revision they are complete at.
func (h *Hub) List(tenant string, table Table) ([]*Item, int64) {
	if slot(table) < 0 {
		return nil, 0
	}
	h.mu.RLock()
	v, rev := h.tenants[tenantOf(tenant)], h.rev
	if v == nil {
		h.mu.RUnlock()
		return nil, rev
	}
	tree := v.tables[slot(table)]
	h.mu.RUnlock()
	return walk(make([]*Item, 0, tree.Len()), tree, nil, nil), rev
}

// walk appends the items below a prefix that match.
func walk(out []*Item, tree *iradix.Tree[*Item], prefix []byte, match func(*Item) bool) []*Item {
	tree.Root().WalkPrefix(prefix, func(_ []byte, i *Item) bool {
		if match == nil || match(i) {
			out = append(out, i)
		}
		return false
	})
	return out
}

// FindingsOf returns the findings of a resource, open ones first, then by id.
func (h *Hub) FindingsOf(tenant string, ref desired.Ref) []*Item {
	h.mu.RLock()
	v := h.tenants[tenantOf(tenant)]
	if v == nil {
		h.mu.RUnlock()
		return nil
	}
	tree := v.records
	h.mu.RUnlock()
	out := walk(nil, tree, []byte(ref.ID()+"."), nil)
	slices.SortStableFunc(out, func(a, b *Item) int {
		return cmp.Compare(closed(a), closed(b))
	})
	return out
}

func closed(i *Item) int {
	if i.Finding.Open() {
		return 0
	}
	return 1
}

// Wait blocks until done says true for the state of ref (nil before it has one) or ctx ends; it returns the last
// state seen either way. The error of a ctx that ended is of class Waiting.
func (h *Hub) Wait(ctx context.Context, ref desired.Ref, done func(*SyncState) bool) (*SyncState, error) {
	if err := h.await(ctx, "wait for state"); err != nil {
		return nil, err
	}
	v, id := h.view(ref.Tenant), ref.ID()
	for {
		h.mu.RLock()
		item, wake := v.get(States, id), v.wake
		h.mu.RUnlock()
		var s *SyncState
		if item != nil {
			s = item.State
		}
		if done(s) {
			return s, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return s, desired.E("wait for state", ref, desired.Waiting, ctx.Err())
		case <-h.done:
			return s, stopped("wait for state")
		}
	}
}

// await blocks until the hub is ready.
func (h *Hub) await(ctx context.Context, op string) error {
	select {
	case <-h.ready:
		return nil
	default:
	}
	select {
	case <-h.ready:
		return nil
	case <-ctx.Done():
		return desired.E(op, desired.Ref{}, desired.Waiting, ctx.Err())
	case <-h.done:
		return stopped(op)
	}
}

func stopped(op string) error {
	return desired.Errorf(op, desired.Ref{}, desired.Transient, "the server is shutting down; connect again and resume")
}

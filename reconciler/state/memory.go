// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"slices"
	"strings"
	"sync"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/connectsoft/plumbline/desired"
)

// MemoryConfig of NewMemory. The zero value is usable.
type MemoryConfig struct {
	Now     func() time.Time // nil = time.Now
	History int              // revisions that can be watched and listed; 0 = 65536
	Epoch   string           // "" = random
}

// Memory is a Store in the process, for simulation and tests. It starts no goroutine and blocks on channels only, so
// that it works inside testing/synctest.
type Memory struct {
	epoch   string
	birth   time.Time
	history int

	mu        sync.Mutex
	rev       int64
	compacted int64
	tree      *iradix.Tree[KV]
	log       []memRevision // ascending, ends at rev
	units     map[string]*memClaim
	moved     chan struct{} // closed and replaced whenever something changes
	closed    bool
}

// memRevision is what one revision changed and everything as it stood then; trees share what is equal.
type memRevision struct {
	rev    int64
	events []Event
	tree   *iradix.Tree[KV]
}

type memClaim struct {
	rev  int64
	lost chan struct{}
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory(c MemoryConfig) *Memory {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.History <= 0 {
		c.History = 1 << 16
	}
	if c.Epoch == "" {
		c.Epoch = randomID()
	}
	tree := iradix.New[KV]()
	return &Memory{
		epoch: c.Epoch, birth: c.Now(), history: c.History, rev: 1, tree: tree, log: []memRevision{{rev: 1, tree: tree}},
		units: map[string]*memClaim{}, moved: make(chan struct{}),
	}
}

// randomID is 80 random bits in lower-case base32.
func randomID() string {
	var b [10]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, keys ...Key) ([]KV, error) {
	tree, _, err := m.look(ctx, "read records", 0)
	if err != nil {
		return nil, err
	}
	var out []KV
	for _, k := range keys {
		if err := k.check(false); err != nil {
			return nil, desired.E("read records", desired.Ref{}, desired.Invalid, err)
		}
		if k.prefix() {
			out = collect(tree, k.String(), "", out)
		} else if kv, ok := tree.Get([]byte(k.String())); ok {
			out = append(out, kv)
		}
	}
	return out, nil
}

// List implements Store.
func (m *Memory) List(ctx context.Context, tenant string, table Table) ([]KV, int64, error) {
	return m.ListAt(ctx, 0, tenant, table)
}

// ListAt implements Store.
func (m *Memory) ListAt(ctx context.Context, rev int64, tenant string, table Table) ([]KV, int64, error) {
	tree, rev, err := m.look(ctx, "list records", rev)
	if err != nil {
		return nil, 0, err
	}
	if tenant == "" {
		return collect(tree, root, table, nil), rev, nil
	}
	return collect(tree, root+tenant+"/"+string(table)+"/", "", nil), rev, nil
}

// collect appends the records below a prefix, of one table when it is given.
func collect(tree *iradix.Tree[KV], prefix string, table Table, out []KV) []KV {
	tree.Root().WalkPrefix([]byte(prefix), func(_ []byte, kv KV) bool {
		if table == "" || kv.Key.Table == table {
			out = append(out, kv)
		}
		return false
	})
	return out
}

// look returns everything as it stood at rev (0 = now).
func (m *Memory) look(ctx context.Context, op string, rev int64) (*iradix.Tree[KV], int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, desired.E(op, desired.Ref{}, desired.Transient, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, 0, closedError(op)
	case rev == 0 || rev == m.rev:
		return m.tree, m.rev, nil
	case rev < m.compacted:
		return nil, 0, compactedError(op, rev, m.compacted)
	case rev > m.rev:
		return nil, 0, futureError(op, rev, m.rev)
	}
	return m.log[m.after(rev)-1].tree, rev, nil
}

// after is the place in the log of the first revision greater than rev.
func (m *Memory) after(rev int64) int {
	i, _ := slices.BinarySearchFunc(m.log, rev+1, func(r memRevision, rev int64) int { return int(r.rev - rev) })
	return i
}

// Commit implements Store.
func (m *Memory) Commit(ctx context.Context, f Fence, puts ...Put) (int64, error) {
	parts, err := split(f.Key != "", puts)
	if err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, desired.E("commit records", desired.Ref{}, desired.Transient, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, part := range parts {
		if m.closed {
			return 0, closedError("commit records")
		}
		if c := m.units[f.Unit]; f.Key != "" && (c == nil || c.rev != f.Revision || f.Key != unitRoot+f.Unit) {
			return 0, fencedError(f.Unit)
		}
		for _, p := range part {
			old, _ := m.tree.Get([]byte(p.Key.String()))
			if p.IfRev != nil && old.Rev != *p.IfRev {
				return 0, conflictError()
			}
		}
		m.write(part)
	}
	return m.rev, nil
}

// write applies one transaction whose conditions hold. A transaction without effect takes no revision.
func (m *Memory) write(puts []Put) {
	next := m.rev + 1
	txn := m.tree.Txn()
	var events []Event
	for _, p := range puts {
		key := p.Key.String()
		k := Key{tenantOf(p.Key.Tenant), p.Key.Table, p.Key.ID}
		if p.Value == nil {
			if old, ok := txn.Delete([]byte(key)); ok {
				events = append(events, Event{KV: KV{Key: k, Rev: next}, Deleted: true, Prev: old.Value})
			}
			continue
		}
		kv := KV{Key: k, Value: slices.Clone(p.Value), Rev: next}
		txn.Insert([]byte(key), kv)
		events = append(events, Event{KV: kv})
	}
	if len(events) > 0 {
		m.tree = txn.CommitOnly()
		m.advance(events)
	}
}

// advance takes one revision, bounds the history and wakes everyone.
func (m *Memory) advance(events []Event) {
	m.rev++
	m.log = append(m.log, memRevision{m.rev, events, m.tree})
	if n := len(m.log) - m.history; n > m.history/8 {
		m.trim(m.log[n].rev)
	}
	m.wake()
}

func (m *Memory) wake() {
	close(m.moved)
	m.moved = make(chan struct{})
}

// trim drops history before rev.
func (m *Memory) trim(rev int64) {
	m.compacted = rev
	m.log = slices.Clone(m.log[m.after(rev-1):])
	m.wake()
}

// Watch implements Store.
func (m *Memory) Watch(ctx context.Context, from int64, tables []Table, fn func(Batch) error) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		events, rev, moved, err := m.since(from, tables)
		if err != nil {
			return err
		}
		if rev > from {
			if err := fn(Batch{Events: events, Rev: rev}); err != nil {
				return err
			}
		}
		from = rev
		select {
		case <-ctx.Done():
			return nil
		case <-moved:
		case <-tick.C:
			if err := fn(Batch{Rev: from}); err != nil {
				return err
			}
		}
	}
}

// since returns the events after a revision and what is closed at the next change.
func (m *Memory) since(from int64, tables []Table) ([]Event, int64, <-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, 0, nil, closedError("watch records")
	case from < m.compacted:
		return nil, 0, nil, compactedError("watch records", from, m.compacted)
	case from > m.rev:
		return nil, 0, nil, futureError("watch records", from, m.rev)
	}
	var out []Event
	for _, r := range m.log[m.after(from):] {
		for _, e := range r.events {
			if slices.Contains(tables, e.KV.Key.Table) {
				out = append(out, e)
			}
		}
	}
	return out, m.rev, m.moved, nil
}

// Claim implements Store.
func (m *Memory) Claim(ctx context.Context, unit string) (Fence, <-chan struct{}, func(), error) {
	for {
		if err := ctx.Err(); err != nil {
			return Fence{}, nil, nil, desired.E("claim unit", desired.Ref{}, desired.Transient, err)
		}
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return Fence{}, nil, nil, closedError("claim unit")
		}
		if m.units[unit] == nil {
			m.advance(nil)
			c := &memClaim{rev: m.rev, lost: make(chan struct{})}
			m.units[unit] = c
			m.mu.Unlock()
			return Fence{Unit: unit, Key: unitRoot + unit, Revision: c.rev}, c.lost, func() { m.drop(unit, c) }, nil
		}
		moved := m.moved
		m.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
		}
	}
}

// drop ends a claim if it still stands.
func (m *Memory) drop(unit string, c *memClaim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.units[unit] == c && c != nil {
		delete(m.units, unit)
		close(c.lost)
		m.advance(nil)
	}
}

// Lose takes a unit from its owner, as a lease that ran out does.
func (m *Memory) Lose(unit string) {
	m.mu.Lock()
	c := m.units[unit]
	m.mu.Unlock()
	m.drop(unit, c)
}

// Epoch implements Store.
func (m *Memory) Epoch() string { return m.epoch }

// Birth implements Store.
func (m *Memory) Birth() time.Time { return m.birth }

// Revision implements Store.
func (m *Memory) Revision(ctx context.Context) (int64, error) {
	_, rev, err := m.look(ctx, "read revision", 0)
	return rev, err
}

// Compact implements Store.
func (m *Memory) Compact(ctx context.Context, rev int64) error {
	if _, now, err := m.look(ctx, "compact history", 0); err != nil {
		return err
	} else if rev > now {
		return futureError("compact history", rev, now)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if rev > m.compacted {
		m.trim(rev)
	}
	return nil
}

// Ready implements Store.
func (m *Memory) Ready(ctx context.Context) error {
	_, _, err := m.look(ctx, "check store", 0)
	return err
}

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	for _, c := range m.units {
		close(c.lost)
	}
	clear(m.units)
	m.wake()
	return nil
}

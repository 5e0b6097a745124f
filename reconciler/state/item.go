// SPDX-License-Identifier: Apache-2.0

package state

import (
	"strings"
	"sync"
	"sync/atomic"
	"unique"

	"github.com/connectsoft/plumbline/reconciler/plan"
)

// Item is one record at one revision. Exactly one of State, Finding, Horizon is set, unless Deleted: then the last
// known value is, if there is one. A cursor also says Deleted of a record that no longer matches its filter. ID is
// what the API shows: a resource id, a finding id, or "head" of the horizon. Immutable.
type Item struct {
	Tenant  string
	Table   Table
	ID      string
	Rev     int64
	Deleted bool
	State   *SyncState
	Finding *plan.Finding
	Horizon *Horizon

	memo   atomic.Pointer[memo]
	memoMu sync.Mutex // held while a memo is computed
}

// memo is a computed value; there are as many as there are encodings.
type memo struct {
	key   string
	value any
	next  *memo
}

// Memo computes a value once per item and keeps it, so that an event is encoded once for all streams. key tells
// different encodings apart ("grpc", "sse"). fn must not call Memo of the same item.
func (i *Item) Memo(key string, fn func() any) any {
	if v, ok := i.memo.Load().find(key); ok {
		return v
	}
	i.memoMu.Lock()
	defer i.memoMu.Unlock()
	if v, ok := i.memo.Load().find(key); ok {
		return v
	}
	v := fn()
	i.memo.Store(&memo{key, v, i.memo.Load()})
	return v
}

func (m *memo) find(key string) (any, bool) {
	for ; m != nil; m = m.next {
		if m.key == key {
			return m.value, true
		}
	}
	return nil, false
}

// gone is the item as a reader sees it once it was removed or no longer matches.
func (i *Item) gone(rev int64) *Item {
	return &Item{
		Tenant: i.Tenant, Table: i.Table, ID: i.ID, Rev: rev, Deleted: true,
		State: i.State, Finding: i.Finding, Horizon: i.Horizon,
	}
}

// itemOf decodes a stored record of one of the tables that the hub follows.
func itemOf(kv KV) (*Item, error) {
	i := &Item{Tenant: kv.Key.Tenant, Table: kv.Key.Table, ID: itemID(kv.Key), Rev: kv.Rev}
	var err error
	switch kv.Key.Table {
	case States:
		var v SyncState
		v, err = Decode[SyncState](kv)
		// These repeat from record to record; sharing them saves a good part of what a record takes.
		share(&i.Tenant, (*string)(&v.Ref.Kind), &v.Ref.Tenant, &v.Ref.Project, (*string)(&v.Phase), &v.Reason, &v.DesiredCommit, &v.AppliedCommit)
		i.State = &v
	case Findings:
		var v plan.Finding
		v, err = Decode[plan.Finding](kv)
		i.Finding = &v
	case Horizons:
		var v Horizon
		v, err = Decode[Horizon](kv)
		i.Horizon = &v
	}
	return i, err
}

func share(texts ...*string) {
	for _, s := range texts {
		*s = unique.Make(*s).Value()
	}
}

// itemID drops the resource id that a finding's key begins with.
func itemID(k Key) string {
	if k.Table == Findings {
		return k.ID[strings.LastIndexByte(k.ID, '.')+1:]
	}
	return k.ID
}

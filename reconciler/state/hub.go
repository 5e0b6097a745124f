// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// HubConfig of NewHub.
type HubConfig struct {
	Store Store
	Ring  int // events kept for cursors; 0 = 65536
}

// Hub follows the States, Findings and Horizons tables by one upstream watch, keeps their latest values in memory
// and serves any number of cursors. All methods are safe for concurrent use.
type Hub struct{}

// NewHub returns a hub that has to be Run.
func NewHub(c HubConfig) (*Hub, error) { panic("not built") }

// Run follows the store until ctx ends; it lists again after ErrCompacted, and cursors then get a Reset.
func (h *Hub) Run(ctx context.Context) error { panic("not built") }

// Ready is closed after the first list.
func (h *Hub) Ready() <-chan struct{} { panic("not built") }

// Item is one record at one revision. Exactly one of State, Finding, Horizon is set, unless Deleted: then the last
// known value is. Immutable.
type Item struct {
	Tenant  string
	Table   Table
	ID      string
	Rev     int64
	Deleted bool
	State   *SyncState
	Finding *plan.Finding
	Horizon *Horizon
}

// Memo computes a value once per item and keeps it, so that an event is encoded once for all streams. key tells
// different encodings apart ("grpc", "sse").
func (i *Item) Memo(key string, fn func() any) any { panic("not built") }

// State returns the latest sync state of a ref id.
func (h *Hub) State(tenant, id string) (*Item, bool) { panic("not built") }

// Finding returns a finding by id.
func (h *Hub) Finding(tenant, id string) (*Item, bool) { panic("not built") }

// Horizon returns the tenant's horizon; ok is false before its first head.
func (h *Hub) Horizon(tenant string) (Horizon, bool) { panic("not built") }

// List returns the latest items of a table of a tenant, sorted by id, and the revision they are complete at.
func (h *Hub) List(tenant string, table Table) ([]*Item, int64) { panic("not built") }

// FindingsOf returns the findings of a resource, open ones first.
func (h *Hub) FindingsOf(tenant string, ref desired.Ref) []*Item { panic("not built") }

// Wait blocks until done says true for the state of ref (nil before it has one) or ctx ends; it returns the last
// state seen either way.
func (h *Hub) Wait(ctx context.Context, ref desired.Ref, done func(*SyncState) bool) (*SyncState, error) {
	panic("not built")
}

// Token is a resume token: installation epoch + revision.
type Token struct {
	Epoch string
	Rev   int64
}

// String renders the token; ParseToken reads it.
func (t Token) String() string { panic("not built") }

// ParseToken reads a resume token; a malformed one is a desired.Error of class Invalid.
func ParseToken(s string) (Token, error) { panic("not built") }

// Update is what a cursor delivers next.
type Update struct {
	// Reset: forget everything, Items is the full list (the first delivery of a cursor without a token, after a
	// gap, a compaction or another epoch). Why says which.
	Reset bool
	Why   string // "initial", "gap", "compacted", "epoch"
	Items []*Item
	// Token resumes after this update. An update without Items is a bookmark.
	Token   Token
	Horizon Horizon
}

// Filter narrows a cursor; nil Match = everything of the tables.
type Filter struct {
	Tenant string
	Tables []Table
	Match  func(*Item) bool
}

// Subscribe starts a cursor. after nil = from a fresh list. Close it when done.
func (h *Hub) Subscribe(f Filter, after *Token) (*Cursor, error) { panic("not built") }

// Cursor is one reader's place. Not safe for concurrent use.
type Cursor struct{}

// Next blocks until there is something newer, heartbeat passes (a bookmark), or ctx ends. A reader that is slow
// gets each key's latest value only (coalesced); one that fell out of the ring gets a Reset with the full list.
func (c *Cursor) Next(ctx context.Context) (Update, error) { panic("not built") }

// Close releases the cursor.
func (c *Cursor) Close() { panic("not built") }

// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// SyncState is where one resource stands.
type SyncState struct {
	V             int             `json:"v"`
	Ref           desired.Ref     `json:"ref"`
	ID            string          `json:"id"`
	Phase         plan.Phase      `json:"phase"`
	Health        string          `json:"health,omitempty"`
	Reason        string          `json:"reason,omitempty"`
	Message       string          `json:"message,omitempty"`
	DesiredSeq    uint64          `json:"desiredSeq"`
	DesiredCommit string          `json:"desiredCommit"`
	AppliedSeq    uint64          `json:"appliedSeq,omitempty"`
	AppliedCommit string          `json:"appliedCommit,omitempty"`
	Outputs       json.RawMessage `json:"outputs,omitempty"` // the last observed Actual
	Findings      int             `json:"findings,omitempty"`
	Since         time.Time       `json:"since"` // of the phase
	// Digest is that of the document at DesiredSeq, "" when it is gone. ActiveSince is since when that document is
	// Pending or Progressing, also while it is called Stalled for it.
	Digest      string    `json:"digest,omitempty"`
	ActiveSince time.Time `json:"activeSince,omitzero"`
	// Subject of RepositorySpec etc. for filters, so that a stream needs no snapshot.
	Labels map[string]string `json:"labels,omitempty"`
}

// Horizon is the newest accepted head of a tenant whose consequences are written: every changed ref is at least
// Pending with its desired seq.
type Horizon struct {
	V      int       `json:"v"`
	Tenant string    `json:"tenant"`
	Seq    uint64    `json:"seq"`
	Commit string    `json:"commit"`
	At     time.Time `json:"at"`
}

// Verdict is the judgement of the pending deletions of a tenant's root unit.
type Verdict struct {
	V       int           `json:"v"`
	Seq     uint64        `json:"seq"`
	Commit  string        `json:"commit"`
	Digest  string        `json:"digest"` // of the listed refs
	Allowed []desired.Ref `json:"allowed"`
	Stopped []desired.Ref `json:"stopped,omitempty"`
	Reason  string        `json:"reason,omitempty"` // why deletions were stopped, and what to do
	At      time.Time     `json:"at"`
}

// Table is one collection below a tenant.
type Table string

// The tables; keys are /plumbline/v1/<tenant>/<table>/<id>. The platform's tenant is written "-".
const (
	States   Table = "state"
	Findings Table = "finding" // id "<resource id>.<finding id>"
	Runs     Table = "run"     // id "<resource id>.<run id>"
	Applieds Table = "applied"
	Verdicts Table = "verdict" // id "root"
	Horizons Table = "horizon" // id "head"
	Cursors  Table = "cursor"
)

// Key addresses one record. The platform's tenant is "-"; an empty Tenant is read as "-", and records come back
// with "-". In Get, an ID that ends with "." addresses every record whose ID begins with it (no record's own ID ends
// so): the findings of a resource are read with its state in one request.
type Key struct {
	Tenant string
	Table  Table
	ID     string
}

// KV is one stored record. Rev is the store's revision of its last write.
type KV struct {
	Key   Key
	Value []byte
	Rev   int64
}

// Put is one write of a transaction. A nil Value deletes. IfRev, when set, demands that the record's current Rev
// equals it (0 = must not exist).
type Put struct {
	Key   Key
	Value []byte
	IfRev *int64
}

// Sentinels.
var (
	ErrCompacted = errors.New("revision is compacted")        // list again
	ErrFenced    = errors.New("ownership was lost")           // the fence of a transaction no longer holds
	ErrConflict  = errors.New("record changed meanwhile")     // an IfRev did not hold
	ErrEpoch     = errors.New("another installation's token") // list again
)

// Fence is the proof of ownership of a unit: a key that lives under a lease. Its Revision is the epoch that every
// write of the unit's work carries. The zero Fence fences nothing (API process writes).
type Fence struct {
	Unit     string
	Key      string
	Revision int64
}

// Event is one change of a record.
type Event struct {
	KV      KV
	Deleted bool
	// Prev is the value before a deletion, when the store still has it.
	Prev []byte
}

// Batch is what one revision step of a watch delivers: events in order, complete up to Rev. An empty Events is a
// progress mark.
type Batch struct {
	Events []Event
	Rev    int64
}

// Store is the record store. Embedded etcd, external etcd and Memory implement it and pass one suite. Every error is
// a *desired.Error; the sentinels above are found in it by errors.Is. All methods are safe for concurrent use.
type Store interface {
	// Get reads records, in the order of keys; missing ones are left out. Reads are linearizable, and all of one
	// call are of one revision.
	Get(ctx context.Context, keys ...Key) ([]KV, error)
	// List reads a table of a tenant (tenant "" = all tenants), in key order, and the revision it was read at.
	List(ctx context.Context, tenant string, table Table) ([]KV, int64, error)
	// ListAt is List as of an earlier revision (0 = now); ErrCompacted when its history is gone.
	ListAt(ctx context.Context, rev int64, tenant string, table Table) ([]KV, int64, error)
	// Commit writes all of puts or nothing, in one transaction when they fit (128 operations and 1.25 MiB), and
	// returns its revision. A fence that no longer holds is ErrFenced, a failed IfRev is ErrConflict. More than
	// that is split in order; a later part failing leaves the earlier ones. No key may be written twice. An error
	// of class Transient leaves open whether it was written: read before deciding. No puts only check the fence.
	Commit(ctx context.Context, f Fence, puts ...Put) (int64, error)
	// Watch delivers every change of the given tables (all tenants) after revision from, in order, until ctx ends
	// (nil), fn returns an error (that one), or history is missing (ErrCompacted, also for a revision that the
	// store has not reached). fn must not block for long. Progress marks come at least every 10 s. An error of
	// class Transient is answered by watching again from the last Batch.Rev.
	Watch(ctx context.Context, from int64, tables []Table, fn func(Batch) error) error
	// Claim takes ownership of a unit and holds it until release is called, the session is lost or the store
	// closes; it waits until the unit is free or ctx ends. lost is closed when ownership is gone, for whichever of
	// these reasons. release may be called more than once.
	Claim(ctx context.Context, unit string) (f Fence, lost <-chan struct{}, release func(), err error)
	// Epoch identifies the installation's data: it changes when the data was lost or restored.
	Epoch() string
	// Birth is the time the epoch began.
	Birth() time.Time
	// Revision is the current revision.
	Revision(ctx context.Context) (int64, error)
	// Compact drops history before rev; watches from before it get ErrCompacted.
	Compact(ctx context.Context, rev int64) error
	// Ready reports whether the store answers within ctx.
	Ready(ctx context.Context) error
	// Close gives up every claim, ends every watch, and returns when nothing of the store runs any more.
	Close() error
}

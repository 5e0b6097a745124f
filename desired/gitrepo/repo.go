// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"net/http"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// Request is one API write.
type Request struct {
	Edit      desired.Edit
	Subject   string // the caller: "user:alice", "agent:client"; becomes the author
	Message   string // first line of the commit
	RequestID string // trace id
	// Key is the hash of tenant, subject and Idempotency-Key, Fingerprint that of the canonical request; both
	// empty without a key.
	Key, Fingerprint string
}

// Receipt is what a write gets back.
type Receipt struct {
	Tenant    string    `json:"tenant"`
	Commit    string    `json:"commit"`
	Seq       uint64    `json:"seq"`
	Base      string    `json:"base"` // the head the edit was judged against
	Replayed  bool      `json:"replayed,omitempty"`
	Unchanged bool      `json:"unchanged,omitempty"` // the edit found everything as wanted: Commit is the head's
	At        time.Time `json:"at"`
}

// Repo is one control repository (or the platform repository, tenant "").
type Repo struct{}

// Head is the latest accepted head. Never nil after Open.
func (r *Repo) Head() *desired.Head { panic("not built") }

// Commit lands an edit: nil means durable and visible in Head. Errors are *desired.Error: the edit's own, Conflict
// for a reused idempotency key (class Invalid with another fingerprint), Transient when the queue is full or the
// repository is closing, Denied when frozen.
func (r *Repo) Commit(ctx context.Context, q Request) (Receipt, error) { panic("not built") }

// Lookup finds the receipt of an idempotency key, for in-flight and replay answers.
func (r *Repo) Lookup(key string) (rc Receipt, fingerprint string, ok bool) { panic("not built") }

// Changes merges what changed after seq up to the current head; ok is false when that is no longer known and the
// caller must compare everything.
func (r *Repo) Changes(after uint64) (desired.Changes, bool) { panic("not built") }

// Watch returns a 1-slot channel that receives after the head moved, and its release.
func (r *Repo) Watch() (<-chan struct{}, func()) { panic("not built") }

// Content reads an attached blob beside the document of ref at the current head: <name>.d/<hex of digest>.
func (r *Repo) Content(ctx context.Context, e *desired.Entry, digest string) ([]byte, error) {
	panic("not built")
}

// Door serves clone, fetch and push of this repository. subject is the authenticated pusher.
func (r *Repo) Door(subject func(*http.Request) string) http.Handler { panic("not built") }

// Close stops the writer after the batch in flight and joins its goroutines.
func (r *Repo) Close() error { panic("not built") }

// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// Source is a control repository as the loop sees it. *gitrepo.Repo implements it.
type Source interface {
	// Head is the latest accepted head, never nil.
	Head() *desired.Head
	// Changes merges what changed after seq up to the current head; ok is false when that is no longer known and
	// everything must be compared.
	Changes(after uint64) (c desired.Changes, ok bool)
	// Watch returns a 1-slot channel that receives after the head moved, and its release.
	Watch() (<-chan struct{}, func())
	// Content reads a blob attached to a document.
	Content(ctx context.Context, e *desired.Entry, digest string) ([]byte, error)
}

// Artifacts opens a file of an artifact; digest pins its content.
type Artifacts func(ctx context.Context, tenant, id, digest, path string) ([]byte, error)

// Config of an Engine.
type Config struct {
	Store   state.Store
	Drivers map[string]adapters.Driver // by provider type
	// Credential opens the credential of a provider; nil = none is ever needed.
	Credential func(ctx context.Context, tenant string, provider desired.Ref, spec *desired.ProviderSpec) (adapters.Secret, error)
	Artifacts  Artifacts
	Workers    int           // per tenant; 0 = 4
	Resync     time.Duration // 0 = 3 min, jittered by ±20 %
	CallLimit  time.Duration // deadline of one driver call; 0 = 10 s
	Now        func() time.Time
	Events     Events
}

// Events is how the loop tells what it does. Nil members do nothing; they must not block.
type Events struct {
	Turn    func(TurnEvent)    // one reconcile of one ref
	Finding func(plan.Finding) // a finding opened or closed
	Loaded  func(tenant string, seq uint64, commit string, refs int, took time.Duration)
	Owner   func(unit string, held bool) // unit ownership won or lost
	Error   func(op string, err error)   // something outside a turn
}

// TurnEvent is one finished reconcile.
type TurnEvent struct {
	Ref     desired.Ref
	Commit  string
	Phase   string
	Outcome string // "synced", "changed", "waiting", "unchanged", "error"
	Changes int
	Took    time.Duration
	Err     error
}

// Engine runs the loop. Attach control repositories, then Run.
type Engine struct{}

// New checks the configuration.
func New(c Config) (*Engine, error) { panic("not built") }

// Run works until ctx ends, then finishes the turns in flight and releases ownership.
func (e *Engine) Run(ctx context.Context) error { panic("not built") }

// Attach adds a tenant's control repository; it may be called while running. Detach stops its work.
func (e *Engine) Attach(tenant string, s Source) { panic("not built") }

// Detach stops the work of a tenant and waits for its turns.
func (e *Engine) Detach(tenant string) { panic("not built") }

// Nudge says "look again" at refs; unknown ones are ignored.
func (e *Engine) Nudge(refs ...desired.Ref) { panic("not built") }

// Reconcile nudges everything of a tenant that matches and returns the refs.
func (e *Engine) Reconcile(tenant string, match func(*desired.Entry) bool) []desired.Ref {
	panic("not built")
}

// PostCheck posts a check on a pull request at its host (operation 4c).
func (e *Engine) PostCheck(ctx context.Context, pr desired.Ref, c adapters.Check) error {
	panic("not built")
}

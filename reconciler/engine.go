// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	Deadline   time.Duration // how long a document may be Pending or Progressing; 0 = 15 min
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
//
// Each tenant has a queue and workers of its own, so that none slows another one. A ref is never worked on twice at
// once. Everything an Engine remembers can be read again from the store and the control repositories.
type Engine struct {
	c Config

	mu       sync.Mutex
	tenants  map[string]*tenant
	running  bool
	attached chan struct{} // 1 slot: a tenant waits to be started
}

// New checks the configuration.
func New(c Config) (*Engine, error) {
	const op = "configure reconciler"
	switch {
	case c.Store == nil:
		return nil, desired.Errorf(op, desired.Ref{}, desired.Invalid, "a store is needed")
	case c.Now == nil:
		return nil, desired.Errorf(op, desired.Ref{}, desired.Invalid, "a clock is needed")
	case c.Workers < 0 || c.Resync < 0 || c.CallLimit < 0 || c.Deadline < 0:
		return nil, desired.Errorf(op, desired.Ref{}, desired.Invalid, "workers and times must not be negative")
	}
	if c.Workers == 0 {
		c.Workers = 4
	}
	for _, d := range []struct {
		at   *time.Duration
		than time.Duration
	}{{&c.Resync, 3 * time.Minute}, {&c.CallLimit, 10 * time.Second}, {&c.Deadline, 15 * time.Minute}} {
		if *d.at == 0 {
			*d.at = d.than
		}
	}
	c.Events.complete()
	return &Engine{c: c, tenants: map[string]*tenant{}, attached: make(chan struct{}, 1)}, nil
}

func (e *Events) complete() {
	if e.Turn == nil {
		e.Turn = func(TurnEvent) {}
	}
	if e.Finding == nil {
		e.Finding = func(plan.Finding) {}
	}
	if e.Loaded == nil {
		e.Loaded = func(string, uint64, string, int, time.Duration) {}
	}
	if e.Owner == nil {
		e.Owner = func(string, bool) {}
	}
	if e.Error == nil {
		e.Error = func(string, error) {}
	}
}

// Run works until ctx ends, then finishes the turns in flight and releases ownership. It may run once.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.running {
		e.mu.Unlock()
		return desired.Errorf("run reconciler", desired.Ref{}, desired.Conflict, "it runs already")
	}
	e.running = true
	e.mu.Unlock()
	var all sync.WaitGroup
	defer all.Wait()
	for kind, d := range e.c.Drivers {
		if w, ok := d.(adapters.Watcher); ok {
			all.Go(func() { e.watch(ctx, kind, w) })
		}
	}
	for {
		e.start(ctx, &all)
		select {
		case <-e.attached:
		case <-ctx.Done():
			return nil
		}
	}
}

// start runs the tenants that were attached since the last time.
func (e *Engine) start(ctx context.Context, all *sync.WaitGroup) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.tenants {
		if t.stop != nil {
			continue
		}
		run, stop := context.WithCancelCause(ctx)
		t.stop = stop
		all.Go(func() {
			defer close(t.done)
			t.run(run)
		})
	}
}

// watch passes on what a driver notices by itself, until ctx ends. A watch that fails is begun again.
func (e *Engine) watch(ctx context.Context, kind string, w adapters.Watcher) {
	for ctx.Err() == nil {
		if err := watchSafely(ctx, w, e.nudgeTree); err != nil && ctx.Err() == nil {
			e.c.Events.Error("watch provider type "+kind, err)
		}
		sleep(ctx, 5*time.Second)
	}
}

// watchSafely keeps a defect in a driver from ending the process.
func watchSafely(ctx context.Context, w adapters.Watcher, nudge func(desired.Ref)) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = desired.Errorf("watch provider", desired.Ref{}, desired.Internal, "%w: %v", errPanic, p)
		}
	}()
	return w.Watch(ctx, nudge)
}

// Attach adds a tenant's control repository; it may be called while running. One that is attached already is detached
// first. Detach stops its work.
func (e *Engine) Attach(tenant string, s Source) {
	e.Detach(tenant)
	e.mu.Lock()
	e.tenants[tenant] = newTenant(e, tenant, s)
	e.mu.Unlock()
	select {
	case e.attached <- struct{}{}:
	default:
	}
}

// Detach stops the work of a tenant and waits for its turns.
func (e *Engine) Detach(tenant string) {
	e.mu.Lock()
	t := e.tenants[tenant]
	delete(e.tenants, tenant)
	var stop context.CancelCauseFunc
	if t != nil {
		stop = t.stop
	}
	e.mu.Unlock()
	switch {
	case stop != nil:
		stop(errDetached)
		<-t.done
	case t != nil:
		t.queue.ShutDown()
	}
}

var errDetached = errors.New("the tenant was detached")

// Nudge says "look again" at refs; unknown ones are ignored.
func (e *Engine) Nudge(refs ...desired.Ref) {
	for _, r := range refs {
		if t := e.tenant(r.Tenant); t != nil {
			t.nudge(r)
		}
	}
}

// nudgeTree is Nudge for a hint of a driver: what is inside a repository is looked at, too.
func (e *Engine) nudgeTree(r desired.Ref) {
	t := e.tenant(r.Tenant)
	if t == nil {
		return
	}
	t.nudge(r)
	for _, child := range t.inside(r) {
		t.nudge(child)
	}
}

func (e *Engine) tenant(name string) *tenant {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tenants[name]
}

// Reconcile nudges everything of a tenant that has a driver and matches, and returns the refs.
func (e *Engine) Reconcile(tenant string, match func(*desired.Entry) bool) []desired.Ref {
	t := e.tenant(tenant)
	if t == nil {
		return nil
	}
	var refs []desired.Ref
	for entry := range t.source.Head().Snapshot.All() {
		if managed(entry.Ref.Kind) && match(entry) {
			refs = append(refs, entry.Ref)
		}
	}
	e.Nudge(refs...)
	return refs
}

// PostCheck posts a check on a pull request at its host (operation 4c). It is NotFound without a document, Waiting
// until the pull request is opened, Invalid where the host takes no checks.
func (e *Engine) PostCheck(ctx context.Context, pr desired.Ref, c adapters.Check) error {
	const op = "post check"
	t := e.tenant(pr.Tenant)
	if t == nil || pr.Kind != desired.KindPullRequest {
		return desired.Errorf(op, pr, desired.NotFound, "there is no such pull request")
	}
	entry, ok := t.source.Head().Snapshot.Get(pr)
	if !ok {
		return desired.Errorf(op, pr, desired.NotFound, "there is no such pull request")
	}
	a, _, ok, err := state.Read[plan.Applied](ctx, e.c.Store, state.AppliedKey(pr))
	if err != nil {
		return err
	}
	if !ok {
		return desired.Errorf(op, pr, desired.Waiting, "the pull request is not opened yet; try again when it is")
	}
	at, err := t.subject(ctx, t.source.Head().Snapshot, pr, entry.Resource.Spec, a.Provider)
	if err != nil {
		return err
	}
	checker, ok := at.driver.(adapters.Checker)
	if !ok {
		return desired.Errorf(op, pr, desired.Invalid, "the host of this pull request takes no checks")
	}
	at.subject.Handle = a.Handle
	ctx, cancel := context.WithTimeoutCause(ctx, e.c.CallLimit, errCallLimit)
	defer cancel()
	if err := checker.PostCheck(ctx, at.subject, c); err != nil {
		return err
	}
	t.nudge(pr)
	return nil
}

var errCallLimit = fmt.Errorf("the call took longer than it may")

func managed(k desired.Kind) bool {
	info, _ := k.Info()
	return info.Managed
}

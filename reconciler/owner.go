// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/internal/fp"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// owner holds the units of a tenant: one for each project, and the root unit for what belongs to none. A unit is
// claimed when it is first needed, held until the tenant stops, and claimed again when it was lost. Every write of a
// unit's work carries its fence.
type owner struct {
	t    *tenant
	want chan *unit // units to claim, taken by run

	mu    sync.Mutex
	units map[string]*unit // by project, "" = root
}

// unit is one claim. It goes from waiting to held and back as often as ownership is lost.
type unit struct {
	project string
	name    string

	// Guarded by owner.mu.
	fence state.Fence
	held  chan struct{} // closed while held; replaced when lost
	turns map[int]context.CancelCauseFunc
	next  int
	due   map[desired.Ref]bool // turns that came while it was not held
}

var errLost = errors.New("ownership of the unit was lost")

func newOwner(t *tenant) *owner {
	return &owner{t: t, want: make(chan *unit), units: map[string]*unit{}}
}

// run keeps the claims until ctx ends, and releases them then.
func (o *owner) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		select {
		case u := <-o.want:
			all.Go(func() { o.keep(ctx, u) })
		case <-ctx.Done():
			return
		}
	}
}

// keep claims a unit, and claims it again whenever it is lost.
func (o *owner) keep(ctx context.Context, u *unit) {
	for again := false; ctx.Err() == nil; again = true {
		fence, lost, release, err := o.t.e.c.Store.Claim(ctx, u.name)
		if err != nil {
			if ctx.Err() == nil {
				o.t.e.c.Events.Error("claim unit "+u.name, err)
				sleep(ctx, time.Second)
			}
			continue
		}
		o.won(u, fence)
		if again {
			o.t.regained()
		}
		select {
		case <-lost:
		case <-ctx.Done():
		}
		o.lose(u)
		release()
	}
}

func (o *owner) won(u *unit, f state.Fence) {
	fp.Hit("lease.won")
	o.mu.Lock()
	u.fence = f
	close(u.held)
	due := u.due
	u.due = map[desired.Ref]bool{}
	o.mu.Unlock()
	for ref := range due {
		o.t.add(ref)
	}
	o.t.e.c.Events.Owner(u.name, true)
}

// lose ends the turns of a unit: they may not write any more.
func (o *owner) lose(u *unit) {
	o.mu.Lock()
	u.fence = state.Fence{}
	u.held = make(chan struct{})
	for _, cancel := range u.turns {
		cancel(errLost)
	}
	o.mu.Unlock()
	o.t.e.c.Events.Owner(u.name, false)
}

// unit finds the unit of a project; it begins to claim one that is new.
func (o *owner) unit(ctx context.Context, project string) (*unit, error) {
	o.mu.Lock()
	u := o.units[project]
	fresh := u == nil
	if fresh {
		u = &unit{project: project, name: unitName(o.t.name, project), held: make(chan struct{}), turns: map[int]context.CancelCauseFunc{}, due: map[desired.Ref]bool{}}
		o.units[project] = u
	}
	o.mu.Unlock()
	if !fresh {
		return u, nil
	}
	select {
	case o.want <- u:
		return u, nil
	case <-ctx.Done():
		o.mu.Lock()
		delete(o.units, project)
		o.mu.Unlock()
		return nil, context.Cause(ctx)
	}
}

func unitName(tenant, project string) string {
	name := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	return name(tenant) + "/" + name(project)
}

// hold waits until the unit of a project is ours and returns its fence.
func (o *owner) hold(ctx context.Context, project string) (state.Fence, error) {
	u, err := o.unit(ctx, project)
	for err == nil {
		o.mu.Lock()
		fence, held := u.fence, u.held
		o.mu.Unlock()
		if fence.Key != "" {
			return fence, nil
		}
		select {
		case <-held:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return state.Fence{}, desired.E("claim unit "+unitName(o.t.name, project), desired.Ref{}, desired.Transient, err)
}

// enter begins a turn of a ref. ok is false when its unit is not ours now: it is queued again when the unit is. The
// turn's context ends with ownership.
func (o *owner) enter(ctx context.Context, ref desired.Ref) (turn context.Context, f state.Fence, leave func(), ok bool) {
	u, err := o.unit(ctx, ref.Project)
	if err != nil {
		return nil, state.Fence{}, nil, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if u.fence.Key == "" {
		u.due[ref] = true
		return nil, state.Fence{}, nil, false
	}
	turn, cancel := context.WithCancelCause(ctx)
	id := u.next
	u.next++
	u.turns[id] = cancel
	return turn, u.fence, func() {
		o.mu.Lock()
		delete(u.turns, id)
		o.mu.Unlock()
		cancel(nil)
	}, true
}

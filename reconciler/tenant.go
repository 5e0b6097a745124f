// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// tenant is the work on one control repository: a loader, a queue with its workers, and the units that it owns.
type tenant struct {
	e      *Engine
	name   string
	source Source
	owner  *owner
	stop   context.CancelCauseFunc // nil until it is started; guarded by Engine.mu
	done   chan struct{}           // closed when run ended
	poke   chan struct{}           // 1 slot: wakes the loader

	// A queue of refs, never of events; it lives from Attach until the tenant stops.
	queue   workqueue.TypedDelayingInterface[desired.Ref]
	limiter workqueue.TypedRateLimiter[desired.Ref]

	mu      sync.RWMutex
	head    *desired.Head                       // whose consequences are, or are just being, recorded
	frozen  string                              // why nothing may be changed
	bad     map[desired.Ref]*desired.Quarantine // refs whose file is in quarantine
	book    book
	waiters map[desired.Ref]map[desired.Ref]struct{} // who waits for a ref
	verdict state.Verdict                            // on pending deletions
	stale   bool                                     // another owner may have written: read everything again
	asked   map[desired.Ref]bool                     // nudged since its last turn
	panics  map[desired.Ref]int
}

func newTenant(e *Engine, name string, s Source) *tenant {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[desired.Ref](5*time.Millisecond, 1000*time.Second)
	return &tenant{
		e: e, queue: workqueue.NewTypedDelayingQueue[desired.Ref](), limiter: limiter, name: name, source: s, done: make(chan struct{}), poke: make(chan struct{}, 1),
		book: newBook(), waiters: map[desired.Ref]map[desired.Ref]struct{}{}, asked: map[desired.Ref]bool{}, panics: map[desired.Ref]int{},
	}
}

// run works until ctx ends; then it lets the turns in flight finish and gives up ownership last.
func (t *tenant) run(ctx context.Context) {
	// Turns and ownership outlive ctx: what was begun is ended in order.
	inner, end := context.WithCancel(context.WithoutCancel(ctx))
	t.owner = newOwner(t)
	var units, work sync.WaitGroup
	units.Go(func() { t.owner.run(inner) })
	work.Go(func() { t.loadForever(ctx) })
	for range t.e.c.Workers {
		work.Go(func() { t.work(ctx, inner) })
	}
	<-ctx.Done()
	t.queue.ShutDown()
	work.Wait()
	end()
	units.Wait()
}

// work takes refs from the queue until it is shut down. Refs still in it then are left to the next start.
func (t *tenant) work(ctx, inner context.Context) {
	for {
		ref, closed := t.queue.Get()
		if closed {
			return
		}
		if ctx.Err() == nil {
			t.turn(inner, ref)
		}
		t.queue.Done(ref)
	}
}

// nudge queues a ref for a look, at once and whatever failed before.
func (t *tenant) nudge(ref desired.Ref) {
	t.mu.Lock()
	known := t.knows(ref)
	if known {
		t.asked[ref] = true
	}
	t.mu.Unlock()
	if known {
		t.limiter.Forget(ref)
		t.queue.Add(ref)
	}
}

// knows reports whether there is anything to look at. mu is held.
func (t *tenant) knows(ref desired.Ref) bool {
	if t.book.refs[ref] != nil {
		return true
	}
	if t.head == nil {
		return false
	}
	_, ok := t.head.Snapshot.Get(ref)
	return ok
}

// add queues refs.
func (t *tenant) add(refs ...desired.Ref) {
	for _, r := range refs {
		t.queue.Add(r)
	}
}

// inside lists what is at work in a repository: its branches and what has not ended on them.
func (t *tenant) inside(repo desired.Ref) []desired.Ref {
	if repo.Kind != desired.KindRepository {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.book.inside(repo)
}

// regained is called when a unit is ours again after it was lost: another owner may have worked on it meanwhile, so
// everything is read and looked at again.
func (t *tenant) regained() {
	t.mu.Lock()
	t.stale = true
	t.mu.Unlock()
	select {
	case t.poke <- struct{}{}:
	default:
	}
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

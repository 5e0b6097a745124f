// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/internal/fp"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// turn is one reconcile of one ref: observe, plan, guard, apply, record. It starts from the store and the head alone,
// makes at most one change, and may end at any line: the next turn goes on from what is recorded.
type turn struct {
	t      *tenant
	ref    desired.Ref
	fence  state.Fence
	began  time.Time
	asked  bool
	whatIf bool // a what-if: nothing is applied, recorded or remembered

	head    *desired.Head
	entry   *desired.Entry
	labels  map[string]string
	records *state.Records
	in      plan.Input
	place   located
	placed  error // why the outside cannot be reached
	plan    plan.Plan

	decision string // of the guard, recorded with what it allowed

	run      *plan.Run   // as it is to be recorded
	moved    desired.Ref // the former ref whose records this one takes over
	revision int64       // of the state as it was read or written last

	skipped    bool // there is nothing to do, or it is another's to do
	applied    int  // changes made
	made       bool // the outside object was made by this turn
	superseded bool // another document was recorded while the change was being made
	wrote      bool
	again      bool  // at once
	failure    error // of the change that was tried; the plan knows what to do about it
	err        error // of the turn itself
}

// steps are the five, in their order. An error ends the turn.
func steps() []func(*turn, context.Context) error {
	return []func(*turn, context.Context) error{
		(*turn).observe,
		(*turn).decide,
		(*turn).guard,
		(*turn).apply,
		(*turn).record,
	}
}

var errPanic = errors.New("panic")

const maxPanics = 5 // turns of a ref that panic before it is left alone

// turn makes one turn of a ref and schedules the next one.
func (t *tenant) turn(ctx context.Context, ref desired.Ref) {
	ctx, fence, leave, ok := t.owner.enter(ctx, ref)
	if !ok {
		return
	}
	defer leave()
	w := &turn{t: t, ref: ref, fence: fence, began: t.e.c.Now().UTC()}
	defer w.exit(ctx)
	defer w.recover()
	if w.err = w.gather(ctx); w.err != nil || w.skipped {
		return
	}
	for _, step := range steps() {
		if w.err = step(w, ctx); w.err != nil || w.skipped {
			return
		}
	}
}

// recover keeps a defect in one turn from ending the process.
func (w *turn) recover() {
	if p := recover(); p != nil {
		w.err = desired.Errorf("reconcile", w.ref, desired.Internal, "%w: %v", errPanic, p)
	}
}

// gather reads what is known before looking at the outside.
func (w *turn) gather(ctx context.Context) (err error) {
	t := w.t
	t.mu.Lock()
	w.head = t.head
	w.asked = t.asked[w.ref]
	delete(t.asked, w.ref)
	t.mu.Unlock()
	if w.head == nil {
		w.skipped = true
		return nil
	}
	w.entry, _ = w.head.Snapshot.Get(w.ref)
	if w.records, err = state.Load(ctx, t.e.c.Store, w.ref); err != nil {
		return err
	}
	w.revision, w.run = w.records.Rev(state.StateKey(w.ref)), w.records.Run
	s := w.records.State
	switch {
	case s == nil && (w.entry == nil || managed(w.ref.Kind)), // not loaded yet, or all done
		s != nil && w.entry != nil && s.Digest != w.entry.Digest, // the loader is about to record another document
		s != nil && w.entry == nil && s.Digest != "",
		s != nil && s.Reason == reasonPanicked && !w.asked:
		w.skipped = true
		return nil
	}
	w.gatherInput(ctx)
	return nil
}

// gatherInput fills what the plan looks at, but for the observation.
func (w *turn) gatherInput(ctx context.Context) {
	t, snap := w.t, w.head.Snapshot
	r, s := w.records, w.records.State
	in := plan.Input{
		Now: w.began, Ref: w.ref, Want: w.entry, Applied: r.Applied, Run: r.Run, Stage: snap.Stage(w.ref.Project),
		Birth: t.e.c.Store.Birth(), Limit: t.e.c.Deadline,
	}
	for _, f := range r.Findings {
		if f.Open() || w.began.Sub(f.ClosedAt) <= 24*time.Hour {
			in.Findings = append(in.Findings, f)
		}
	}
	var labels map[string]string
	if s != nil {
		labels, in.Active = s.Labels, s.ActiveSince
		in.Was = plan.Standing{Phase: s.Phase, Reason: s.Reason, Message: s.Message}
		in.Attempted = s.AppliedSeq > 0 || r.Run != nil && r.Run.Stage == plan.RunPosted || attempting(s)
	}
	if w.entry != nil {
		labels = w.entry.Resource.Metadata.Labels
	}
	w.labels = labels
	in.Suspension, _ = snap.Suspended(w.ref, labels, w.began)
	t.mu.Lock()
	in.Frozen, in.Quarantine = t.frozen, t.bad[w.ref]
	if n := t.book.refs[t.book.former[w.ref]]; w.entry == nil && n != nil {
		in.RenamedTo = t.book.former[w.ref]
	}
	in.DeletionAllowed, in.DeletionReason = t.verdictOn(w.ref)
	in.DependsOn = t.dependencies(w)
	in.RetiredBy = t.retiredBy(w)
	for _, d := range in.DependsOn {
		if !d.Ready() && !w.whatIf {
			t.await(w.ref, d.Ref)
		}
	}
	t.mu.Unlock()
	w.in = in
	w.formerly(ctx)
	w.locate(ctx)
}

// observe looks at the outside, where there is anything to look at.
func (w *turn) observe(ctx context.Context) error {
	if !w.observable() {
		return nil
	}
	if w.placed != nil {
		w.in.Have = adapters.Observation{Err: w.placed, Reason: detail(w.placed)}
		return nil
	}
	w.in.Have = w.look(ctx, w.place)
	if w.in.Have.Presence == adapters.Absent && w.in.Applied != nil {
		w.askPulls(ctx)
	}
	return ctxLost(ctx)
}

// askPulls looks, when a branch or what was on it is missing, at the pull requests that it is the source of: one that
// was just ended at the host explains it. Where one cannot be seen, nothing can be concluded.
func (w *turn) askPulls(ctx context.Context) {
	p, ok := w.ownPlace()
	if !ok || !w.in.RetiredBy.IsZero() {
		return
	}
	t := w.t
	t.mu.RLock()
	w.in.RetiredBy = t.retiredBy(w) // it may have been recorded meanwhile
	pulls := t.book.pullsOf(p)
	t.mu.RUnlock()
	for _, pr := range pulls {
		if !w.in.RetiredBy.IsZero() || w.in.Have.Presence != adapters.Absent {
			return
		}
		w.askPull(ctx, pr)
	}
}

func (w *turn) askPull(ctx context.Context, pr desired.Ref) {
	t := w.t
	e, ok := w.head.Snapshot.Get(pr)
	if !ok {
		return
	}
	r, err := state.Load(ctx, t.e.c.Store, pr)
	if err == nil && r.Applied == nil && r.Run == nil {
		return // it was never opened
	}
	var at located
	if err == nil {
		at, err = t.subject(ctx, w.head.Snapshot, pr, e.Resource.Spec, w.place.provider)
	}
	if err != nil {
		w.in.Have = adapters.Observation{Err: err, Reason: detail(err)}
		return
	}
	at.subject.Handle = handleOf(r.Applied, r.Run)
	o := w.look(ctx, at)
	a, seen := o.Actual.(*adapters.PullRequestActual)
	switch {
	case o.Presence == adapters.Unknown:
		w.in.Have = adapters.Observation{Err: o.Err, Reason: "it is missing, and whether " + pr.Name + " ended cannot be seen: " + o.Reason}
	case seen && a.State != desired.PullRequestOpen:
		w.in.RetiredBy = pr
		if !w.whatIf {
			t.add(pr)
		}
	}
}

// ownPlace is the branch that a Branch or Commit is about.
func (w *turn) ownPlace() (place, bool) {
	if w.entry == nil || w.ref.Kind != desired.KindBranch && w.ref.Kind != desired.KindCommit {
		return place{}, false
	}
	return placeOf(w.entry)
}

// observable says whether an observation could tell anything.
func (w *turn) observable() bool {
	if !managed(w.ref.Kind) || w.in.Run != nil && w.in.Run.Stage == plan.RunFailed {
		return false
	}
	if w.entry == nil {
		a := w.in.Applied
		return a != nil && a.DeletionPolicy == desired.Delete && !a.Terminal
	}
	for _, d := range w.in.DependsOn {
		if d.Role == plan.RoleParent && !d.Ready() {
			return false // there is no place to look in
		}
	}
	return true
}

// look asks the driver about one subject.
func (w *turn) look(ctx context.Context, at located) adapters.Observation {
	call, cancel := context.WithTimeoutCause(ctx, w.t.e.c.CallLimit, errCallLimit)
	defer cancel()
	list, err := at.driver.Observe(call, []adapters.Subject{at.subject})
	switch {
	case err != nil:
		err = timedOut(call, err)
		return adapters.Observation{Err: err, Reason: detail(err)}
	case len(list) != 1:
		err := desired.Errorf("observe", w.ref, desired.Internal, "the driver answered %d times for one subject", len(list))
		return adapters.Observation{Err: err, Reason: "the driver gave no answer for it"}
	}
	o := list[0]
	if o.Presence == adapters.Unknown && o.Reason == "" && o.Err != nil {
		o.Reason = detail(o.Err)
	}
	return o
}

// decide makes the plan.
func (w *turn) decide(context.Context) error {
	w.diff()
	return nil
}

// diff plans. Rules are asked for only where something drifted: most looks find nothing, and a tenant may have many.
func (w *turn) diff() {
	w.plan = plan.Diff(w.in)
	if w.in.Rules == nil && w.plan.Drifted() {
		if w.in.Rules = w.head.Snapshot.DriftRules(w.ref, w.labels, w.began); len(w.in.Rules) > 0 {
			w.plan = plan.Diff(w.in)
		}
	}
}

// guard asks whether the changes may be made.
func (w *turn) guard(context.Context) error {
	if len(w.plan.Changes) == 0 {
		return nil
	}
	d := plan.Guard(w.in, w.plan)
	w.decision = d.Policy
	if !d.Allow {
		w.plan = plan.Await(w.in, w.plan, d)
	}
	return nil
}

// apply makes the first change of the plan: what is about to happen is recorded, then the driver is called, then its
// answer is taken as the new observation.
func (w *turn) apply(ctx context.Context) error {
	if len(w.plan.Changes) == 0 {
		return nil
	}
	s := w.plan.Changes[0]
	fp.Hit("intent.write")
	if err := w.announce(ctx, s); err != nil || w.skipped {
		return err
	}
	fp.Hit("intent.written")
	out, err := w.call(ctx, s)
	if lost := ctxLost(ctx); lost != nil {
		return lost // the next owner finds what was done by its tag
	}
	if err != nil {
		w.failed(err)
		return nil
	}
	w.applied++
	w.answered(ctx, s, out)
	return nil
}

// call hands one change to the driver.
func (w *turn) call(ctx context.Context, s plan.Step) (adapters.Outcome, error) {
	if w.place.driver == nil {
		return adapters.Outcome{}, w.placed
	}
	call, cancel := context.WithTimeoutCause(ctx, w.t.e.c.CallLimit, errCallLimit)
	defer cancel()
	fp.Hit("provider.before")
	out, err := w.place.driver.Apply(call, w.change(s))
	fp.Hit("provider.after")
	if err != nil {
		err = timedOut(call, err)
	}
	return out, err
}

// failed takes an error over into the plan. Its class alone decides what happens next.
func (w *turn) failed(err error) {
	w.failure = err
	w.plan = plan.AfterError(w.in, w.plan, err)
	w.journalFailed(err)
}

// answered takes the outcome of a change as what is there now, and plans again.
func (w *turn) answered(ctx context.Context, s plan.Step, out adapters.Outcome) {
	w.journalAnswered(s, out)
	if !out.Done {
		w.plan.Next, w.plan.Backoff = max(out.After, time.Second), false
		if out.Message != "" {
			w.plan.Message = out.Message
		}
		w.plan.Settled, w.plan.Ended = false, false
		return
	}
	if out.Handle != nil {
		w.place.subject.Handle = out.Handle
	}
	w.made = w.made || s.Op == adapters.Create
	if s.Op == adapters.Rename {
		w.takeOver(*w.in.Former)
	}
	switch {
	case s.Op == adapters.Remove:
		w.in.Have = adapters.Observation{Presence: adapters.Absent}
	case out.Actual != nil:
		w.in.Have = adapters.Observation{Presence: adapters.Known, Actual: out.Actual, Handle: out.Handle}
	default:
		w.in.Have = w.look(ctx, w.place)
	}
	w.in.Reverted = s.Why == plan.CauseDrift
	w.in.Was = plan.Standing{}
	w.diff()
	w.again = len(w.plan.Changes) > 0
}

// exit tells what the turn did and schedules the next one.
func (w *turn) exit(ctx context.Context) {
	t := w.t
	if errors.Is(w.err, errPanic) {
		w.panicked(ctx)
	}
	if w.skipped && w.err == nil {
		return
	}
	t.e.c.Events.Turn(w.event())
	switch {
	case errors.Is(w.err, errLost), errors.Is(w.err, state.ErrFenced):
		// The next owner looks at everything.
	case w.err != nil, w.plan.Backoff:
		t.queue.AddAfter(w.ref, min(t.limiter.When(w.ref), jitter(t.e.c.Resync)))
	case w.again:
		t.limiter.Forget(w.ref)
		t.queue.Add(w.ref)
	default:
		t.limiter.Forget(w.ref)
		if !w.plan.Forget && (managed(w.ref.Kind) || w.in.Quarantine != nil) {
			t.queue.AddAfter(w.ref, w.nextLook())
		}
	}
}

// nextLook is when the ref is looked at again by itself: with the resync, or earlier when the plan says so. What has
// ended is looked at more rarely.
func (w *turn) nextLook() time.Duration {
	usual := jitter(w.t.e.c.Resync)
	switch {
	case w.plan.Next > 0 && w.plan.Next < usual:
		return w.plan.Next
	case w.plan.Ended:
		return usual * restFactor
	}
	return usual
}

func (w *turn) event() TurnEvent {
	e := TurnEvent{Ref: w.ref, Phase: string(w.plan.Phase), Changes: w.applied, Took: w.t.e.c.Now().Sub(w.began), Err: errors.Join(w.err, w.failure)}
	if w.records != nil && w.records.State != nil {
		e.Commit = w.records.State.DesiredCommit
	}
	switch {
	case e.Err != nil:
		e.Outcome = "error"
	case w.applied > 0:
		e.Outcome = "changed"
	case len(w.plan.Waits) > 0:
		e.Outcome = "waiting"
	case !w.wrote:
		e.Outcome = "unchanged"
	case w.plan.Phase == plan.Synced:
		e.Outcome = "synced"
	default:
		e.Outcome = "changed"
	}
	return e
}

// panicked counts the panics of a ref. After the fifth it is Stalled, and recorded so that a restart does not begin
// anew; a newer document or a nudge does.
func (w *turn) panicked(ctx context.Context) {
	t := w.t
	t.mu.Lock()
	t.panics[w.ref]++
	n := t.panics[w.ref]
	if n >= maxPanics {
		delete(t.panics, w.ref)
	}
	t.mu.Unlock()
	if n < maxPanics || w.records == nil || w.records.State == nil {
		return
	}
	w.plan = plan.Plan{
		Ref: w.ref, Phase: plan.Stalled, Reason: reasonPanicked, Findings: openOf(w.records.Findings),
		Message: fmt.Sprintf("reconciling it failed %d times with an internal error; report the error in the log, then change the document or ask for a reconcile", n),
	}
	if err := w.record(ctx); err != nil {
		t.e.c.Events.Error("record panic", err)
	}
}

const reasonPanicked = "Panicked"

// ctxLost is the cause when the turn's context ended: ownership, or the process, is going away.
func ctxLost(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}

// timedOut gives a call that took too long a class of its own.
func timedOut(call context.Context, err error) error {
	if errors.Is(context.Cause(call), errCallLimit) {
		return desired.E("call driver", desired.Ref{}, desired.Transient, fmt.Errorf("%w: %w", errCallLimit, err))
	}
	return err
}

// detail is the sentence of an error for people; internal errors keep theirs for the log.
func detail(err error) string {
	if desired.ClassOf(err) == desired.Internal {
		return "an internal error; the log has the details"
	}
	var e *desired.Error
	if errors.As(err, &e) {
		return e.Detail()
	}
	return err.Error()
}

// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// journaled reports whether repeating an operation blindly would do it twice. Its intent is recorded before the call.
func journaled(k desired.Kind, op adapters.Op) bool {
	return op == adapters.Run || k == desired.KindPullRequest && op == adapters.Create
}

// tagOf is what a change is marked with at the outside: the same for every attempt, in every process.
func tagOf(ref desired.Ref, op adapters.Op) string {
	return desired.DeriveID("run", ref.String(), string(op))
}

// announce records, before the outside is touched, what is about to happen: the findings that are to be put back, the
// phase, and the intent of what must not happen twice. When the document moved meanwhile, the turn ends here.
func (w *turn) announce(ctx context.Context, s plan.Step) error {
	if journaled(w.ref.Kind, s.Op) {
		w.intend(s.Op)
	}
	if err := w.write(ctx, false); err != nil {
		return err
	}
	w.in.Findings = w.carried()
	return nil
}

// intend opens the journal entry of an operation, or goes on with the one that is there.
func (w *turn) intend(op adapters.Op) {
	id := tagOf(w.ref, op)
	if w.run != nil && w.run.ID == id {
		return
	}
	s := w.records.State
	w.run = &plan.Run{ID: id, Ref: w.ref, Op: op, Tag: id, Stage: plan.RunIntent, Attempts: 1, Seq: s.DesiredSeq, Commit: s.DesiredCommit, Started: w.began}
}

// journalFailed takes a failed attempt into the journal. Where the call may have reached the outside the entry says
// so; where the plan ends the run it ends.
func (w *turn) journalFailed(err error) {
	if w.run == nil || w.run.Stage == plan.RunDone || w.run.Stage == plan.RunFailed {
		return
	}
	r := *w.run
	switch class := desired.ClassOf(err); {
	case w.plan.FailRun:
		r.Stage, r.Message, r.Ended = plan.RunFailed, w.plan.Message, w.began
	case class == desired.Transient, class == desired.Internal:
		r.Stage = plan.RunPosted
	}
	w.run = &r
}

// journalAnswered takes an answer into the journal. What is not done yet gets an entry in any case: its handle is how
// the next turn goes on.
func (w *turn) journalAnswered(s plan.Step, out adapters.Outcome) {
	id := tagOf(w.ref, s.Op)
	if w.run == nil || w.run.ID != id {
		if out.Done {
			return
		}
		w.intend(s.Op)
	}
	r := *w.run
	if out.Handle != nil {
		r.Handle = out.Handle
	}
	switch {
	case !out.Done:
		r.Stage = plan.RunPosted
	default:
		r.Stage, r.Ended = plan.RunDone, w.began
	}
	w.run = &r
}

// settleRun ends the journal entry of what an observation shows to be done.
func (w *turn) settleRun() {
	if w.run == nil || !w.plan.Settled || w.run.Stage == plan.RunDone || w.run.Stage == plan.RunFailed {
		return
	}
	r := *w.run
	r.Stage, r.Ended = plan.RunDone, w.began
	w.run = &r
}

// handle is how the outside object of the turn is found again.
func (w *turn) handle() json.RawMessage {
	if w.in.Applied == nil && w.in.Former != nil {
		return w.in.Former.Handle
	}
	return handleOf(w.in.Applied, w.records.Run)
}

// handleOf is the handle of a run under way, else the recorded one.
func handleOf(a *plan.Applied, r *plan.Run) json.RawMessage {
	switch {
	case r != nil && r.Handle != nil && (a == nil || r.Stage == plan.RunIntent || r.Stage == plan.RunPosted):
		return r.Handle
	case a != nil:
		return a.Handle
	}
	return nil
}

// change is what the driver is asked to do.
func (w *turn) change(s plan.Step) adapters.Change {
	c := adapters.Change{
		Subject: w.place.subject, Op: s.Op, Fields: s.Fields, Tag: tagOf(w.ref, s.Op),
		Author: author(w.entry), Epoch: w.fence.Revision, Log: io.Discard,
	}
	switch {
	case s.Op == adapters.Restore:
		c.Actual = lastSeen(w.in.Applied)
	case w.in.Have.Presence == adapters.Known:
		c.Actual = w.in.Have.Actual
	}
	if s.Op == adapters.Rename {
		c.Former = w.in.Former.Ref
	}
	return c
}

// lastSeen is what an applied object looked like when it was there.
func lastSeen(a *plan.Applied) adapters.Actual {
	if a == nil || len(a.Actual) == 0 {
		return nil
	}
	var v adapters.Actual
	switch a.Ref.Kind {
	case desired.KindRepository:
		v = new(adapters.RepositoryActual)
	case desired.KindBranch:
		v = new(adapters.BranchActual)
	case desired.KindCommit:
		v = new(adapters.CommitActual)
	case desired.KindPullRequest:
		v = new(adapters.PullRequestActual)
	default:
		return nil
	}
	if json.Unmarshal(a.Actual, v) != nil {
		return nil
	}
	return v
}

// formerly finds the record of the name that the document had before. Only repositories have to be renamed at the
// provider, too; for the others the record is taken over.
func (w *turn) formerly(ctx context.Context) {
	if w.entry == nil || w.in.Applied != nil || w.entry.Resource.Metadata.FormerName == "" {
		return
	}
	old := w.ref
	old.Name = w.entry.Resource.Metadata.FormerName
	if _, both := w.head.Snapshot.Get(old); both || old == w.ref {
		return
	}
	a, _, ok, err := state.Read[plan.Applied](ctx, w.t.e.c.Store, state.AppliedKey(old))
	switch {
	case err != nil:
		w.placed = err // unknown: nothing is made as long as this cannot be told
	case !ok:
	case w.ref.Kind == desired.KindRepository:
		w.in.Former = &a
	default:
		w.takeOver(a)
	}
}

// takeOver makes the record of a former name this ref's own; the next write moves it.
func (w *turn) takeOver(a plan.Applied) {
	w.moved = a.Ref
	a.Ref = w.ref
	w.in.Applied, w.in.Former = &a, nil
}

// attempting reports whether a state says that something may have been made at the outside without a record of it.
func attempting(s *state.SyncState) bool {
	switch s.Reason {
	case reasonRemovedInFlight, string(plan.Orphaned):
		return true
	case "Creating", "Running", "Renaming", "Retrying", "InternalError":
		return s.Phase == plan.Progressing
	}
	return false
}

const (
	reasonRemoved         = "DocumentRemoved"
	reasonRemovedInFlight = "DocumentRemovedInFlight"
)

func removedReason(s *state.SyncState) string {
	if attempting(s) {
		return reasonRemovedInFlight
	}
	return reasonRemoved
}

var errSuperseded = errors.New("the document moved meanwhile")

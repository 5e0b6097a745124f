// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/internal/fp"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// record writes what the turn led to.
func (w *turn) record(ctx context.Context) error {
	w.settleRun()
	err := w.write(ctx, true)
	for range 3 {
		if !errors.Is(err, errSuperseded) || w.applied == 0 && w.failure == nil {
			return err
		}
		// The document moved while the outside was being changed. What was done is recorded all the same.
		if err = w.rebase(ctx); err == nil {
			err = w.write(ctx, true)
		}
	}
	return err
}

// rebase takes over the state that was written meanwhile; the turn's own standing no longer counts.
func (w *turn) rebase(ctx context.Context) error {
	fresh, err := state.Load(ctx, w.t.e.c.Store, w.ref)
	if err != nil {
		return err
	}
	w.records.State, w.revision = fresh.State, fresh.Rev(state.StateKey(w.ref))
	w.superseded = true
	return nil
}

// write commits what differs from what is recorded, in one transaction under the unit's fence; nothing when nothing
// differs. final also writes the applied record. The state is written on condition that it is as it was read.
func (w *turn) write(ctx context.Context, final bool) error {
	d := &draft{w: w}
	d.state(final)
	d.findings()
	d.journal()
	if final {
		d.applied()
		d.move(ctx)
	}
	if d.err != nil {
		return d.err
	}
	if len(d.puts) == 0 {
		return nil
	}
	fp.Hit("status.write")
	rev, err := w.t.e.c.Store.Commit(ctx, w.fence, d.puts...)
	fp.Hit("status.written")
	switch {
	case errors.Is(err, state.ErrFenced):
		return err
	case errors.Is(err, state.ErrConflict):
		return errSuperseded
	case err != nil:
		return err
	}
	w.wrote = true
	if d.wroteState {
		w.revision = rev
	}
	w.adopt(d)
	return nil
}

// adopt takes over what was written, and tells the others.
func (w *turn) adopt(d *draft) {
	t, r := w.t, w.records
	byID := map[string]int{}
	for i, f := range r.Findings {
		byID[f.ID] = i
	}
	for _, f := range d.told {
		if i, ok := byID[f.ID]; ok {
			r.Findings[i] = f
		} else {
			r.Findings = append(r.Findings, f)
		}
	}
	r.Applied, r.Run = d.nextApplied, w.run
	changed := d.wroteState || d.wroteApplied
	t.mu.Lock()
	switch {
	case d.nextState == nil:
		r.State = nil
		t.book.forget(w.ref)
	case changed:
		r.State = d.nextState
		t.book.note(d.nextState, d.nextApplied)
	}
	if !w.moved.IsZero() && d.moved {
		t.book.forget(w.moved)
		t.wake(w.moved)
		w.moved = desired.Ref{}
	}
	if changed {
		t.wake(w.ref)
	}
	around := t.around(w)
	t.mu.Unlock()
	t.add(around...)
	for _, f := range d.opened {
		t.e.c.Events.Finding(f)
	}
}

// carried are the findings as recorded now, for the next look of the same turn.
func (w *turn) carried() []plan.Finding {
	return append([]plan.Finding(nil), w.records.Findings...)
}

// draft is one transaction in the making.
type draft struct {
	w    *turn
	puts []state.Put
	err  error

	nextState    *state.SyncState // nil: forgotten
	nextApplied  *plan.Applied
	told         []plan.Finding // findings written
	opened       []plan.Finding // of these, those that opened or closed
	wroteState   bool
	wroteApplied bool
	moved        bool
}

func (d *draft) add(p state.Put, err error) bool {
	if err != nil {
		d.err = errors.Join(d.err, err)
		return false
	}
	d.puts = append(d.puts, d.w.records.Keep(p))
	return true
}

// samePut reports whether a record, written again as it was, gives the same bytes.
func samePut[T any](put func(T) (state.Put, error), old T, p state.Put) bool {
	was, err := put(old)
	return err == nil && bytes.Equal(was.Value, p.Value)
}

// state writes the standing of the ref.
func (d *draft) state(final bool) {
	w := d.w
	old := w.records.State
	d.nextApplied = w.records.Applied
	if w.plan.Forget && final && !w.superseded {
		if old != nil {
			d.wroteState = d.add(state.Delete(state.StateKey(w.ref)).If(w.revision), nil)
		}
		return
	}
	if old == nil {
		return // it was forgotten meanwhile, or never was anything
	}
	s := w.standing(*old, final)
	d.nextState = &s
	put, err := state.PutState(s)
	if err == nil && samePut(state.PutState, *old, put) {
		return
	}
	d.wroteState = d.add(put.If(w.revision), err)
}

// standing is the sync state that follows from the plan. When another document was recorded meanwhile only what was
// applied is added to it.
func (w *turn) standing(s state.SyncState, final bool) state.SyncState {
	p := w.plan
	if p.Actual != nil {
		if b, err := json.Marshal(p.Actual); err == nil {
			s.Outputs = b
		}
	}
	s.Findings = len(p.Findings)
	if final && p.Settled && w.entry != nil {
		seq, commit := s.DesiredSeq, s.DesiredCommit
		if w.superseded {
			seq, commit = w.entry.Changed.Seq, w.entry.Changed.Commit
		}
		s.AppliedSeq, s.AppliedCommit = max(s.AppliedSeq, seq), commit
	}
	if w.superseded {
		return s
	}
	if s.Phase != p.Phase {
		s.Since = w.began
	}
	switch {
	case p.Phase == plan.Pending || p.Phase == plan.Progressing:
		if s.ActiveSince.IsZero() {
			s.ActiveSince = w.began
		}
	case p.Phase != plan.Stalled && p.Phase != plan.Unknown:
		s.ActiveSince = time.Time{}
	}
	s.Phase, s.Reason, s.Message = p.Phase, p.Reason, p.Message
	return s
}

// findings writes what stands and what ended.
func (d *draft) findings() {
	w := d.w
	stored := map[string]*plan.Finding{}
	for i := range w.records.Findings {
		stored[w.records.Findings[i].ID] = &w.records.Findings[i]
	}
	for _, f := range slices.Concat(w.plan.Findings, w.plan.Closed) {
		old := stored[f.ID]
		put, err := state.PutFinding(f)
		if err == nil && old != nil && samePut(state.PutFinding, *old, put) || old != nil && !old.Open() && !f.Open() {
			continue
		}
		if d.add(put, err) {
			d.told = append(d.told, f)
			if old == nil || old.Open() != f.Open() {
				d.opened = append(d.opened, f)
			}
		}
	}
}

// journal writes the run.
func (d *draft) journal() {
	w := d.w
	if w.run == nil {
		return
	}
	put, err := state.PutRun(*w.run)
	if old := w.records.Run; err == nil && old != nil && old.ID == w.run.ID && samePut(state.PutRun, *old, put) {
		return
	}
	d.add(put, err)
}

// applied writes the record that governs deletion, or drops it.
func (d *draft) applied() {
	w := d.w
	old := w.records.Applied
	if w.plan.Forget {
		d.nextApplied = nil
		if old != nil {
			d.wroteApplied = d.add(state.Delete(state.AppliedKey(w.ref)), nil)
		}
		if info, _ := w.ref.Kind.Info(); w.run != nil && !info.OneShot {
			d.add(state.Delete(state.RunKey(w.ref, w.run.ID)), nil)
		}
		return
	}
	next, err := w.nextApplied()
	if err != nil {
		d.err = errors.Join(d.err, err)
		return
	}
	if d.nextApplied = next; next == nil {
		return
	}
	put, err := state.PutApplied(*next)
	if err == nil && old != nil && samePut(state.PutApplied, *old, put) {
		return
	}
	d.wroteApplied = d.add(put, err)
}

// nextApplied is the applied record that follows from the plan: of the document once all that it asks for is there,
// and of what was last seen.
func (w *turn) nextApplied() (*plan.Applied, error) {
	was := w.in.Applied
	if w.entry == nil || was == nil && !w.plan.Settled && !w.made {
		return was, nil
	}
	a := plan.Applied{Ref: w.ref, At: w.began}
	if was != nil {
		a = *was
	}
	if w.plan.Settled || was == nil {
		spec, err := json.Marshal(w.entry.Resource.Spec)
		if err != nil {
			return nil, desired.E("encode spec", w.ref, desired.Internal, err)
		}
		if a.Digest != w.entry.Digest {
			a.Seq, a.Commit = w.entry.Changed.Seq, w.entry.Changed.Commit
		}
		a.Digest, a.Spec, a.DeletionPolicy = w.entry.Digest, spec, policyOf(w.entry)
		if w.in.Provider != "" {
			a.Provider = w.in.Provider
		}
		if !w.plan.Settled {
			a.Digest = "" // it is ours, but not all of the document is applied
		}
		if a.Terminal = w.plan.Ended; !a.Terminal {
			a.EndedAt = time.Time{}
		} else if a.EndedAt.IsZero() {
			a.EndedAt = w.began
		}
	}
	if h := w.in.Have; h.Presence == adapters.Known {
		b, err := json.Marshal(h.Actual)
		if err != nil {
			return nil, desired.E("encode observation", w.ref, desired.Internal, err)
		}
		a.Actual = b
		if h.Handle != nil {
			a.Handle = h.Handle
		}
	}
	if w.applied > 0 {
		a.Decision = w.decision
	}
	if a.Handle == nil {
		a.Handle = w.place.subject.Handle
	}
	return &a, nil
}

// policyOf is the deletion policy of a document: its own, else that of its kind.
func policyOf(e *desired.Entry) desired.DeletionPolicy {
	if p := e.Resource.Spec.Common().DeletionPolicy; p != "" {
		return p
	}
	if info, _ := e.Ref.Kind.Info(); info.Retain {
		return desired.Retain
	}
	return desired.Delete
}

// move drops the records of the former name, which this ref carries on.
func (d *draft) move(ctx context.Context) {
	w := d.w
	if w.moved.IsZero() {
		return
	}
	old, err := state.Load(ctx, w.t.e.c.Store, w.moved)
	if err != nil {
		d.err = errors.Join(d.err, err)
		return
	}
	d.moved = true
	d.add(state.Delete(state.AppliedKey(w.moved)), nil)
	d.add(state.Delete(state.StateKey(w.moved)), nil)
	for _, f := range openOf(old.Findings) {
		f.ClosedAt, f.ResolvedBy, f.Reverting = w.began, plan.ResolvedByDocument, false
		put, err := state.PutFinding(f)
		if d.add(put, err) {
			d.opened = append(d.opened, f)
		}
	}
}

func openOf(list []plan.Finding) []plan.Finding {
	var open []plan.Finding
	for _, f := range list {
		if f.Open() {
			open = append(open, f)
		}
	}
	return open
}

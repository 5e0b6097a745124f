// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"slices"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// judge holds all pending deletions of the tenant against the budget and records the verdict. It is work of the root
// unit: one owner sees them all. A turn deletes only what the verdict lists.
func (l *loader) judge(ctx context.Context, f state.Fence, head *desired.Head) error {
	t := l.t
	in := t.pending(head.Snapshot)
	if len(in.Pending) == 0 && l.verdict.Seq == 0 {
		return nil
	}
	j := plan.JudgeDeletions(in)
	v := state.Verdict{Seq: head.Seq, Commit: head.Commit, Digest: j.Digest, Allowed: j.Allowed, Stopped: j.Stopped, Reason: j.Reason, At: t.e.c.Now()}
	if l.verdict.Digest == v.Digest && l.verdict.Reason == v.Reason && slices.Equal(l.verdict.Allowed, v.Allowed) {
		return nil
	}
	put, err := state.PutVerdict(t.name, v)
	if err == nil {
		_, err = t.e.c.Store.Commit(ctx, f, put)
	}
	if err != nil {
		return err
	}
	l.verdict = v
	t.mu.Lock()
	t.verdict = v
	t.mu.Unlock()
	t.add(append(slices.Clone(v.Allowed), v.Stopped...)...)
	return nil
}

// pending lists the applied objects whose documents are gone and that would be deleted, and how many of each kind
// there are. Documents of more count as gone, too.
func (t *tenant) pending(snap *desired.Snapshot, more ...desired.Ref) plan.DeletionInput {
	in := plan.DeletionInput{Totals: map[desired.Kind]int{}}
	t.mu.RLock()
	defer t.mu.RUnlock()
	add := func(ref desired.Ref) {
		n := t.book.refs[ref]
		if _, renamed := t.book.former[ref]; n != nil && n.applied && !n.terminal && n.policy == desired.Delete && !renamed {
			in.Pending = append(in.Pending, plan.PendingDeletion{Ref: ref, Stage: snap.Stage(ref.Project)})
		}
	}
	for ref := range t.book.gone {
		add(ref)
	}
	for _, ref := range more {
		if !t.book.gone[ref] {
			add(ref)
		}
	}
	if len(in.Pending) == 0 {
		return in
	}
	for ref, n := range t.book.refs {
		if n.applied && !n.terminal {
			in.Totals[ref.Kind]++
		}
	}
	return in
}

// verdictOn is what was judged about the deletion of a ref. mu is held.
func (t *tenant) verdictOn(ref desired.Ref) (allowed bool, why string) {
	switch {
	case slices.Contains(t.verdict.Allowed, ref):
		return true, ""
	case slices.Contains(t.verdict.Stopped, ref):
		return false, t.verdict.Reason
	}
	return false, ""
}

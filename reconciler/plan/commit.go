// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// failedRun is the plan of a one-shot that ended badly: it stays so, whatever the outside looks like.
func failedRun(in Input) (Plan, bool) {
	if in.Run == nil || in.Run.Stage != RunFailed {
		return Plan{}, false
	}
	if info, _ := in.Ref.Kind.Info(); !info.OneShot {
		return Plan{}, false
	}
	p := Plan{
		Phase: Failed, Reason: "Failed", Ended: true,
		Message: in.Run.Message,
	}
	p.settle(in, nil, true)
	return p, true
}

// compareCommit: an authored commit is made exactly once. With a journal entry it is made or found again under its
// tag; without one it is made only when the journal is known to be older than the document.
func compareCommit(in Input, want *desired.CommitSpec) (look, bool) {
	have, ok := known[adapters.CommitActual](in)
	if !ok {
		return look{}, false
	}
	d := difference{kind: CommitMissing, field: "spec.changes", desired: "made", actual: "not in the history", equal: true}
	if have != nil {
		found := difference{kind: CommitUndecided, field: d.field, desired: d.desired, equal: true}
		return look{fields: []difference{d, found}, ended: true, reason: "Committed", message: "made as " + brief(have.SHA) + " on " + have.Branch}, true
	}
	if in.Applied != nil || in.Run != nil && in.Run.Stage == RunDone {
		return vanishedCommit(in, want, d), true
	}
	d.equal, d.cause = false, CauseNotYetApplied
	if in.Run == nil && older(in) {
		d.kind, d.stalled = CommitUndecided, true
		d.what = "the document is older than the run journal, so it cannot be told whether the commit was made before"
		d.never = "look for it in the history of " + want.Branch + "; if it is not there, write a new Commit"
		return look{fields: []difference{d}}, true
	}
	d.op = adapters.Run
	d.what = "the commit is not made yet"
	return look{fields: []difference{d}}, true
}

// vanishedCommit: the commit was made and is not in the history any more.
func vanishedCommit(in Input, want *desired.CommitSpec, d difference) look {
	l := look{ended: true}
	if !in.RetiredBy.IsZero() {
		l.reason, l.message = "Retired", fmt.Sprintf("it was made; branch %s went with %s, which has ended", want.Branch, short(in.RetiredBy))
	} else {
		d.equal, d.cause = false, CauseDrift
		d.what = "the commit was made and is not in the history of " + want.Branch + " any more"
		d.never = "it is not made a second time: push it again from a clone, or write a new Commit"
	}
	l.fields = []difference{d}
	return l
}

// older reports whether the document is older than the journal. Commits carry whole seconds. Where the document's
// last change is not known the answer is yes: nothing is run by guessing.
func older(in Input) bool {
	return !in.Birth.IsZero() && in.Want.Changed.At.Before(in.Birth.Truncate(time.Second))
}

// executed is what of a Commit document decides about the commit, as one comparable string.
func executed(s *desired.CommitSpec) string {
	c := *s
	c.CommonSpec = desired.CommonSpec{}
	c.Repository = "" // may be renamed
	c.Changes = slices.Clone(c.Changes)
	return encode(&c)
}

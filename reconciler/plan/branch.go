// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func compareBranch(in Input, want *desired.BranchSpec) (look, bool) {
	have, ok := known[adapters.BranchActual](in)
	if !ok {
		return look{}, false
	}
	there := difference{kind: BranchMissing, field: "spec.name", desired: want.Name, equal: true}
	if have == nil {
		return missingBranch(in, want, there), true
	}
	l := look{fields: []difference{there}}
	if want.Commit != "" {
		was := applied(in, want)
		l.fields = append(l.fields, difference{
			kind: BranchMoved, field: "spec.commit", update: "spec.commit",
			desired: want.Commit, actual: have.Head, equal: want.Commit == have.Head,
			cause: cause(in, was != nil && was.Commit == want.Commit), op: adapters.Update,
		})
	}
	return l, true
}

// missingBranch: a branch that was never there is made; one that an ended pull request took with it is not missed; one
// that vanished comes back at its last observed head, where there is a record of it.
func missingBranch(in Input, want *desired.BranchSpec, d difference) look {
	if !in.RetiredBy.IsZero() {
		return look{
			fields: []difference{d}, reason: "Retired",
			message: fmt.Sprintf("branch %s went with %s, which has ended", want.Name, short(in.RetiredBy)),
		}
	}
	d.equal = false
	if in.Applied == nil {
		d.cause, d.op = CauseNotYetApplied, adapters.Create
		d.what = fmt.Sprintf("branch %s is not there yet", want.Name)
		return look{fields: []difference{d}}
	}
	d.cause = CauseDrift
	last := lastHead(in.Applied)
	if last == "" {
		d.what = fmt.Sprintf("branch %s is missing and no record says where it was", want.Name)
		d.never = "create it at the provider at a commit you know, or remove this document"
		return look{fields: []difference{d}}
	}
	d.op, d.lossless = adapters.Restore, true
	d.what = fmt.Sprintf("branch %s is missing; it was at %s", want.Name, brief(last))
	return look{fields: []difference{d}}
}

// lastHead is the head of a branch when it was last seen, "" without a record.
func lastHead(a *Applied) string {
	var seen adapters.BranchActual
	if len(a.Actual) == 0 || decode(a.Actual, &seen) != nil {
		return ""
	}
	return seen.Head
}

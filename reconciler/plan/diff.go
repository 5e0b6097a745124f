// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// look is what comparing one kind's document with its observation gives, before rules and guards.
type look struct {
	fields []difference // everything that was compared, equal or not
	// What to say when nothing differs.
	reason, message string
	ended           bool // nothing will change any more
	partial         bool // other fields were not compared: their findings stay as they are
}

// Diff decides what one ref needs. It is pure: equal inputs give equal plans.
//
// What could not be observed is never taken for absent: on an unknown observation nothing is changed and no finding
// about a difference is opened or closed.
func Diff(in Input) Plan {
	p := decide(in)
	p.Ref = in.Ref
	if in.Want != nil {
		p.Desired = in.Want.Digest
	}
	p.stick(in)
	p.deadline(in)
	return p
}

func decide(in Input) Plan {
	if in.Want == nil {
		return removal(in)
	}
	if info, _ := in.Ref.Kind.Info(); !info.Managed {
		return loaded(in)
	}
	if p, ok := failedRun(in); ok {
		return p
	}
	if in.Former != nil && in.Applied == nil {
		return rename(in)
	}
	if d, ok := immutable(in); ok {
		return conclude(in, look{fields: []difference{d}, partial: true})
	}
	if p, ok := homeless(in); ok {
		return p
	}
	if in.Have.Presence != adapters.Known && in.Have.Presence != adapters.Absent {
		return blind(in)
	}
	l, ok := compare(in)
	if !ok {
		in.Have = adapters.Observation{Reason: fmt.Sprintf("the driver answered with something that is no %s", in.Ref.Kind)}
		return blind(in)
	}
	return conclude(in, l)
}

// compare runs the comparison of the kind; ok is false when the observed value is of another kind.
func compare(in Input) (l look, ok bool) {
	switch want := in.Want.Resource.Spec.(type) {
	case *desired.RepositorySpec:
		return compareRepository(in, want)
	case *desired.BranchSpec:
		return compareBranch(in, want)
	case *desired.CommitSpec:
		return compareCommit(in, want)
	case *desired.PullRequestSpec:
		return comparePullRequest(in, want)
	}
	return look{}, false
}

// known returns the observed value as the type of the kind. Both nil and ok when it is absent.
func known[T any](in Input) (have *T, ok bool) {
	if in.Have.Presence == adapters.Absent {
		return nil, true
	}
	have, ok = any(in.Have.Actual).(*T)
	return have, ok && have != nil
}

// applied returns the spec that was last applied, nil when there is none or it cannot be read any more. want is the
// document's own: it is the answer when that very document was applied.
func applied[T any](in Input, want *T) *T {
	a := in.Applied
	switch {
	case a == nil || len(a.Spec) == 0:
		return nil
	case a.Digest == in.Want.Digest:
		return want
	}
	spec := new(T)
	if json.Unmarshal(a.Spec, spec) != nil {
		return nil
	}
	return spec
}

// cause tells a change of the document from a change of the outside: it is drift when what was applied last wanted
// the same value.
func cause(in Input, sameAsApplied bool) Cause {
	if in.Applied == nil || in.Applied.Digest == "" {
		return CauseNotYetApplied
	}
	if in.Applied.Digest == in.Want.Digest || sameAsApplied {
		return CauseDrift
	}
	return CauseNotYetApplied
}

// loaded is the plan of a kind without driver: it takes effect by being loaded.
func loaded(in Input) Plan {
	p := Plan{Phase: Synced, Reason: "Loaded", Message: "in force since it was loaded", Settled: true}
	p.settle(in, nil, true)
	return p
}

// blind is the plan when the outside could not be read: nothing is changed, nothing is concluded.
func blind(in Input) Plan {
	why := in.Have.Reason
	if why == "" && in.Have.Err != nil {
		why = in.Have.Err.Error()
	}
	if why == "" {
		why = "the provider gave no reason"
	}
	p := Plan{
		Phase: Unknown, Reason: "Unreadable",
		Message: "it could not be observed: " + why + "; nothing is changed until it can be, and it is tried again",
	}
	if desired.ClassOf(in.Have.Err) == desired.Invalid {
		p.Phase, p.Reason = Stalled, reasonInvalid
		p.Message = why + "; it cannot be looked at until that is corrected"
	}
	if c := desired.ClassOf(in.Have.Err); c == desired.Transient || c == desired.Throttled || c == desired.Internal || c == desired.Waiting {
		_, p.Next = explain(in.Have.Err)
		p.Backoff = p.Next == 0
	}
	p.settle(in, nil, false)
	return p
}

// homeless waits for the repository that a child lives in. Without it there is nothing to observe.
func homeless(in Input) (Plan, bool) {
	for _, d := range in.DependsOn {
		if d.Role != RoleParent || d.Ready() {
			continue
		}
		p := Plan{Phase: Pending, Reason: "WaitingForRepository"}
		w := Wait{On: d.Ref, Reason: d.lacks()}
		if in.Applied != nil {
			p.Phase, p.Reason = Unknown, "RepositoryUnavailable"
		}
		p.Waits = []Wait{w}
		p.Message = waiting(p.Waits)
		p.settle(in, nil, false)
		return p, true
	}
	return Plan{}, false
}

// Ready reports whether a dependency is as its role wants it.
func (d Dependency) Ready() bool {
	switch d.Role {
	case RoleParent:
		return d.Exists && d.Applied && d.Reason != string(RepositoryMissing) && d.Phase != Deleting
	case RoleBranch:
		return d.Applied
	case RoleOrder:
		return d.Applied || d.Phase == Failed
	case RoleSeen:
		return d.Applied || d.Phase != "" && d.Phase != Unknown && (d.Phase != Pending || d.Reason == reasonWaiting)
	case RoleChild, RoleSuccessor:
		return false
	}
	return d.Exists && d.Phase == Synced && d.Current
}

// lacks says what is missing before a dependency is ready.
func (d Dependency) lacks() string {
	switch {
	case d.Role == RoleChild:
		return "it is inside and has to go first"
	case d.Role == RoleSuccessor:
		return "it has not taken over yet"
	case !d.Exists:
		return "there is no document for it: add it, or take the reference out"
	case d.Reason == string(RepositoryMissing):
		return "it is missing at the provider"
	case d.Role == RoleOrder:
		return "it comes first on the same branch"
	case d.Role == RoleExplicit && d.Phase == Synced:
		return "its newest document is not applied yet"
	case d.Phase == "":
		return "it was not looked at yet"
	}
	return "it is " + string(d.Phase)
}

func waiting(waits []Wait) string {
	var s []string
	for _, w := range waits {
		s = append(s, short(w.On)+" ("+w.Reason+")")
	}
	return "waiting for " + strings.Join(s, ", ")
}

// waitsFor lists the dependencies that a change has to wait for. A change that only puts something back waits for
// nothing but its repository.
func waitsFor(in Input, steps []Step) []Wait {
	if !slices.ContainsFunc(steps, func(s Step) bool { return s.Why == CauseNotYetApplied }) {
		return nil
	}
	var waits []Wait
	for _, d := range in.DependsOn {
		if !d.Ready() {
			waits = append(waits, Wait{On: d.Ref, Reason: d.lacks()})
		}
	}
	return waits
}

// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// removal is the plan of a ref whose document is gone. Only the applied record governs what happens: without it
// nothing is ever deleted.
func removal(in Input) Plan {
	info, _ := in.Ref.Kind.Info()
	if h := heldBy(in); h.all && in.Frozen != "" {
		return held(in, h)
	}
	switch {
	case !in.RenamedTo.IsZero():
		return succeeded(in)
	case in.Applied == nil && in.Attempted:
		return orphaned(in)
	case in.Applied == nil, in.Applied.DeletionPolicy != desired.Delete, in.Applied.Terminal, info.OneShot:
		return forget(in, "the document is gone; nothing is deleted at the provider")
	}
	if h := heldBy(in); h.all {
		return held(in, h)
	}
	if !in.DeletionAllowed {
		return unjudged(in)
	}
	p := Plan{Phase: Deleting, Reason: "Removing"}
	for _, d := range in.DependsOn {
		if !d.Ready() {
			p.Waits = append(p.Waits, Wait{On: d.Ref, Reason: d.lacks()})
		}
	}
	if len(p.Waits) > 0 {
		p.Message = waiting(p.Waits)
		p.settle(in, nil, false)
		return p
	}
	switch in.Have.Presence {
	case adapters.Absent:
		return forget(in, "the document is gone, and so is the object at the provider")
	case adapters.Known:
		p.Message = "the document is gone and its deletion policy is delete"
		p.Changes = []Step{{Op: adapters.Remove, Why: CauseNotYetApplied, Reason: "document removed"}}
		p.settle(in, nil, false)
		return p
	}
	return blind(in)
}

// held keeps a ref whose document is gone as it is.
func held(in Input, h hold) Plan {
	p := Plan{Phase: h.phase, Reason: h.reason, Message: h.message}
	if h.untilIsKnown && h.until.After(in.Now) {
		p.Next = h.until.Sub(in.Now)
	}
	p.settle(in, nil, false)
	return p
}

func forget(in Input, message string) Plan {
	p := Plan{Phase: Deleting, Reason: "Forgotten", Message: message, Forget: true}
	p.settle(in, nil, true)
	return p
}

// succeeded: another document took this ref over by metadata.formerName.
func succeeded(in Input) Plan {
	if in.Applied == nil {
		return forget(in, short(in.RenamedTo)+" took over by metadata.formerName")
	}
	p := Plan{Phase: Deleting, Reason: "Renaming", Waits: []Wait{{On: in.RenamedTo, Reason: "it has not taken over yet"}}}
	p.Message = waiting(p.Waits)
	p.settle(in, nil, false)
	return p
}

// orphaned: the document is gone, something may be there, and no applied record says what.
func orphaned(in Input) Plan {
	d := difference{
		kind: Orphaned, desired: "none", actual: "unknown", cause: CauseDrift, severity: severityOf(Orphaned),
		what:  "the document is gone, and without a record of what was applied nothing is deleted; an object may still be at the provider",
		never: "look at the provider and delete it there, then let a DriftRule ignore this finding; or add the document again",
	}
	if in.Stage == StageProd {
		d.severity = d.severity.raised()
	}
	if r := ruleFor(in, &d); r != nil && r.Action == desired.ActionIgnore {
		d.mode = modeIgnore
		p := forget(in, "a drift rule says that what may be left is none of ours")
		p.settle(in, []difference{d}, true)
		return p
	}
	d.held = d.never
	p := Plan{Phase: OutOfSync, Reason: string(Orphaned)}
	p.settle(in, []difference{d}, false)
	p.Message = p.Findings[0].Message
	return p
}

// unjudged: the deletion is not allowed, yet or at all.
func unjudged(in Input) Plan {
	if in.DeletionReason == "" {
		p := Plan{Phase: Deleting, Reason: "AwaitingVerdict", Message: "the document is gone; the deletion waits to be judged with all the others of its tenant"}
		p.settle(in, nil, false)
		return p
	}
	d := difference{
		kind: DeletionStopped, desired: "none", actual: "there", cause: CauseNotYetApplied, severity: severityOf(DeletionStopped),
		what: "the document is gone, but the deletion was stopped: " + in.DeletionReason,
	}
	if in.Stage == StageProd {
		d.severity = d.severity.raised()
	}
	d.held = "add the document again, give it deletionPolicy: retain and remove it then, or delete fewer at a time"
	p := Plan{Phase: OutOfSync, Reason: string(DeletionStopped)}
	p.settle(in, []difference{d}, false)
	p.Message = d.message(in)
	return p
}

// rename carries the record of a former name over. Only a repository has its name at the provider too.
func rename(in Input) Plan {
	if h := heldBy(in); h.reason != "" {
		p := Plan{Phase: h.phase, Reason: h.reason, Message: h.message}
		p.settle(in, nil, false)
		return p
	}
	p := Plan{
		Phase: Progressing, Reason: progress(adapters.Rename),
		Message: "the document was renamed from " + in.Former.Ref.Name,
		Changes: []Step{{Op: adapters.Rename, Why: CauseNotYetApplied, Reason: "metadata.formerName"}},
	}
	p.settle(in, nil, false)
	return p
}

// PendingDeletion is one deletion that is asked for.
type PendingDeletion struct {
	Ref   desired.Ref
	Stage string
}

// DeletionInput is what deletions are judged by: all that are pending in a tenant at one snapshot.
type DeletionInput struct {
	Pending []PendingDeletion
	// Totals counts the applied objects of each kind in the tenant, the pending ones included.
	Totals map[desired.Kind]int
	// Approved are the digests that an approval names.
	Approved []string
}

// Judgement is the answer of JudgeDeletions.
type Judgement struct {
	Digest  string // of the pending refs; an approval names it
	Allowed []desired.Ref
	Stopped []desired.Ref
	Reason  string // why deletions were stopped
}

const (
	freeDeletions = 3    // of a kind at a time
	freeShare     = 0.15 // of a kind at a time
)

// JudgeDeletions holds pending deletions against the budget: those of a kind are stopped when they are more than three
// and more than 15 % of it, or all of it, or when one of them is in production, unless an approval names the digest.
// Kinds are judged apart.
func JudgeDeletions(in DeletionInput) Judgement {
	pending := slices.Clone(in.Pending)
	slices.SortFunc(pending, func(a, b PendingDeletion) int { return strings.Compare(a.Ref.String(), b.Ref.String()) })
	sum := sha256.New()
	count, prod := map[desired.Kind]int{}, map[desired.Kind]bool{}
	for _, d := range pending {
		sum.Write([]byte(d.Ref.String() + "\n"))
		count[d.Ref.Kind]++
		prod[d.Ref.Kind] = prod[d.Ref.Kind] || d.Stage == StageProd
	}
	j := Judgement{Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil))}
	approved := slices.Contains(in.Approved, j.Digest)
	var reasons []string
	for _, d := range pending {
		k := d.Ref.Kind
		why := overBudget(k, count[k], in.Totals[k], prod[k])
		if approved || why == "" {
			j.Allowed = append(j.Allowed, d.Ref)
			continue
		}
		j.Stopped = append(j.Stopped, d.Ref)
		if !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
	}
	j.Reason = strings.Join(reasons, "; ")
	return j
}

func overBudget(k desired.Kind, n, total int, prod bool) string {
	switch {
	case prod:
		return fmt.Sprintf("deletions of kind %s touch production", k)
	case n >= total:
		return fmt.Sprintf("all %d of kind %s would be deleted at once", n, k)
	case float64(n) > max(freeDeletions, freeShare*float64(total)):
		return fmt.Sprintf("%d of %d of kind %s would be deleted at once", n, total, k)
	}
	return ""
}

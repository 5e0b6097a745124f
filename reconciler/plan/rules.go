// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// StageProd is the stage that tightens the defaults.
const StageProd = "prod"

// mode is what becomes of a difference.
type mode uint8

const (
	modeReport mode = iota // a finding, and no more
	modeIgnore             // a rule says that it is none
	modeApply              // the document moved: make it so, no finding
	modeRevert             // the outside moved: put it back, with a finding
	modeHold               // the document moved, but something keeps it from being applied: a finding
)

// difference is one compared field. Those that are equal are kept too: they tell why a finding ended.
type difference struct {
	kind     FindingKind
	subject  string
	field    string
	desired  string
	actual   string
	equal    bool
	cause    Cause
	op       adapters.Op   // what makes it so; "" = nothing may
	update   string        // for Update: the field path to hand to the driver
	lossless bool          // putting it back loses nothing that somebody made
	stalled  bool          // a person has to act before it can be applied
	never    string        // with op "": what to do instead
	what     string        // the difference in words; "" = from desired and actual
	place    *FindingPlace // when it is not that of the document

	// Filled by judge.
	severity Severity
	mode     mode
	held     string    // with modeHold or modeReport: why it is not changed now, and what to do
	tried    bool      // it is to be changed; it is reported because that does not succeed
	until    time.Time // with a contested revert: when it may be tried again
}

func (d *difference) stands() bool {
	return !d.equal && d.mode != modeIgnore && d.mode != modeApply
}

// looked is what a look at the outside gave, judged.
type looked struct {
	fields  []difference
	partial bool
}

// conclude judges a look by the rules and turns it into a plan.
func conclude(in Input, l look) Plan {
	p := Plan{Ended: l.ended, looked: looked{fields: slices.Clone(l.fields), partial: l.partial}}
	if in.Have.Presence == adapters.Known {
		p.Actual = in.Have.Actual
	}
	prior := map[string]Finding{}
	for _, f := range in.Findings {
		prior[f.ID] = f
	}
	hold := heldBy(in)
	for i := range p.looked.fields {
		d := &p.looked.fields[i]
		if !d.equal {
			d.judge(in, hold, prior[FindingID(in.Ref, d.kind, d.subject, d.field)])
		}
	}
	p.Changes = steps(p.looked.fields)
	if p.Waits = waitsFor(in, p.Changes); len(p.Waits) > 0 {
		p.Changes = nil
	}
	p.settle(in, p.looked.fields, !l.partial)
	p.Settled = settled(in, p.looked.fields)
	p.phase(hold, l)
	p.next(in)
	return p
}

// settled reports whether all that the document asks for is applied. A changed document of something that is missing
// is not.
func settled(in Input, fields []difference) bool {
	missing := in.Have.Presence == adapters.Absent && (in.Applied == nil || in.Applied.Digest != in.Want.Digest)
	return !slices.ContainsFunc(fields, func(d difference) bool {
		return !d.equal && (missing || d.cause == CauseNotYetApplied)
	})
}

// judge decides what becomes of one difference.
func (d *difference) judge(in Input, h hold, was Finding) {
	d.severity = severityOf(d.kind)
	if d.cause == CauseNotYetApplied && !d.stalled {
		d.severity = Low
	}
	if in.Stage == StageProd {
		d.severity = d.severity.raised()
	}
	var rule *desired.DriftRuleSpec
	if d.cause == CauseDrift {
		rule = ruleFor(in, d)
	}
	if rule != nil && rule.Severity != "" {
		d.severity = Severity(rule.Severity)
	}
	switch m := driftMode(in, d, rule); {
	case d.cause == CauseDrift && m == desired.ActionIgnore:
		d.mode = modeIgnore
	case d.op == "":
		d.mode, d.held = modeReport, d.never
	case d.cause == CauseNotYetApplied && h.reason != "":
		d.mode, d.held = modeHold, h.next
	case d.cause == CauseNotYetApplied:
		d.mode = modeApply
	case m != desired.ActionRevert:
		d.mode, d.held = modeReport, "put it back at the provider, change the document, or ask for it with spec.sync.drift: revert"
	case h.all:
		d.mode, d.held = modeReport, h.next
	default:
		d.contest(in, was)
	}
}

// contest reverts a difference, more and more slowly when somebody keeps undoing the revert.
func (d *difference) contest(in Input, was Finding) {
	at := revertAllowedAt(was, in.Now)
	if !at.After(in.Now) {
		d.mode = modeRevert
		return
	}
	d.mode, d.until = modeReport, at
	d.held = fmt.Sprintf("it was put back %d times within a day and keeps coming back: another writer wants it so%s; find out which, or let the document say so too; the next try is at %s",
		len(recentReverts(was, in.Now)), writer(in), at.UTC().Format(time.RFC3339))
}

func writer(in Input) string {
	if in.Have.Presence != adapters.Known || in.Have.Reason == "" {
		return ""
	}
	return " (the provider says: " + in.Have.Reason + ")"
}

// Drifted reports whether drift rules could make another plan of the same input: something drifted.
func (p Plan) Drifted() bool {
	return slices.ContainsFunc(p.Findings, func(f Finding) bool { return f.Cause == CauseDrift }) ||
		slices.ContainsFunc(p.looked.fields, func(d difference) bool { return !d.equal && d.cause == CauseDrift })
}

// ruleFor is the first drift rule that matches a difference.
func ruleFor(in Input, d *difference) *desired.DriftRuleSpec {
	for _, r := range in.Rules {
		if !inForce(r.Until, in.Now) {
			continue
		}
		if len(r.Findings) > 0 && !slices.Contains(r.Findings, string(d.kind)) {
			continue
		}
		if len(r.Fields) > 0 && !slices.ContainsFunc(r.Fields, func(f string) bool { return matchesField(f, d.field) }) {
			continue
		}
		return r
	}
	return nil
}

func matchesField(pattern, field string) bool {
	if head, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(field, head)
	}
	return pattern == field
}

// inForce reads an RFC 3339 end; one that cannot be read never ends.
func inForce(until string, now time.Time) bool {
	end, ok := endOf(until)
	return !ok || now.Before(end)
}

func endOf(until string) (time.Time, bool) {
	end, err := time.Parse(time.RFC3339, until)
	return end, err == nil
}

// driftMode is what becomes of drift: the document's own word, else the first rule's, else the default. By default it
// is put back where that loses nothing and is not production.
func driftMode(in Input, d *difference, rule *desired.DriftRuleSpec) string {
	own := in.Want.Resource.Spec.Common().Sync
	switch {
	case own != nil && own.Drift != "":
		return string(own.Drift)
	case rule != nil:
		return rule.Action
	case d.lossless && in.Stage != StageProd && applyMode(in) == desired.ApplyAutomatic:
		return desired.ActionRevert
	}
	return desired.ActionReport
}

func applyMode(in Input) desired.ApplyMode {
	if s := in.Want.Resource.Spec.Common().Sync; s != nil && s.Apply != "" {
		return s.Apply
	}
	return desired.ApplyAutomatic
}

// hold is what keeps changes from being made.
type hold struct {
	all          bool // no change at all, not even putting something back
	phase        Phase
	reason       string
	message      string
	next         string
	until        time.Time
	untilIsKnown bool
}

// heldBy finds what keeps changes of a ref from being made, the strongest first.
func heldBy(in Input) hold {
	switch {
	case in.Frozen != "":
		return hold{
			all: true, phase: Suspended, reason: "Frozen",
			message: "nothing is changed, the control repository is frozen: " + in.Frozen,
			next:    "nothing is changed while the control repository is frozen: an operator has to decide",
		}
	case in.Suspension != nil:
		return suspendedBy(in.Suspension)
	case in.Want != nil && applyMode(in) == desired.ApplyManual:
		return hold{
			phase: OutOfSync, reason: "ManualApply",
			message: "the document changed and is not applied by itself",
			next:    "spec.sync.apply is manual: set it to automatic to have it applied",
		}
	}
	return hold{}
}

func suspendedBy(e *desired.Entry) hold {
	h := hold{all: true, phase: Suspended, reason: "Suspended", message: "suspended by " + short(e.Ref)}
	if s, ok := e.Resource.Spec.(*desired.SuspensionSpec); ok {
		if s.Reason != "" {
			h.message += ": " + s.Reason
		}
		if h.until, h.untilIsKnown = endOf(s.Until); h.untilIsKnown {
			h.message += ", until " + h.until.UTC().Format(time.RFC3339)
		}
	}
	h.next = "it is changed when " + short(e.Ref) + " is removed or ends"
	return h
}

// steps are the changes that bring about what is to be applied or reverted, in the order in which they can be made.
func steps(fields []difference) []Step {
	var out []Step
	for _, op := range []adapters.Op{adapters.Create, adapters.Restore, adapters.Run, adapters.Update, adapters.Merge, adapters.Close} {
		s := Step{Op: op, Why: CauseDrift}
		var kinds []string
		for _, d := range fields {
			if d.equal || d.op != op || d.mode != modeApply && d.mode != modeRevert {
				continue
			}
			if d.cause == CauseNotYetApplied {
				s.Why = CauseNotYetApplied
			}
			if op == adapters.Update && !slices.Contains(s.Fields, d.update) {
				s.Fields = append(s.Fields, d.update)
			}
			if !slices.Contains(kinds, string(d.kind)) {
				kinds = append(kinds, string(d.kind))
			}
		}
		if len(kinds) > 0 {
			s.Reason = strings.Join(kinds, ", ")
			out = append(out, s)
		}
	}
	return out
}

// phase says where the ref stands before the changes of the plan are made.
func (p *Plan) phase(h hold, l look) {
	worst := p.worst()
	switch {
	case h.all && !p.Ended:
		p.Phase, p.Reason, p.Message = h.phase, h.reason, h.message
		if n := len(p.Findings); n > 0 {
			p.Message += fmt.Sprintf("; %d open finding(s)", n)
		}
	case len(p.Waits) > 0:
		p.Phase, p.Reason, p.Message = Pending, reasonWaiting, waiting(p.Waits)
	case len(p.Changes) > 0 && p.Changes[0].Why == CauseNotYetApplied:
		p.Phase, p.Reason, p.Message = Progressing, progress(p.Changes[0].Op), "the document is being applied: "+p.Changes[0].String()
	case worst != nil:
		p.Phase, p.Reason, p.Message = OutOfSync, worst.Kind, worst.Message
		switch {
		case worst.Kind == string(CommitUndecided):
			p.Phase = Unknown
		case p.stalled():
			p.Phase = Stalled
		}
		if n := len(p.Findings); n > 1 {
			p.Message += fmt.Sprintf(" (and %d more)", n-1)
		}
	default:
		p.Phase, p.Reason, p.Message = Synced, l.reason, l.message
		if p.Reason == "" {
			p.Reason, p.Message = "Synced", "observed equal to the document"
			if slices.ContainsFunc(p.looked.fields, func(d difference) bool { return !d.equal }) {
				p.Message += ", but for what a drift rule ignores"
			}
		}
	}
}

func (p *Plan) stalled() bool {
	return slices.ContainsFunc(p.looked.fields, func(d difference) bool { return !d.equal && d.stalled })
}

// worst is the finding that speaks for the plan: the most severe one; a quarantined document alone does not make its
// last good version out of sync.
func (p *Plan) worst() *Finding {
	order := []Severity{Low, Medium, High, Critical}
	var w *Finding
	for i := range p.Findings {
		f := &p.Findings[i]
		if f.Cause == CauseQuarantined {
			continue
		}
		if w == nil || slices.Index(order, f.Severity) > slices.Index(order, w.Severity) {
			w = f
		}
	}
	return w
}

// next says when a rule, a suspension or a back-off ends before the usual look.
func (p *Plan) next(in Input) {
	soon := func(at time.Time) {
		if d := at.Sub(in.Now); d > 0 && (p.Next == 0 || d < p.Next) {
			p.Next = d
		}
	}
	for _, d := range p.looked.fields {
		if !d.until.IsZero() {
			soon(d.until)
		}
	}
	if h := heldBy(in); h.untilIsKnown {
		soon(h.until)
	}
	for _, r := range in.Rules {
		if end, ok := endOf(r.Until); ok {
			soon(end)
		}
	}
}

func progress(op adapters.Op) string {
	switch op {
	case adapters.Create:
		return "Creating"
	case adapters.Restore:
		return "Restoring"
	case adapters.Run:
		return "Running"
	case adapters.Merge:
		return "Merging"
	case adapters.Close:
		return "Closing"
	case adapters.Remove:
		return "Removing"
	case adapters.Rename:
		return "Renaming"
	}
	return "Updating"
}

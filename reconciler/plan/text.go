// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// String prints the plan as a stable transcript, without ids.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s %s\n", short(p.Ref), p.Phase, p.Reason)
	if p.Message != "" {
		fmt.Fprintf(&b, "  %s\n", p.Message)
	}
	for _, s := range p.Changes {
		fmt.Fprintf(&b, "  change  %s\n", s)
	}
	for _, w := range p.Waits {
		fmt.Fprintf(&b, "  wait    %s: %s\n", short(w.On), w.Reason)
	}
	for _, f := range p.Findings {
		fmt.Fprintf(&b, "  finding %s\n", f)
	}
	for _, f := range p.Closed {
		fmt.Fprintf(&b, "  closed  %s by %s\n", f.name(), f.ResolvedBy)
	}
	var marks []string
	for _, m := range []struct {
		set  bool
		name string
	}{{p.Settled, "settled"}, {p.Ended, "ended"}, {p.FailRun, "run failed"}, {p.Forget, "forget"}, {p.Backoff, "backoff"}, {p.Next > 0, "next in " + p.Next.String()}} {
		if m.set {
			marks = append(marks, m.name)
		}
	}
	if len(marks) > 0 {
		fmt.Fprintf(&b, "  %s\n", strings.Join(marks, ", "))
	}
	return b.String()
}

// String prints a step: operation, fields, cause.
func (s Step) String() string {
	out := string(s.Op)
	if len(s.Fields) > 0 {
		out += " " + strings.Join(s.Fields, " ")
	}
	return out + " (" + string(s.Why) + ": " + s.Reason + ")"
}

// String prints a finding on two lines: what it is, and its message.
func (f Finding) String() string {
	s := fmt.Sprintf("%s %s %s desired=%q actual=%q", f.name(), f.Severity, f.Cause, f.Desired, f.Actual)
	if f.Occurrences > 1 {
		s += fmt.Sprintf(" occurrences=%d", f.Occurrences)
	}
	if f.Reverts > 0 {
		s += fmt.Sprintf(" reverts=%d", f.Reverts)
	}
	if f.Contested {
		s += " contested"
	}
	if f.Reverting {
		s += " reverting"
	}
	if f.Source.Path != "" {
		s += fmt.Sprintf(" at %s:%d", f.Source.Path, f.Source.Line)
	}
	return s + " since " + f.FirstSeen.UTC().Format(time.RFC3339) + "\n          " + f.Message
}

func (f Finding) name() string {
	s := f.Kind
	if f.Field != "" {
		s += " " + f.Field
	}
	if f.Subject != "" {
		s += "[" + f.Subject + "]"
	}
	return s
}

// message says what differs, why, and what comes next.
func (d *difference) message(in Input) string {
	what := d.what
	if what == "" {
		what = fmt.Sprintf("%s is %q, the document wants %q", strings.TrimPrefix(d.field, "spec."), d.actual, d.desired)
		if d.subject != "" {
			what = fmt.Sprintf("%s of %s is %q, the document wants %q", strings.TrimPrefix(d.field, "spec."), d.subject, d.actual, d.desired)
		}
		if d.cause == CauseDrift {
			what += "; it was changed at the provider"
		}
	}
	next := d.held
	if d.mode == modeRevert {
		next = "it is being put back"
	}
	if next == "" {
		return what
	}
	return what + "; " + next
}

// short names a ref within its project.
func short(r desired.Ref) string { return string(r.Kind) + "/" + r.Name }

// brief is the usual abbreviation of a commit id.
func brief(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// AfterError is the plan after the first change of p failed: the class of the error alone decides what happens next.
//
//	invalid, denied, stalled   a person has to act; it is tried again with each resync (a one-shot ends, but for stalled)
//	conflict                   look again and retry with backoff (a one-shot ends)
//	waiting, throttled         look again after the time that the error names
//	not-found, transient       retry with backoff
//	internal                   retry with backoff; the detail goes to the log only
func AfterError(in Input, p Plan, err error) Plan {
	op := adapters.Op("")
	if len(p.Changes) > 0 {
		op = p.Changes[0].Op
	}
	p.Settled, p.Ended = false, false
	if c := desired.ClassOf(err); c != desired.Transient && c != desired.Internal {
		for i := range p.Findings {
			p.Findings[i].Reverting = false // nothing was done, so if it ends by itself that was not us
		}
	}
	detail, after := explain(err)
	switch class := desired.ClassOf(err); class {
	case desired.Invalid, desired.Denied, desired.Conflict:
		if op == adapters.Run {
			return ended(in, p, detail)
		}
		if class == desired.Conflict {
			p.retry(in, "Conflict", detail, 0)
			break
		}
		p.stall(in, title(class), detail)
	case desired.Stalled:
		p.stall(in, title(class), detail)
	case desired.Waiting:
		p.retry(in, "Waiting", detail, after)
	case desired.Throttled:
		p.retry(in, "Throttled", detail, after)
	case desired.Internal:
		p.retry(in, "InternalError", "an internal error; the log has the details", 0)
	default:
		p.retry(in, "Retrying", detail, 0)
	}
	p.deadline(in)
	return p
}

func explain(err error) (detail string, after time.Duration) {
	var e *desired.Error
	if errors.As(err, &e) {
		return e.Detail(), e.After
	}
	return err.Error(), 0
}

func title(c desired.Class) string {
	switch c {
	case desired.Invalid:
		return "Invalid"
	case desired.Denied:
		return "Denied"
	}
	return "Stalled"
}

// ended is the end of a one-shot that can never succeed.
func ended(in Input, p Plan, detail string) Plan {
	p = Plan{Ref: p.Ref, Desired: p.Desired, Phase: Failed, Reason: "Failed", Ended: true, FailRun: true,
		Message: detail + "; it ran once and does not run again: write a new " + string(in.Ref.Kind)}
	p.settle(in, nil, true)
	return p
}

// stall: nothing moves until somebody acts. What is not applied becomes a finding.
func (p *Plan) stall(in Input, reason, detail string) {
	next := "it failed with: " + detail + "; when that is settled it is tried again by itself"
	if p.Phase == Deleting {
		p.Reason, p.Message, p.Changes = reason, next, nil
		return
	}
	p.block(in, next)
	p.Phase, p.Reason, p.Message = Stalled, reason, detail
}

// retry: the change stays planned and is tried again. Differences that were to be put back stay open findings.
func (p *Plan) retry(in Input, reason, detail string, after time.Duration) {
	if p.Phase == Progressing || p.Phase == Pending || p.Phase == Stalled {
		p.Phase, p.Reason, p.Message = Progressing, reason, detail
	} else {
		p.Message = detail
	}
	p.Next, p.Backoff = after, after == 0
}

// deadline calls what takes too long Stalled. It is still tried: a newer document, or the end of what it waits for,
// ends it.
func (p *Plan) deadline(in Input) {
	if in.Limit <= 0 || in.Active.IsZero() || p.Phase != Pending && p.Phase != Progressing {
		return
	}
	left := in.Active.Add(in.Limit).Sub(in.Now)
	if left > 0 {
		if p.Next == 0 && !p.Backoff || p.Next > left {
			p.Next = left
		}
		return
	}
	p.Message = fmt.Sprintf("not done within %s (%s): %s; settle that, change the document, or remove it", in.Limit, p.Reason, p.Message)
	p.Phase, p.Reason = Stalled, "DeadlineExceeded"
	changes := p.Changes
	if len(p.looked.fields) > 0 {
		p.report(in, "it takes longer than "+in.Limit.String()+" and is still being tried")
		p.Changes = changes
	}
}

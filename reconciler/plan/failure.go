// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// The reasons that a failed attempt leaves behind.
const (
	reasonConflict  = "Conflict"
	reasonWaiting   = "Waiting"
	reasonThrottled = "Throttled"
	reasonInternal  = "InternalError"
	reasonRetrying  = "Retrying"
	reasonInvalid   = "Invalid"
	reasonDenied    = "Denied"
	reasonStalled   = "Stalled"
	reasonDeadline  = "DeadlineExceeded"
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
	detail, after := explain(err)
	switch class := desired.ClassOf(err); class {
	case desired.Invalid, desired.Denied, desired.Conflict:
		if op == adapters.Run {
			return ended(in, p, detail)
		}
		if class == desired.Conflict {
			p.retry(reasonConflict, detail, 0)
			break
		}
		p.stall(in, title(class), detail)
	case desired.Stalled:
		p.stall(in, title(class), detail)
	case desired.Waiting:
		p.retry(reasonWaiting, detail, after)
	case desired.Throttled:
		p.retry(reasonThrottled, detail, after)
	case desired.Internal:
		p.retry(reasonInternal, "an internal error; the log has the details", 0)
	default:
		p.retry(reasonRetrying, detail, 0)
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
		return reasonInvalid
	case desired.Denied:
		return reasonDenied
	}
	return reasonStalled
}

// ended is the end of a one-shot that can never succeed.
func ended(in Input, p Plan, detail string) Plan {
	p = Plan{
		Ref: p.Ref, Desired: p.Desired, Phase: Failed, Reason: "Failed", Ended: true, FailRun: true,
		Message: detail + "; it ran once and does not run again: write a new " + string(in.Ref.Kind),
	}
	p.settle(in, nil, true)
	return p
}

// stall: nothing moves until somebody acts. What is not applied becomes a finding.
func (p *Plan) stall(in Input, reason, detail string) {
	if p.Phase == Deleting {
		p.Reason, p.Message, p.Changes = reason, detail, nil
		return
	}
	p.block(in, nextAfter(reason, detail))
	p.Phase, p.Reason, p.Message = Stalled, reason, detail
}

// nextAfter says in a finding why what it is about is not changed.
func nextAfter(reason, detail string) string {
	if reason == reasonDeadline {
		return "it takes too long and is still being tried"
	}
	return "it failed with: " + detail + "; when that is settled it is tried again by itself"
}

// retry: the change stays planned and is tried again. Differences that were to be put back stay open findings.
func (p *Plan) retry(reason, detail string, after time.Duration) {
	if p.Phase == Stalled {
		p.Phase = Progressing // no longer for the reason it was; the deadline may say so again
	}
	p.Reason, p.Message = reason, detail
	p.Next, p.Backoff = after, after == 0
}

// stick keeps what the last attempt at the same document left behind while the next one is made.
func (p *Plan) stick(in Input) {
	was := in.Was
	if len(p.Changes) == 0 {
		return
	}
	switch was.Reason {
	case reasonConflict, reasonWaiting, reasonThrottled, reasonInternal, reasonRetrying, reasonInvalid, reasonDenied, reasonStalled, reasonDeadline:
	default:
		return
	}
	switch {
	case was.Phase == p.Phase:
	case was.Phase == Stalled && (p.Phase == Progressing || p.Phase == OutOfSync):
		changes := p.Changes
		p.report(in, nextAfter(was.Reason, was.Message))
		p.Changes = changes
	default:
		return
	}
	p.Phase, p.Reason, p.Message = was.Phase, was.Reason, was.Message
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
	p.Phase, p.Reason = Stalled, reasonDeadline
	if len(p.Waits) > 0 {
		p.Reason = "WaitedTooLong"
	}
	changes := p.Changes
	if len(p.looked.fields) > 0 {
		p.report(in, nextAfter(reasonDeadline, ""))
		p.Changes = changes
	}
}

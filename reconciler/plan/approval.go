// SPDX-License-Identifier: Apache-2.0

package plan

// Decision is the answer of the guard.
type Decision struct {
	Allow  bool
	Policy string // what decided, recorded with the change
	Reason string // why not, and what to do
}

// NoPolicy is the decision recorded when neither a Policy nor a decision point is configured.
const NoPolicy = "allow (no policy)"

// Guard asks whether the changes of a plan may be made. There is no Policy kind yet, so it answers NoPolicy.
func Guard(Input, Plan) Decision {
	return Decision{Allow: true, Policy: NoPolicy}
}

// Await turns a plan whose changes the guard does not allow into one that waits for an approval and says so.
func Await(in Input, p Plan, d Decision) Plan {
	p.block(in, d.Reason)
	p.Phase, p.Reason, p.Message = AwaitingApproval, "AwaitingApproval", d.Reason
	return p
}

// block takes the changes out of a plan and reports what they would have changed.
func (p *Plan) block(in Input, next string) {
	p.Changes = nil
	p.report(in, next)
}

// report makes findings of what is still to be applied or put back.
func (p *Plan) report(in Input, next string) {
	for i := range p.looked.fields {
		d := &p.looked.fields[i]
		switch {
		case d.equal:
		case d.mode == modeApply:
			d.mode, d.held, d.tried = modeHold, next, true
		case d.mode == modeRevert:
			d.mode, d.held, d.tried = modeReport, next, true
		case d.tried:
			d.held = next
		}
	}
	p.settle(in, p.looked.fields, len(p.looked.fields) > 0 && !p.looked.partial)
}

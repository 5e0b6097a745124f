// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func comparePullRequest(in Input, want *desired.PullRequestSpec) (look, bool) {
	have, ok := known[adapters.PullRequestActual](in)
	if !ok {
		return look{}, false
	}
	if have == nil {
		return missingPullRequest(in, want), true
	}
	l := look{fields: []difference{{kind: PullRequestMissing, desired: want.Title, equal: true}}}
	if have.State != desired.PullRequestOpen {
		return endedPullRequest(in, want, have, l), true
	}
	was := applied(in, want)
	text := func(kind FindingKind, field, want, have string, same, lossless bool) {
		l.fields = append(l.fields, difference{
			kind: kind, field: field, update: field, desired: want, actual: have,
			equal: want == have, cause: cause(in, same), op: adapters.Update, lossless: lossless,
		})
	}
	// A text that somebody wrote at the host would be lost by putting the document's back: reported by default.
	text(TitleMismatch, "spec.title", want.Title, have.Title, was != nil && was.Title == want.Title, false)
	if want.Description != "" || was != nil && was.Description != "" {
		text(DescriptionMismatch, "spec.description", want.Description, have.Description, was != nil && was.Description == want.Description, false)
	}
	if want.TargetBranch != "" {
		text(TargetBranchMismatch, "spec.targetBranch", want.TargetBranch, have.TargetBranch, was != nil && was.TargetBranch == want.TargetBranch, true)
	}
	l.fields = append(l.fields, compareReviewers(in, want, have, was), stateOf(in, want, have, was))
	return l, true
}

// missingPullRequest: one that was never opened is opened; one that was, and ended, is not missed.
func missingPullRequest(in Input, want *desired.PullRequestSpec) look {
	d := difference{kind: PullRequestMissing, desired: want.Title, equal: true}
	if in.Applied == nil && want.StateOr() == desired.PullRequestClosed {
		return look{fields: []difference{d}, ended: true, reason: "NeverOpened", message: "the document closes it, and it was never opened"}
	}
	if in.Applied != nil && in.Applied.Terminal {
		return look{fields: []difference{d}, ended: true, reason: "Ended", message: "it ended, and the provider does not show it any more"}
	}
	d.equal = false
	if in.Applied == nil {
		d.cause, d.op, d.what = CauseNotYetApplied, adapters.Create, "the pull request is not opened yet"
		return look{fields: []difference{d}}
	}
	d.cause = CauseDrift
	d.what = "the pull request was opened and is missing now"
	d.never = "a new one would have another number and no history: write a new PullRequest if that is wanted, or remove this document"
	return look{fields: []difference{d}}
}

// endedPullRequest: merged and closed are final, whoever did it. That is no drift.
func endedPullRequest(in Input, want *desired.PullRequestSpec, have *adapters.PullRequestActual, l look) look {
	l.ended = true
	l.reason, l.message = "Closed", fmt.Sprintf("pull request %d is closed", have.Number)
	if have.State == desired.PullRequestMerged {
		l.reason, l.message = "Merged", fmt.Sprintf("pull request %d is merged as %s", have.Number, brief(have.MergeCommit))
	}
	d := difference{kind: PullRequestStateMismatch, field: "spec.state", desired: want.StateOr(), actual: have.State, equal: true}
	switch want.StateOr() {
	case have.State:
	case desired.PullRequestOpen:
		l.reason += "AtHost"
		l.message += " at the provider" + by(have.ClosedBy) + "; that is final, whatever the document says"
	default:
		d.equal, d.cause = false, CauseNotYetApplied
		d.what = fmt.Sprintf("the document wants it %s, but pull request %d was %s at the provider%s", want.StateOr(), have.Number, have.State, by(have.ClosedBy))
		d.never = "that is final: set spec.state to " + have.State + ", and write a new PullRequest for what is still to be done"
	}
	l.fields = append(l.fields, d)
	return l
}

func by(who string) string {
	if who == "" {
		return ""
	}
	return " by " + who
}

// compareReviewers asks only that the wanted reviewers are there; the host may have more.
func compareReviewers(in Input, want *desired.PullRequestSpec, have *adapters.PullRequestActual, was *desired.PullRequestSpec) difference {
	var missing []string
	for _, r := range want.Reviewers {
		if !slices.Contains(have.Reviewers, r) {
			missing = append(missing, r)
		}
	}
	d := difference{
		kind: ReviewersMissing, field: "spec.reviewers", update: "spec.reviewers", desired: strings.Join(want.Reviewers, " "),
		actual: strings.Join(have.Reviewers, " "), equal: len(missing) == 0, op: adapters.Update, lossless: true,
		cause: cause(in, was != nil && slices.Equal(was.Reviewers, want.Reviewers)),
	}
	if len(missing) > 0 {
		d.what = "not asked for a review: " + strings.Join(missing, ", ")
	}
	return d
}

// stateOf compares the state of a pull request that is open at the host.
func stateOf(in Input, want *desired.PullRequestSpec, have *adapters.PullRequestActual, was *desired.PullRequestSpec) difference {
	state := want.StateOr()
	d := difference{
		kind: PullRequestStateMismatch, field: "spec.state", desired: state, actual: have.State,
		equal: state == have.State, cause: cause(in, was != nil && was.StateOr() == state), lossless: true,
	}
	switch state {
	case desired.PullRequestClosed:
		d.op = adapters.Close
	case desired.PullRequestMerged:
		d.op = adapters.Merge
		if have.Mergeable == "no" && len(have.Conflicts) > 0 {
			d.op, d.stalled, d.cause = "", true, CauseNotYetApplied
			d.what = fmt.Sprintf("pull request %d cannot be merged: it conflicts with %s in %s", have.Number, have.TargetBranch, strings.Join(have.Conflicts, ", "))
			d.never = "merge " + have.TargetBranch + " into " + have.SourceBranch + " and settle the conflict; it is then merged by itself"
		}
	}
	return d
}

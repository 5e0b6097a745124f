// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// FindingKind names a sort of difference, as DriftRules and the API write it.
type FindingKind string

// The kinds of findings.
const (
	RepositoryMissing        FindingKind = "RepositoryMissing"
	ProviderMismatch         FindingKind = "ProviderMismatch"
	DefaultBranchMismatch    FindingKind = "DefaultBranchMismatch"
	VisibilityMismatch       FindingKind = "VisibilityMismatch"
	DescriptionMismatch      FindingKind = "DescriptionMismatch"
	ProtectionMismatch       FindingKind = "ProtectionMismatch"
	ArchivedMismatch         FindingKind = "ArchivedMismatch"
	NameMismatch             FindingKind = "NameMismatch"
	BranchMissing            FindingKind = "BranchMissing"
	BranchMoved              FindingKind = "BranchMoved"
	CommitMissing            FindingKind = "CommitMissing"
	CommitUndecided          FindingKind = "CommitUndecided"
	PullRequestMissing       FindingKind = "PullRequestMissing"
	PullRequestStateMismatch FindingKind = "PullRequestStateMismatch"
	TitleMismatch            FindingKind = "TitleMismatch"
	TargetBranchMismatch     FindingKind = "TargetBranchMismatch"
	ReviewersMissing         FindingKind = "ReviewersMissing"
	ImmutableField           FindingKind = "ImmutableField"
	Orphaned                 FindingKind = "Orphaned"
	DeletionStopped          FindingKind = "DeletionStopped"
	DocumentQuarantined      FindingKind = "DocumentQuarantined"
	ControlRepositoryFrozen  FindingKind = "ControlRepositoryFrozen"
)

// How a finding ended.
const (
	ResolvedByRevert   = "revert"   // we undid the difference
	ResolvedByOutside  = "outside"  // the world came back by itself
	ResolvedByDocument = "document" // the document asks for something else now
	ResolvedByRule     = "rule"     // a rule ignores it now
)

const (
	reopenWithin   = 24 * time.Hour // a difference that returns within this is the same finding
	contestedAfter = 3              // reverts within reopenWithin
	revertsKept    = 10             // entries of RevertedAt
	maxRevertDelay = time.Hour
)

// FindingID derives the id of a finding: from what it is about, never from values.
func FindingID(ref desired.Ref, kind FindingKind, subject, field string) string {
	return desired.DeriveID("drift", ref.String(), string(kind), subject, field)
}

func resourceID(ref desired.Ref) string {
	if _, ok := ref.Kind.Info(); ok {
		return ref.ID()
	}
	return desired.DeriveID(strings.ToLower(string(ref.Kind)), ref.String())
}

// settle writes the findings of a plan: what stands, what ended. looked is false when the outside was not seen;
// open findings about it then stay as they are.
func (p *Plan) settle(in Input, fields []difference, looked bool) {
	p.Findings, p.Closed = nil, nil
	if q, ok := quarantined(in); ok {
		fields = append(slices.Clip(fields), q)
	}
	prior := map[string]Finding{}
	for _, f := range in.Findings {
		prior[f.ID] = f
	}
	standing := map[string]bool{}
	for _, d := range fields {
		if !d.stands() {
			continue
		}
		f := d.finding(in, prior)
		standing[f.ID] = true
		p.Findings = append(p.Findings, f)
	}
	for _, f := range in.Findings {
		if !f.Open() || standing[f.ID] {
			continue
		}
		if !looked && f.aboutOutside() {
			p.Findings = append(p.Findings, f)
			continue
		}
		p.Closed = append(p.Closed, f.close(in, fields))
	}
	sortFindings(p.Findings)
	sortFindings(p.Closed)
}

func sortFindings(list []Finding) {
	slices.SortFunc(list, func(a, b Finding) int { return strings.Compare(a.Kind+a.Subject+a.ID, b.Kind+b.Subject+b.ID) })
}

// aboutOutside tells findings that only a look at the outside can end.
func (f *Finding) aboutOutside() bool {
	return f.Cause != CauseQuarantined && f.Kind != string(DeletionStopped) && f.Kind != string(Orphaned)
}

// finding renders a standing difference, carrying over what is known of it from before.
func (d *difference) finding(in Input, prior map[string]Finding) Finding {
	f := Finding{
		V: 1, ID: FindingID(in.Ref, d.kind, d.subject, d.field), Ref: in.Ref, ResourceID: resourceID(in.Ref),
		Kind: string(d.kind), Subject: d.subject, Field: d.field, Desired: d.desired, Actual: d.actual,
		Severity: d.severity, Cause: d.cause, Message: d.message(in), FirstSeen: in.Now, Occurrences: 1,
		Reverting: d.mode == modeRevert,
	}
	switch {
	case d.place != nil:
		f.Source = *d.place
	case in.Want != nil:
		f.Source = FindingPlace{Commit: in.Want.Changed.Commit, Path: in.Want.Path, Line: in.Want.Line, Author: in.Want.Changed.Author}
		if f.Source.Author == "" {
			f.Source.Author = in.Want.Changed.Principal
		}
	}
	was, ok := prior[f.ID]
	if !ok || !was.Open() && in.Now.Sub(was.ClosedAt) > reopenWithin {
		return f
	}
	f.FirstSeen, f.Occurrences = was.FirstSeen, was.Occurrences
	f.Reverts, f.RevertedAt = was.Reverts, was.RevertedAt
	if !was.Open() {
		f.Occurrences++
	}
	if f.Contested = len(recentReverts(was, in.Now)) >= contestedAfter; f.Contested {
		f.Severity = f.Severity.raised()
	}
	if f.Source == (FindingPlace{}) {
		f.Source = was.Source
	}
	return f
}

// close ends a finding and says what ended it.
func (f Finding) close(in Input, fields []difference) Finding {
	f.ClosedAt = in.Now
	f.ResolvedBy = ResolvedByOutside
	var now *difference
	for i := range fields {
		if FindingID(in.Ref, fields[i].kind, fields[i].subject, fields[i].field) == f.ID {
			now = &fields[i]
		}
	}
	switch {
	case now != nil && now.mode == modeIgnore && !now.equal:
		f.ResolvedBy = ResolvedByRule
	case f.Reverting || in.Reverted && f.Cause == CauseDrift:
		f.ResolvedBy = ResolvedByRevert
		f.Reverts++
		f.RevertedAt = append(slices.Clone(f.RevertedAt), in.Now)
		if n := len(f.RevertedAt); n > revertsKept {
			f.RevertedAt = f.RevertedAt[n-revertsKept:]
		}
	case !f.aboutOutside():
		f.ResolvedBy = ResolvedByDocument
	case now == nil && in.Want != nil && in.Applied != nil && in.Applied.Digest == in.Want.Digest:
	case now == nil, now.desired != f.Desired, now.mode == modeApply && !now.equal:
		f.ResolvedBy = ResolvedByDocument
	}
	f.Reverting = false
	return f
}

// recentReverts are the reverts of a finding within the last day.
func recentReverts(f Finding, now time.Time) []time.Time {
	var in []time.Time
	for _, at := range f.RevertedAt {
		if now.Sub(at) <= reopenWithin {
			in = append(in, at)
		}
	}
	return in
}

// revertAllowedAt is when a difference that keeps coming back may be reverted again: the delay doubles with each
// revert beyond the third of a day, from a minute to an hour.
func revertAllowedAt(f Finding, now time.Time) time.Time {
	at := recentReverts(f, now)
	if len(at) < contestedAfter {
		return time.Time{}
	}
	return at[len(at)-1].Add(min(time.Minute<<(len(at)-contestedAfter), maxRevertDelay))
}

// raised is the next higher severity.
func (s Severity) raised() Severity {
	switch s {
	case Low:
		return Medium
	case Medium:
		return High
	}
	return Critical
}

// severityOf is the severity of a kind of finding outside production, when no rule says otherwise.
func severityOf(k FindingKind) Severity {
	switch k {
	case RepositoryMissing, ControlRepositoryFrozen:
		return Critical
	case BranchMissing, BranchMoved, DefaultBranchMismatch, VisibilityMismatch, ProtectionMismatch, CommitMissing,
		CommitUndecided, PullRequestMissing, DeletionStopped, DocumentQuarantined:
		return High
	case DescriptionMismatch, TitleMismatch, ReviewersMissing:
		return Low
	}
	return Medium
}

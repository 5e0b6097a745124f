// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// quarantined is the difference between a document whose file is bad and its last good version, which is in force.
func quarantined(in Input) (difference, bool) {
	if in.Quarantine == nil {
		return difference{}, false
	}
	return badFile(*in.Quarantine, in.Stage), true
}

func badFile(q desired.Quarantine, stage string) difference {
	d := difference{kind: DocumentQuarantined, subject: q.Path, desired: q.Blob, actual: q.LastGood, cause: CauseQuarantined, severity: severityOf(DocumentQuarantined)}
	if stage == StageProd {
		d.severity = d.severity.raised()
	}
	d.place = &FindingPlace{Commit: q.Since.Commit, Path: q.Path, Author: q.Since.Author}
	d.what = q.Path + " is bad"
	if q.Err != nil {
		d.what += ": " + q.Err.Detail()
		if len(q.Err.Fields) > 0 {
			d.what, d.place.Line = "bad document: "+q.Err.Fields[0].String(), q.Err.Fields[0].Line
		}
	}
	d.held = "its last good version stays in force; correct the file"
	if q.LastGood == "" {
		d.held = "nothing in it is in force; correct the file"
	}
	return d
}

// FileRef is what findings about a file are about when no resource comes from it.
func FileRef(tenant, path string) desired.Ref {
	return desired.Ref{Tenant: tenant, Kind: "File", Name: path}
}

// ControlRef is what findings about a tenant's control repository as a whole are about.
func ControlRef(tenant string) desired.Ref {
	return desired.Ref{Tenant: tenant, Kind: "ControlRepository", Name: "control"}
}

// FileFindings judges the files in quarantine that keep no resource alive, and whether the control repository is
// frozen. prior are the open and recently closed findings about them; the answer is what stands and what ended.
func FileFindings(now time.Time, tenant string, files []desired.Quarantine, frozen string, prior []Finding) (open, closed []Finding) {
	refs := map[desired.Ref][]difference{}
	for _, q := range files {
		if len(q.Refs) == 0 {
			refs[FileRef(tenant, q.Path)] = []difference{badFile(q, "")}
		}
	}
	if frozen != "" {
		refs[ControlRef(tenant)] = []difference{{
			kind: ControlRepositoryFrozen, desired: "a history that only grows", actual: "rewritten",
			cause: CauseQuarantined, severity: severityOf(ControlRepositoryFrozen), what: frozen,
			held: "the last accepted head stays in force and nothing is changed; an operator has to decide",
		}}
	}
	before := map[desired.Ref][]Finding{}
	for _, f := range prior {
		before[f.Ref] = append(before[f.Ref], f)
		if _, ok := refs[f.Ref]; !ok {
			refs[f.Ref] = nil
		}
	}
	for ref, fields := range refs {
		var p Plan
		p.settle(Input{Now: now, Ref: ref, Findings: before[ref]}, fields, true)
		open, closed = append(open, p.Findings...), append(closed, p.Closed...)
	}
	for _, list := range [][]Finding{open, closed} {
		sortFindings(list)
	}
	return open, closed
}

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// reconcile is operation i6: look again, now.
func (s *Server) reconcile(ctx context.Context, c *call) (answer, error) {
	var in ReconcileRequest
	if err := s.decode(c, maxBody, true, &in, &in.TenantID); err != nil {
		return answer{}, err
	}
	if err := c.refuseWhatIf(); err != nil {
		return answer{}, err
	}
	head := c.repo.Head()
	match, err := nudged(head.Snapshot, in)
	if err != nil {
		return answer{}, err
	}
	refs := s.cfg.Engine.Reconcile(c.who.Tenant, match)
	const shown = 1000
	out := ReconcileResponse{Refs: []NudgedRef{}, Count: len(refs), Commit: head.Commit, TraceID: c.trace(), Warnings: c.warnings}
	for _, ref := range refs[:min(len(refs), shown)] {
		out.Refs = append(out.Refs, NudgedRef{ID: ref.ID(), Ref: ref.String()})
	}
	return answer{status: http.StatusAccepted, body: out, location: "/sync-states", retryAfter: 1}, nil
}

// nudged is the filter of a reconcile request. Ids that are not there are refused, not ignored.
func nudged(snap *desired.Snapshot, in ReconcileRequest) (func(*desired.Entry) bool, error) {
	kinds, ids := map[desired.Kind]bool{}, map[string]bool{}
	var f faults
	for i, k := range in.Kinds {
		if kinds[desired.Kind(k)] = true; !managed(desired.Kind(k)) {
			f = append(f, desired.FieldError{Pointer: "/kinds/" + strconv.Itoa(i), Detail: "is no kind that is reconciled"})
		}
	}
	if len(f) > 0 {
		return nil, invalid("reconcile", f[:min(len(f), 20)]...)
	}
	for i, id := range in.Ids {
		if _, ok := snap.ByID(id); !ok {
			return nil, &desired.Error{
				Class: desired.NotFound, Op: "reconcile",
				Fields: []desired.FieldError{{Pointer: "/ids/" + strconv.Itoa(i), Detail: "there is no resource with this id in your tenant"}},
			}
		}
		ids[id] = true
	}
	return func(e *desired.Entry) bool {
		return (in.Project == "" || e.Ref.Project == in.Project) && (len(kinds) == 0 || kinds[e.Ref.Kind]) && (len(ids) == 0 || ids[e.ID])
	}, nil
}

// managedKinds are the kinds that have sync states.
func managedKinds() []desired.Kind {
	var out []desired.Kind
	for _, k := range desired.Kinds() {
		if k.Managed {
			out = append(out, k.Kind)
		}
	}
	return out
}

// listSyncStates lists where every managed resource stands; last come those whose document is gone already.
func (s *Server) listSyncStates(ctx context.Context, c *call) (answer, error) {
	kinds, err := c.kinds(managedKinds())
	if err != nil {
		return answer{}, err
	}
	l, err := s.list(ctx, c, kinds, nil)
	if err != nil {
		return answer{}, err
	}
	out := SyncStateList{Items: []SyncState{}, NextPageToken: l.next, Commit: l.head.Commit, TraceID: c.trace()}
	for _, st := range l.items {
		out.Items = append(out.Items, standingView(st))
	}
	if l.next == "" {
		s.leaving(c, l.head.Snapshot, kinds, &out)
	}
	return answer{status: http.StatusOK, body: out}, nil
}

// leaving adds the states of resources whose documents are gone. They end with their deletion, so they are few.
func (s *Server) leaving(c *call, snap *desired.Snapshot, kinds []desired.Kind, out *SyncStateList) {
	q := c.r.URL.Query()
	phases, project := list(q, "phase"), q.Get("project")
	items, _ := s.cfg.Hub.List(c.repo.Tenant(), state.States)
	for _, item := range items {
		ref := item.State.Ref
		if _, there := snap.Get(ref); there || project != "" && ref.Project != project || phases != nil && !phases[string(item.State.Phase)] {
			continue
		}
		for _, k := range kinds {
			if k == ref.Kind {
				out.Items = append(out.Items, stateView(item.State))
			}
		}
	}
}

func (s *Server) getSyncState(ctx context.Context, c *call) (answer, error) {
	head, err := s.head(ctx, c)
	if err != nil {
		return answer{}, err
	}
	var v SyncState
	if e, ok := head.Snapshot.ByID(c.param("id")); ok && managed(e.Ref.Kind) {
		v = standingView(s.standing(e))
	} else if item, ok := s.cfg.Hub.State(c.repo.Tenant(), c.param("id")); ok {
		v = stateView(item.State)
	} else {
		return answer{}, notFound("sync state")
	}
	return answer{status: http.StatusOK, body: struct {
		SyncState
		Commit  string `json:"commit"`
		TraceID string `json:"traceId"`
	}{v, head.Commit, c.trace()}}, nil
}

// standingView shows a sync state together with the document it belongs to.
func standingView(st standing) SyncState {
	ref := st.entry.Ref
	y := st.sync()
	out := SyncState{
		ID: st.entry.ID, Ref: ref.String(), Kind: string(ref.Kind), Project: ref.Project, Name: ref.Name,
		Phase: y.Phase, Health: y.Health, Reason: y.Reason, Message: y.Message,
		DesiredSeq: y.DesiredSeq, DesiredCommit: y.DesiredCommit, AppliedSeq: y.AppliedSeq, AppliedCommit: y.AppliedCommit,
		Since: y.Since, Findings: y.Findings,
	}
	if st.state != nil {
		out.Outputs = st.state.Outputs
	}
	return out
}

// stateView shows a sync state as the reconciler wrote it; streams send this.
func stateView(s *state.SyncState) SyncState {
	return SyncState{
		ID: s.Ref.ID(), Ref: s.Ref.String(), Kind: string(s.Ref.Kind), Project: s.Ref.Project, Name: s.Ref.Name,
		Phase: string(s.Phase), Health: s.Health, Reason: s.Reason, Message: s.Message,
		DesiredSeq: s.DesiredSeq, DesiredCommit: s.DesiredCommit, AppliedSeq: s.AppliedSeq, AppliedCommit: s.AppliedCommit,
		Since: s.Since, Findings: s.Findings, Outputs: s.Outputs,
	}
}

// listFindings lists findings in order of their ids. A page token goes on after an id, whatever changed meanwhile.
func (s *Server) listFindings(ctx context.Context, c *call) (answer, error) {
	q := c.r.URL.Query()
	p, err := readPage(c.op.ID, q)
	if err != nil {
		return answer{}, err
	}
	match, err := findingFilter(c)
	if err != nil {
		return answer{}, err
	}
	head, err := s.head(ctx, c)
	if err != nil {
		return answer{}, err
	}
	out := FindingList{Items: []Finding{}, Commit: head.Commit, TraceID: c.trace()}
	items, _ := s.cfg.Hub.List(c.repo.Tenant(), state.Findings)
	for _, item := range items {
		if item.Finding.ID <= p.after || !match(item.Finding) {
			continue
		}
		if len(out.Items) == p.size {
			out.NextPageToken = p.next("", out.Items[p.size-1].FindingID)
			break
		}
		out.Items = append(out.Items, findingView(item.Finding))
	}
	return answer{status: http.StatusOK, body: out}, nil
}

func findingFilter(c *call) (func(*plan.Finding) bool, error) {
	q := c.r.URL.Query()
	open := q.Get("open")
	if f := (faults{}).among("open", open, "true", "false", "all"); len(f) > 0 {
		return nil, invalid("read filter", f...)
	}
	if _, err := c.kinds(controlKinds()); err != nil {
		return nil, err
	}
	kinds, project, id := list(q, "kind"), q.Get("project"), q.Get("resourceId")
	return func(f *plan.Finding) bool {
		return (kinds == nil || kinds[string(f.Ref.Kind)]) && (project == "" || f.Ref.Project == project) &&
			(id == "" || f.Ref.ID() == id) && (open == "all" || f.Open() == (open != "false"))
	}, nil
}

func (s *Server) getFinding(ctx context.Context, c *call) (answer, error) {
	head, err := s.head(ctx, c)
	if err != nil {
		return answer{}, err
	}
	item, ok := s.cfg.Hub.Finding(c.repo.Tenant(), c.param("id"))
	if !ok {
		return answer{}, notFound("finding")
	}
	return answer{status: http.StatusOK, body: struct {
		Finding
		Commit  string `json:"commit"`
		TraceID string `json:"traceId"`
	}{findingView(item.Finding), head.Commit, c.trace()}}, nil
}

func findingView(f *plan.Finding) Finding {
	out := Finding{
		FindingID: f.ID, ResourceID: f.Ref.ID(), Ref: f.Ref.String(), ResourceKind: string(f.Ref.Kind), Project: f.Ref.Project,
		Name: f.Ref.Name, Kind: f.Kind, Subject: f.Subject, Field: f.Field, Desired: f.Desired, Actual: f.Actual,
		Severity: string(f.Severity), Cause: string(f.Cause), Status: "Open", Message: f.Message,
		DetectedAt: f.FirstSeen, ClosedAt: f.ClosedAt, ResolvedBy: f.ResolvedBy, Occurrences: f.Occurrences,
		Contested: f.Contested, Reverts: f.Reverts,
		Source: Source{Commit: f.Source.Commit, Path: f.Source.Path, Line: f.Source.Line, Author: f.Source.Author},
	}
	if !f.Open() {
		out.Status = "Closed"
	}
	return out
}

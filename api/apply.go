// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// What an apply did to a document.
const (
	created   = "created"
	updated   = "updated"
	unchanged = "unchanged"
)

// applyResources is operation x1: all documents of a request land in one commit, or none does.
func (s *Server) applyResources(ctx context.Context, c *call) (answer, error) {
	docs, err := s.readDocuments(c)
	if err != nil {
		return answer{}, err
	}
	for _, d := range docs {
		info, _ := d.Ref.Kind.Info()
		if err := auth.NeedScope(c.who, auth.KindScope(info)); err != nil {
			return answer{}, err
		}
	}
	if len(docs) > 1 && c.r.Header.Get("If-Match") != "" {
		return answer{}, faultf(CodeMalformed, "check If-Match", "If-Match names one document: apply that one alone")
	}
	edits := make([]desired.Edit, len(docs))
	refs := make([]desired.Ref, len(docs))
	for i, d := range docs {
		edits[i], refs[i] = desired.Put(d.Ref, d.Resource, desired.PutOptions{}), d.Ref
	}
	ops := make([]string, len(docs))
	all := edits[0]
	if len(edits) > 1 { // joining costs: the second document must see the first
		all = desired.Join(edits...)
	}
	message := "Apply " + string(refs[0].Kind) + " " + refs[0].Name
	if len(docs) > 1 {
		message += " and " + strconv.Itoa(len(docs)-1) + " more"
	}
	rc, err := s.commit(ctx, c, message, func(v desired.View) ([]desired.Write, error) {
		for i, d := range docs {
			e, _ := v.Snapshot().Get(d.Ref)
			if err := c.ifMatch(e); err != nil {
				return nil, err
			}
			ops[i] = operationOn(e, d.Digest)
		}
		return all(v)
	})
	if err != nil {
		return answer{}, err
	}
	wait, preference := s.prefer(c, s.waits[c.op.ID])
	s.settle(ctx, refs, s.lastChange(c, refs, rc.Seq, rc.Unchanged), wait)
	out := ApplyResponse{
		ReceiptID: rc.Commit, Seq: rc.Seq, Unchanged: rc.Unchanged, Commit: rc.Commit, TraceID: c.trace(), Warnings: c.warnings,
	}
	if rc.Replayed {
		ops = make([]string, len(docs))
	}
	var phase plan.Phase
	out.Results, phase = s.applied(c, refs, ops)
	out.Status = word("documents", phase)
	a := answer{status: written(phase, http.StatusCreated), body: out, location: "/receipts/" + rc.Commit, preference: preference}
	switch {
	case a.status == http.StatusAccepted:
		a.retryAfter = 1
	case rc.Unchanged:
		a.status, a.location = http.StatusOK, ""
	}
	return a, nil
}

func operationOn(e *desired.Entry, digest string) string {
	switch {
	case e == nil:
		return created
	case e.Digest == digest:
		return unchanged
	}
	return updated
}

// lastChange is the seq that a wait is for: that of the write, or of the last change where nothing was written.
func (s *Server) lastChange(c *call, refs []desired.Ref, seq uint64, same bool) uint64 {
	if !same {
		return seq
	}
	seq = 0
	for _, ref := range refs {
		if e, ok := c.repo.Head().Snapshot.Get(ref); ok {
			seq = max(seq, e.Changed.Seq)
		}
	}
	return seq
}

// applied tells how each document stands, and the phase of all: the first that is not done decides.
func (s *Server) applied(c *call, refs []desired.Ref, ops []string) ([]Applied, plan.Phase) {
	all := plan.Synced
	out := make([]Applied, len(refs))
	snap := c.repo.Head().Snapshot
	for i, ref := range refs {
		out[i] = Applied{ID: ref.ID(), Ref: ref.String(), Kind: string(ref.Kind), Project: ref.Project, Name: ref.Name}
		if ops != nil {
			out[i].Operation = ops[i]
		}
		e, ok := snap.Get(ref)
		if !ok {
			out[i].Status = "Removed"
			continue
		}
		st := s.standing(e)
		out[i].Status, out[i].Problem = string(st.phase), st.problem()
		switch {
		case st.phase == plan.Synced:
		case !finished(st.phase):
			if finished(all) {
				all = st.phase
			}
		case all == plan.Synced:
			all = st.phase
		}
	}
	return out, all
}

// readDocuments reads the body of an apply as documents of the caller's tenant.
func (s *Server) readDocuments(c *call) ([]desired.Document, error) {
	place := desired.Place{Tenant: c.who.Tenant, Project: c.r.URL.Query().Get("project")}
	if f := (faults{}).check("project", place.Project, desired.ValidTenant); len(f) > 0 {
		return nil, invalid("apply documents", f...)
	}
	var docs []desired.Document
	var err error
	if wantMedia(c.r, "application/json") == nil {
		docs, err = s.jsonDocuments(c, place)
	} else {
		docs, err = yamlDocuments(c, place)
	}
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, invalid("apply documents", desired.FieldError{Detail: "the body has no documents: send at least one"})
	}
	seen := map[desired.Ref]bool{}
	for _, d := range docs {
		if seen[d.Ref] {
			return nil, invalid("apply documents", desired.FieldError{Line: d.Line, Detail: d.Ref.String() + " is there twice: send it once"})
		}
		seen[d.Ref] = true
	}
	return docs, nil
}

func yamlDocuments(c *call, place desired.Place) ([]desired.Document, error) {
	if err := wantMedia(c.r, "application/yaml", "application/x-yaml", "text/yaml", "application/json"); err != nil {
		return nil, err
	}
	if err := c.read(maxBody); err != nil {
		return nil, err
	}
	return desired.ParseFile(place, c.body)
}

// jsonDocuments reads {"documents": […]}; a JSON document is a YAML document. Places point into the request.
func (s *Server) jsonDocuments(c *call, place desired.Place) ([]desired.Document, error) {
	var in ApplyRequest
	if err := s.decode(c, maxBody, false, &in, &in.TenantID); err != nil {
		return nil, err
	}
	if len(in.Documents) > desired.MaxFileDocuments {
		return nil, invalid("apply documents", desired.FieldError{Pointer: "/documents", Detail: "has more than " + strconv.Itoa(desired.MaxFileDocuments) + " documents: send several requests"})
	}
	var out []desired.Document
	var wrong faults
	for i, raw := range in.Documents {
		docs, err := desired.ParseFile(place, raw)
		var e *desired.Error
		switch {
		case err == nil && len(docs) == 1:
			out = append(out, docs...)
		case err == nil:
			wrong = append(wrong, desired.FieldError{Pointer: "/documents/" + strconv.Itoa(i), Detail: "must be one document"})
		case errors.As(err, &e):
			wrong = append(wrong, pointInto(i, e)...)
		default:
			return nil, err
		}
	}
	if len(wrong) > 0 {
		return nil, invalid("apply documents", wrong[:min(len(wrong), 20)]...)
	}
	return out, nil
}

func pointInto(i int, e *desired.Error) faults {
	at := "/documents/" + strconv.Itoa(i)
	if len(e.Fields) == 0 {
		return faults{{Pointer: at, Detail: e.Detail()}}
	}
	out := make(faults, len(e.Fields))
	for j, f := range e.Fields {
		out[j] = desired.FieldError{Pointer: at + f.Pointer, Detail: f.Detail}
	}
	return out
}

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
)

func resourceView(st standing) Resource {
	e := st.entry
	m := e.Resource.Metadata
	out := Resource{
		ID: e.ID, Ref: e.Ref.String(), Kind: string(e.Ref.Kind), Project: e.Ref.Project, Name: e.Ref.Name,
		Labels: m.Labels, Annotations: m.Annotations, DependsOn: m.DependsOn, Spec: e.Resource.Spec, Digest: e.Digest,
		Status: string(st.phase), Problem: st.problem(), Sync: st.sync(), Source: st.source(),
	}
	if st.state != nil {
		out.Outputs = st.state.Outputs
	}
	return out
}

// controlKinds are the kinds that a tenant's control repository holds.
func controlKinds() []desired.Kind {
	var out []desired.Kind
	for _, k := range desired.Kinds() {
		if k.Control {
			out = append(out, k.Kind)
		}
	}
	return out
}

// listResources lists documents of all kinds, or of those that ?kind names.
func (s *Server) listResources(ctx context.Context, c *call) (answer, error) {
	kinds, err := c.kinds(controlKinds())
	if err != nil {
		return answer{}, err
	}
	return s.resourcePage(ctx, c, kinds)
}

// kinds narrows all to the ?kind filter.
func (c *call) kinds(all []desired.Kind) ([]desired.Kind, error) {
	want := list(c.r.URL.Query(), "kind")
	if want == nil {
		return all, nil
	}
	var out []desired.Kind
	for _, k := range all {
		if want[string(k)] {
			out = append(out, k)
			delete(want, string(k))
		}
	}
	if len(want) > 0 {
		return nil, invalid("read filter", desired.FieldError{Pointer: "kind", Detail: "names no known kind; known here: " + joinKinds(all)})
	}
	return out, nil
}

func joinKinds(all []desired.Kind) string {
	names := make([]string, len(all))
	for i, k := range all {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// listOf lists the documents of a kind that has no shape of its own.
func (s *Server) listOf(kind desired.Kind) handler {
	return func(ctx context.Context, c *call) (answer, error) {
		return s.resourcePage(ctx, c, []desired.Kind{kind})
	}
}

func (s *Server) resourcePage(ctx context.Context, c *call, kinds []desired.Kind) (answer, error) {
	l, err := s.list(ctx, c, kinds, nil)
	if err != nil {
		return answer{}, err
	}
	out := ResourceList{Items: []Resource{}, NextPageToken: l.next, Commit: l.head.Commit, TraceID: c.trace()}
	for _, st := range l.items {
		v := resourceView(st)
		v.Commit, v.TraceID = l.head.Commit, c.trace()
		out.Items = append(out.Items, v)
	}
	return answer{status: http.StatusOK, body: out}, nil
}

// getOf reads a document of one kind.
func (s *Server) getOf(kind desired.Kind) handler {
	return func(ctx context.Context, c *call) (answer, error) {
		head, err := s.head(ctx, c)
		if err != nil {
			return answer{}, err
		}
		e, ok := head.Snapshot.ByID(c.param("id"))
		if !ok || e.Ref.Kind != kind {
			return answer{}, notFound("resource")
		}
		return s.resourceAnswer(c, head, e), nil
	}
}

func (s *Server) getResource(ctx context.Context, c *call) (answer, error) {
	head, err := s.head(ctx, c)
	if err != nil {
		return answer{}, err
	}
	e, ok := head.Snapshot.ByID(c.param("id"))
	if !ok {
		return answer{}, notFound("resource")
	}
	return s.resourceAnswer(c, head, e), nil
}

func (s *Server) resourceAnswer(c *call, head *desired.Head, e *desired.Entry) answer {
	v := resourceView(s.standing(e))
	for _, item := range s.cfg.Hub.FindingsOf(e.Ref.Tenant, e.Ref) {
		if item.Finding.Open() {
			v.Findings = append(v.Findings, findingView(item.Finding))
		}
	}
	v.Commit, v.TraceID = head.Commit, c.trace()
	return answer{status: http.StatusOK, body: v, etag: e.Digest}
}

// deleteResource is operation x2: it removes the document. What becomes of the outside object is the reconciler's
// business.
func (s *Server) deleteResource(ctx context.Context, c *call) (answer, error) {
	id := c.param("id")
	info, ok := kindOfID(id)
	if !ok {
		return answer{}, notFound("resource")
	}
	if err := auth.NeedScope(c.who, auth.KindScope(info)); err != nil {
		return answer{}, err
	}
	var ref desired.Ref
	rc, err := s.commit(ctx, c, "Remove "+string(info.Kind)+" "+id, func(v desired.View) ([]desired.Write, error) {
		e, ok := v.Snapshot().ByID(id)
		if !ok {
			return nil, notFound("resource")
		}
		if err := c.ifMatch(e); err != nil {
			return nil, err
		}
		ref = e.Ref
		return desired.Remove(ref, "")(v)
	})
	if err != nil {
		return answer{}, err
	}
	out := DeleteResponse{ID: id, Status: "Deleting", ReceiptID: rc.Commit, Commit: rc.Commit, TraceID: c.trace(), Warnings: c.warnings}
	if !ref.IsZero() {
		out.Ref = ref.String()
	}
	wait, preference := s.prefer(c, s.waits[c.op.ID])
	if s.vanished(ctx, c, info, id, ref, wait) {
		out.Status = "Deleted"
	}
	return answer{
		status: http.StatusAccepted, body: out, location: "/sync-states/" + id, retryAfter: 1, preference: preference,
	}, nil
}

// kindOfID tells the kind of a derived id by its prefix.
func kindOfID(id string) (desired.KindInfo, bool) {
	prefix, rest, ok := strings.Cut(id, "-")
	if !ok || rest == "" {
		return desired.KindInfo{}, false
	}
	kinds := desired.Kinds()
	i := slices.IndexFunc(kinds, func(k desired.KindInfo) bool { return k.IDPrefix == prefix })
	if i < 0 {
		return desired.KindInfo{}, false
	}
	return kinds[i], true
}

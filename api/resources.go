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

func resourceView(st standing, about said) Resource {
	e := st.entry
	m := e.Resource.Metadata
	out := Resource{
		ID: e.ID, Ref: e.Ref.String(), Kind: string(e.Ref.Kind), Project: e.Ref.Project, Name: e.Ref.Name,
		Labels: m.Labels, Annotations: m.Annotations, DependsOn: m.DependsOn, Spec: e.Resource.Spec, Digest: e.Digest,
		Status: string(st.phase), Problem: st.problem(), Sync: st.sync(), Source: st.source(),
		Commit: about.commit, TraceID: about.trace,
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

// getResource reads a document of any kind, with its open findings.
func (s *Server) getResource(ctx context.Context, c *call) (answer, error) {
	a, err := documents(controlKinds()...).get(s)(ctx, c)
	if v, ok := a.body.(Resource); ok && err == nil {
		ref, _ := desired.ParseRef(v.Ref) // it was a ref a moment ago
		for _, item := range s.cfg.Hub.FindingsOf(ref.Tenant, ref) {
			if item.Finding.Open() {
				v.Findings = append(v.Findings, findingView(item.Finding))
			}
		}
		a.body = v
	}
	return a, err
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

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"

	"github.com/connectsoft/plumbline/desired"
)

// listing is one page of resources at one head.
type listing struct {
	head  *desired.Head
	items []standing
	next  string
}

// list collects a page of the kinds, in order of kind and ref, that match. All pages of a list show the same head.
func (s *Server) list(ctx context.Context, c *call, kinds []desired.Kind, match func(*desired.Entry) bool) (listing, error) {
	q := c.r.URL.Query()
	p, err := readPage(c.op.ID, q)
	if err != nil {
		return listing{}, err
	}
	head, err := s.head(ctx, c)
	if err != nil {
		return listing{}, err
	}
	if head, err = s.pages.find(c.repo.Tenant(), head, p.commit); err != nil {
		return listing{}, err
	}
	out := listing{head: head, items: []standing{}}
	phases, project := list(q, "phase"), q.Get("project")
	kinds, after := resume(kinds, p.after)
	for _, k := range kinds {
		for e := range head.Snapshot.List(k, project, after) {
			if match != nil && !match(e) {
				continue
			}
			st := s.standing(e)
			if phases != nil && !phases[string(st.phase)] {
				continue
			}
			if len(out.items) == p.size {
				out.next = p.next(head.Commit, out.items[p.size-1].entry.Ref.String())
				s.pages.keep(c.repo.Tenant(), head)
				return out, nil
			}
			out.items = append(out.items, st)
		}
		after = ""
	}
	return out, ctx.Err()
}

// resume drops the kinds that come before the one of the last ref shown.
func resume(kinds []desired.Kind, after string) ([]desired.Kind, string) {
	ref, err := desired.ParseRef(after)
	if err != nil {
		return kinds, ""
	}
	for i, k := range kinds {
		if k == ref.Kind {
			return kinds[i:], after
		}
	}
	return nil, ""
}

// ofRepository is the filter of ?repositoryId; nil without one. An unknown repository has nothing.
func (c *call) ofRepository() func(*desired.Entry) bool {
	id := c.r.URL.Query().Get("repositoryId")
	if id == "" {
		return nil
	}
	return func(e *desired.Entry) bool { return repositoryOf(e).ID() == id }
}

// repositoryOf is the Repository that a Branch, Commit or PullRequest belongs to.
func repositoryOf(e *desired.Entry) desired.Ref {
	name := ""
	switch s := e.Resource.Spec.(type) {
	case *desired.BranchSpec:
		name = s.Repository
	case *desired.CommitSpec:
		name = s.Repository
	case *desired.PullRequestSpec:
		name = s.Repository
	}
	return e.Ref.Sibling(desired.KindRepository, name)
}

// one finds the resource of a kind that a path parameter names.
func (s *Server) one(ctx context.Context, c *call, kind desired.Kind, param, what string) (standing, *desired.Head, error) {
	head, err := s.head(ctx, c)
	if err != nil {
		return standing{}, nil, err
	}
	e, ok := head.Snapshot.ByID(c.param(param))
	if !ok || e.Ref.Kind != kind {
		return standing{}, nil, notFound(what)
	}
	return s.standing(e), head, nil
}

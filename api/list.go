// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"slices"

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

// collection is how the resources of some kinds are listed and read: in the shape that view gives them.
type collection[T any] struct {
	kinds []desired.Kind
	param string // path parameter that names one
	what  string // what a caller would call one
	view  func(standing, said) T
}

// pageOf is one page of a list, as the contract's lists are shaped.
type pageOf[T any] struct {
	Items         []T    `json:"items"`
	NextPageToken string `json:"nextPageToken,omitempty"`
	Commit        string `json:"commit"`
	TraceID       string `json:"traceId"`
}

// list is the operation that lists a collection; ?kind narrows one of several kinds.
func (k collection[T]) list(s *Server) handler {
	return func(ctx context.Context, c *call) (answer, error) {
		kinds, err := c.kinds(k.kinds)
		if err != nil {
			return answer{}, err
		}
		l, err := s.list(ctx, c, kinds, c.ofRepository())
		if err != nil {
			return answer{}, err
		}
		out := pageOf[T]{Items: make([]T, len(l.items)), NextPageToken: l.next, Commit: l.head.Commit, TraceID: c.trace()}
		for i, st := range l.items {
			out.Items[i] = k.view(st, c.about(l.head.Commit))
		}
		return answer{status: http.StatusOK, body: out}, nil
	}
}

// get is the operation that reads one of a collection.
func (k collection[T]) get(s *Server) handler {
	return func(ctx context.Context, c *call) (answer, error) {
		head, err := s.head(ctx, c)
		if err != nil {
			return answer{}, err
		}
		e, ok := head.Snapshot.ByID(c.param(k.param))
		if !ok || !slices.Contains(k.kinds, e.Ref.Kind) {
			return answer{}, notFound(k.what)
		}
		return answer{status: http.StatusOK, body: k.view(s.standing(e), c.about(head.Commit)), etag: e.Digest}, nil
	}
}

func repositories() collection[Repository] {
	return collection[Repository]{[]desired.Kind{desired.KindRepository}, "repoId", "repository", repositoryView}
}

func branches() collection[Branch] {
	return collection[Branch]{[]desired.Kind{desired.KindBranch}, "branchId", "branch", branchView}
}

func commits() collection[Commit] {
	return collection[Commit]{[]desired.Kind{desired.KindCommit}, "commitId", "commit", commitView}
}

func pullRequests() collection[PullRequest] {
	return collection[PullRequest]{[]desired.Kind{desired.KindPullRequest}, "pullRequestId", "pull request", pullRequestView}
}

// documents are resources in the shape that all kinds share.
func documents(kinds ...desired.Kind) collection[Resource] {
	return collection[Resource]{kinds, "id", "resource", resourceView}
}

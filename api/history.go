// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
)

// historyWalk is how many commits one page of a history looks at.
const historyWalk = 200

// getResourceHistory lists the commits that changed a document. A page token holds the commit and the file where the
// history goes on.
func (s *Server) getResourceHistory(ctx context.Context, c *call) (answer, error) {
	p, err := readPage(c.op.ID+" "+c.param("id"), c.r.URL.Query())
	if err != nil {
		return answer{}, err
	}
	head, err := s.head(ctx, c)
	if err != nil {
		return answer{}, err
	}
	e, ok := head.Snapshot.ByID(c.param("id"))
	if !ok {
		return answer{}, notFound("resource")
	}
	at := gitrepo.HistoryAt{Commit: head.Commit, Path: e.Path}
	if p.commit != "" {
		at = gitrepo.HistoryAt{Commit: p.commit, Path: p.after}
	}
	found, more, err := c.repo.History(ctx, e.Ref, at, p.size, historyWalk)
	if desired.ClassOf(err) == desired.Invalid {
		err = invalid("read page", desired.FieldError{Pointer: "pageToken", Detail: "names no place of this control repository: begin the list again without it"})
	}
	if err != nil {
		return answer{}, err
	}
	out := ResourceHistory{Items: []ResourceVersion{}, Commit: head.Commit, TraceID: c.trace()}
	for _, v := range found {
		if v.Commit == e.Changed.Commit { // who pushed is known of the last change
			v.Principal = e.Changed.Principal
		}
		out.Items = append(out.Items, ResourceVersion{
			Commit: v.Commit, Operation: v.Operation, Path: v.Path, From: v.From, Digest: v.Digest, Author: v.Author,
			Principal: v.Principal, Message: shorten(v.Message, 200), At: v.At,
		})
	}
	if more.Commit != "" {
		out.NextPageToken = p.next(more.Commit, more.Path)
	}
	return answer{status: http.StatusOK, body: out}, nil
}

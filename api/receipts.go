// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"

	"github.com/connectsoft/plumbline/desired"
)

// getReceipt answers what a write became. A receipt is known by its commit, and is found as long as the control
// repository has that commit: in another process, or after a restart. It lists what the commit was the last to change.
func (s *Server) getReceipt(ctx context.Context, c *call) (answer, error) {
	id := c.param("id")
	if !fullCommit(id) {
		return answer{}, notFound("receipt")
	}
	seq, ok, err := c.repo.Seq(ctx, id)
	if err != nil {
		return answer{}, err
	}
	if !ok {
		return answer{}, notFound("receipt")
	}
	out := Receipt{ReceiptID: id, Commit: id, Seq: seq, Status: "committed", TraceID: c.trace()}
	var refs []desired.Ref
	for e := range c.repo.Head().Snapshot.All() {
		if e.Changed.Commit == id {
			refs = append(refs, e.Ref)
			out.At = e.Changed.At
		}
	}
	out.Resources, _ = s.applied(c, refs, nil)
	return answer{status: http.StatusOK, body: out}, nil
}

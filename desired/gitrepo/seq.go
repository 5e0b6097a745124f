// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// seqSteps is how far back Seq counts before it asks only whether the commit is contained.
const seqSteps = 4096

// Seq finds the position of a commit that the current head contains: its own when it is on the first-parent line,
// a later one when it came in by a merge or is very old. ok is false for a commit that the head does not contain.
func (r *Repo) Seq(ctx context.Context, commit string) (seq uint64, ok bool, err error) {
	h := r.Head()
	if commit == h.Commit {
		return h.Seq, commit != "", nil
	}
	want, err := gitstore.ParseHash(commit)
	if err != nil || h.Commit == "" || !r.store.Has(want) {
		return 0, false, nil // a name of nothing is contained nowhere
	}
	from, err := gitstore.ParseHash(h.Commit)
	if err != nil {
		return 0, false, desired.E("find commit", desired.Ref{}, desired.Internal, err)
	}
	steps, met := uint64(0), false
	err = gitstore.FirstParents(ctx, r.store, from, func(c *gitstore.Commit) (bool, error) {
		met = c.Hash == want
		if met || steps >= min(h.Seq, seqSteps) {
			return false, nil
		}
		steps++
		return true, nil
	})
	if err == nil && !met {
		steps = 0
		met, err = gitstore.IsAncestor(ctx, r.store, want, from)
	}
	if err != nil {
		return 0, false, desired.E("find commit", desired.Ref{}, desired.Internal, err)
	}
	if !met {
		return 0, false, nil
	}
	return h.Seq - min(steps, h.Seq), true, nil
}

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"net/http"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// words are what an operation calls its work under way and done.
type words struct{ notYet, done string }

// wordsOf is the one table from an operation's work to its words; false for kinds that show their phase.
func wordsOf(work string) (words, bool) {
	switch work {
	case "Repository":
		return words{"Provisioning", "Provisioned"}, true
	case "Branch":
		return words{"Creating", "Created"}, true
	case "Commit":
		return words{"Committing", "Committed"}, true
	case desired.PullRequestOpen: // the wanted states of a PullRequest
		return words{"Opening", "Open"}, true
	case desired.PullRequestMerged:
		return words{"Merging", "Merged"}, true
	case desired.PullRequestClosed:
		return words{"Closing", "Closed"}, true
	case "documents":
		return words{"Applying", "Applied"}, true
	}
	return words{}, false
}

const failed = "Failed"

// word derives a status from a phase.
func word(work string, p plan.Phase) string {
	w, ok := wordsOf(work)
	switch {
	case !ok:
		return string(p)
	case p == plan.Pending || p == plan.Progressing:
		return w.notYet
	case p == plan.Synced:
		return w.done
	case p == plan.Stalled || p == plan.Failed:
		return failed
	}
	return string(p)
}

// finished reports whether nothing is to be waited for any more: the work is done, or ended without success.
func finished(p plan.Phase) bool {
	return p == plan.Synced || p == plan.Failed || p == plan.Stalled
}

// written is the HTTP status of a write: done, or not yet.
func written(p plan.Phase, done int) int {
	if finished(p) {
		return done
	}
	return http.StatusAccepted
}

// standing is a resource as the head wants it and as the reconciler left it.
type standing struct {
	entry *desired.Entry
	state *state.SyncState // nil before it has one
	phase plan.Phase
}

// standing joins a document with its state. A state that does not know the document as it is now says nothing of
// it: the phase is Pending.
func (s *Server) standing(e *desired.Entry) standing {
	out := standing{entry: e, phase: plan.Synced}
	if !managed(e.Ref.Kind) {
		return out
	}
	out.phase = plan.Pending
	item, ok := s.cfg.Hub.State(e.Ref.Tenant, e.ID)
	if !ok || item.State == nil {
		return out
	}
	out.state = item.State
	if item.State.DesiredSeq >= e.Changed.Seq {
		out.phase = item.State.Phase
	}
	return out
}

// outputs decodes what was last observed into v; it stays as it is when nothing was.
func (st standing) outputs(v any) {
	if st.state != nil && len(st.state.Outputs) > 0 {
		// Outputs are written by our own reconciler. Should they not be readable, they are not shown.
		_ = json.Unmarshal(st.state.Outputs, v)
	}
}

func (st standing) problem() StatusProblem {
	if st.phase != plan.Stalled && st.phase != plan.Failed || st.state == nil {
		return StatusProblem{}
	}
	code := st.state.Reason
	if code == "" {
		code = string(st.phase)
	}
	return StatusProblem{Code: code, Detail: st.state.Message}
}

func (st standing) sync() Sync {
	out := Sync{Phase: string(st.phase)}
	if s := st.state; s != nil {
		out.Health, out.Findings, out.Since = s.Health, s.Findings, s.Since
		out.DesiredSeq, out.DesiredCommit = s.DesiredSeq, s.DesiredCommit
		out.AppliedSeq, out.AppliedCommit = s.AppliedSeq, s.AppliedCommit
		if st.phase == s.Phase {
			out.Reason, out.Message = s.Reason, s.Message
		}
	}
	if c := st.entry.Changed; c.Seq > out.DesiredSeq {
		out.DesiredSeq, out.DesiredCommit = c.Seq, c.Commit
	}
	return out
}

func (st standing) source() Source {
	c := st.entry.Changed
	return Source{Path: st.entry.Path, Line: st.entry.Line, Commit: c.Commit, Seq: c.Seq, Author: c.Author, Principal: c.Principal, At: c.At}
}

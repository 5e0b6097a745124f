// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
	"github.com/connectsoft/plumbline/reconciler"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// tried ends a write that was only to be tried. It travels as an error so that every write stops where its commit
// would have been, and none can go on as if there had been one.
type tried struct{ trial gitrepo.Trial }

func (tried) Error() string { return "the write was only tried" }

// whatIf reports whether the caller only asks what the write would come to.
func (c *call) whatIf() (bool, error) {
	v, ok := c.r.URL.Query()["dryRun"]
	switch {
	case !ok:
		return false, nil
	case len(v) == 1 && v[0] == planOnly:
		return true, nil
	}
	return false, invalid("plan write", desired.FieldError{Pointer: "dryRun", Detail: "must be plan; nothing was committed"})
}

const planOnly = "plan"

// refuseWhatIf turns ?dryRun away where nothing can be tried: a caller that asks what would happen must never make it
// happen.
func (c *call) refuseWhatIf() error {
	if !c.r.URL.Query().Has("dryRun") {
		return nil
	}
	return faultf(CodeNotOffered, "plan write", "dryRun is offered for what commits; this operation does not, and nothing was done")
}

// try is commit for a write that is only to be tried: always an error, tried when the write would be taken.
func (c *call) try(ctx context.Context, message string, edit desired.Edit) error {
	t, err := c.repo.Try(ctx, gitrepo.Request{Edit: edit, Subject: c.who.Subject, Message: message, RequestID: c.trace()})
	if err != nil {
		return err
	}
	return tried{t}
}

// nothing is the edit of a write that finds everything as wanted.
func nothing(desired.View) ([]desired.Write, error) { return nil, nil }

// planned answers an operation that was only tried; other outcomes pass as they are.
func (s *Server) planned(ctx context.Context, c *call, a answer, err error) (answer, error) {
	var t tried
	if !errors.As(err, &t) {
		return a, err
	}
	trial := t.trial
	f := reconciler.Forecast{Digest: plan.Digest()}
	if len(trial.Files) > 0 {
		if f, err = s.cfg.Engine.Plan(ctx, trial.Base, trial.Next, trial.Changes); err != nil {
			return answer{}, err
		}
	}
	out := WhatIf{
		DryRun: planOnly, Unchanged: len(trial.Files) == 0, Files: whatIfFiles(trial.Files, c.contextFor()), PolicyDecision: plan.NoPolicy,
		Plan: []PlannedResource{}, PlanDigest: f.Digest, Approvals: []string{}, Deletions: whatIfDeletions(f),
		Commit: trial.Base.Commit, TraceID: c.trace(), Warnings: c.warnings,
	}
	for _, p := range f.Previews {
		if operationIn(trial.Changes, p.Ref) == affected && !c.granted("devops.gitops.read") {
			p = reconciler.Preview{Ref: p.Ref, Unobserved: "the token lacks devops.gitops.read"}
		}
		out.Plan = append(out.Plan, plannedResource(p, trial.Changes))
		if p.Unobserved == "" && !p.Decision.Allow {
			out.PolicyDecision = p.Decision.Policy
			out.Approvals = append(out.Approvals, p.Ref.String()+": "+p.Decision.Reason)
		}
	}
	out.PlanText = planText(out)
	return answer{status: http.StatusOK, body: out}, nil
}

// granted reports whether the caller has a scope that the operation itself does not ask for.
func (c *call) granted(scope string) bool { return c.who.Has(scope) }

// contextFor is how many lines around a change the caller may see: they may be of documents that are not its own to
// read, and who only writes sees what the write changes.
func (c *call) contextFor() int {
	if c.granted("control.read") {
		return diffContext
	}
	return 0
}

// whatIfFiles shows what the commit would write. Content beside a document is told by its size alone.
func whatIfFiles(files []gitrepo.TrialFile, around int) []WhatIfFile {
	out := make([]WhatIfFile, 0, len(files))
	for _, f := range files {
		w := WhatIfFile{Path: f.Path, Operation: "modify"}
		switch {
		case f.Delete:
			w.Operation = "delete"
		case !f.Existed:
			w.Operation = "add"
		}
		if f.Attached {
			w.Bytes = max(len(f.Data), len(f.Before))
		} else {
			w.Diff = unified(f, around)
		}
		out = append(out, w)
	}
	return out
}

// unified is the diff of a file in the form that git and patch know.
func unified(f gitrepo.TrialFile, around int) string {
	from, to := "a/"+f.Path, "b/"+f.Path
	if !f.Existed {
		from = "/dev/null"
	}
	if f.Delete {
		to = "/dev/null"
	}
	return unifiedDiff(from, to, string(f.Before), string(f.Data), around)
}

func whatIfDeletions(f reconciler.Forecast) WhatIfDeletions {
	j := f.Deletions
	out := WhatIfDeletions{Added: f.Deleting, Pending: len(j.Allowed) + len(j.Stopped), Allowed: []string{}, Stopped: []string{}, Reason: j.Reason}
	for _, r := range j.Allowed {
		out.Allowed = append(out.Allowed, r.String())
	}
	for _, r := range j.Stopped {
		out.Stopped = append(out.Stopped, r.String())
	}
	if out.Pending > 0 {
		out.Digest = j.Digest
	}
	return out
}

func plannedResource(p reconciler.Preview, c desired.Changes) PlannedResource {
	out := PlannedResource{
		ID: p.Ref.ID(), Ref: p.Ref.String(), Kind: string(p.Ref.Kind), Project: p.Ref.Project, Name: p.Ref.Name,
		Operation: operationIn(c, p.Ref), Observed: p.Unobserved == "", NotObserved: p.Unobserved,
	}
	if p.Unobserved != "" {
		out.Text = string(p.Ref.Kind) + "/" + p.Ref.Name + ": not observed: " + p.Unobserved + "\n"
		return out
	}
	shown := p.Plan
	shown.Next, shown.Backoff = 0, false // nothing will be looked at again
	out.Phase, out.Reason, out.Message, out.Text = string(shown.Phase), shown.Reason, shown.Message, shown.String()
	for _, s := range p.Plan.Changes {
		out.Changes = append(out.Changes, PlannedChange{Operation: string(s.Op), Fields: s.Fields, Cause: string(s.Why), Reason: s.Reason})
	}
	for _, w := range p.Plan.Waits {
		out.Waits = append(out.Waits, PlannedWait{Ref: w.On.String(), Reason: w.Reason})
	}
	for _, f := range p.Plan.Findings {
		out.Findings = append(out.Findings, findingView(&f))
	}
	return out
}

// affected is what a write does to a resource whose document it leaves alone.
const affected = "affected"

func operationIn(c desired.Changes, ref desired.Ref) string {
	switch {
	case slices.Contains(c.Added, ref):
		return created
	case slices.Contains(c.Changed, ref):
		return updated
	case slices.Contains(c.Removed, ref):
		return "removed"
	}
	return affected
}

// planText is the plan for people: what would be committed, then what would be done.
func planText(w WhatIf) string {
	if w.Unchanged {
		return "nothing would be committed: everything is so already\n"
	}
	var b strings.Builder
	for _, f := range w.Files {
		b.WriteString(f.Operation + " " + f.Path + "\n")
	}
	for _, p := range w.Plan {
		b.WriteString(p.Text)
	}
	if d := w.Deletions; d.Added > 0 {
		b.WriteString("deletions: " + strconv.Itoa(d.Added) + " added, " + strconv.Itoa(d.Pending) + " pending, " + strconv.Itoa(len(d.Stopped)) + " would be stopped")
		if d.Reason != "" {
			b.WriteString(": " + d.Reason)
		}
		b.WriteString("\n")
	}
	b.WriteString("policy: " + w.PolicyDecision + "\n")
	return b.String()
}

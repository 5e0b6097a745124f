// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// openPullRequest is operation 4.
func (s *Server) openPullRequest(ctx context.Context, c *call) (answer, error) {
	var in OpenPullRequestRequest
	if err := s.decode(c, maxBody, false, &in, &in.TenantID); err != nil {
		return answer{}, err
	}
	if faults := (faults{}).need("/repositoryId", in.RepositoryID).need("/sourceBranch", in.SourceBranch).need("/title", in.Title).
		most("/title", in.Title, 256).most("/description", in.Description, 65536); len(faults) > 0 {
		return answer{}, invalid("open pull request", faults...)
	}
	name, err := s.ulidName(c)
	if err != nil {
		return answer{}, err
	}
	reviewers := in.Reviewers
	if len(reviewers) == 0 {
		reviewers = []string{c.who.Subject}
	}
	l, err := s.create(ctx, c, creation{
		message: "Open a pull request from " + in.SourceBranch,
		build: func(snap *desired.Snapshot) (made, error) {
			repo, rs, err := repository(snap, in.RepositoryID)
			if err != nil {
				return made{}, err
			}
			spec := &desired.PullRequestSpec{
				Repository: repo.Ref.Name, SourceBranch: in.SourceBranch, TargetBranch: in.TargetBranch,
				Title: in.Title, Description: in.Description, Reviewers: reviewers,
			}
			if spec.TargetBranch == "" {
				spec.TargetBranch = rs.DefaultBranchOr()
			}
			ref := repo.Ref.Sibling(desired.KindPullRequest, name)
			return made{ref: ref, resource: document(ref, spec)}, nil
		},
		find: func(snap *desired.Snapshot, rc gitrepo.Receipt) (desired.Ref, bool) {
			repo, _, err := repository(snap, in.RepositoryID)
			if err != nil {
				return desired.Ref{}, false
			}
			return findULID(snap, desired.KindPullRequest, repo.Ref.Project, name, rc)
		},
		pointer: renamed(map[string]string{"/spec/repository": "/repositoryId"}),
	})
	return respond(c, l, err, pullRequestView)
}

// mergePullRequest is the first half of operation 4b.
func (s *Server) mergePullRequest(ctx context.Context, c *call) (answer, error) {
	var in MergePullRequestRequest
	if err := s.decode(c, maxBody, true, &in, &in.TenantID); err != nil {
		return answer{}, err
	}
	if faults := (faults{}).among("/strategy", in.Strategy, desired.MergeCommit, desired.MergeSquash, desired.MergeFastForward).
		most("/message", in.Message, 65536); len(faults) > 0 {
		return answer{}, invalid("merge pull request", faults...)
	}
	return s.endPullRequest(ctx, c, "Merge", desired.PullRequestMerged, func(spec *desired.PullRequestSpec) {
		if in.Strategy != "" {
			spec.MergeStrategy = in.Strategy
		}
		if in.Message != "" {
			spec.MergeMessage = in.Message
		}
		spec.DeleteSourceBranch = spec.DeleteSourceBranch || in.DeleteSourceBranch
	})
}

// closePullRequest is the second half of operation 4b.
func (s *Server) closePullRequest(ctx context.Context, c *call) (answer, error) {
	var in ClosePullRequestRequest
	if err := s.decode(c, maxBody, true, &in, &in.TenantID); err != nil {
		return answer{}, err
	}
	return s.endPullRequest(ctx, c, "Close", desired.PullRequestClosed, func(*desired.PullRequestSpec) {})
}

// endPullRequest asks for the other state of an open pull request. One that ended the other way is a conflict, be it
// by its document or at the host.
func (s *Server) endPullRequest(ctx context.Context, c *call, verb, to string, change func(*desired.PullRequestSpec)) (answer, error) {
	id := c.param("pullRequestId")
	if a, done, err := s.endedAtHost(ctx, c, id, to); done || err != nil {
		return a, err
	}
	var ref desired.Ref
	rc, err := s.commit(ctx, c, verb+" pull request "+shorten(id, 64), func(v desired.View) ([]desired.Write, error) {
		e, spec, err := pullRequest(v.Snapshot(), id)
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(e); err != nil {
			return nil, err
		}
		if ref = e.Ref; spec.StateOr() != desired.PullRequestOpen && spec.StateOr() != to {
			return nil, alreadyEnded(ref, spec.StateOr())
		}
		return desired.Mutate(ref, "", func(r *desired.Resource) error {
			if s, ok := r.Spec.(*desired.PullRequestSpec); ok && s.StateOr() != to {
				s.State = to
				change(s)
			}
			return nil
		})(v)
	})
	if err != nil {
		return answer{}, err
	}
	if rc.Replayed {
		e, _, err := pullRequest(c.repo.Head().Snapshot, id)
		if err != nil {
			return c.answerGone(rc), nil
		}
		ref = e.Ref
	}
	l := s.await(ctx, c, ref, rc, http.StatusOK)
	if l.answer.status == http.StatusOK {
		l.answer.location = ""
	}
	return respond(c, l, nil, pullRequestView)
}

// endedAtHost answers for a pull request that ended at the host while its document still says open: there is nothing
// left to commit. A repeated request is left to its receipt.
func (s *Server) endedAtHost(ctx context.Context, c *call, id, to string) (a answer, done bool, err error) {
	head := c.repo.Head()
	e, spec, err := pullRequest(head.Snapshot, id)
	if err != nil || c.seenBefore() {
		return answer{}, false, nil // the edit says so, on the very head
	}
	st := s.standing(e)
	ended := pullRequestState(st, spec)
	if spec.StateOr() != desired.PullRequestOpen || ended == desired.PullRequestOpen {
		return answer{}, false, nil
	}
	only, err := c.whatIf()
	if err := errors.Join(err, c.ifMatch(e)); err != nil {
		return answer{}, false, err
	}
	if ended != to {
		return answer{}, false, alreadyEnded(e.Ref, ended)
	}
	if only {
		return answer{}, false, c.try(ctx, "", nothing)
	}
	return answer{status: http.StatusOK, body: pullRequestView(st, c.about(head.Commit)), etag: e.Digest}, true, nil
}

func alreadyEnded(ref desired.Ref, state string) error {
	return desired.Errorf("end pull request", ref, desired.Conflict, "the pull request is %s already: open another one", state)
}

func pullRequest(snap *desired.Snapshot, id string) (*desired.Entry, *desired.PullRequestSpec, error) {
	if e, ok := snap.ByID(id); ok {
		if spec, ok := e.Resource.Spec.(*desired.PullRequestSpec); ok {
			return e, spec, nil
		}
	}
	return nil, nil, notFound("pull request")
}

// pullRequestState is how a pull request ended, or open: the host's word counts where it has ended there.
func pullRequestState(st standing, spec *desired.PullRequestSpec) string {
	var actual adapters.PullRequestActual
	st.outputs(&actual)
	if actual.State == desired.PullRequestMerged || actual.State == desired.PullRequestClosed {
		return actual.State
	}
	return spec.StateOr()
}

// postCheck is operation 4c: it goes to the host, nothing is committed.
func (s *Server) postCheck(ctx context.Context, c *call) (answer, error) {
	var in PostCheckRequest
	if err := s.decode(c, maxBody, false, &in, &in.TenantID); err != nil {
		return answer{}, err
	}
	if err := c.refuseWhatIf(); err != nil {
		return answer{}, err
	}
	if faults := (faults{}).need("/name", in.Name).need("/status", in.Status).
		among("/status", in.Status, "Pending", "Running", "Succeeded", "Failed").check("/name", in.Name, plainText(128)).
		check("/url", in.URL, webAddress).most("/summary", in.Summary, 4096); len(faults) > 0 {
		return answer{}, invalid("post check", faults...)
	}
	head := c.repo.Head()
	e, _, err := pullRequest(head.Snapshot, c.param("pullRequestId"))
	if err != nil {
		return answer{}, err
	}
	err = s.cfg.Engine.PostCheck(ctx, e.Ref, adapters.Check{Name: in.Name, Status: in.Status, URL: in.URL, Summary: in.Summary})
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusCreated, body: PostedCheck{
		PullRequestID: e.ID, Name: in.Name, Status: in.Status, Commit: head.Commit, TraceID: c.trace(), Warnings: c.warnings,
	}}, nil
}

func pullRequestView(st standing, about said) PullRequest {
	spec, _ := st.entry.Resource.Spec.(*desired.PullRequestSpec)
	if spec == nil {
		spec = &desired.PullRequestSpec{}
	}
	var actual adapters.PullRequestActual
	st.outputs(&actual)
	work := spec.StateOr()
	if st.phase == plan.Synced { // a merge or close at the host is how it ended
		work = pullRequestState(st, spec)
	}
	out := PullRequest{
		PullRequestID: st.entry.ID, RepositoryID: repositoryOf(st.entry).ID(), Number: actual.Number, Status: word(work, st.phase),
		Title: spec.Title, Description: spec.Description, SourceBranch: spec.SourceBranch, TargetBranch: spec.TargetBranch,
		URL: actual.URL, Checks: []Check{}, Reviewers: []string{}, Conflicts: actual.Conflicts,
		HeadCommit: actual.HeadCommit, MergeCommit: actual.MergeCommit,
		Problem: st.problem(), Sync: st.sync(), Source: st.source(),
		Commit: about.commit, TraceID: about.trace, Warnings: about.warnings,
	}
	if out.TargetBranch == "" {
		out.TargetBranch = actual.TargetBranch
	}
	for _, ch := range actual.Checks {
		out.Checks = append(out.Checks, Check{Name: ch.Name, Status: ch.Status, URL: ch.URL, Summary: ch.Summary})
	}
	if out.Reviewers = append(out.Reviewers, actual.Reviewers...); len(out.Reviewers) == 0 {
		out.Reviewers = append(out.Reviewers, spec.Reviewers...)
	}
	if actual.Mergeable == "yes" || actual.Mergeable == "no" {
		yes := actual.Mergeable == "yes"
		out.Mergeable = &yes
	}
	return out
}

// plainText refuses control characters and more than n of any.
func plainText(n int) func(string) error {
	return func(s string) error {
		if shorten(s, n) != s || strings.TrimSpace(s) != s {
			return fmt.Errorf("must be one line of at most %d plain characters", n)
		}
		return nil
	}
}

func webAddress(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || len(s) > 2048 {
		return errors.New("must be an http or https address without credentials")
	}
	return nil
}

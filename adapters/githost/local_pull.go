// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

type pullHandle struct {
	Number int64 `json:"number"`
}

// settled is a pull request that a look found to be merged by hand.
type settled struct {
	number      int64
	head, merge string
}

func pullRef(number int64) string { return fmt.Sprintf("%s%d", pullRefs, number) }

// pullOf finds a pull request by the number in the handle, else by the document it was opened for.
func (v *view) pullOf(s adapters.Subject) *pullRecord {
	if n := readHandle[pullHandle](s.Handle).Number; n != 0 {
		return v.set.pull(n)
	}
	for _, p := range slices.Backward(v.set.Pulls) {
		if p.Document == s.Ref.Name {
			return p
		}
	}
	return nil
}

// pull is one look at a pull request.
type pull struct {
	*pullRecord // shared: not to be modified
	head        gitstore.Hash
	target      gitstore.Hash
	pair        pair // when it is open and both branches are there
	gone        bool // the source branch is not there
}

// lookAt follows the source branch of a pull request and notices that it was merged by hand: the last head that had
// something to merge is in the target now.
func (v *view) lookAt(ctx context.Context, r *pullRecord) (*pull, error) {
	p := &pull{pullRecord: r, head: v.branch(r.Source), target: v.branch(r.Target)}
	last := v.ref(pullRef(r.Number))
	if r.State != stateOpen {
		p.head, _ = gitstore.ParseHash(r.Head)
		return p, nil
	}
	if p.gone = p.head.IsZero(); p.gone {
		p.head = last
	}
	if p.target.IsZero() || p.head.IsZero() {
		return p, nil
	}
	var err error
	if p.pair, err = v.h.pair(ctx, p.head, p.target); err != nil {
		return nil, err
	}
	if !p.pair.landed {
		v.pin(pullRef(r.Number), p.head)
		v.pin(keepRef(r.Source), p.head)
		return p, nil
	}
	if last.IsZero() {
		return p, nil // there was never anything to merge
	}
	landed, err := v.h.pair(ctx, last, p.target)
	if err != nil || !landed.landed {
		return p, err
	}
	merge, err := mergeCommit(ctx, v.h.store, last, p.target)
	if err != nil {
		return nil, err
	}
	done := *r
	done.State, done.Head, done.MergeCommit = stateMerged, last.String(), merge
	p.pullRecord, p.head = &done, last
	v.settled = append(v.settled, settled{number: r.Number, head: done.Head, merge: merge})
	return p, nil
}

// mergeCommit finds how a head came into a branch: the commit on its first parents that is the head, or merged it.
func mergeCommit(ctx context.Context, r gitstore.Reader, head, target gitstore.Hash) (string, error) {
	found, steps := "", 0
	err := gitstore.FirstParents(ctx, r, target, func(c *gitstore.Commit) (bool, error) {
		if c.Hash == head || len(c.Parents) > 1 && slices.Contains(c.Parents[1:], head) {
			found = c.Hash.String()
		}
		steps++
		return found == "" && steps < 10_000, nil
	})
	return found, err
}

func (l *Local) observePull(ctx context.Context, v *view, s adapters.Subject) (adapters.Actual, json.RawMessage, error) {
	r := v.pullOf(s)
	if r == nil {
		return nil, nil, nil
	}
	return l.pullActual(ctx, v, r)
}

func (l *Local) pullActual(ctx context.Context, v *view, r *pullRecord) (adapters.Actual, json.RawMessage, error) {
	p, err := v.lookAt(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	a := &adapters.PullRequestActual{
		Number: p.Number, State: p.State, URL: fmt.Sprintf("%s#pull/%d", l.remoteURL(v.h.ref), p.Number),
		Title: p.Title, Description: p.Description, SourceBranch: p.Source, TargetBranch: p.Target,
		MergeCommit: p.MergeCommit, Reviewers: slices.Clone(p.Reviewers), ClosedBy: p.ClosedBy,
	}
	if !p.head.IsZero() {
		a.HeadCommit = p.head.String()
	}
	a.Checks = v.checks(p)
	a.Mergeable, a.Conflicts = v.mergeable(ctx, p)
	return a, writeHandle(pullHandle{Number: p.Number}), nil
}

// checks are the statuses of the head commit, and what is required and not there yet.
func (v *view) checks(p *pull) []adapters.Check {
	var out []adapters.Check
	for _, c := range p.Checks {
		if c.Head == p.head.String() {
			out = append(out, adapters.Check{Name: c.Name, Status: c.Status, URL: c.URL, Summary: c.Summary})
		}
	}
	if p.State != stateOpen {
		return out
	}
	rule, _ := v.set.rule(p.Target)
	for _, name := range rule.RequiredChecks {
		if !slices.ContainsFunc(out, func(c adapters.Check) bool { return c.Name == name }) {
			out = append(out, adapters.Check{Name: name, Status: "Pending"})
		}
	}
	return out
}

// mergeable is what a merge at this moment would come to. Not being able to tell is an answer too.
func (v *view) mergeable(ctx context.Context, p *pull) (string, []string) {
	if p.State != stateOpen || p.gone || p.target.IsZero() || p.pair.landed {
		return "no", nil
	}
	conflicts, err := v.h.conflicts(ctx, p.head, p.target)
	switch {
	case err != nil:
		return "unknown", nil
	case len(conflicts) > 0:
		return "no", conflicts
	}
	return "yes", nil
}

// pair is what is known of a head and a target, for ever: commits do not change.
type pair struct {
	landed    bool // the target holds the head
	forward   bool // the head holds the target: it can be fast-forwarded
	merged    bool // conflicts is known
	conflicts []string
}

// pairs remembers the last few hundred pairs that were looked at.
type pairs struct {
	mu   sync.Mutex
	seen map[[2]gitstore.Hash]pair
}

func (h *hosted) pair(ctx context.Context, head, target gitstore.Hash) (pair, error) {
	h.pairs.mu.Lock()
	p, ok := h.pairs.seen[[2]gitstore.Hash{head, target}]
	h.pairs.mu.Unlock()
	if ok {
		return p, nil
	}
	var err error
	if p.landed, err = gitstore.IsAncestor(ctx, h.store, head, target); err != nil {
		return p, err
	}
	if p.forward, err = gitstore.IsAncestor(ctx, h.store, target, head); err != nil {
		return p, err
	}
	h.keepPair(head, target, p)
	return p, nil
}

func (h *hosted) keepPair(head, target gitstore.Hash, p pair) {
	h.pairs.mu.Lock()
	defer h.pairs.mu.Unlock()
	if h.pairs.seen == nil || len(h.pairs.seen) > 500 {
		h.pairs.seen = map[[2]gitstore.Hash]pair{}
	}
	h.pairs.seen[[2]gitstore.Hash{head, target}] = p
}

// conflicts tries the merge, without keeping it.
func (h *hosted) conflicts(ctx context.Context, head, target gitstore.Hash) ([]string, error) {
	p, err := h.pair(ctx, head, target)
	if err != nil || p.merged || p.forward || p.landed {
		return p.conflicts, err
	}
	m, err := h.store.Merge(ctx, h.store.NewBatch(), target, head)
	if err != nil {
		return nil, err
	}
	p.merged, p.conflicts = true, m.Conflicts
	h.keepPair(head, target, p)
	return p.conflicts, nil
}

func (l *Local) applyPull(ctx context.Context, h *hosted, c adapters.Change, s *desired.PullRequestSpec) (adapters.Outcome, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.look()
	if err == nil {
		err = v.fit(c)
	}
	if err != nil {
		return adapters.Outcome{}, err
	}
	r := v.pullOf(c.Subject)
	if r == nil && c.Tag != "" {
		if i := slices.IndexFunc(v.set.Pulls, func(p *pullRecord) bool { return p.Tag == c.Tag }); i >= 0 {
			r = v.set.Pulls[i]
		}
	}
	switch {
	case c.Op == adapters.Create && r == nil:
		r, err = l.openPull(ctx, v, c, s)
	case c.Op == adapters.Remove && r == nil:
		return adapters.Outcome{Done: true}, nil
	case r == nil:
		err = refuse(c, desired.Stalled, "the pull request is missing at the host: remove the document and write a new one to open another")
	case c.Op == adapters.Create, c.Op == adapters.Restore, c.Op == adapters.Rename:
		err = l.modify(h, func(set *settings) error { set.pull(r.Number).Document = c.Ref.Name; return nil })
	case c.Op == adapters.Update:
		err = l.modify(h, func(set *settings) error { set.pull(r.Number).update(c, s, v.head); return nil })
	case c.Op == adapters.Merge:
		err = l.mergePull(ctx, v, c, s, r)
	case c.Op == adapters.Close, c.Op == adapters.Remove:
		err = l.closePull(ctx, v, c, r)
	default:
		err = refuse(c, desired.Invalid, "a pull request knows no %s", c.Op)
	}
	if err != nil {
		return adapters.Outcome{}, err
	}
	if v, err = h.look(); err != nil {
		return adapters.Outcome{}, err
	}
	actual, handle, err := l.pullActual(ctx, v, v.set.pull(r.Number))
	return adapters.Outcome{Done: true, Actual: actual, Handle: handle}, err
}

// openPull gives a pull request its number. Number, tag and all else are one write of host.json.
func (l *Local) openPull(ctx context.Context, v *view, c adapters.Change, s *desired.PullRequestSpec) (*pullRecord, error) {
	r := &pullRecord{
		Document: c.Ref.Name, Tag: c.Tag, State: stateOpen, Title: s.Title, Description: s.Description,
		Source: s.SourceBranch, Target: cmp.Or(s.TargetBranch, v.head), Reviewers: slices.Clone(s.Reviewers),
	}
	for _, name := range []string{r.Source, r.Target} {
		if v.branch(name).IsZero() {
			return nil, refuse(c, desired.Waiting, "branch %q does not exist yet", name)
		}
	}
	if r.Source == r.Target {
		return nil, refuse(c, desired.Invalid, "source and target are the same branch %q", r.Source)
	}
	for _, p := range v.set.Pulls {
		r.Number = max(r.Number, p.Number)
	}
	r.Number++
	// First what had to be merged is pinned, then the record: a pin without a record is overwritten by a repeat.
	if p, err := v.h.pair(ctx, v.branch(r.Source), v.branch(r.Target)); err != nil {
		return nil, err
	} else if !p.landed {
		v.pin(pullRef(r.Number), v.branch(r.Source))
		v.pin(keepRef(r.Source), v.branch(r.Source))
	}
	if len(v.pins) > 0 {
		b := v.h.store.NewBatch()
		for _, u := range v.pins {
			b.Set(u)
		}
		if err := l.write(ctx, v.h, b); err != nil {
			return nil, err
		}
	}
	return r, l.modify(v.h, func(set *settings) error {
		set.Pulls = append(set.Pulls, r)
		return nil
	})
}

// update brings fields to their wanted values; an ended pull request stays as it ended. Another target is another
// question: approvals and checks do not carry over.
func (r *pullRecord) update(c adapters.Change, s *desired.PullRequestSpec, defaultBranch string) {
	if r.State != stateOpen {
		return
	}
	if wants(c, "spec.title") {
		r.Title = s.Title
	}
	if wants(c, "spec.description") {
		r.Description = s.Description
	}
	for _, name := range s.Reviewers { // who was asked by others stays asked
		if wants(c, "spec.reviewers") && !slices.Contains(r.Reviewers, name) {
			r.Reviewers = append(r.Reviewers, name)
		}
	}
	if target := cmp.Or(s.TargetBranch, defaultBranch); wants(c, "spec.targetBranch") && target != r.Target {
		r.Target, r.Approvals, r.Checks = target, nil, nil
	}
}

func (l *Local) closePull(ctx context.Context, v *view, c adapters.Change, r *pullRecord) error {
	p, err := v.lookAt(ctx, r)
	if err != nil {
		return err
	}
	if p.State == stateMerged && c.Op == adapters.Close {
		return refuse(c, desired.Stalled, "pull request %d is merged already and cannot be closed: set spec.state to merged", p.Number)
	}
	return l.modify(v.h, func(set *settings) error {
		now := set.pull(p.Number)
		if now.State != stateOpen {
			return nil
		}
		now.State, now.ClosedBy = stateClosed, l.cfg.Committer.Name
		if p.State == stateMerged {
			now.State, now.MergeCommit, now.ClosedBy = stateMerged, p.MergeCommit, ""
		}
		if !p.head.IsZero() {
			now.Head = p.head.String()
		}
		return nil
	})
}

// PostCheck implements adapters.Checker: the check belongs to the head commit of this moment.
func (l *Local) PostCheck(ctx context.Context, pr adapters.Subject, c adapters.Check) error {
	const op = "post check"
	if err := ended(ctx, op, pr.Ref); err != nil {
		return err
	}
	if pr.Ref.Kind != desired.KindPullRequest {
		return desired.Errorf(op, pr.Ref, desired.Invalid, "a %s has no checks", pr.Ref.Kind)
	}
	home, err := homeOf(pr, op)
	if err != nil {
		return err
	}
	h, release, err := l.use(ctx, home)
	if errors.Is(err, errMissing) {
		return desired.Errorf(op, pr.Ref, desired.NotFound, "its repository %s is missing", home.Name)
	}
	if err != nil {
		return classify(op, pr.Ref, err)
	}
	defer release()
	h.mu.Lock()
	defer h.mu.Unlock()
	return classify(op, pr.Ref, l.post(ctx, h, pr, c))
}

func (l *Local) post(ctx context.Context, h *hosted, pr adapters.Subject, c adapters.Check) error {
	const op = "post check"
	if strings.TrimSpace(c.Name) == "" || !slices.Contains([]string{"Pending", "Running", "Succeeded", "Failed"}, c.Status) {
		return desired.Errorf(op, pr.Ref, desired.Invalid, "a check has a name and one of the states Pending, Running, Succeeded, Failed")
	}
	v, err := h.look()
	if err != nil {
		return err
	}
	r := v.pullOf(pr)
	if r == nil {
		return desired.Errorf(op, pr.Ref, desired.NotFound, "the pull request is missing at the host")
	}
	p, err := v.lookAt(ctx, r)
	if err != nil {
		return err
	}
	if p.head.IsZero() {
		return desired.Errorf(op, pr.Ref, desired.Conflict, "pull request %d has no head commit to post a check for", p.Number)
	}
	record := checkRecord{Name: c.Name, Status: c.Status, URL: c.URL, Summary: c.Summary, Head: p.head.String()}
	return l.modify(h, func(set *settings) error {
		now := set.pull(p.Number)
		now.Checks = slices.DeleteFunc(now.Checks, func(x checkRecord) bool { return x.Head != record.Head })
		if i := slices.IndexFunc(now.Checks, func(x checkRecord) bool { return x.Name == c.Name }); i >= 0 {
			now.Checks[i] = record
			return nil
		}
		now.Checks = append(now.Checks, record)
		return nil
	})
}

// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// mergePull merges once: the merge commit carries the change's trailer, and a fast-forward is found by its head
// being in the target. Order: target branch, record, source branch; a repeat goes on where a crash stopped.
func (l *Local) mergePull(ctx context.Context, v *view, c adapters.Change, s *desired.PullRequestSpec, r *pullRecord) error {
	p, err := v.lookAt(ctx, r)
	if err != nil {
		return err
	}
	head, merge := p.head, p.MergeCommit
	switch p.State {
	case stateClosed:
		return refuse(c, desired.Stalled, "pull request %d is closed and cannot be merged: write a new PullRequest document to open another", p.Number)
	case stateOpen:
		made, err := v.find(ctx, c.Tag)
		if err != nil {
			return err
		}
		if made.IsZero() {
			made, err = l.land(ctx, v, c, s, p)
		} else {
			head = cmp.Or(v.ref(pullRef(p.Number)), head)
		}
		if err != nil {
			return err
		}
		merge = made.String()
	}
	err = l.modify(v.h, func(set *settings) error {
		if now := set.pull(p.Number); now.State == stateOpen {
			now.State, now.MergeCommit, now.Head = stateMerged, merge, head.String()
		}
		return nil
	})
	if err != nil || !s.DeleteSourceBranch {
		return err
	}
	if now := v.branch(p.Source); now != head || v.undeletable(p.Source) != "" {
		return nil // gone, moved on, or protected: nothing may be lost
	}
	return l.deleteBranch(ctx, v, p.Source, head)
}

// land makes the merge and moves the target branch.
func (l *Local) land(ctx context.Context, v *view, c adapters.Change, s *desired.PullRequestSpec, p *pull) (gitstore.Hash, error) {
	if err := checkTag(c); err != nil {
		return gitstore.Zero, err
	}
	if err := v.blocked(ctx, c, p); err != nil {
		return gitstore.Zero, err
	}
	b := v.h.store.NewBatch()
	made, err := l.mergeInto(ctx, v, b, c, s, p)
	if err != nil {
		return made, err
	}
	b.Set(gitstore.RefUpdate{Name: heads + p.Target, Old: p.target, New: made})
	b.Set(gitstore.RefUpdate{Name: keepRef(p.Target), Old: v.ref(keepRef(p.Target)), New: made})
	for _, u := range v.pins { // of the head that is merged, in the same write
		if u.Name != keepRef(p.Target) {
			b.Set(u)
		}
	}
	v.pins = nil
	return made, l.write(ctx, v.h, b)
}

// mergeInto adds the commit that the target becomes to a batch.
func (l *Local) mergeInto(ctx context.Context, v *view, b *gitstore.Batch, c adapters.Change, s *desired.PullRequestSpec, p *pull) (gitstore.Hash, error) {
	parents := []gitstore.Hash{p.target, p.head}
	switch s.MergeStrategy {
	case "", "merge":
	case "squash":
		parents = parents[:1]
	case "fast-forward":
		if !p.pair.forward {
			return gitstore.Zero, refuse(c, desired.Stalled, "branch %q cannot be fast-forwarded to pull request %d: bring %q up to date first, or choose another mergeStrategy", p.Target, p.Number, p.Source)
		}
		return p.head, nil
	default:
		return gitstore.Zero, refuse(c, desired.Invalid, "mergeStrategy must be merge, squash or fast-forward")
	}
	tree, err := v.mergedTree(ctx, b, c, p)
	if err != nil {
		return gitstore.Zero, err
	}
	who := c.Author
	if who.Name == "" {
		who = l.cfg.Committer
	}
	message := cmp.Or(s.MergeMessage, fmt.Sprintf("Merge pull request %d: %s", p.Number, p.Title))
	return b.AddCommit(&gitstore.Commit{
		Tree: tree, Parents: parents, Author: l.sign(who), Committer: l.sign(l.cfg.Committer),
		Message: withTrailer(message, c.Tag),
	}, nil), nil
}

func (v *view) mergedTree(ctx context.Context, b *gitstore.Batch, c adapters.Change, p *pull) (gitstore.Hash, error) {
	if p.pair.forward {
		head, err := v.h.store.Commit(p.head)
		if err != nil {
			return gitstore.Zero, err
		}
		return head.Tree, nil
	}
	m, err := v.h.store.Merge(ctx, b, p.target, p.head)
	if err != nil {
		return gitstore.Zero, err
	}
	if len(m.Conflicts) > 0 {
		return gitstore.Zero, conflicting(c, p, m.Conflicts)
	}
	return m.Tree, nil
}

func conflicting(c adapters.Change, p *pull, paths []string) error {
	return refuse(c, desired.Stalled, "pull request %d conflicts with %q in %s: merge %q into %q and resolve them", p.Number, p.Target, strings.Join(paths, ", "), p.Target, p.Source)
}

// blocked says what keeps a pull request from being merged: what is Waiting comes by itself or by others, for what
// is Stalled a person has to change something.
func (v *view) blocked(ctx context.Context, c adapters.Change, p *pull) error {
	if p.gone {
		return refuse(c, desired.Stalled, "the source branch %q of pull request %d is gone: bring it back, or close the pull request", p.Source, p.Number)
	}
	if p.target.IsZero() {
		return refuse(c, desired.Stalled, "the target branch %q of pull request %d is gone", p.Target, p.Number)
	}
	if p.pair.landed {
		return refuse(c, desired.Waiting, "pull request %d has nothing to merge: %q holds all of %q", p.Number, p.Target, p.Source)
	}
	conflicts, err := v.h.conflicts(ctx, p.head, p.target)
	if err != nil {
		return err
	}
	if len(conflicts) > 0 {
		return conflicting(c, p, conflicts)
	}
	rule, _ := v.set.rule(p.Target)
	for _, check := range v.checks(p) {
		switch {
		case !slices.Contains(rule.RequiredChecks, check.Name) || check.Status == "Succeeded":
		case check.Status == "Failed":
			return refuse(c, desired.Stalled, "check %q of pull request %d failed at %s: push a commit that passes it, or post it again", check.Name, p.Number, p.head)
		default:
			return refuse(c, desired.Waiting, "check %q of pull request %d has not succeeded yet", check.Name, p.Number)
		}
	}
	by := map[string]bool{}
	for _, a := range p.Approvals {
		if a.Head == p.head.String() && a.By != "" {
			by[a.By] = true
		}
	}
	if len(by) < rule.RequiredApprovals {
		return refuse(c, desired.Waiting, "pull request %d has %d of %d approvals of %s", p.Number, len(by), rule.RequiredApprovals, p.head)
	}
	return nil
}

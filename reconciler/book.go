// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"encoding/json"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// summary is what other refs need to know of one: its standing, and where it is. It is never changed, only replaced.
type summary struct {
	digest     string // of the document whose state is recorded
	phase      plan.Phase
	reason     string
	desiredSeq uint64
	appliedSeq uint64

	applied   bool
	terminal  bool
	policy    desired.DeletionPolicy
	provider  string
	handle    json.RawMessage
	appliedAt time.Time
	endedAt   time.Time
	repo      string // spec.repository, of what is inside one
}

// place is a branch of a repository, as documents name it.
type place struct {
	repo   desired.Ref
	branch string
}

// kin is what documents say about one branch.
type kin struct {
	branches map[desired.Ref]bool
	pulls    map[desired.Ref]bool // whose source it is
	commits  map[desired.Ref]bool // those that have not ended
}

// book is what a tenant remembers of all its refs. It is derived: from the store when it is opened, from heads as they
// are loaded, and from what is written. Guarded by tenant.mu.
type book struct {
	refs   map[desired.Ref]*summary
	kins   map[place]*kin
	repos  map[desired.Ref]map[string]bool // branches with kin, by repository
	where  map[desired.Ref]place           // the reverse of kins
	former map[desired.Ref]desired.Ref     // metadata.formerName -> who bears it
	bears  map[desired.Ref]desired.Ref     // the reverse of former
	gone   map[desired.Ref]bool            // recorded, and the document is gone
}

func newBook() book {
	return book{
		refs: map[desired.Ref]*summary{}, kins: map[place]*kin{}, repos: map[desired.Ref]map[string]bool{},
		where: map[desired.Ref]place{}, former: map[desired.Ref]desired.Ref{}, bears: map[desired.Ref]desired.Ref{}, gone: map[desired.Ref]bool{},
	}
}

// open reads what is recorded of a tenant.
func (b *book) open(ctx context.Context, s state.Store, tenant string) error {
	states, _, err := state.LoadStates(ctx, s, tenant)
	if err != nil {
		return err
	}
	records, _, err := state.LoadApplied(ctx, s, tenant)
	if err != nil {
		return err
	}
	for _, v := range states {
		b.note(&v, nil)
	}
	for _, a := range records {
		var v *state.SyncState
		if st, ok := states[a.Ref.ID()]; ok {
			v = &st
		} else {
			v = &state.SyncState{Ref: a.Ref}
		}
		b.note(v, &a)
	}
	return nil
}

// note takes over what is recorded of a ref now.
func (b *book) note(s *state.SyncState, a *plan.Applied) {
	n := &summary{digest: s.Digest, phase: s.Phase, reason: s.Reason, desiredSeq: s.DesiredSeq, appliedSeq: s.AppliedSeq}
	if a != nil {
		n.applied, n.terminal, n.policy, n.provider = true, a.Terminal, a.DeletionPolicy, a.Provider
		n.handle, n.appliedAt, n.endedAt = a.Handle, a.At, a.EndedAt
		n.repo, _ = repositoryOf(a.Ref.Kind, a.Spec)
	}
	b.refs[s.Ref] = n
	if n.ended() {
		if k := b.kins[b.where[s.Ref]]; k != nil {
			delete(k.commits, s.Ref)
		}
	}
}

// loaded takes over the standing that the loader wrote, keeping what is known of the applied object.
func (b *book) loaded(s *state.SyncState) {
	n := summary{}
	if old := b.refs[s.Ref]; old != nil {
		n = *old
	}
	n.digest, n.phase, n.reason, n.desiredSeq, n.appliedSeq = s.Digest, s.Phase, s.Reason, s.DesiredSeq, s.AppliedSeq
	b.refs[s.Ref] = &n
}

// ended reports whether a one-shot has come to its end.
func (n *summary) ended() bool { return n != nil && (n.applied || n.phase == plan.Failed) }

func (b *book) forget(ref desired.Ref) {
	delete(b.refs, ref)
	delete(b.gone, ref)
}

// enter indexes a document. leave removes it from the indexes.
func (b *book) enter(e *desired.Entry) {
	b.leave(e.Ref)
	delete(b.gone, e.Ref)
	if f := e.Resource.Metadata.FormerName; f != "" && f != e.Ref.Name {
		old := e.Ref
		old.Name = f
		b.former[old], b.bears[e.Ref] = e.Ref, old
	}
	p, ok := placeOf(e)
	if !ok {
		return
	}
	k := b.kins[p]
	if k == nil {
		k = &kin{branches: map[desired.Ref]bool{}, pulls: map[desired.Ref]bool{}, commits: map[desired.Ref]bool{}}
		b.kins[p] = k
		if b.repos[p.repo] == nil {
			b.repos[p.repo] = map[string]bool{}
		}
		b.repos[p.repo][p.branch] = true
	}
	b.where[e.Ref] = p
	switch e.Ref.Kind {
	case desired.KindBranch:
		k.branches[e.Ref] = true
	case desired.KindPullRequest:
		k.pulls[e.Ref] = true
	case desired.KindCommit:
		if !b.refs[e.Ref].ended() {
			k.commits[e.Ref] = true
		}
	}
}

func (b *book) leave(ref desired.Ref) {
	if old, ok := b.bears[ref]; ok {
		delete(b.bears, ref)
		delete(b.former, old)
	}
	p, ok := b.where[ref]
	if !ok {
		return
	}
	delete(b.where, ref)
	k := b.kins[p]
	delete(k.branches, ref)
	delete(k.pulls, ref)
	delete(k.commits, ref)
	if len(k.branches)+len(k.pulls)+len(k.commits) == 0 {
		delete(b.kins, p)
		delete(b.repos[p.repo], p.branch)
		if len(b.repos[p.repo]) == 0 {
			delete(b.repos, p.repo)
		}
	}
}

// inside lists what is at work in a repository.
func (b *book) inside(repo desired.Ref) []desired.Ref {
	var out []desired.Ref
	for branch := range b.repos[repo] {
		k := b.kins[place{repo, branch}]
		for _, set := range []map[desired.Ref]bool{k.branches, k.pulls, k.commits} {
			for r := range set {
				if n := b.refs[r]; n == nil || !n.terminal {
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// placeOf is the branch that a document is about.
func placeOf(e *desired.Entry) (place, bool) {
	var repo, branch string
	switch s := e.Resource.Spec.(type) {
	case *desired.BranchSpec:
		repo, branch = s.Repository, s.Name
	case *desired.CommitSpec:
		repo, branch = s.Repository, s.Branch
	case *desired.PullRequestSpec:
		repo, branch = s.Repository, s.SourceBranch
	default:
		return place{}, false
	}
	return place{e.Ref.Sibling(desired.KindRepository, repo), branch}, true
}

// repositoryOf reads which repository a recorded spec is inside.
func repositoryOf(k desired.Kind, spec json.RawMessage) (string, bool) {
	if k == desired.KindRepository || len(spec) == 0 {
		return "", false
	}
	var in struct {
		Repository string `json:"repository"`
	}
	err := json.Unmarshal(spec, &in)
	return in.Repository, err == nil && in.Repository != ""
}

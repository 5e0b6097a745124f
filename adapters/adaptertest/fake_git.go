// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// commit is a commit of the model: a whole tree by path. Immutable.
type commit struct {
	id      string
	parents []string
	files   map[string]string
	author  desired.Person
	message string
}

// repo is a repository of the model. Commits are shared by all repositories, as ids do not collide.
type repo struct {
	adapters.RepositoryActual
	branches map[string]string // name -> head
	from     map[string]string // branch -> where it was created
	keep     map[string]string // branch -> last head seen
	changes  map[string]string // tag -> commit
	pulls    []*pull
	approved map[int64]int
}

// pull is a pull request of the model.
type pull struct {
	adapters.PullRequestActual
	name, tag string
	checked   string // head that Checks belong to
	bare      bool   // nothing to merge when it was opened
}

func (r *repo) clone() *repo {
	if r == nil {
		return nil
	}
	c := *r
	c.branches, c.from, c.keep, c.changes = maps.Clone(r.branches), maps.Clone(r.from), maps.Clone(r.keep), maps.Clone(r.changes)
	c.approved = maps.Clone(r.approved)
	c.pulls = nil
	for _, p := range r.pulls {
		q := *p
		q.Checks, q.Reviewers = slices.Clone(p.Checks), slices.Clone(p.Reviewers)
		c.pulls = append(c.pulls, &q)
	}
	return &c
}

// rule combines the protections of a branch, the strictest first.
func (r *repo) rule(branch string) (desired.BranchProtection, bool) {
	all := desired.BranchProtection{AllowForcePush: true, AllowDeletion: true}
	found := false
	for _, p := range r.Protection {
		if prefix, glob := strings.CutSuffix(p.Pattern, "*"); p.Pattern != branch && !(glob && strings.HasPrefix(branch, prefix)) {
			continue
		}
		found = true
		all.RequirePull = all.RequirePull || p.RequirePull
		all.RequiredChecks = append(all.RequiredChecks, p.RequiredChecks...)
		all.RequiredApprovals = max(all.RequiredApprovals, p.RequiredApprovals)
		all.AllowForcePush = all.AllowForcePush && p.AllowForcePush
		all.AllowDeletion = all.AllowDeletion && p.AllowDeletion
	}
	return all, found
}

func (f *Fake) newCommit(parents []string, files map[string]string, author desired.Person, message string) string {
	f.stamp++
	sum := sha1.Sum(fmt.Appendf(nil, "%d\x00%v\x00%v\x00%s", f.stamp, parents, files, message))
	c := &commit{id: hex.EncodeToString(sum[:]), parents: parents, files: files, author: author, message: message}
	f.commits[c.id] = c
	return c.id
}

// reach is the set of commits reachable from a head.
func (f *Fake) reach(head string) map[string]bool {
	seen := map[string]bool{}
	for todo := []string{head}; len(todo) > 0; todo = todo[1:] {
		if c := f.commits[todo[0]]; c != nil && !seen[c.id] {
			seen[c.id] = true
			todo = append(todo, c.parents...)
		}
	}
	return seen
}

// base is a commit that both heads reach and that reaches every other such commit, "" when there is none.
func (f *Fake) base(a, b string) string {
	ra, best, size := f.reach(a), "", -1
	for id := range f.reach(b) {
		if ra[id] && len(f.reach(id)) > size {
			best, size = id, len(f.reach(id))
		}
	}
	return best
}

// merge is a three-way merge by whole files.
func (f *Fake) merge(ours, theirs string) (files map[string]string, conflicts []string) {
	var old map[string]string
	if b := f.base(ours, theirs); b != "" {
		old = f.commits[b].files
	}
	a, b := f.commits[ours].files, f.commits[theirs].files
	files = maps.Clone(a)
	for _, path := range slices.Sorted(maps.Keys(union(a, b, old))) {
		o, hadO := old[path]
		x, hasA := a[path]
		y, hasB := b[path]
		switch {
		case x == y && hasA == hasB, o == y && hadO == hasB:
		case o == x && hadO == hasA && hasB:
			files[path] = y
		case o == x && hadO == hasA:
			delete(files, path)
		default:
			conflicts = append(conflicts, path)
		}
	}
	return files, conflicts
}

func union(ms ...map[string]string) map[string]string {
	u := map[string]string{}
	for _, m := range ms {
		maps.Copy(u, m)
	}
	return u
}

// observe answers for one subject. mu is held.
func (f *Fake) observe(s adapters.Subject, stale bool) adapters.Observation {
	home := s.Ref
	if s.Parent != nil {
		home = s.Parent.Ref
	}
	if err := f.broken[home]; err != nil {
		return unknown(err)
	}
	r := f.repos[home]
	if lag, ok := f.lagging[home]; stale && ok {
		r = lag
	}
	if r == nil && s.Ref.Kind == desired.KindRepository {
		return adapters.Observation{Presence: adapters.Absent}
	}
	if r == nil {
		return unknown(desired.Errorf("observe", s.Ref, desired.Waiting, "its repository %s is missing", home.Name))
	}
	var actual adapters.Actual
	var h json.RawMessage
	switch spec := s.Spec.(type) {
	case *desired.RepositorySpec:
		actual = r.actual()
	case *desired.BranchSpec:
		actual, h = f.observeBranch(r, spec, s.Handle)
	case *desired.CommitSpec:
		actual, h = f.observeCommit(spec, s.Handle)
	case *desired.PullRequestSpec:
		actual, h = f.observePull(r, s)
	default:
		return unknown(desired.Errorf("observe", s.Ref, desired.Invalid, "this driver has no %s", s.Ref.Kind))
	}
	if actual == nil {
		return adapters.Observation{Presence: adapters.Absent}
	}
	return adapters.Observation{Presence: adapters.Known, Actual: actual, Handle: h}
}

func (r *repo) actual() *adapters.RepositoryActual {
	a := r.RepositoryActual
	a.Protection = slices.Clone(a.Protection)
	a.Empty = len(r.branches) == 0
	return &a
}

type branchHandle struct {
	Head string `json:"head"`
	From string `json:"from,omitempty"`
}

type commitHandle struct {
	SHA string `json:"sha"`
}

type pullHandle struct {
	Number int64 `json:"number"`
}

func (f *Fake) observeBranch(r *repo, s *desired.BranchSpec, h json.RawMessage) (adapters.Actual, json.RawMessage) {
	head, ok := r.branches[s.Name]
	if !ok {
		return nil, nil
	}
	r.keep[s.Name] = head
	last := branchHandle{From: r.from[s.Name]}
	if last.From == "" && h != nil {
		_ = json.Unmarshal(h, &last)
	}
	last.Head = head
	return &adapters.BranchActual{Name: s.Name, Head: head, FromCommit: last.From}, handle(last)
}

func (f *Fake) observeCommit(s *desired.CommitSpec, h json.RawMessage) (adapters.Actual, json.RawMessage) {
	var done commitHandle
	if h == nil || json.Unmarshal(h, &done) != nil || f.commits[done.SHA] == nil {
		return nil, nil
	}
	return &adapters.CommitActual{SHA: done.SHA, Branch: s.Branch}, h
}

func (f *Fake) observePull(r *repo, s adapters.Subject) (adapters.Actual, json.RawMessage) {
	p := r.pull(s)
	if p == nil {
		return nil, nil
	}
	f.settle(r, p)
	a := p.PullRequestActual
	a.Checks, a.Reviewers = slices.Clone(p.Checks), slices.Clone(p.Reviewers)
	if p.checked != p.HeadCommit {
		a.Checks = nil
	}
	if a.State == "open" {
		rule, _ := r.rule(p.TargetBranch)
		for _, name := range rule.RequiredChecks {
			if !slices.ContainsFunc(a.Checks, func(c adapters.Check) bool { return c.Name == name }) {
				a.Checks = append(a.Checks, adapters.Check{Name: name, Status: "Pending"})
			}
		}
	}
	a.Mergeable, a.Conflicts = f.mergeable(r, p)
	return &a, handle(pullHandle{Number: p.Number})
}

// pull finds the pull request of a subject by number, else by the document it was opened for.
func (r *repo) pull(s adapters.Subject) *pull {
	var h pullHandle
	if s.Handle != nil {
		_ = json.Unmarshal(s.Handle, &h)
	}
	for _, p := range r.pulls {
		if h.Number == p.Number || h.Number == 0 && p.name == s.Ref.Name {
			return p
		}
	}
	return nil
}

// settle follows the source branch and notices a merge that was made by hand.
func (f *Fake) settle(r *repo, p *pull) {
	if p.State != "open" {
		return
	}
	last := p.HeadCommit
	if head, ok := r.branches[p.SourceBranch]; ok {
		p.HeadCommit = head
	}
	landed := f.reach(r.branches[p.TargetBranch])
	if landed[p.HeadCommit] && landed[last] && !(p.bare && p.HeadCommit == last) {
		p.State, p.MergeCommit, p.ClosedBy = "merged", r.branches[p.TargetBranch], ""
	}
	if !landed[p.HeadCommit] {
		p.bare = false
	}
}

func (f *Fake) mergeable(r *repo, p *pull) (string, []string) {
	target := r.branches[p.TargetBranch]
	if _, ok := r.branches[p.SourceBranch]; !ok || target == "" || p.State != "open" || f.reach(target)[p.HeadCommit] {
		return "no", nil
	}
	if _, conflicts := f.merge(target, p.HeadCommit); len(conflicts) > 0 {
		return "no", conflicts
	}
	return "yes", nil
}

func (f *Fake) list(kind desired.Kind, p adapters.Provider, parent *adapters.Subject, stale bool) ([]adapters.Listed, error) {
	var out []adapters.Listed
	if kind == desired.KindRepository {
		for ref := range f.repos {
			if p.Ref.Tenant == "" || p.Ref.Tenant == ref.Tenant {
				out = append(out, adapters.Listed{Name: ref.Tenant + "/" + ref.Project + "/" + ref.Name})
			}
		}
		slices.SortFunc(out, func(a, b adapters.Listed) int { return strings.Compare(a.Name, b.Name) })
		return out, nil
	}
	if parent == nil || kind != desired.KindBranch && kind != desired.KindPullRequest {
		return nil, desired.Errorf("list", desired.Ref{}, desired.Invalid, "branches and pull requests of a repository can be listed, a %s cannot", kind)
	}
	if err := f.broken[parent.Ref]; err != nil {
		return nil, err
	}
	r := f.repos[parent.Ref]
	if lag, ok := f.lagging[parent.Ref]; stale && ok {
		r = lag
	}
	if r == nil {
		return nil, desired.Errorf("list", parent.Ref, desired.NotFound, "the repository is missing")
	}
	if kind == desired.KindBranch {
		for _, name := range slices.Sorted(maps.Keys(r.branches)) {
			out = append(out, adapters.Listed{Name: name, Handle: handle(branchHandle{Head: r.branches[name], From: r.from[name]})})
		}
		return out, nil
	}
	for _, p := range r.pulls {
		out = append(out, adapters.Listed{Name: fmt.Sprint(p.Number), Handle: handle(pullHandle{Number: p.Number})})
	}
	return out, nil
}

// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func done(actual adapters.Actual, h json.RawMessage) (adapters.Outcome, error) {
	return adapters.Outcome{Done: true, Actual: actual, Handle: h}, nil
}

func (f *Fake) applyRepository(c adapters.Change, s *desired.RepositorySpec) (adapters.Outcome, error) {
	r := f.repos[c.Ref]
	switch c.Op {
	case adapters.Create:
		if r == nil {
			r = f.newRepo(c.Ref, s)
			f.repos[c.Ref] = r
		}
	case adapters.Restore:
		if r == nil {
			if r = f.trash[c.Ref]; r == nil {
				return adapters.Outcome{}, refuse(c, desired.Stalled, "nothing of it is left to restore: create it again if that is wanted")
			}
			f.repos[c.Ref] = r
		}
	case adapters.Remove:
		if r != nil {
			f.trash[c.Ref] = r
			delete(f.repos, c.Ref)
		}
		return done(nil, nil)
	case adapters.Rename:
		former := f.repos[c.Former]
		switch {
		case former != nil && r != nil:
			return adapters.Outcome{}, refuse(c, desired.Stalled, "both %s and %s exist: remove or rename one of them", c.Former.Name, c.Ref.Name)
		case former == nil && r == nil:
			return adapters.Outcome{}, refuse(c, desired.Stalled, "the repository %s to rename is missing", c.Former.Name)
		case r == nil:
			r = former
			r.RemoteURL = remoteURL(c.Ref)
			f.repos[c.Ref] = r
			delete(f.repos, c.Former)
		}
	case adapters.Update:
		if r == nil {
			return adapters.Outcome{}, refuse(c, desired.Waiting, "the repository is missing")
		}
		if err := f.updateRepository(r, c, s); err != nil {
			return adapters.Outcome{}, err
		}
	default:
		return adapters.Outcome{}, refuse(c, desired.Invalid, "a repository knows no %s", c.Op)
	}
	return done(r.actual(), nil)
}

func remoteURL(ref desired.Ref) string {
	return "https://fake.example/" + ref.Tenant + "/" + ref.Project + "/" + ref.Name + ".git"
}

func (f *Fake) newRepo(ref desired.Ref, s *desired.RepositorySpec) *repo {
	r := &repo{branches: map[string]string{}, from: map[string]string{}, keep: map[string]string{}, changes: map[string]string{}, approved: map[int64]int{}}
	r.RepositoryActual = adapters.RepositoryActual{
		RemoteURL: remoteURL(ref), DefaultBranch: orElse(s.DefaultBranch, "main"),
		Visibility: orElse(s.Visibility, "private"), Description: s.Description, Archived: s.Archived, Protection: byPattern(s.Protection),
	}
	r.branches[r.DefaultBranch] = f.newCommit(nil, map[string]string{"README.md": "# " + ref.Name + "\n"}, desired.Person{Name: "Plumbline"}, "Initial commit")
	return r
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func byPattern(p []desired.BranchProtection) []desired.BranchProtection {
	p = slices.Clone(p)
	slices.SortFunc(p, func(a, b desired.BranchProtection) int { return strings.Compare(a.Pattern, b.Pattern) })
	return p
}

func wants(c adapters.Change, field string) bool {
	return len(c.Fields) == 0 || slices.Contains(c.Fields, field)
}

func (f *Fake) updateRepository(r *repo, c adapters.Change, s *desired.RepositorySpec) error {
	if want := orElse(s.DefaultBranch, "main"); wants(c, "spec.defaultBranch") && want != r.DefaultBranch {
		if _, ok := r.branches[want]; !ok && len(r.branches) > 0 {
			return refuse(c, desired.Waiting, "branch %q does not exist yet, so it cannot be the default branch", want)
		}
		r.DefaultBranch = want
	}
	if wants(c, "spec.visibility") {
		r.Visibility = orElse(s.Visibility, "private")
	}
	if wants(c, "spec.description") {
		r.Description = s.Description
	}
	if wants(c, "spec.archived") {
		r.Archived = s.Archived
	}
	if wants(c, "spec.protection") {
		r.Protection = byPattern(s.Protection)
	}
	return nil
}

// home finds the repository of a child and refuses changes of archived ones.
func (f *Fake) home(c adapters.Change) (*repo, error) {
	if c.Parent == nil {
		return nil, refuse(c, desired.Invalid, "no repository was given")
	}
	r := f.repos[c.Parent.Ref]
	switch {
	case r == nil:
		return nil, refuse(c, desired.Waiting, "its repository %s is missing", c.Parent.Ref.Name)
	case r.Archived && c.Op != adapters.Rename:
		return nil, refuse(c, desired.Denied, "repository %s is archived: set spec.archived to false first", c.Parent.Ref.Name)
	}
	return r, nil
}

func (f *Fake) applyBranch(c adapters.Change, s *desired.BranchSpec) (adapters.Outcome, error) {
	r, err := f.home(c)
	if err != nil {
		return adapters.Outcome{}, err
	}
	head, exists := r.branches[s.Name]
	rule, protected := r.rule(s.Name)
	switch c.Op {
	case adapters.Create:
		if !exists {
			if head, err = f.startOf(r, c, s); err == nil {
				r.branches[s.Name], r.from[s.Name] = head, head
			}
		}
	case adapters.Restore:
		if !exists {
			if head = r.lastHead(s.Name, c.Handle); f.commits[head] == nil {
				return adapters.Outcome{}, refuse(c, desired.Stalled, "no record says where branch %q was: create it at a commit you know", s.Name)
			}
			r.branches[s.Name] = head
		}
	case adapters.Update:
		switch {
		case s.Commit == "" || head == s.Commit:
		case f.commits[s.Commit] == nil:
			err = refuse(c, desired.Waiting, "commit %s is not in the repository yet", s.Commit)
		case protected && rule.RequirePull:
			err = refuse(c, desired.Denied, "branch %q takes changes by pull request only", s.Name)
		case exists && !f.reach(s.Commit)[head] && !(protected && rule.AllowForcePush):
			err = refuse(c, desired.Stalled, "moving branch %q to %s would lose commits", s.Name, s.Commit)
		default:
			r.branches[s.Name] = s.Commit
		}
	case adapters.Remove:
		if exists && (s.Name == r.DefaultBranch || protected && !rule.AllowDeletion) {
			return adapters.Outcome{}, refuse(c, desired.Denied, "branch %q is protected against deletion", s.Name)
		}
		if exists {
			r.keep[s.Name] = head
			delete(r.branches, s.Name)
		}
		return done(nil, nil)
	case adapters.Rename:
	default:
		err = refuse(c, desired.Invalid, "a branch knows no %s", c.Op)
	}
	if err != nil {
		return adapters.Outcome{}, err
	}
	return done(f.observeBranch(r, s, c.Handle))
}

func (r *repo) lastHead(branch string, h json.RawMessage) string {
	if kept := r.keep[branch]; kept != "" {
		return kept
	}
	var last branchHandle
	if h != nil {
		_ = json.Unmarshal(h, &last)
	}
	return last.Head
}

func (f *Fake) startOf(r *repo, c adapters.Change, s *desired.BranchSpec) (string, error) {
	start := s.FromCommit
	if start == "" {
		start = s.Commit
	}
	if start != "" {
		if f.commits[start] == nil {
			return "", refuse(c, desired.Waiting, "commit %s is not in the repository yet", start)
		}
		return start, nil
	}
	from := orElse(s.FromBranch, r.DefaultBranch)
	head, ok := r.branches[from]
	if !ok {
		return "", refuse(c, desired.Waiting, "branch %q, where it starts, does not exist yet", from)
	}
	return head, nil
}

func (f *Fake) applyCommit(c adapters.Change, s *desired.CommitSpec, content map[string]string) (adapters.Outcome, error) {
	if c.Op == adapters.Rename || c.Op == adapters.Remove { // history is not rewritten
		return done(nil, nil)
	}
	if c.Op != adapters.Run {
		return adapters.Outcome{}, refuse(c, desired.Invalid, "a commit knows no %s", c.Op)
	}
	r, err := f.home(c)
	if err != nil {
		return adapters.Outcome{}, err
	}
	id, ran := r.changes[c.Tag]
	if !ran {
		if id, err = f.author(r, c, s, content); err != nil {
			return adapters.Outcome{}, err
		}
	}
	return done(&adapters.CommitActual{SHA: id, Branch: s.Branch}, handle(commitHandle{SHA: id}))
}

func (f *Fake) author(r *repo, c adapters.Change, s *desired.CommitSpec, content map[string]string) (string, error) {
	head, ok := r.branches[s.Branch]
	if !ok {
		return "", refuse(c, desired.Waiting, "branch %q does not exist yet", s.Branch)
	}
	if rule, protected := r.rule(s.Branch); protected && rule.RequirePull {
		return "", refuse(c, desired.Denied, "branch %q takes changes by pull request only: commit to another branch and open a pull request", s.Branch)
	}
	files := maps.Clone(f.commits[head].files)
	for _, ch := range s.Changes {
		if err := edit(files, ch, content, c); err != nil {
			return "", err
		}
	}
	if maps.Equal(files, f.commits[head].files) {
		return head, nil
	}
	who := c.Author
	if s.Author != nil {
		who = *s.Author
	}
	id := f.newCommit([]string{head}, files, who, s.Message+"\n\nPlumbline-Change: "+c.Tag+"\n")
	r.branches[s.Branch], r.keep[s.Branch], r.changes[c.Tag] = id, id, id
	return id, nil
}

func edit(files map[string]string, ch desired.FileChange, content map[string]string, c adapters.Change) error {
	data, given := content[ch.Digest+" "+ch.Path]
	old, exists := files[ch.Path]
	switch ch.Operation {
	case "add":
		if exists && old != data {
			return refuse(c, desired.Invalid, "%s exists with other content: use modify", ch.Path)
		}
		files[ch.Path] = data
	case "modify":
		files[ch.Path] = data
	case "delete":
		if !exists {
			return refuse(c, desired.Invalid, "%s is not there, so it cannot be deleted", ch.Path)
		}
		delete(files, ch.Path)
	case "rename":
		moved, ok := files[ch.From]
		if !ok {
			return refuse(c, desired.Invalid, "%s is not there, so it cannot be renamed", ch.From)
		}
		if exists {
			return refuse(c, desired.Invalid, "%s exists already", ch.Path)
		}
		if given {
			moved = data
		}
		delete(files, ch.From)
		files[ch.Path] = moved
	default:
		return refuse(c, desired.Invalid, "unknown operation on %s", ch.Path)
	}
	return nil
}

func (f *Fake) applyPull(c adapters.Change, s *desired.PullRequestSpec) (adapters.Outcome, error) {
	r, err := f.home(c)
	if err != nil {
		return adapters.Outcome{}, err
	}
	p := r.pull(c.Subject)
	if p == nil {
		p = r.tagged(c.Tag)
	}
	if p != nil {
		f.settle(r, p)
	}
	switch {
	case c.Op == adapters.Create && p == nil:
		p, err = f.open(r, c, s)
	case c.Op == adapters.Create, c.Op == adapters.Restore && p != nil, c.Op == adapters.Rename && p != nil:
		p.name = c.Ref.Name
	case c.Op == adapters.Remove && p == nil:
		return done(nil, nil)
	case p == nil:
		err = refuse(c, desired.Stalled, "the pull request is missing at the host")
	case c.Op == adapters.Update:
		p.update(c, s)
	case c.Op == adapters.Merge:
		err = f.mergePull(r, p, c, s)
	case c.Op == adapters.Close || c.Op == adapters.Remove:
		err = p.close(c)
	default:
		err = refuse(c, desired.Invalid, "a pull request knows no %s", c.Op)
	}
	if err != nil {
		return adapters.Outcome{}, err
	}
	c.Handle = handle(pullHandle{Number: p.Number})
	return done(f.observePull(r, c.Subject))
}

func (r *repo) tagged(tag string) *pull {
	for _, p := range r.pulls {
		if tag != "" && p.tag == tag {
			return p
		}
	}
	return nil
}

func (f *Fake) open(r *repo, c adapters.Change, s *desired.PullRequestSpec) (*pull, error) {
	target := orElse(s.TargetBranch, r.DefaultBranch)
	for _, b := range []string{s.SourceBranch, target} {
		if _, ok := r.branches[b]; !ok {
			return nil, refuse(c, desired.Waiting, "branch %q does not exist yet", b)
		}
	}
	p := &pull{name: c.Ref.Name, tag: c.Tag}
	p.PullRequestActual = adapters.PullRequestActual{
		Number: int64(len(r.pulls) + 1), State: "open", Title: s.Title, Description: s.Description,
		SourceBranch: s.SourceBranch, TargetBranch: target, HeadCommit: r.branches[s.SourceBranch], Reviewers: slices.Clone(s.Reviewers),
	}
	p.URL = fmt.Sprintf("%s#pull/%d", strings.TrimSuffix(r.RemoteURL, ".git"), p.Number)
	p.bare = f.reach(r.branches[target])[p.HeadCommit]
	r.pulls = append(r.pulls, p)
	return p, nil
}

func (p *pull) update(c adapters.Change, s *desired.PullRequestSpec) {
	if p.State != "open" {
		return
	}
	if wants(c, "spec.title") {
		p.Title = s.Title
	}
	if wants(c, "spec.description") {
		p.Description = s.Description
	}
	for _, name := range s.Reviewers { // who was asked by others stays asked
		if wants(c, "spec.reviewers") && !slices.Contains(p.Reviewers, name) {
			p.Reviewers = append(p.Reviewers, name)
		}
	}
	if wants(c, "spec.targetBranch") && s.TargetBranch != "" {
		p.TargetBranch = s.TargetBranch
	}
}

func (p *pull) close(c adapters.Change) error {
	if p.State == "merged" && c.Op == adapters.Close {
		return refuse(c, desired.Stalled, "pull request %d is merged already and cannot be closed", p.Number)
	}
	if p.State == "open" {
		p.State, p.ClosedBy = "closed", "Plumbline"
	}
	return nil
}

func (f *Fake) mergePull(r *repo, p *pull, c adapters.Change, s *desired.PullRequestSpec) error {
	switch p.State {
	case "merged":
		return nil
	case "closed":
		return refuse(c, desired.Stalled, "pull request %d is closed and cannot be merged: open a new one", p.Number)
	}
	if err := f.blocked(r, p, c); err != nil {
		return err
	}
	target := r.branches[p.TargetBranch]
	files, _ := f.merge(target, p.HeadCommit)
	message := orElse(s.MergeMessage, fmt.Sprintf("Merge pull request %d: %s", p.Number, p.Title)) + "\n\nPlumbline-Change: " + c.Tag + "\n"
	switch s.MergeStrategy {
	case "", "merge":
		p.MergeCommit = f.newCommit([]string{target, p.HeadCommit}, files, c.Author, message)
	case "squash":
		p.MergeCommit = f.newCommit([]string{target}, files, c.Author, message)
	case "fast-forward":
		if !f.reach(p.HeadCommit)[target] {
			return refuse(c, desired.Stalled, "branch %q cannot be fast-forwarded: bring it up to date first", p.TargetBranch)
		}
		p.MergeCommit = p.HeadCommit
	default:
		return refuse(c, desired.Invalid, "unknown merge strategy")
	}
	p.State = "merged"
	r.branches[p.TargetBranch], r.keep[p.SourceBranch] = p.MergeCommit, p.HeadCommit
	if rule, protected := r.rule(p.SourceBranch); s.DeleteSourceBranch && p.SourceBranch != r.DefaultBranch && (!protected || rule.AllowDeletion) {
		delete(r.branches, p.SourceBranch)
	}
	return nil
}

// blocked says what keeps a pull request from being merged.
func (f *Fake) blocked(r *repo, p *pull, c adapters.Change) error {
	if m, conflicts := f.mergeable(r, p); m != "yes" {
		if len(conflicts) == 0 {
			return refuse(c, desired.Waiting, "pull request %d has nothing to merge", p.Number)
		}
		return refuse(c, desired.Stalled, "pull request %d conflicts with %q in %s", p.Number, p.TargetBranch, strings.Join(conflicts, ", "))
	}
	rule, _ := r.rule(p.TargetBranch)
	for _, name := range rule.RequiredChecks {
		status := "Pending"
		for _, have := range p.Checks {
			if have.Name == name && p.checked == p.HeadCommit {
				status = have.Status
			}
		}
		switch status {
		case "Succeeded":
		case "Failed":
			return refuse(c, desired.Stalled, "check %q of pull request %d failed", name, p.Number)
		default:
			return refuse(c, desired.Waiting, "check %q of pull request %d has not succeeded yet", name, p.Number)
		}
	}
	if have := r.approved[p.Number]; have < rule.RequiredApprovals {
		return refuse(c, desired.Waiting, "pull request %d has %d of %d approvals", p.Number, have, rule.RequiredApprovals)
	}
	return nil
}

func (f *Fake) postCheck(home desired.Ref, pr adapters.Subject, c adapters.Check) error {
	r := f.repos[home]
	if r == nil {
		return desired.Errorf("post check", pr.Ref, desired.NotFound, "its repository is missing")
	}
	p := r.pull(pr)
	if p == nil {
		return desired.Errorf("post check", pr.Ref, desired.NotFound, "the pull request is missing")
	}
	f.settle(r, p)
	if p.checked != p.HeadCommit {
		p.Checks, p.checked = nil, p.HeadCommit
	}
	if i := slices.IndexFunc(p.Checks, func(x adapters.Check) bool { return x.Name == c.Name }); i >= 0 {
		p.Checks[i] = c
		return nil
	}
	p.Checks = append(p.Checks, c)
	return nil
}

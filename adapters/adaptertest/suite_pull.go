// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"fmt"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func pullScenes() []sceneTest {
	return []sceneTest{
		{"is opened with a number", pullOpened},
		{"opened again is one", pullTwice},
		{"waits for its branches", pullWaits},
		{"each field is brought to its wanted value", pullFields},
		{"says what conflicts, and when it no longer does", pullConflicts},
		{"is merged by each strategy, once", pullMerged},
		{"a fast-forward that is none is refused", pullNoFastForward},
		{"is merged when checks and approvals are there, not before", pullGuarded},
		{"a check belongs to the head it was posted for", pullChecks},
		{"merged by hand it is merged", pullMergedByHand},
		{"merged by hand, its source branch deleted at once", pullMergedAndDeleted},
		{"without anything to merge it stays open", pullBare},
		{"is closed, and stays closed", pullClosed},
		{"closed by a person it stays closed", pullClosedByHand},
		{"removed it is closed, unless it is merged", pullRemoved},
		{"a renamed document leaves it alone", pullRenamed},
	}
}

func pullOpened(s *scene) {
	r := s.made("opened")
	s.do(s.branch(r, desired.BranchSpec{Name: "main"}), adapters.Create)
	p := s.opened(r, "feature", desired.PullRequestSpec{TargetBranch: "main", Title: "Add it", Description: "Why.", Reviewers: []string{"agent:reviewer"}})
	head := see[*adapters.BranchActual](s, s.branch(r, desired.BranchSpec{Name: "feature"})).Head
	a := see[*adapters.PullRequestActual](s, p)
	if a.Number < 1 || a.URL == "" {
		s.Errorf("got number %d and URL %q, want both", a.Number, a.URL)
	}
	equal(s, "actual", *a, adapters.PullRequestActual{
		Number: a.Number, URL: a.URL, State: "open", Title: "Add it", Description: "Why.",
		SourceBranch: "feature", TargetBranch: "main", HeadCommit: head, Mergeable: "yes", Reviewers: []string{"agent:reviewer"},
	})
	other := see[*adapters.PullRequestActual](s, s.opened(r, "second", desired.PullRequestSpec{}))
	if other.Number == a.Number || other.TargetBranch != "main" {
		s.Errorf("second pull request: got %+v, want a number of its own and the default branch as target", *other)
	}
}

// pulls lists the numbers of a repository's pull requests.
func (s *scene) pulls(repo *adapters.Subject) string {
	s.Helper()
	l, ok := s.Driver.(adapters.Lister)
	if !ok {
		return "not listed"
	}
	got, err := l.List(s.Context(), desired.KindPullRequest, s.Provider, repo)
	if err != nil {
		s.Fatal(err)
	}
	names := ""
	for _, x := range got {
		names += x.Name + " "
	}
	return names
}

func pullTwice(s *scene) {
	r := s.made("twice")
	first := s.opened(r, "first", desired.PullRequestSpec{})
	s.do(s.branch(r, desired.BranchSpec{Name: "f"}), adapters.Create)
	s.do(s.write(r, "f", "f.txt", "f\n"), adapters.Run)
	p := s.pull(r, "f", desired.PullRequestSpec{SourceBranch: "f"})
	c := s.change(p, adapters.Create)
	s.lose(c)
	s.restart()
	before := s.pulls(r)
	s.again(p, c)
	number := see[*adapters.PullRequestActual](s, p).Number
	if number == see[*adapters.PullRequestActual](s, first).Number {
		s.Errorf("two pull requests have number %d", number)
	}
	c.Handle = nil
	s.again(p, c)
	equal(s, "number after repeats", see[*adapters.PullRequestActual](s, p).Number, number)
	equal(s, "pull requests", s.pulls(r), before)
}

func pullWaits(s *scene) {
	r := s.made("waits")
	for _, spec := range []desired.PullRequestSpec{{SourceBranch: "not-there"}, {SourceBranch: "main", TargetBranch: "not-there"}} {
		p := s.pull(r, "p", spec)
		s.want(p, adapters.Absent)
		s.refused(s.change(p, adapters.Create), desired.Waiting)
		s.want(p, adapters.Absent)
	}
}

func pullFields(s *scene) {
	r := s.made("fields")
	p := s.opened(r, "f", desired.PullRequestSpec{Title: "old"})
	spec, want := p.Spec.(*desired.PullRequestSpec), *see[*adapters.PullRequestActual](s, p)
	spec.Title, spec.Description, spec.Reviewers = "new", "because", []string{"a", "b"}
	for _, row := range []struct {
		field string
		want  func()
	}{
		{"spec.title", func() { want.Title = "new" }},
		{"spec.description", func() { want.Description = "because" }},
		{"spec.reviewers", func() { want.Reviewers = []string{"a", "b"} }},
	} {
		row.want()
		c := s.do(p, adapters.Update, row.field)
		s.again(p, c)
		equal(s, row.field, *see[*adapters.PullRequestActual](s, p), want)
	}
	spec.Reviewers, want.Reviewers = []string{"b", "c"}, []string{"a", "b", "c"} // who was asked stays asked
	s.do(p, adapters.Update, "spec.reviewers")
	equal(s, "reviewers", *see[*adapters.PullRequestActual](s, p), want)
}

func pullConflicts(s *scene) {
	s.need(s.Push != nil, "Push")
	r := s.made("conflicts")
	p := s.opened(r, "f", desired.PullRequestSpec{})
	s.Push(r.Ref, "main", map[string]string{"f.txt": "something else\n", "beside.txt": "x\n"})
	a := see[*adapters.PullRequestActual](s, p)
	equal(s, "mergeable", a.Mergeable, "no")
	equal(s, "conflicts", a.Conflicts, []string{"f.txt"})
	if said := s.refused(s.change(p, adapters.Merge), desired.Stalled); !strings.Contains(said, "f.txt") {
		s.Errorf("the refusal does not name the file: %s", said)
	}
	s.Push(r.Ref, "main", map[string]string{"f.txt": ""})
	equal(s, "mergeable after the file is gone from main", see[*adapters.PullRequestActual](s, p).Mergeable, "yes")
	s.do(p, adapters.Merge)
	equal(s, "state", see[*adapters.PullRequestActual](s, p).State, "merged")
}

func pullMerged(s *scene) {
	s.need(s.Files != nil && s.History != nil, "Files and History")
	r := s.made("merged")
	main := s.branch(r, desired.BranchSpec{Name: "main"})
	for _, row := range []struct {
		strategy string
		parents  int
		delete   bool
	}{{"", 2, true}, {"merge", 2, false}, {"squash", 1, true}, {"fast-forward", 1, true}} {
		name := "f" + row.strategy
		p := s.opened(r, name, desired.PullRequestSpec{MergeStrategy: row.strategy, MergeMessage: "land it", DeleteSourceBranch: row.delete})
		before := see[*adapters.BranchActual](s, main).Head
		head := see[*adapters.PullRequestActual](s, p).HeadCommit
		c := s.change(p, adapters.Merge)
		s.lose(c)
		s.restart()
		s.again(p, c)
		a, after := see[*adapters.PullRequestActual](s, p), see[*adapters.BranchActual](s, main).Head
		equal(s, name+" state", a.State, "merged")
		equal(s, name+" merge commit", a.MergeCommit, after)
		equal(s, name+" head", a.HeadCommit, head)
		equal(s, name+" content", s.Files(r.Ref, "main")[name+".txt"], "of "+name+"\n")
		h := s.History(r.Ref, "main")[0]
		equal(s, name+" parents", len(h.Parents), row.parents)
		equal(s, name+" first parent", h.Parents[0], before)
		if row.strategy != "fast-forward" && !strings.HasPrefix(h.Message, "land it\n") {
			s.Errorf("%s: merge message is %q", name, h.Message)
		}
		source := adapters.Known
		if row.delete {
			source = adapters.Absent
		}
		s.want(s.branch(r, desired.BranchSpec{Name: name}), source)
		s.again(p, c)
		s.do(p, adapters.Merge)
		equal(s, name+" main after repeats", see[*adapters.BranchActual](s, main).Head, after)
		s.refused(s.change(p, adapters.Close), desired.Stalled)
	}
	p := s.opened(r, "odd", desired.PullRequestSpec{MergeStrategy: "octopus"})
	s.refused(s.change(p, adapters.Merge), desired.Invalid)
}

func pullNoFastForward(s *scene) {
	r := s.made("no-ff")
	p := s.opened(r, "f", desired.PullRequestSpec{MergeStrategy: "fast-forward"})
	s.do(s.write(r, "main", "other.txt", "x\n"), adapters.Run)
	head := see[*adapters.BranchActual](s, s.branch(r, desired.BranchSpec{Name: "main"})).Head
	s.refused(s.change(p, adapters.Merge), desired.Stalled)
	equal(s, "main", see[*adapters.BranchActual](s, s.branch(r, desired.BranchSpec{Name: "main"})).Head, head)
	equal(s, "state", see[*adapters.PullRequestActual](s, p).State, "open")
}

func (s *scene) checker() adapters.Checker {
	c, ok := s.Driver.(adapters.Checker)
	s.need(ok, "driver with checks")
	return c
}

func (s *scene) post(p *adapters.Subject, name, status string) {
	s.Helper()
	if err := s.checker().PostCheck(s.Context(), *p, adapters.Check{Name: name, Status: status}); err != nil {
		s.Fatal(err)
	}
}

func pullGuarded(s *scene) {
	s.checker()
	s.need(s.Approve != nil, "Approve")
	r := s.made("guarded")
	r.Spec.(*desired.RepositorySpec).Protection = []desired.BranchProtection{{Pattern: "main", RequirePull: true, RequiredChecks: []string{"build"}, RequiredApprovals: 1}}
	s.do(r, adapters.Update, "spec.protection")
	p := s.opened(r, "f", desired.PullRequestSpec{})
	c := s.change(p, adapters.Merge)
	equal(s, "checks before any", see[*adapters.PullRequestActual](s, p).Checks, []adapters.Check{{Name: "build", Status: "Pending"}})
	s.refused(c, desired.Waiting)
	s.post(p, "build", "Running")
	s.refused(c, desired.Waiting)
	s.post(p, "build", "Failed")
	if said := s.refused(c, desired.Stalled); !strings.Contains(said, "build") {
		s.Errorf("the refusal does not name the check: %s", said)
	}
	s.post(p, "build", "Succeeded")
	s.refused(c, desired.Waiting) // the approval is missing
	s.Approve(r.Ref, see[*adapters.PullRequestActual](s, p).Number)
	s.again(p, c)
	equal(s, "state", see[*adapters.PullRequestActual](s, p).State, "merged")
}

func pullChecks(s *scene) {
	s.checker()
	r := s.made("checks")
	p := s.opened(r, "f", desired.PullRequestSpec{})
	s.post(p, "build", "Running")
	s.post(p, "lint", "Succeeded")
	s.post(p, "build", "Succeeded")
	equal(s, "checks", see[*adapters.PullRequestActual](s, p).Checks, []adapters.Check{{Name: "build", Status: "Succeeded"}, {Name: "lint", Status: "Succeeded"}})
	s.do(s.write(r, "f", "more.txt", "more\n"), adapters.Run)
	equal(s, "checks of a new head", len(see[*adapters.PullRequestActual](s, p).Checks), 0)
	missing := s.pull(r, "missing", desired.PullRequestSpec{SourceBranch: "f"})
	if err := s.checker().PostCheck(s.Context(), *missing, adapters.Check{Name: "x", Status: "Succeeded"}); desired.ClassOf(err) != desired.NotFound {
		s.Errorf("check on a missing pull request: got %v, want not-found", err)
	}
}

func pullMergedByHand(s *scene) {
	s.need(s.MergeByHand != nil, "MergeByHand")
	r := s.made("by-hand")
	p := s.opened(r, "f", desired.PullRequestSpec{})
	id := s.MergeByHand(r.Ref, "f", "main")
	a := see[*adapters.PullRequestActual](s, p)
	equal(s, "state", a.State, "merged")
	equal(s, "merge commit", a.MergeCommit, id)
	s.do(p, adapters.Merge)
	equal(s, "main", see[*adapters.BranchActual](s, s.branch(r, desired.BranchSpec{Name: "main"})).Head, id)
}

func pullMergedAndDeleted(s *scene) {
	s.need(s.MergeByHand != nil && s.DeleteBranch != nil, "MergeByHand and DeleteBranch")
	r := s.made("and-deleted")
	p := s.opened(r, "f", desired.PullRequestSpec{})
	s.MergeByHand(r.Ref, "f", "main")
	s.DeleteBranch(r.Ref, "f")
	s.restart()
	equal(s, "state", see[*adapters.PullRequestActual](s, p).State, "merged")
}

func pullBare(s *scene) {
	r := s.made("bare")
	s.do(s.branch(r, desired.BranchSpec{Name: "f"}), adapters.Create)
	p := s.pull(r, "p", desired.PullRequestSpec{SourceBranch: "f"})
	c := s.change(p, adapters.Create)
	if err := s.try(p, c); err != nil {
		s.Skipf("this host opens no pull request without a commit of its own: %v", err)
	}
	s.do(s.write(r, "main", "m.txt", "m\n"), adapters.Run)
	a := see[*adapters.PullRequestActual](s, p)
	equal(s, "state", a.State, "open")
	equal(s, "mergeable", a.Mergeable, "no")
	s.refused(s.change(p, adapters.Merge), desired.Waiting)
	s.do(s.write(r, "f", "f.txt", "f\n"), adapters.Run)
	equal(s, "mergeable with a commit", see[*adapters.PullRequestActual](s, p).Mergeable, "yes")
	s.do(p, adapters.Merge)
	equal(s, "state", see[*adapters.PullRequestActual](s, p).State, "merged")
}

func pullClosed(s *scene) {
	r := s.made("closed")
	p := s.opened(r, "f", desired.PullRequestSpec{})
	c := s.change(p, adapters.Close)
	s.lose(c)
	s.restart()
	s.again(p, c)
	s.staysClosed(r, p)
}

func (s *scene) staysClosed(r, p *adapters.Subject) {
	s.Helper()
	number := see[*adapters.PullRequestActual](s, p).Number
	s.refused(s.change(p, adapters.Merge), desired.Stalled)
	s.do(p, adapters.Close)
	s.do(p, adapters.Create)
	s.do(s.write(r, "f", "more.txt", "more\n"), adapters.Run)
	a := see[*adapters.PullRequestActual](s, p)
	equal(s, "state", fmt.Sprint(a.State, a.Number), fmt.Sprint("closed", number))
	s.want(s.branch(r, desired.BranchSpec{Name: "f"}), adapters.Known)
}

func pullClosedByHand(s *scene) {
	s.need(s.ClosePull != nil, "ClosePull")
	r := s.made("closed-by-hand")
	p := s.opened(r, "f", desired.PullRequestSpec{})
	s.ClosePull(r.Ref, see[*adapters.PullRequestActual](s, p).Number)
	s.staysClosed(r, p)
}

func pullRemoved(s *scene) {
	r := s.made("removed")
	open, merged := s.opened(r, "f", desired.PullRequestSpec{}), s.opened(r, "g", desired.PullRequestSpec{})
	s.do(merged, adapters.Merge)
	for _, row := range []struct {
		p    *adapters.Subject
		want string
	}{{open, "closed"}, {merged, "merged"}} {
		c := s.do(row.p, adapters.Remove)
		s.again(row.p, c)
		if o := s.observe(row.p); o.Presence == adapters.Known {
			equal(s, "state", o.Actual.(*adapters.PullRequestActual).State, row.want)
		}
	}
	s.do(s.pull(r, "never-opened", desired.PullRequestSpec{SourceBranch: "f"}), adapters.Remove)
}

func pullRenamed(s *scene) {
	r := s.made("renamed")
	p := s.opened(r, "f", desired.PullRequestSpec{})
	before := *see[*adapters.PullRequestActual](s, p)
	n := *p
	n.Ref.Name = "another-document"
	c := s.change(&n, adapters.Rename)
	c.Former = p.Ref
	s.again(&n, c)
	equal(s, "pull request", *see[*adapters.PullRequestActual](s, &n), before)
	equal(s, "pull requests", strings.TrimSpace(strings.Replace(s.pulls(r), "not listed", fmt.Sprint(before.Number), 1)), fmt.Sprint(before.Number))
}

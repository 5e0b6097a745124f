// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"slices"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func repositoryScenes() []sceneTest {
	return []sceneTest{
		{"is absent, is created, is known", repositoryLife},
		{"created twice is one", repositoryTwice},
		{"each field is brought to its wanted value", repositoryFields},
		{"a default branch that is not there yet is waited for", repositoryDefaultBranch},
		{"drift is seen and put back", repositoryDrift},
		{"removed, removed again, restored with its content", repositoryRemoved},
		{"renamed with its content", repositoryRenamed},
		{"archived refuses changes of what is in it", repositoryArchived},
		{"unreadable is unknown, never absent", repositoryUnreadable},
		{"vanished is absent, and what was in it is unknown", repositoryVanished},
	}
}

func repositoryLife(s *scene) {
	r := s.repository("life", desired.RepositorySpec{DefaultBranch: "trunk", Visibility: "internal", Description: "A life."})
	s.want(r, adapters.Absent)
	s.do(r, adapters.Create)
	a := see[*adapters.RepositoryActual](s, r)
	if a.RemoteURL == "" {
		s.Error("a repository has no remote URL")
	}
	equal(s, "actual", *a, adapters.RepositoryActual{RemoteURL: a.RemoteURL, DefaultBranch: "trunk", Visibility: "internal", Description: "A life."})

	b := s.branch(r, desired.BranchSpec{Name: "feature/one", FromBranch: "trunk"})
	s.do(b, adapters.Create)
	if got := see[*adapters.BranchActual](s, b); got.FromCommit == "" || got.FromCommit != got.Head {
		s.Errorf("branch of a fresh repository: got %+v, want a start commit that is its head", *got)
	}
	s.want(s.repository("another", desired.RepositorySpec{}), adapters.Absent)
}

func repositoryTwice(s *scene) {
	r := s.repository("twice", desired.RepositorySpec{})
	c := s.change(r, adapters.Create)
	s.lose(c)
	s.restart()
	b := s.branch(r, desired.BranchSpec{Name: "main"})
	before := see[*adapters.BranchActual](s, b).Head
	s.again(r, c)
	s.do(r, adapters.Create)
	equal(s, "head of main after creating it again", see[*adapters.BranchActual](s, b).Head, before)
	if l, ok := s.Driver.(adapters.Lister); ok {
		got, err := l.List(s.Context(), desired.KindRepository, s.Provider, nil)
		if err != nil {
			s.Fatal(err)
		}
		equal(s, "listed repositories", len(got), 1)
	}
}

func repositoryFields(s *scene) {
	r := s.made("fields")
	s.do(s.branch(r, desired.BranchSpec{Name: "next"}), adapters.Create)
	spec := r.Spec.(*desired.RepositorySpec)
	base := *see[*adapters.RepositoryActual](s, r)
	for _, row := range []struct {
		field string
		set   func()
		want  func(*adapters.RepositoryActual)
	}{
		{"spec.visibility", func() { spec.Visibility = "public" }, func(a *adapters.RepositoryActual) { a.Visibility = "public" }},
		{"spec.description", func() { spec.Description = "new" }, func(a *adapters.RepositoryActual) { a.Description = "new" }},
		{"spec.description", func() { spec.Description = "" }, func(a *adapters.RepositoryActual) { a.Description = "" }},
		{"spec.defaultBranch", func() { spec.DefaultBranch = "next" }, func(a *adapters.RepositoryActual) { a.DefaultBranch = "next" }},
		{"spec.protection", func() {
			spec.Protection = []desired.BranchProtection{{Pattern: "release/*", AllowForcePush: true}, {Pattern: "main", RequirePull: true, RequiredChecks: []string{"build"}, RequiredApprovals: 1}}
		}, func(a *adapters.RepositoryActual) {
			a.Protection = []desired.BranchProtection{{Pattern: "main", RequirePull: true, RequiredChecks: []string{"build"}, RequiredApprovals: 1}, {Pattern: "release/*", AllowForcePush: true}}
		}},
		{"spec.protection", func() { spec.Protection = nil }, func(a *adapters.RepositoryActual) { a.Protection = nil }},
		{"spec.archived", func() { spec.Archived = true }, func(a *adapters.RepositoryActual) { a.Archived = true }},
		{"spec.archived", func() { spec.Archived = false }, func(a *adapters.RepositoryActual) { a.Archived = false }},
	} {
		row.set()
		row.want(&base)
		c := s.do(r, adapters.Update, row.field)
		equal(s, row.field, *see[*adapters.RepositoryActual](s, r), base)
		s.again(r, c)
		equal(s, row.field+" again", *see[*adapters.RepositoryActual](s, r), base)
	}
	spec.Visibility, spec.Description = "internal", "only this one"
	s.do(r, adapters.Update, "spec.description")
	base.Description = "only this one"
	equal(s, "a field that was not listed", *see[*adapters.RepositoryActual](s, r), base)
}

func repositoryDefaultBranch(s *scene) {
	r := s.made("default")
	r.Spec.(*desired.RepositorySpec).DefaultBranch = "later"
	c := s.change(r, adapters.Update, "spec.defaultBranch")
	s.refused(c, desired.Waiting)
	equal(s, "default branch meanwhile", see[*adapters.RepositoryActual](s, r).DefaultBranch, "main")
	s.do(s.branch(r, desired.BranchSpec{Name: "later", FromBranch: "main"}), adapters.Create)
	s.again(r, c)
	equal(s, "default branch", see[*adapters.RepositoryActual](s, r).DefaultBranch, "later")
}

func repositoryDrift(s *scene) {
	s.need(s.EditRepository != nil, "EditRepository")
	r := s.made("drift")
	want := *see[*adapters.RepositoryActual](s, r)
	s.do(s.branch(r, desired.BranchSpec{Name: "other"}), adapters.Create)
	s.EditRepository(r.Ref, func(a *adapters.RepositoryActual) { a.Visibility, a.DefaultBranch = "public", "other" })
	drifted := want
	drifted.Visibility, drifted.DefaultBranch = "public", "other"
	equal(s, "drifted", *see[*adapters.RepositoryActual](s, r), drifted)
	s.do(r, adapters.Update, "spec.visibility", "spec.defaultBranch")
	equal(s, "put back", *see[*adapters.RepositoryActual](s, r), want)
}

func repositoryRemoved(s *scene) {
	r := s.made("removed")
	main := s.branch(r, desired.BranchSpec{Name: "main"})
	head := see[*adapters.BranchActual](s, main).Head
	c := s.change(r, adapters.Remove)
	s.lose(c)
	s.restart()
	s.again(r, c)
	s.want(r, adapters.Absent)
	s.again(r, c)
	restore := s.do(r, adapters.Restore)
	equal(s, "head of main after restore", see[*adapters.BranchActual](s, main).Head, head)
	s.again(r, restore)
	s.want(r, adapters.Known)
	s.refused(s.change(s.repository("never-was", desired.RepositorySpec{}), adapters.Restore), desired.Stalled)
}

func repositoryRenamed(s *scene) {
	old := s.made("old-name")
	head := see[*adapters.BranchActual](s, s.branch(old, desired.BranchSpec{Name: "main"})).Head
	r := s.repository("new-name", desired.RepositorySpec{})
	r.Handle = old.Handle
	c := s.change(r, adapters.Rename)
	c.Former = old.Ref
	s.lose(c)
	s.restart()
	s.again(r, c)
	s.want(old, adapters.Absent)
	equal(s, "head of main after rename", see[*adapters.BranchActual](s, s.branch(r, desired.BranchSpec{Name: "main"})).Head, head)

	s.do(old, adapters.Create)
	s.refused(c, desired.Stalled) // both exist now: a person has to say which one it is
	gone := s.change(s.repository("third", desired.RepositorySpec{}), adapters.Rename)
	gone.Former = ref(desired.KindRepository, "never-was")
	s.refused(gone, desired.Stalled)
}

func repositoryArchived(s *scene) {
	r := s.made("archive")
	r.Spec.(*desired.RepositorySpec).Archived = true
	s.do(r, adapters.Update, "spec.archived")
	b := s.branch(r, desired.BranchSpec{Name: "late"})
	s.refused(s.change(b, adapters.Create), desired.Denied)
	s.refused(s.change(s.write(r, "main", "late.txt", "x"), adapters.Run), desired.Denied)
	s.want(b, adapters.Absent)
	s.want(s.branch(r, desired.BranchSpec{Name: "main"}), adapters.Known)
}

func repositoryUnreadable(s *scene) {
	s.need(s.Break != nil, "Break")
	r, never := s.made("unreadable"), s.repository("never", desired.RepositorySpec{})
	b := s.branch(r, desired.BranchSpec{Name: "gone"})
	repair := s.Break()
	for i, o := range s.look(r, never, b) {
		if o.Presence != adapters.Unknown || o.Reason == "" || o.Err == nil {
			s.Errorf("answer %d while nothing can be read: got %s %q %v, want unknown with a reason and an error", i, o.Presence, o.Reason, o.Err)
		}
	}
	if l, ok := s.Driver.(adapters.Lister); ok {
		if got, err := l.List(s.Context(), desired.KindBranch, s.Provider, r); err == nil {
			s.Errorf("list while nothing can be read: got %d items and no error", len(got))
		}
	}
	repair()
	got := []adapters.Presence{}
	for _, o := range s.look(r, never, b) {
		got = append(got, o.Presence)
	}
	if want := []adapters.Presence{adapters.Known, adapters.Absent, adapters.Absent}; !slices.Equal(got, want) {
		s.Errorf("after repair: got %v, want %v", got, want)
	}
}

func repositoryVanished(s *scene) {
	s.need(s.DropRepository != nil, "DropRepository")
	r := s.made("vanished")
	p := s.opened(r, "feature", desired.PullRequestSpec{})
	c := s.write(r, "feature", "more.txt", "more\n")
	s.do(c, adapters.Run)
	b := s.branch(r, desired.BranchSpec{Name: "feature"})
	s.want(b, adapters.Known)
	s.DropRepository(r.Ref)
	s.want(r, adapters.Absent)
	for _, x := range []*adapters.Subject{b, c, p} {
		s.want(x, adapters.Unknown)
	}
	s.refused(s.change(b, adapters.Restore), desired.Waiting)
	s.refused(s.change(s.write(r, "feature", "x", "x"), adapters.Run), desired.Waiting)
	s.want(r, adapters.Absent)
}

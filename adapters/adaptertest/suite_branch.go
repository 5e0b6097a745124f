// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func branchScenes() []sceneTest {
	return []sceneTest{
		{"starts at the default branch, another branch or a commit", branchStarts},
		{"created again it does not move", branchTwice},
		{"made by a person it is adopted", branchAdopted},
		{"a start that is not there yet is waited for", branchWaits},
		{"deleted by a person it returns at its last head", branchRestored},
		{"restored when it is there it does not move", branchRestoredLate},
		{"without a record it is not made up", branchUnrecorded},
		{"pinned to a commit it moves forward only", branchPinned},
		{"removed, and removed again", branchRemoved},
		{"protected against deletion it stays", branchProtected},
		{"a renamed document leaves it alone", branchRenamed},
	}
}

func branchStarts(s *scene) {
	r := s.made("starts")
	first := see[*adapters.BranchActual](s, s.branch(r, desired.BranchSpec{Name: "main"})).Head
	s.do(s.write(r, "main", "second.txt", "2\n"), adapters.Run)
	second := see[*adapters.BranchActual](s, s.branch(r, desired.BranchSpec{Name: "main"})).Head
	for _, row := range []struct {
		spec desired.BranchSpec
		want string
	}{
		{desired.BranchSpec{Name: "from-default"}, second},
		{desired.BranchSpec{Name: "from/branch", FromBranch: "main"}, second},
		{desired.BranchSpec{Name: "from-commit", FromCommit: first}, first},
		{desired.BranchSpec{Name: "commit-wins", FromCommit: first, FromBranch: "main"}, first},
	} {
		b := s.branch(r, row.spec)
		s.want(b, adapters.Absent)
		s.do(b, adapters.Create)
		equal(s, row.spec.Name, *see[*adapters.BranchActual](s, b), adapters.BranchActual{Name: row.spec.Name, Head: row.want, FromCommit: row.want})
	}
}

func branchTwice(s *scene) {
	r := s.made("twice")
	b := s.branch(r, desired.BranchSpec{Name: "b"})
	c := s.change(b, adapters.Create)
	s.lose(c)
	s.restart()
	start := see[*adapters.BranchActual](s, b).Head
	s.do(s.write(r, "b", "x.txt", "x\n"), adapters.Run)
	s.do(s.write(r, "main", "y.txt", "y\n"), adapters.Run)
	moved := see[*adapters.BranchActual](s, b)
	equal(s, "start after a commit", moved.FromCommit, start)
	s.again(b, c)
	s.do(b, adapters.Create)
	equal(s, "after creating it again", *see[*adapters.BranchActual](s, b), *moved)
}

func branchAdopted(s *scene) {
	s.need(s.Push != nil, "Push")
	r := s.made("adopted")
	head := s.Push(r.Ref, "theirs", map[string]string{"a.txt": "a\n"})
	b := s.branch(r, desired.BranchSpec{Name: "theirs"})
	s.do(b, adapters.Create)
	equal(s, "head", see[*adapters.BranchActual](s, b).Head, head)
}

func branchWaits(s *scene) {
	r := s.made("waits")
	for _, spec := range []desired.BranchSpec{
		{Name: "a", FromBranch: "not-there"},
		{Name: "b", FromCommit: "1234567890123456789012345678901234567890"},
	} {
		b := s.branch(r, spec)
		s.refused(s.change(b, adapters.Create), desired.Waiting)
		s.want(b, adapters.Absent)
	}
}

func branchRestored(s *scene) {
	s.need(s.Push != nil && s.DeleteBranch != nil && s.Files != nil, "Push, DeleteBranch and Files")
	r := s.made("restored")
	b := s.branch(r, desired.BranchSpec{Name: "feature/work"})
	s.do(b, adapters.Create)
	start := see[*adapters.BranchActual](s, b).FromCommit
	head := s.Push(r.Ref, "feature/work", map[string]string{"work.txt": "a day of it\n"})
	equal(s, "head after a push", see[*adapters.BranchActual](s, b).Head, head)
	s.DeleteBranch(r.Ref, "feature/work")
	s.want(b, adapters.Absent)
	s.restart()
	s.want(b, adapters.Absent)
	c := s.change(b, adapters.Restore)
	s.lose(c)
	s.restart()
	s.again(b, c)
	equal(s, "restored", *see[*adapters.BranchActual](s, b), adapters.BranchActual{Name: "feature/work", Head: head, FromCommit: start})
	equal(s, "work.txt", s.Files(r.Ref, head)["work.txt"], "a day of it\n")
}

func branchRestoredLate(s *scene) {
	s.need(s.Push != nil && s.DeleteBranch != nil, "Push and DeleteBranch")
	r := s.made("late")
	b := s.branch(r, desired.BranchSpec{Name: "b"})
	s.do(b, adapters.Create)
	s.DeleteBranch(r.Ref, "b")
	s.want(b, adapters.Absent)
	head := s.Push(r.Ref, "b", map[string]string{"again.txt": "by hand\n"})
	s.do(b, adapters.Restore)
	equal(s, "head", see[*adapters.BranchActual](s, b).Head, head)
}

func branchUnrecorded(s *scene) {
	r := s.made("unrecorded")
	b := s.branch(r, desired.BranchSpec{Name: "never-seen"})
	s.refused(s.change(b, adapters.Restore), desired.Stalled)
	s.want(b, adapters.Absent)
}

func branchPinned(s *scene) {
	s.need(s.Push != nil, "Push")
	r := s.made("pinned")
	b := s.branch(r, desired.BranchSpec{Name: "pin"})
	s.do(b, adapters.Create)
	start := see[*adapters.BranchActual](s, b).Head
	ahead := s.Push(r.Ref, "work", map[string]string{"w.txt": "w\n"})
	pin := func(commit string) adapters.Change {
		b.Spec.(*desired.BranchSpec).Commit = commit
		return s.change(b, adapters.Update, "spec.commit")
	}
	c := pin(ahead)
	s.again(b, c)
	s.again(b, c)
	equal(s, "moved forward", see[*adapters.BranchActual](s, b).Head, ahead)
	back := pin(start)
	s.refused(back, desired.Stalled)
	equal(s, "not moved back", see[*adapters.BranchActual](s, b).Head, ahead)
	s.refused(pin("1234567890123456789012345678901234567890"), desired.Waiting)

	r.Spec.(*desired.RepositorySpec).Protection = []desired.BranchProtection{{Pattern: "pin", AllowForcePush: true}}
	s.do(r, adapters.Update, "spec.protection")
	s.again(b, pin(start))
	equal(s, "moved back where that is allowed", see[*adapters.BranchActual](s, b).Head, start)
}

func branchRemoved(s *scene) {
	r := s.made("removed")
	b := s.branch(r, desired.BranchSpec{Name: "b"})
	s.do(b, adapters.Create)
	c := s.change(b, adapters.Remove)
	s.lose(c)
	s.restart()
	s.again(b, c)
	s.want(b, adapters.Absent)
	s.refused(s.change(s.branch(r, desired.BranchSpec{Name: "main"}), adapters.Remove), desired.Denied)
	s.want(s.branch(r, desired.BranchSpec{Name: "main"}), adapters.Known)
}

func branchProtected(s *scene) {
	r := s.made("protected")
	r.Spec.(*desired.RepositorySpec).Protection = []desired.BranchProtection{{Pattern: "release/*"}}
	s.do(r, adapters.Update, "spec.protection")
	b := s.branch(r, desired.BranchSpec{Name: "release/1"})
	s.do(b, adapters.Create)
	if said := s.refused(s.change(b, adapters.Remove), desired.Denied); !strings.Contains(said, "release/1") {
		s.Errorf("the refusal does not name the branch: %s", said)
	}
	s.want(b, adapters.Known)
}

func branchRenamed(s *scene) {
	r := s.made("renamed")
	b := s.branch(r, desired.BranchSpec{Name: "b"})
	s.do(b, adapters.Create)
	before := see[*adapters.BranchActual](s, b)
	n := *b
	n.Ref.Name = "another-document"
	c := s.change(&n, adapters.Rename)
	c.Former = b.Ref
	s.again(&n, c)
	equal(s, "branch", *see[*adapters.BranchActual](s, &n), *before)
}

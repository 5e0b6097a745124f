// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"context"
	"strings"
	"sync"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func commitScenes() []sceneTest {
	return []sceneTest{
		{"adds, modifies, renames and deletes", commitOperations},
		{"may change one path twice", commitSamePath},
		{"says who wrote it and which change it was", commitAuthor},
		{"happens once when repeated", commitRepeated},
		{"happens once when the reply is lost and others commit on top", commitLostReply},
		{"happens once when its branch is gone since", commitBranchGone},
		{"happens once when two do it at once", commitConcurrent},
		{"two changes are two commits", commitTwo},
		{"changes nothing when one of its changes is wrong", commitInvalid},
		{"that changes nothing makes no commit", commitEmpty},
		{"waits for its branch", commitWaits},
		{"is refused on a branch that takes pull requests only", commitProtected},
		{"changes nothing when its content cannot be read", commitNoContent},
	}
}

func commitOperations(s *scene) {
	s.need(s.Files != nil, "Files")
	r := s.made("operations")
	first := s.commit(r, desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{
		{Path: "src/a.txt", Operation: "add"}, {Path: "src/deep/b.txt", Operation: "modify"}, {Path: "c.bin", Operation: "add"}, {Path: "run.sh", Operation: "add", Mode: "100755"},
	}}, map[string]string{"src/a.txt": "a\n", "src/deep/b.txt": "b\n", "c.bin": "\x00\xff", "run.sh": "#!/bin/sh\n"})
	s.want(first, adapters.Absent)
	s.do(first, adapters.Run)
	a := see[*adapters.CommitActual](s, first)
	equal(s, "branch", a.Branch, "main")
	want := s.Files(r.Ref, "main")
	equal(s, "files of the commit", s.Files(r.Ref, a.SHA), want)
	delete(want, "README.md") // a host may begin with one
	equal(s, "after the first", want, map[string]string{"src/a.txt": "a\n", "src/deep/b.txt": "b\n", "c.bin": "\x00\xff", "run.sh": "#!/bin/sh\n"})

	second := s.commit(r, desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{
		{Path: "src/a.txt", Operation: "modify"},
		{Path: "src/deep/b.txt", Operation: "delete"},
		{Path: "moved/c.bin", Operation: "rename", From: "c.bin"},
		{Path: "start.sh", Operation: "rename", From: "run.sh", Digest: "sha256:00"},
		{Path: "src/a.txt", Operation: "add"}, // the same content once more is no fault
	}}, map[string]string{"src/a.txt": "A\n", "start.sh": "#!/bin/bash\n"})
	s.do(second, adapters.Run)
	got := s.Files(r.Ref, see[*adapters.CommitActual](s, second).SHA)
	delete(got, "README.md")
	equal(s, "after the second", got, map[string]string{"src/a.txt": "A\n", "moved/c.bin": "\x00\xff", "start.sh": "#!/bin/bash\n"})
}

// One path with two contents in one commit: each change has its own.
func commitSamePath(s *scene) {
	s.need(s.Files != nil, "Files")
	r := s.made("same-path")
	c := s.commit(r, desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{
		{Path: "a", Operation: "add", Digest: "sha256:01"}, {Path: "b", Operation: "rename", From: "a"}, {Path: "a", Operation: "add", Digest: "sha256:02"},
	}}, nil)
	c.Content = func(_ context.Context, path, digest string) ([]byte, error) { return []byte(path + digest), nil }
	s.do(c, adapters.Run)
	got := s.Files(r.Ref, "main")
	equal(s, "a and b", []string{got["a"], got["b"]}, []string{"asha256:02", "asha256:01"})
}

func commitAuthor(s *scene) {
	s.need(s.History != nil, "History")
	r := s.made("author")
	c := s.write(r, "main", "a.txt", "a\n")
	ch := s.do(c, adapters.Run)
	h := s.History(r.Ref, "main")[0]
	equal(s, "sha", h.SHA, see[*adapters.CommitActual](s, c).SHA)
	equal(s, "author", h.Author.Name, "Grace")
	if !strings.HasPrefix(h.Message, "feat: a change\n") || strings.Count(h.Message, "Plumbline-Change: "+ch.Tag) != 1 {
		s.Errorf("message: got %q, want the subject line and one Plumbline-Change trailer with %s", h.Message, ch.Tag)
	}
	named := s.write(r, "main", "b.txt", "b\n")
	named.Spec.(*desired.CommitSpec).Author = &desired.Person{Name: "Ada", Email: "ada@example.com"}
	s.do(named, adapters.Run)
	equal(s, "author of the document", s.History(r.Ref, "main")[0].Author.Name, "Ada")
}

// once checks that a change is in the history of a branch exactly n times.
func (s *scene) once(repo desired.Ref, branch, tag string, n int) {
	s.Helper()
	if s.History == nil {
		return
	}
	found := 0
	for _, h := range s.History(repo, branch) {
		found += strings.Count(h.Message, "Plumbline-Change: "+tag+"\n")
	}
	if found != n {
		s.Errorf("change %s is %d times in the history of %s, want %d", tag, found, branch, n)
	}
}

func commitRepeated(s *scene) {
	r := s.made("repeated")
	c := s.write(r, "main", "a.txt", "a\n")
	ch := s.do(c, adapters.Run)
	first := *see[*adapters.CommitActual](s, c)
	s.again(c, ch)
	s.restart()
	ch.Handle = nil
	s.again(c, ch)
	equal(s, "the commit", *see[*adapters.CommitActual](s, c), first)
	s.once(r.Ref, "main", ch.Tag, 1)
	s.do(c, adapters.Remove) // nothing to remove: history is not rewritten
	s.once(r.Ref, "main", ch.Tag, 1)
}

func commitLostReply(s *scene) {
	r := s.made("lost")
	c := s.write(r, "main", "a.txt", "mine\n")
	ch := s.change(c, adapters.Run)
	s.lose(ch)
	head := see[*adapters.BranchActual](s, s.branch(r, desired.BranchSpec{Name: "main"})).Head
	s.restart()
	if s.Push != nil {
		s.Push(r.Ref, "main", map[string]string{"a.txt": "theirs\n"})
	}
	s.do(s.write(r, "main", "b.txt", "b\n"), adapters.Run)
	s.again(c, ch)
	equal(s, "the commit", see[*adapters.CommitActual](s, c).SHA, head)
	s.once(r.Ref, "main", ch.Tag, 1)
	if s.Push != nil && s.Files != nil {
		equal(s, "what came on top", s.Files(r.Ref, "main")["a.txt"], "theirs\n")
	}
}

func commitBranchGone(s *scene) {
	s.need(s.DeleteBranch != nil && s.MoveBranch != nil, "DeleteBranch and MoveBranch")
	r := s.made("gone")
	start := see[*adapters.BranchActual](s, s.branch(r, desired.BranchSpec{Name: "main"})).Head
	for _, row := range []struct {
		branch string
		then   func()
	}{
		{"deleted", func() { s.DeleteBranch(r.Ref, "deleted") }},
		{"rewritten", func() { s.MoveBranch(r.Ref, "rewritten", start) }},
	} {
		s.do(s.branch(r, desired.BranchSpec{Name: row.branch}), adapters.Create)
		c := s.write(r, row.branch, "a.txt", "a\n")
		ch := s.change(c, adapters.Run)
		s.lose(ch)
		row.then()
		s.restart()
		s.again(c, ch)
		if got := see[*adapters.CommitActual](s, c).SHA; got == start {
			s.Errorf("%s: the commit that was made is not found again", row.branch)
		}
		s.once(r.Ref, row.branch, ch.Tag, 0)
	}
}

func commitConcurrent(s *scene) {
	r := s.made("concurrent")
	c := s.write(r, "main", "a.txt", "a\n")
	ch := s.change(c, adapters.Run)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.Driver.Apply(s.Context(), ch) })
	}
	wg.Wait()
	won := false
	for _, err := range errs {
		won = won || err == nil
	}
	if !won {
		s.Errorf("none of four got through: %v", errs)
	}
	s.again(c, ch)
	s.once(r.Ref, "main", ch.Tag, 1)
}

func commitTwo(s *scene) {
	r := s.made("two")
	a, b := s.write(r, "main", "a.txt", "a\n"), s.write(r, "main", "b.txt", "b\n")
	s.do(a, adapters.Run)
	s.do(b, adapters.Run)
	if x, y := see[*adapters.CommitActual](s, a).SHA, see[*adapters.CommitActual](s, b).SHA; x == y {
		s.Errorf("two changes gave one commit %s", x)
	}
}

func commitInvalid(s *scene) {
	r := s.made("invalid")
	main := s.branch(r, desired.BranchSpec{Name: "main"})
	s.do(s.write(r, "main", "there.txt", "there\n"), adapters.Run)
	before := see[*adapters.BranchActual](s, main).Head
	fine := desired.FileChange{Path: "fine.txt", Operation: "add"}
	for _, bad := range []desired.FileChange{
		{Path: "missing.txt", Operation: "delete"},
		{Path: "there.txt", Operation: "add"},
		{Path: "to.txt", Operation: "rename", From: "missing.txt"},
		{Path: "there.txt", Operation: "rename", From: "fine.txt"},
	} {
		c := s.commit(r, desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{fine, bad}},
			map[string]string{"fine.txt": "fine\n", "there.txt": "other\n"})
		said := s.refused(s.change(c, adapters.Run), desired.Invalid)
		if !strings.Contains(said, bad.Path) && !strings.Contains(said, "missing.txt") {
			s.Errorf("%s %s: the refusal does not name the path: %s", bad.Operation, bad.Path, said)
		}
		s.want(c, adapters.Absent)
	}
	equal(s, "head", see[*adapters.BranchActual](s, main).Head, before)
}

func commitEmpty(s *scene) {
	r := s.made("empty")
	main := s.branch(r, desired.BranchSpec{Name: "main"})
	s.do(s.write(r, "main", "a.txt", "a\n"), adapters.Run)
	before := see[*adapters.BranchActual](s, main).Head
	c := s.write(r, "main", "a.txt", "a\n")
	s.do(c, adapters.Run)
	equal(s, "the commit", see[*adapters.CommitActual](s, c).SHA, before)
	equal(s, "head", see[*adapters.BranchActual](s, main).Head, before)
}

func commitWaits(s *scene) {
	r := s.made("waits")
	c := s.write(r, "later", "a.txt", "a\n")
	ch := s.change(c, adapters.Run)
	s.refused(ch, desired.Waiting)
	s.do(s.branch(r, desired.BranchSpec{Name: "later"}), adapters.Create)
	s.again(c, ch)
	s.want(c, adapters.Known)
}

func commitProtected(s *scene) {
	r := s.made("protected")
	r.Spec.(*desired.RepositorySpec).Protection = []desired.BranchProtection{{Pattern: "main", RequirePull: true}}
	s.do(r, adapters.Update, "spec.protection")
	main := s.branch(r, desired.BranchSpec{Name: "main"})
	before := see[*adapters.BranchActual](s, main).Head
	s.refused(s.change(s.write(r, "main", "a.txt", "a\n"), adapters.Run), desired.Denied)
	equal(s, "head", see[*adapters.BranchActual](s, main).Head, before)
}

func commitNoContent(s *scene) {
	r := s.made("no-content")
	main := s.branch(r, desired.BranchSpec{Name: "main"})
	before := see[*adapters.BranchActual](s, main).Head
	c := s.write(r, "main", "a.txt", "a\n")
	read := c.Content
	c.Content = func(context.Context, string, string) ([]byte, error) {
		return nil, desired.Errorf("read content", c.Ref, desired.Transient, "the store is away")
	}
	ch := s.change(c, adapters.Run)
	s.refused(ch, desired.Transient)
	equal(s, "head", see[*adapters.BranchActual](s, main).Head, before)
	ch.Content = read
	s.again(c, ch)
	if s.Files != nil {
		got := s.Files(r.Ref, "main")
		equal(s, "a.txt", got["a.txt"], "a\n")
	}
}

// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func commonScenes() []sceneTest {
	return []sceneTest{
		{"a cancelled call changes nothing", cancelled},
		{"many subjects are answered in order, one failure is one unknown", manyAnswers},
		{"what was observed survives a JSON round trip", roundTrip},
		{"a handle that is not ours is not trusted", strangeHandle},
		{"a kind or operation that is unknown is invalid", unknownKind},
		{"a listing is complete or an error", listing},
		{"a push by a person nudges the repository", nudged},
	}
}

// everything is one subject of each kind, with the operations that change it.
func (s *scene) everything(repo string) []adapters.Change {
	s.Helper()
	r := s.made(repo)
	p := s.opened(r, "work", desired.PullRequestSpec{})
	s.do(s.branch(r, desired.BranchSpec{Name: "old"}), adapters.Create)
	changed := *p
	changed.Spec = &desired.PullRequestSpec{Repository: repo, SourceBranch: "work", Title: "another title"}
	renamed := s.change(s.repository(repo+"-renamed", desired.RepositorySpec{}), adapters.Rename)
	renamed.Former = r.Ref
	described := *r
	described.Spec = &desired.RepositorySpec{Description: "described", Visibility: "public"}
	deleting := *p
	deleting.Spec = &desired.PullRequestSpec{Repository: repo, SourceBranch: "work", MergeStrategy: "squash", DeleteSourceBranch: true}
	second := s.pull(r, "second", desired.PullRequestSpec{SourceBranch: "old"})
	return []adapters.Change{
		s.change(s.repository(repo+"-new", desired.RepositorySpec{}), adapters.Create),
		s.change(&described, adapters.Update),
		s.change(s.branch(r, desired.BranchSpec{Name: "new"}), adapters.Create),
		s.change(s.branch(r, desired.BranchSpec{Name: "old"}), adapters.Remove),
		s.change(s.write(r, "work", "one.txt", "1\n"), adapters.Run),
		s.change(second, adapters.Create),
		s.change(&changed, adapters.Update),
		s.change(p, adapters.Merge),
		s.change(&deleting, adapters.Merge),
		s.change(p, adapters.Close),
		renamed,
		s.change(r, adapters.Remove),
	}
}

// picture is everything that the driver says of a world that everything set up.
func (s *scene) picture(repo string) string {
	s.Helper()
	r := s.repository(repo, desired.RepositorySpec{})
	pr := s.pull(r, "work", desired.PullRequestSpec{SourceBranch: "work"})
	xs := []*adapters.Subject{r, s.repository(repo+"-new", desired.RepositorySpec{}), s.repository(repo+"-renamed", desired.RepositorySpec{}), pr}
	for _, name := range []string{"main", "work", "old", "new"} {
		xs = append(xs, s.branch(r, desired.BranchSpec{Name: name}))
	}
	out := ""
	for i, o := range s.look(xs...) {
		out += xs[i].Ref.String() + " " + o.Presence.String() + " " + text(o.Actual) + "\n"
	}
	return out
}

func cancelled(s *scene) {
	changes := s.everything("cancelled")
	before := s.picture("cancelled")
	ctx, cancel := context.WithCancelCause(s.Context())
	cancel(errors.New("the lease is lost"))
	for _, c := range changes {
		out, err := s.Driver.Apply(ctx, c)
		s.hear(out, err)
		if err == nil || out.Done {
			s.Errorf("%s %s with a cancelled ctx: got %+v and error %v, want an error", c.Op, c.Ref, out, err)
		}
	}
	if got, err := s.Driver.Observe(ctx, []adapters.Subject{changes[0].Subject}); err == nil && (len(got) != 1 || got[0].Presence != adapters.Unknown) {
		s.Errorf("observe with a cancelled ctx: got %+v, want an error or unknown", got)
	}
	if after := s.picture("cancelled"); after != before {
		s.Errorf("after cancelled calls: got\n%swant\n%s", after, before)
	}
}

func manyAnswers(s *scene) {
	a, b := s.made("many-a"), s.made("many-b")
	xs := []*adapters.Subject{
		s.branch(a, desired.BranchSpec{Name: "main"}), s.branch(b, desired.BranchSpec{Name: "gone"}), a,
		s.repository("many-c", desired.RepositorySpec{}), s.branch(b, desired.BranchSpec{Name: "main"}), b,
	}
	check := func(when string, want ...adapters.Presence) {
		s.Helper()
		var got []adapters.Presence
		for _, o := range s.look(xs...) {
			got = append(got, o.Presence)
			if o.At.IsZero() {
				s.Errorf("%s: an observation has no time", when)
			}
		}
		equal(s, when, got, want)
	}
	check("all readable", adapters.Known, adapters.Absent, adapters.Known, adapters.Absent, adapters.Known, adapters.Known)
	if got, err := s.Driver.Observe(s.Context(), nil); err != nil || len(got) != 0 {
		s.Errorf("observe of nothing: got %v and %v", got, err)
	}
	s.need(s.BreakOne != nil, "BreakOne")
	repair := s.BreakOne(b.Ref)
	check("one broken", adapters.Known, adapters.Unknown, adapters.Known, adapters.Absent, adapters.Unknown, adapters.Unknown)
	repair()
	check("repaired", adapters.Known, adapters.Absent, adapters.Known, adapters.Absent, adapters.Known, adapters.Known)
}

func roundTrip(s *scene) {
	r := s.made("round-trip")
	p := s.opened(r, "f", desired.PullRequestSpec{Description: "d", Reviewers: []string{"r"}})
	c := s.write(r, "f", "x.txt", "x\n")
	s.do(c, adapters.Run)
	for _, x := range []*adapters.Subject{r, s.branch(r, desired.BranchSpec{Name: "f"}), c, p} {
		var into adapters.Actual
		switch x.Ref.Kind {
		case desired.KindRepository:
			into = see[*adapters.RepositoryActual](s, x)
		case desired.KindBranch:
			into = see[*adapters.BranchActual](s, x)
		case desired.KindCommit:
			into = see[*adapters.CommitActual](s, x)
		case desired.KindPullRequest:
			into = see[*adapters.PullRequestActual](s, x)
		}
		equal(s, "kind", into.ActualKind(), x.Ref.Kind)
		before := text(into)
		if err := json.Unmarshal([]byte(before), into); err != nil || text(into) != before {
			s.Errorf("%s: %v after a round trip: got %s, want %s", x.Ref, err, text(into), before)
		}
	}
}

func strangeHandle(s *scene) {
	r := s.made("strange")
	b := s.branch(r, desired.BranchSpec{Name: "main"})
	p := s.pull(r, "p", desired.PullRequestSpec{SourceBranch: "main"})
	for _, h := range []string{`"text"`, `[1]`, `{"number":99,"head":"zz","sha":"zz"}`, `not json`} {
		x, y, z := *b, *p, *s.write(r, "main", "a", "a")
		x.Handle, y.Handle, z.Handle = []byte(h), []byte(h), []byte(h)
		if o := s.observe(&x); o.Presence != adapters.Known {
			s.Errorf("branch with handle %s: got %s (%s), want known: its name finds it", h, o.Presence, o.Reason)
		}
		for _, q := range []*adapters.Subject{&y, &z} {
			if o := s.observe(q); o.Presence == adapters.Known {
				s.Errorf("%s with handle %s: got known", q.Ref.Kind, h)
			}
		}
	}
}

func unknownKind(s *scene) {
	if got, want := slices.Clone(s.Driver.Kinds()), []desired.Kind{desired.KindRepository, desired.KindBranch, desired.KindCommit, desired.KindPullRequest}; !slices.Equal(got, want) {
		s.Errorf("kinds: got %v, want %v", got, want)
	}
	r := s.made("known")
	odd := s.subject(desired.KindDriftRule, "rule", &desired.DriftRuleSpec{}, r)
	s.refused(s.change(odd, adapters.Create), desired.Invalid)
	s.want(odd, adapters.Unknown)
	for _, x := range []*adapters.Subject{r, s.branch(r, desired.BranchSpec{Name: "main"}), s.write(r, "main", "a", "a"), s.opened(r, "f", desired.PullRequestSpec{})} {
		s.refused(s.change(x, "explode"), desired.Invalid)
	}
	orphan := s.branch(r, desired.BranchSpec{Name: "main"})
	orphan.Parent = nil
	s.want(orphan, adapters.Unknown)
	s.refused(s.change(orphan, adapters.Create), desired.Invalid)
}

func listing(s *scene) {
	l, ok := s.Driver.(adapters.Lister)
	s.need(ok, "driver that lists")
	r := s.made("listing")
	s.opened(r, "f", desired.PullRequestSpec{})
	got, err := l.List(s.Context(), desired.KindBranch, s.Provider, r)
	if err != nil {
		s.Fatal(err)
	}
	var names []string
	for _, x := range got {
		names = append(names, x.Name)
	}
	slices.Sort(names)
	equal(s, "branches", names, []string{"f", "main"})
	if got, err := l.List(s.Context(), desired.KindBranch, s.Provider, s.repository("missing", desired.RepositorySpec{})); err == nil {
		s.Errorf("list of a missing repository: got %d items and no error", len(got))
	}
	if got, err := l.List(s.Context(), desired.KindDriftRule, s.Provider, r); err == nil {
		s.Errorf("list of an unknown kind: got %d items and no error", len(got))
	}
}

func nudged(s *scene) {
	w, ok := s.Driver.(adapters.Watcher)
	s.need(ok && s.Push != nil, "driver that watches, or Push")
	r := s.made("nudged")
	ctx, cancel := context.WithCancel(s.Context())
	nudges, ended := make(chan desired.Ref, 100), make(chan error, 1)
	go func() {
		ended <- w.Watch(ctx, func(got desired.Ref) {
			select {
			case nudges <- got:
			default:
			}
		})
	}()
	deadline := time.After(20 * time.Second)
	for i, nudge := 0, (desired.Ref{}); nudge != r.Ref; i++ {
		s.Push(r.Ref, "main", map[string]string{"n.txt": string(rune('a' + i%26))}) // the watch may have begun after the one before
		select {
		case nudge = <-nudges:
		case <-time.After(200 * time.Millisecond):
		case <-deadline:
			s.Fatal("no nudge after a push")
		}
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("watch ended with %v", err)
	}
}

// killedScenes kill each operation of everything at its n-th step for every n, repeat it with a fresh driver, and
// check that it happened once.
func killedScenes() []sceneTest {
	var scenes []sceneTest
	for i, name := range []string{
		"create repository", "update repository", "create branch", "remove branch", "run commit", "create pull request",
		"update pull request", "merge pull request", "merge pull request and delete its branch", "close pull request", "rename repository", "remove repository",
	} {
		scenes = append(scenes, sceneTest{name, func(s *scene) {
			s.need(s.Interrupt != nil && s.Restart != nil, "Interrupt and Restart")
			for n := 1; s.killAt(i, name, n); n++ {
			}
		}})
	}
	return scenes
}

// killAt plays the i-th change of everything in repositories of its own. It reports whether there was an n-th step.
func (s *scene) killAt(i int, name string, n int) bool {
	repo := fmt.Sprintf("killed-%d-%d", i, n)
	c := s.everything(repo)[i]
	if !strings.HasPrefix(strings.ReplaceAll(name, " ", ""), string(c.Op)+strings.ToLower(string(c.Ref.Kind))) {
		s.Fatalf("%s is not %s %s", name, c.Op, c.Ref.Kind)
	}
	hit := s.Interrupt(n)
	out, err := s.Driver.Apply(s.Context(), c)
	s.hear(out, err)
	wasHit := hit()
	if wasHit && err == nil && out.Done {
		s.Errorf("%s %s: done, though the driver died at step %d", c.Op, c.Ref, n)
	}
	s.restart()
	x := c.Subject
	s.again(&x, c)
	s.after(repo, c)
	if s.Failed() {
		s.Fatalf("that was %s %s, killed at step %d", c.Op, c.Ref, n)
	}
	return wasHit
}

// after checks that a change has happened, exactly once.
func (s *scene) after(repo string, c adapters.Change) {
	s.Helper()
	r := s.repository(repo, desired.RepositorySpec{})
	switch x := c.Subject; {
	case c.Op == adapters.Remove:
		s.want(&x, adapters.Absent)
	case c.Op == adapters.Rename:
		s.want(r, adapters.Absent)
		s.want(&x, adapters.Known)
	case c.Op == adapters.Run:
		s.want(&x, adapters.Absent) // without its handle
		s.once(r.Ref, "work", c.Tag, 1)
	case c.Op == adapters.Merge:
		a := see[*adapters.PullRequestActual](s, &x)
		equal(s, "state", a.State, "merged")
		s.once(r.Ref, "main", c.Tag, 1)
		if c.Spec.(*desired.PullRequestSpec).DeleteSourceBranch {
			s.want(s.branch(r, desired.BranchSpec{Name: "work"}), adapters.Absent)
		}
		equal(s, "merge commit", a.MergeCommit, see[*adapters.BranchActual](s, s.branch(r, desired.BranchSpec{Name: "main"})).Head)
	case c.Op == adapters.Close:
		equal(s, "state", see[*adapters.PullRequestActual](s, &x).State, "closed")
	case c.Op == adapters.Create && c.Ref.Kind == desired.KindPullRequest:
		equal(s, "number", see[*adapters.PullRequestActual](s, &x).Number, 2)
	case c.Op == adapters.Update && c.Ref.Kind == desired.KindPullRequest:
		equal(s, "title", see[*adapters.PullRequestActual](s, &x).Title, "another title")
	case c.Op == adapters.Update:
		a := see[*adapters.RepositoryActual](s, &x)
		equal(s, "repository", a.Description+a.Visibility, "describedpublic")
	default:
		s.want(&x, adapters.Known)
	}
}

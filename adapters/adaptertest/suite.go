// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// Harness is what the author of a driver gives to Suite.
type Harness struct {
	// Open gives a driver over an outside that holds nothing of tenant "suite". It ends both by t.Cleanup.
	Open func(t *testing.T) World
	// Parallel says that several worlds can be open at once.
	Parallel bool
}

// World is one outside with a driver on it. Driver and Provider are required; every other member is optional, and
// the scenes that need it are skipped without it.
type World struct {
	Driver adapters.Driver
	// Provider goes into every Subject. Its credential, if any, must never show up in what the driver says.
	Provider adapters.Provider
	// Restart gives a driver over the same outside that remembers nothing.
	Restart func() adapters.Driver
	// Wait passes time for a driver that answered "not done, look again after d"; nil = sleep.
	Wait func(d time.Duration)

	// Behind the driver's back.
	Push           func(repo desired.Ref, branch string, files map[string]string) (commit string) // as Fake.Push
	DeleteBranch   func(repo desired.Ref, branch string)
	MoveBranch     func(repo desired.Ref, branch, commit string)
	MergeByHand    func(repo desired.Ref, source, target string) (commit string)
	EditRepository func(repo desired.Ref, fn func(*adapters.RepositoryActual))
	DropRepository func(repo desired.Ref)
	ClosePull      func(repo desired.Ref, number int64)
	Approve        func(repo desired.Ref, number int64)

	// What is really there, read without the driver.
	Files   func(repo desired.Ref, rev string) map[string]string
	History func(repo desired.Ref, branch string) []LogEntry

	// Faults.
	Break     func() (repair func())                 // every read fails
	BreakOne  func(repo desired.Ref) (repair func()) // reads of one repository fail
	LoseReply func()                                 // the next Apply takes effect, its caller gets an error; nil = Suite drops the answer
	// Interrupt makes the driver die at its n-th step (1-based) that touches the outside: nothing after it
	// happens. hit tells whether there was an n-th step.
	Interrupt func(n int) (hit func() bool)
}

// Suite holds a driver to the contract of package adapters.
func Suite(t *testing.T, h Harness) {
	for _, group := range []struct {
		name   string
		scenes []sceneTest
	}{
		{"repository", repositoryScenes()},
		{"branch", branchScenes()},
		{"commit", commitScenes()},
		{"pull request", pullScenes()},
		{"every kind", commonScenes()},
		{"killed at any step, once more makes it right", killedScenes()},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, s := range group.scenes {
				t.Run(s.name, func(t *testing.T) {
					if h.Parallel {
						t.Parallel()
					}
					s.run(newScene(t, h))
				})
			}
		})
	}
}

type sceneTest struct {
	name string
	run  func(*scene)
}

// scene is one test over one world: it builds subjects, applies changes until they are done and keeps handles.
type scene struct {
	*testing.T
	World
	tags int
	log  bytes.Buffer
	said []string // everything the driver said: errors, reasons, messages, actuals
}

func newScene(t *testing.T, h Harness) *scene {
	t.Helper()
	s := &scene{T: t, World: h.Open(t)}
	if s.Wait == nil {
		s.Wait = time.Sleep
	}
	t.Cleanup(s.keptSecret)
	return s
}

// need skips the scene when the harness lacks a member.
func (s *scene) need(have bool, what string) {
	s.Helper()
	if !have {
		s.Skipf("the harness gives no %s", what)
	}
}

func (s *scene) keptSecret() {
	secret := s.Provider.Credential.Reveal()
	for _, text := range append(s.said, s.log.String()) {
		if secret != "" && strings.Contains(text, secret) {
			s.Errorf("the driver gave its credential away: %s", strings.ReplaceAll(text, secret, "<credential>"))
		}
	}
}

func ref(kind desired.Kind, name string) desired.Ref {
	return desired.Ref{Tenant: "suite", Project: "proj", Kind: kind, Name: name}
}

func (s *scene) subject(kind desired.Kind, name string, spec desired.Spec, parent *adapters.Subject) *adapters.Subject {
	return &adapters.Subject{Ref: ref(kind, name), Spec: spec, Provider: s.Provider, Parent: parent}
}

// repository is the subject of a repository that does not exist yet; made is one that does.
func (s *scene) repository(name string, spec desired.RepositorySpec) *adapters.Subject {
	return s.subject(desired.KindRepository, name, &spec, nil)
}

func (s *scene) made(name string) *adapters.Subject {
	s.Helper()
	r := s.repository(name, desired.RepositorySpec{})
	s.do(r, adapters.Create)
	return r
}

func (s *scene) branch(repo *adapters.Subject, spec desired.BranchSpec) *adapters.Subject {
	spec.Repository = repo.Ref.Name
	return s.subject(desired.KindBranch, repo.Ref.Name+"."+strings.ReplaceAll(spec.Name, "/", "-"), &spec, repo)
}

// commit is the subject of an authored commit; contents are looked up by path.
func (s *scene) commit(repo *adapters.Subject, spec desired.CommitSpec, contents map[string]string) *adapters.Subject {
	spec.Repository = repo.Ref.Name
	if spec.Message == "" {
		spec.Message = "feat: a change"
	}
	s.tags++
	c := s.subject(desired.KindCommit, fmt.Sprintf("c%d", s.tags), &spec, repo)
	c.Content = func(_ context.Context, path, digest string) ([]byte, error) {
		data, ok := contents[path]
		if !ok {
			return nil, desired.Errorf("read content", c.Ref, desired.NotFound, "no content for %s", path)
		}
		return []byte(data), nil
	}
	return c
}

// write is a commit that sets one file.
func (s *scene) write(repo *adapters.Subject, branch, path, data string) *adapters.Subject {
	spec := desired.CommitSpec{Branch: branch, Changes: []desired.FileChange{{Path: path, Operation: "modify"}}}
	return s.commit(repo, spec, map[string]string{path: data})
}

func (s *scene) pull(repo *adapters.Subject, name string, spec desired.PullRequestSpec) *adapters.Subject {
	spec.Repository = repo.Ref.Name
	if spec.Title == "" {
		spec.Title = "Add " + name
	}
	return s.subject(desired.KindPullRequest, name, &spec, repo)
}

// opened is an open pull request of a branch with one file of its own.
func (s *scene) opened(repo *adapters.Subject, name string, spec desired.PullRequestSpec) *adapters.Subject {
	s.Helper()
	s.do(s.branch(repo, desired.BranchSpec{Name: name}), adapters.Create)
	s.do(s.write(repo, name, name+".txt", "of "+name+"\n"), adapters.Run)
	spec.SourceBranch = name
	p := s.pull(repo, name, spec)
	s.do(p, adapters.Create)
	return p
}

func (s *scene) change(x *adapters.Subject, op adapters.Op, fields ...string) adapters.Change {
	s.tags++
	return adapters.Change{
		Subject: *x, Op: op, Fields: fields, Tag: fmt.Sprintf("tag-%s-%s-%d", x.Ref.Name, op, s.tags),
		Author: desired.Person{Name: "Grace", Email: "grace@example.com"}, Log: &s.log,
	}
}

// do applies one operation until it is done and keeps the handle; it fails the test on an error.
func (s *scene) do(x *adapters.Subject, op adapters.Op, fields ...string) adapters.Change {
	s.Helper()
	c := s.change(x, op, fields...)
	s.again(x, c)
	return c
}

// again applies a change, perhaps not for the first time.
func (s *scene) again(x *adapters.Subject, c adapters.Change) {
	s.Helper()
	if err := s.try(x, c); err != nil {
		s.Fatalf("%s %s: %v", c.Op, c.Ref, err)
	}
}

// try applies a change until it is done or fails.
func (s *scene) try(x *adapters.Subject, c adapters.Change) error {
	s.Helper()
	for range 100 {
		out, err := s.Driver.Apply(s.Context(), c)
		s.hear(out, err)
		if err != nil {
			return err
		}
		if out.Handle != nil {
			c.Handle, x.Handle = out.Handle, out.Handle
		}
		if out.Done {
			s.agrees(x, c, out)
			return nil
		}
		s.Wait(out.After)
	}
	s.Fatalf("%s %s: not done after 100 calls", c.Op, c.Ref)
	return nil
}

// agrees checks that an outcome says what an Observe would say.
func (s *scene) agrees(x *adapters.Subject, c adapters.Change, out adapters.Outcome) {
	s.Helper()
	if out.Actual == nil {
		return
	}
	o := s.observe(x)
	if got, want := text(out.Actual), text(o.Actual); o.Presence == adapters.Known && got != want {
		s.Errorf("%s %s: the outcome says %s, an observation says %s", c.Op, c.Ref, got, want)
	}
}

func text(a adapters.Actual) string {
	b, err := json.Marshal(a)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s *scene) hear(out adapters.Outcome, err error) {
	s.said = append(s.said, out.Message, string(out.Handle), text(out.Actual))
	if err != nil {
		s.said = append(s.said, err.Error())
	}
}

// observe looks at one subject and keeps its handle.
func (s *scene) observe(x *adapters.Subject) adapters.Observation {
	s.Helper()
	return s.look(x)[0]
}

// look observes several subjects in one call; an error of the whole call makes them all unknown.
func (s *scene) look(xs ...*adapters.Subject) []adapters.Observation {
	s.Helper()
	var in []adapters.Subject
	for _, x := range xs {
		in = append(in, *x)
	}
	got, err := s.Driver.Observe(s.Context(), in)
	if err != nil {
		s.said = append(s.said, err.Error())
		got = slices.Repeat([]adapters.Observation{{Presence: adapters.Unknown, Reason: err.Error(), Err: err}}, len(xs))
	}
	if len(got) != len(xs) {
		s.Fatalf("observe: %d answers for %d subjects", len(got), len(xs))
	}
	for i, o := range got {
		s.said = append(s.said, o.Reason, string(o.Handle), text(o.Actual))
		if o.Err != nil {
			s.said = append(s.said, o.Err.Error())
		}
		if o.Presence == adapters.Known && o.Handle != nil {
			xs[i].Handle = o.Handle
		}
	}
	return got
}

// see is observe for a subject that must be known, as its own type.
func see[A adapters.Actual](s *scene, x *adapters.Subject) A {
	s.Helper()
	o := s.observe(x)
	a, ok := o.Actual.(A)
	if o.Presence != adapters.Known || !ok {
		s.Fatalf("observe %s: got %s %T (%s), want it known", x.Ref, o.Presence, o.Actual, o.Reason)
	}
	return a
}

func (s *scene) want(x *adapters.Subject, p adapters.Presence) {
	s.Helper()
	if o := s.observe(x); o.Presence != p {
		s.Fatalf("observe %s: got %s (%s), want %s", x.Ref, o.Presence, o.Reason, p)
	}
}

// refused applies a change that must fail with a class, and returns the text of the error.
func (s *scene) refused(c adapters.Change, class desired.Class) string {
	s.Helper()
	x := c.Subject
	err := s.try(&x, c)
	if err == nil {
		s.Fatalf("%s %s: done, want an error of class %s", c.Op, c.Ref, class)
	}
	if got := desired.ClassOf(err); got != class {
		s.Errorf("%s %s: got class %s (%v), want %s", c.Op, c.Ref, got, err, class)
	}
	return err.Error()
}

// lose applies a change whose effect happens and whose answer is lost.
func (s *scene) lose(c adapters.Change) {
	s.Helper()
	if s.LoseReply != nil {
		s.LoseReply()
	}
	out, err := s.Driver.Apply(s.Context(), c)
	s.hear(out, err)
	if err == nil && s.LoseReply != nil {
		s.Fatalf("%s %s: the reply was to be lost and came", c.Op, c.Ref)
	}
	if err != nil && s.LoseReply == nil {
		s.Fatalf("%s %s: %v", c.Op, c.Ref, err)
	}
}

// restart goes on with a driver that remembers nothing, where the harness can give one.
func (s *scene) restart() {
	if s.Restart != nil {
		s.Driver = s.Restart()
	}
}

func equal[T any](s *scene, what string, got, want T) {
	s.Helper()
	g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want)
	if g != w {
		s.Errorf("%s: got %s, want %s", what, g, w)
	}
}

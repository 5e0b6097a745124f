// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// LocalConfig of a Local.
type LocalConfig struct {
	Dir       string           // of the hosted repositories; one process owns it
	PublicURL func() string    // where people reach /git/hosted/; nil = repositories are named by file URLs
	Now       func() time.Time // nil = time.Now
	Committer desired.Person   // of commits that the host makes; default Plumbline <plumbline@plumbline.invalid>
	MaxOpen   int              // repositories kept open; 0 = 64
	Poll      time.Duration    // how often Watch looks without being told; 0 = 5 s
	MaxPush   int64            // bytes of one push; 0 = the default of gitstore.Door
	OnError   func(error)      // sees what people at a Door are not told; may be nil
}

// Local hosts repositories in a directory. It is safe for concurrent use. Close it when nothing uses it any more.
type Local struct {
	cfg LocalConfig
	// step is called before anything that a crash could come after; an error stops the call there. Tests use it to
	// die at every step; it is nil otherwise.
	step func() error

	mu     sync.Mutex // guards the fields below and the counts in hosted
	repos  map[desired.Ref]*hosted
	moving map[desired.Ref]bool // being created, renamed or removed: nobody may use it
	clock  uint64               // counts uses, for closing the least recently used
}

var (
	_ adapters.Driver  = (*Local)(nil)
	_ adapters.Lister  = (*Local)(nil)
	_ adapters.Watcher = (*Local)(nil)
	_ adapters.Checker = (*Local)(nil)
)

// marker is a file in Dir that says: this is the directory. Without it nothing is known to be absent.
const marker = ".plumbline-host"

// NewLocal opens or creates the directory of hosted repositories and clears what a crash left half made.
func NewLocal(c LocalConfig) (*Local, error) {
	const op = "open git host"
	if c.Dir == "" {
		return nil, desired.Errorf(op, desired.Ref{}, desired.Invalid, "no directory was given")
	}
	abs, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, desired.E(op, desired.Ref{}, desired.Internal, err)
	}
	c.Dir = abs
	c.MaxOpen, c.Poll = cmp.Or(c.MaxOpen, 64), cmp.Or(c.Poll, 5*time.Second)
	c.Committer = cmp.Or(c.Committer, desired.Person{Name: "Plumbline", Email: "plumbline@plumbline.invalid"})
	if c.Now == nil {
		c.Now = time.Now
	}
	l := &Local{cfg: c, repos: map[desired.Ref]*hosted{}, moving: map[desired.Ref]bool{}}
	if err := makeDirs(c.Dir); err != nil {
		return nil, desired.E(op, desired.Ref{}, desired.Internal, err)
	}
	if err := os.RemoveAll(l.nursery()); err != nil {
		return nil, desired.E(op, desired.Ref{}, desired.Internal, err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, marker)); errors.Is(err, fs.ErrNotExist) {
		err = replaceFile(filepath.Join(c.Dir, marker), []byte("Plumbline keeps hosted git repositories here.\n"))
		if err != nil {
			return nil, desired.E(op, desired.Ref{}, desired.Internal, err)
		}
	} else if err != nil {
		return nil, desired.E(op, desired.Ref{}, desired.Internal, err)
	}
	return l, nil
}

// Close closes every repository. Calls under way may fail.
func (l *Local) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for ref, h := range l.repos {
		delete(l.repos, ref)
		err = errors.Join(err, h.close())
	}
	return err
}

// Kinds implements adapters.Driver.
func (l *Local) Kinds() []desired.Kind {
	return []desired.Kind{desired.KindRepository, desired.KindBranch, desired.KindCommit, desired.KindPullRequest}
}

// Observe implements adapters.Driver. Each repository is read once, however many subjects lie in it. What it saw
// of branches and pull requests is pinned under refs/plumbline/, so that it can come back when it is deleted.
func (l *Local) Observe(ctx context.Context, subjects []adapters.Subject) ([]adapters.Observation, error) {
	if err := ended(ctx, "observe", desired.Ref{}); err != nil {
		return nil, err
	}
	answers := make([]adapters.Observation, len(subjects))
	var order []desired.Ref
	within := map[desired.Ref][]int{}
	for i, s := range subjects {
		home, err := homeOf(s, "observe")
		if err != nil {
			answers[i] = unknown(err)
			continue
		}
		if within[home] == nil {
			order = append(order, home)
		}
		within[home] = append(within[home], i)
	}
	for _, home := range order {
		l.observeIn(ctx, home, subjects, within[home], answers)
	}
	for i := range answers {
		answers[i].At = l.cfg.Now()
	}
	return answers, nil
}

// observeIn answers for the subjects that lie in one repository.
func (l *Local) observeIn(ctx context.Context, home desired.Ref, subjects []adapters.Subject, which []int, answers []adapters.Observation) {
	var v *view
	h, release, err := l.use(ctx, home)
	if err == nil {
		defer release()
		v, err = h.glance()
	}
	for _, i := range which {
		s := subjects[i]
		switch {
		case errors.Is(err, errMissing) && s.Ref.Kind == desired.KindRepository:
			answers[i] = adapters.Observation{Presence: adapters.Absent}
		case errors.Is(err, errMissing):
			answers[i] = unknown(missing("observe", s.Ref, home))
		case err != nil:
			answers[i] = unknown(classify("observe", s.Ref, err))
		default:
			answers[i] = l.observeOne(ctx, v, s)
		}
	}
	if v == nil {
		return
	}
	if err := l.remember(ctx, v); err != nil {
		for _, i := range which {
			if answers[i].Presence == adapters.Known {
				answers[i].Reason = "what was seen could not be pinned, so a deleted branch may not come back: " + err.Error()
			}
		}
	}
}

func (l *Local) observeOne(ctx context.Context, v *view, s adapters.Subject) adapters.Observation {
	var actual adapters.Actual
	var handle json.RawMessage
	err := ended(ctx, "observe", s.Ref)
	if err != nil {
		return unknown(err)
	}
	pins, settled := len(v.pins), len(v.settled)
	v.err = nil
	switch spec := s.Spec.(type) {
	case *desired.RepositorySpec:
		actual, err = l.repositoryActual(v)
	case *desired.BranchSpec:
		actual, handle = v.branchActual(spec.Name, s.Handle)
	case *desired.CommitSpec:
		actual, handle = v.commitActual(spec, s.Handle)
	case *desired.PullRequestSpec:
		actual, handle, err = l.observePull(ctx, v, s)
	default:
		err = desired.Errorf("observe", s.Ref, desired.Invalid, "the local git host has no %s", s.Ref.Kind)
	}
	if err == nil {
		err = v.err
	}
	switch {
	case err != nil:
		v.pins, v.settled = v.pins[:pins], v.settled[:settled]
		return unknown(classify("observe", s.Ref, err))
	case actual == nil:
		return adapters.Observation{Presence: adapters.Absent}
	}
	return adapters.Observation{Presence: adapters.Known, Actual: actual, Handle: handle}
}

// Apply implements adapters.Driver.
func (l *Local) Apply(ctx context.Context, c adapters.Change) (adapters.Outcome, error) {
	if err := ended(ctx, string(c.Op), c.Ref); err != nil {
		return adapters.Outcome{}, err
	}
	if _, err := homeOf(c.Subject, string(c.Op)); err != nil {
		return adapters.Outcome{}, err
	}
	var out adapters.Outcome
	var err error
	switch spec := c.Spec.(type) {
	case *desired.RepositorySpec:
		out, err = l.applyRepository(ctx, c, spec)
	case *desired.BranchSpec:
		out, err = l.within(ctx, c, func(h *hosted) (adapters.Outcome, error) { return l.applyBranch(ctx, h, c, spec) })
	case *desired.CommitSpec:
		out, err = l.within(ctx, c, func(h *hosted) (adapters.Outcome, error) { return l.applyCommit(ctx, h, c, spec) })
	case *desired.PullRequestSpec:
		out, err = l.within(ctx, c, func(h *hosted) (adapters.Outcome, error) { return l.applyPull(ctx, h, c, spec) })
	default:
		err = refuse(c, desired.Invalid, "the local git host has no %s", c.Ref.Kind)
	}
	if err != nil {
		return adapters.Outcome{}, classify(string(c.Op), c.Ref, err)
	}
	return out, nil
}

// within runs fn on the repository that a change lies in. A reference that moved under it, or that another program
// holds, makes it run again on what is there then.
func (l *Local) within(ctx context.Context, c adapters.Change, fn func(*hosted) (adapters.Outcome, error)) (adapters.Outcome, error) {
	h, release, err := l.use(ctx, c.Parent.Ref)
	if errors.Is(err, errMissing) {
		return adapters.Outcome{}, missing(string(c.Op), c.Ref, c.Parent.Ref)
	}
	if err != nil {
		return adapters.Outcome{}, err
	}
	defer release()
	for try := 1; ; try++ {
		out, err := fn(h)
		var moved *gitstore.RefError
		if !errors.As(err, &moved) {
			return out, err
		}
		if try == 8 {
			return out, refuse(c, desired.Transient, "%w: it kept moving", err)
		}
		select {
		case <-ctx.Done():
			return out, ended(ctx, string(c.Op), c.Ref)
		case <-time.After(time.Duration(try*try) * 5 * time.Millisecond):
		}
	}
}

// homeOf is the ref of the repository that a subject is or lies in, checked: it becomes a path.
func homeOf(s adapters.Subject, op string) (desired.Ref, error) {
	home := s.Ref
	if s.Ref.Kind != desired.KindRepository {
		if s.Parent == nil {
			return home, desired.Errorf(op, s.Ref, desired.Invalid, "no repository was given")
		}
		home = s.Parent.Ref
	}
	return home, checkRef(op, home)
}

func checkRef(op string, r desired.Ref) error {
	if r.Kind != desired.KindRepository {
		return desired.Errorf(op, r, desired.Invalid, "a %s is no repository", r.Kind)
	}
	for what, err := range map[string]error{"tenant": desired.ValidTenant(r.Tenant), "project": desired.ValidTenant(r.Project), "repository": desired.ValidName(r.Name)} {
		if err != nil {
			return desired.Errorf(op, r, desired.Invalid, "%s name: %w", what, err)
		}
	}
	return nil
}

func ended(ctx context.Context, op string, ref desired.Ref) error {
	if ctx.Err() == nil {
		return nil
	}
	return desired.E(op, ref, desired.Transient, context.Cause(ctx))
}

func refuse(c adapters.Change, class desired.Class, format string, args ...any) error {
	return desired.Errorf(string(c.Op), c.Ref, class, format, args...)
}

func missing(op string, ref, home desired.Ref) error {
	return desired.Errorf(op, ref, desired.Waiting, "its repository %s is missing", home.Name)
}

func unknown(err error) adapters.Observation {
	return adapters.Observation{Presence: adapters.Unknown, Reason: err.Error(), Err: err}
}

// classify turns an error of the disk or of a repository into one that says what happens next.
func classify(op string, ref desired.Ref, err error) error {
	if err == nil {
		return nil
	}
	var known *desired.Error
	var moved *gitstore.RefError
	class := desired.Internal
	switch {
	case errors.As(err, &known):
		if known.Ref.IsZero() { // from below, which knows no refs
			return desired.E(op, ref, known.Class, fmt.Errorf("%w", known))
		}
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		class = desired.Transient
	case errors.As(err, &moved):
		class = desired.Transient
		err = fmt.Errorf("%w: another program is changing it", err)
	case errors.Is(err, gitstore.ErrCorrupt):
		class = desired.Stalled
		err = fmt.Errorf("%w: run git fsck in it, and restore what is damaged from a clone", err)
	}
	return desired.E(op, ref, class, err)
}

// touch is the place where a test may end the driver.
func (l *Local) touch() error {
	if l.step == nil {
		return nil
	}
	return l.step()
}

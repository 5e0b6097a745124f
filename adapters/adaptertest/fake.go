// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// Method names a call on a driver.
type Method string

// The methods of a driver that faults can match and the call log shows.
const (
	Observe   Method = "observe"
	Apply     Method = "apply"
	List      Method = "list"
	PostCheck Method = "check"
)

// Fault is what happens to the calls that match it. Faults are tried in the order they were scripted; a used-up
// fault is gone. Exactly one of Err, LoseReply, Hang, Stale and Pending is set.
type Fault struct {
	// Which calls; a zero field matches all. An Observe fault with a Kind or Name concerns the matching subjects,
	// one without concerns the whole call.
	Method Method
	Kind   desired.Kind
	Op     adapters.Op
	Name   string // of the ref
	Times  int    // how many calls; 0 = one, negative = for ever

	Err       error         // fails before it had any effect
	LoseReply bool          // takes effect; the answer is a Transient error
	Hang      bool          // neither effect nor answer until ctx ends
	Stale     bool          // Observe, List: answers as things were before the last change of that repository
	Pending   time.Duration // Apply: no effect yet, Outcome{Done: false, After: Pending}
}

// Call is one line of the call log. Observe logs a line for each subject.
type Call struct {
	Method  Method
	Ref     desired.Ref
	Op      adapters.Op
	Fields  []string
	Tag     string
	Epoch   int64
	Changed bool // the outside is different now
	Err     error
}

func (c Call) String() string {
	s := string(c.Method)
	if c.Op != "" {
		s += " " + string(c.Op)
	}
	s += " " + c.Ref.String()
	if len(c.Fields) > 0 {
		s += fmt.Sprint(" ", c.Fields)
	}
	if c.Changed {
		s += " changed"
	}
	if c.Err != nil {
		s += " err=" + string(desired.ClassOf(c.Err))
	}
	return s
}

// Fake is a driver for the four kinds of a git host over a model kept in memory. Safe for concurrent use. Its
// clock is time.Now, so it may run inside testing/synctest.
type Fake struct {
	mu       sync.Mutex
	repos    map[desired.Ref]*repo
	lagging  map[desired.Ref]*repo // each repository as it was before its last change; nil = absent
	trash    map[desired.Ref]*repo
	commits  map[string]*commit
	stamp    int // makes commit ids differ
	faults   []Fault
	calls    []Call
	broken   map[desired.Ref]error
	inFlight map[desired.Ref]int
	overlaps int
	nudges   map[int]func(desired.Ref)
	watchers int
}

var (
	_ adapters.Driver  = (*Fake)(nil)
	_ adapters.Lister  = (*Fake)(nil)
	_ adapters.Watcher = (*Fake)(nil)
	_ adapters.Checker = (*Fake)(nil)
)

// NewFake returns a driver over an empty outside.
func NewFake() *Fake {
	return &Fake{
		repos: map[desired.Ref]*repo{}, lagging: map[desired.Ref]*repo{}, trash: map[desired.Ref]*repo{},
		commits: map[string]*commit{}, broken: map[desired.Ref]error{}, inFlight: map[desired.Ref]int{}, nudges: map[int]func(desired.Ref){},
	}
}

// Script adds faults.
func (f *Fake) Script(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range faults {
		if x.Times == 0 {
			x.Times = 1
		}
		f.faults = append(f.faults, x)
	}
}

// Heal drops every fault that is left.
func (f *Fake) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Calls returns the call log so far.
func (f *Fake) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Applies returns the Apply calls of the log, those that changed something and those that did not.
func (f *Fake) Applies() []Call {
	return slices.DeleteFunc(f.Calls(), func(c Call) bool { return c.Method != Apply })
}

// ForgetCalls empties the call log.
func (f *Fake) ForgetCalls() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = nil
}

// Overlaps counts Apply calls that began while another one for the same ref was under way.
func (f *Fake) Overlaps() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.overlaps
}

// take finds and uses the fault for a call. mu is held.
func (f *Fake) take(m Method, ref desired.Ref, op adapters.Op, whole bool) (Fault, bool) {
	for i := range f.faults {
		x := &f.faults[i]
		narrow := x.Kind != "" || x.Name != ""
		if m == Observe && narrow == whole {
			continue
		}
		if x.Method != "" && x.Method != m || x.Op != "" && x.Op != op ||
			x.Kind != "" && x.Kind != ref.Kind || x.Name != "" && x.Name != ref.Name {
			continue
		}
		got := *x
		if x.Times > 0 {
			if x.Times--; x.Times == 0 {
				f.faults = slices.Delete(f.faults, i, i+1)
			}
		}
		return got, true
	}
	return Fault{}, false
}

// Kinds implements adapters.Driver.
func (f *Fake) Kinds() []desired.Kind {
	return []desired.Kind{desired.KindRepository, desired.KindBranch, desired.KindCommit, desired.KindPullRequest}
}

// Observe implements adapters.Driver.
func (f *Fake) Observe(ctx context.Context, subjects []adapters.Subject) ([]adapters.Observation, error) {
	if err := ended(ctx, "observe", desired.Ref{}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	fault, ok := f.take(Observe, desired.Ref{}, "", true)
	f.mu.Unlock()
	if ok && fault.Hang {
		<-ctx.Done()
		return nil, ended(ctx, "observe", desired.Ref{})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ok && fault.Err != nil {
		for _, s := range subjects {
			f.calls = append(f.calls, Call{Method: Observe, Ref: s.Ref, Err: fault.Err})
		}
		return nil, fault.Err
	}
	answers := make([]adapters.Observation, len(subjects))
	for i, s := range subjects {
		one, narrow := f.take(Observe, s.Ref, "", false)
		switch {
		case narrow && one.Err != nil:
			answers[i] = unknown(one.Err)
		default:
			answers[i] = f.observe(s, fault.Stale || one.Stale)
		}
		answers[i].At = time.Now()
		f.calls = append(f.calls, Call{Method: Observe, Ref: s.Ref, Err: answers[i].Err})
	}
	return answers, nil
}

// Apply implements adapters.Driver.
func (f *Fake) Apply(ctx context.Context, c adapters.Change) (adapters.Outcome, error) {
	if err := ended(ctx, string(c.Op), c.Ref); err != nil {
		return adapters.Outcome{}, err
	}
	fault := f.begin(c)
	defer f.finish(c.Ref)
	if fault.Hang {
		<-ctx.Done()
		err := ended(ctx, string(c.Op), c.Ref)
		f.log(c, false, err)
		return adapters.Outcome{}, err
	}
	if fault.Err != nil {
		f.log(c, false, fault.Err)
		return adapters.Outcome{}, fault.Err
	}
	if fault.Pending > 0 {
		f.log(c, false, nil)
		return adapters.Outcome{Handle: c.Handle, After: fault.Pending, Message: "accepted, not there yet"}, nil
	}
	files, err := readContent(ctx, c)
	if err != nil {
		f.log(c, false, err)
		return adapters.Outcome{}, err
	}
	out, changed, err := f.change(c, files)
	if err == nil && fault.LoseReply {
		out, err = adapters.Outcome{}, desired.Errorf(string(c.Op), c.Ref, desired.Transient, "the connection was reset before an answer came")
	}
	f.log(c, changed, err)
	return out, err
}

func (f *Fake) begin(c adapters.Change) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inFlight[c.Ref]++; f.inFlight[c.Ref] > 1 {
		f.overlaps++
	}
	fault, _ := f.take(Apply, c.Ref, c.Op, false)
	return fault
}

func (f *Fake) finish(ref desired.Ref) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inFlight[ref]--
}

func (f *Fake) log(c adapters.Change, changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, Call{Method: Apply, Ref: c.Ref, Op: c.Op, Fields: c.Fields, Tag: c.Tag, Epoch: c.Epoch, Changed: changed, Err: err})
}

// change runs one transition and remembers the picture before it.
func (f *Fake) change(c adapters.Change, files map[string]string) (adapters.Outcome, bool, error) {
	home := c.Ref
	if c.Parent != nil {
		home = c.Parent.Ref
	}
	var out adapters.Outcome
	var err error
	changed := f.edit(home, func() {
		switch spec := c.Spec.(type) {
		case *desired.RepositorySpec:
			out, err = f.applyRepository(c, spec)
		case *desired.BranchSpec:
			out, err = f.applyBranch(c, spec)
		case *desired.CommitSpec:
			out, err = f.applyCommit(c, spec, files)
		case *desired.PullRequestSpec:
			out, err = f.applyPull(c, spec)
		default:
			err = refuse(c, desired.Invalid, "this driver has no %s", c.Ref.Kind)
		}
	})
	return out, changed, err
}

// edit runs fn under the lock and reports whether the repository at home is different afterwards.
func (f *Fake) edit(home desired.Ref, fn func()) bool {
	f.mu.Lock()
	before := f.repos[home].clone()
	fn()
	changed := !reflect.DeepEqual(before, f.repos[home])
	var nudges []func(desired.Ref)
	if changed {
		f.lagging[home] = before
		nudges = slices.Collect(maps.Values(f.nudges))
	}
	f.mu.Unlock()
	for _, nudge := range nudges {
		nudge(home)
	}
	return changed
}

// List implements adapters.Lister.
func (f *Fake) List(ctx context.Context, kind desired.Kind, p adapters.Provider, parent *adapters.Subject) ([]adapters.Listed, error) {
	if err := ended(ctx, "list", desired.Ref{}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ref := desired.Ref{Kind: kind}
	if parent != nil {
		ref.Tenant, ref.Project, ref.Name = parent.Ref.Tenant, parent.Ref.Project, parent.Ref.Name
	}
	fault, _ := f.take(List, ref, "", false)
	f.calls = append(f.calls, Call{Method: List, Ref: ref, Err: fault.Err})
	if fault.Err != nil {
		return nil, fault.Err
	}
	return f.list(kind, p, parent, fault.Stale)
}

// Watch implements adapters.Watcher: every change of the outside, whoever made it, nudges its repository.
func (f *Fake) Watch(ctx context.Context, nudge func(desired.Ref)) error {
	f.mu.Lock()
	id := f.watchers
	f.watchers++
	f.nudges[id] = nudge
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	delete(f.nudges, id)
	f.mu.Unlock()
	return nil
}

// PostCheck implements adapters.Checker.
func (f *Fake) PostCheck(ctx context.Context, pr adapters.Subject, c adapters.Check) error {
	if err := ended(ctx, "post check", pr.Ref); err != nil {
		return err
	}
	f.mu.Lock()
	fault, _ := f.take(PostCheck, pr.Ref, "", false)
	f.mu.Unlock()
	err := fault.Err
	if err == nil {
		home := desired.Ref{}
		if pr.Parent != nil {
			home = pr.Parent.Ref
		}
		f.edit(home, func() { err = f.postCheck(home, pr, c) })
	}
	f.mu.Lock()
	f.calls = append(f.calls, Call{Method: PostCheck, Ref: pr.Ref, Err: err})
	f.mu.Unlock()
	return err
}

// readContent opens what an authored commit needs before anything is changed.
func readContent(ctx context.Context, c adapters.Change) (map[string]string, error) {
	spec, ok := c.Spec.(*desired.CommitSpec)
	if !ok || c.Op != adapters.Run {
		return nil, nil
	}
	files := map[string]string{}
	for _, ch := range spec.Changes {
		if ch.Operation == "delete" || ch.Operation == "rename" && ch.Digest == "" {
			continue
		}
		data, err := c.Content(ctx, ch.Path, ch.Digest)
		if err != nil {
			return nil, err
		}
		files[ch.Digest+" "+ch.Path] = string(data)
	}
	return files, nil
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

func unknown(err error) adapters.Observation {
	return adapters.Observation{Presence: adapters.Unknown, Reason: err.Error(), Err: err}
}

func handle(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only plain structs of strings and numbers come here
	}
	return b
}

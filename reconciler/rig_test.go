// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/adapters/adaptertest"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files is a control repository kept in memory: every edit is an accepted head.
type files struct {
	tenant string

	mu       sync.Mutex
	platform *desired.Snapshot
	head     *desired.Head
	steps    []desired.Changes // of head i+1
	subs     map[chan struct{}]bool
	blobs    map[string][]byte
	forgets  bool // Changes answers that it does not know
}

func newFiles(tenant string) *files {
	return &files{tenant: tenant, head: &desired.Head{Snapshot: desired.Empty(tenant)}, subs: map[chan struct{}]bool{}, blobs: map[string][]byte{}}
}

func (f *files) Head() *desired.Head {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.head
}

func (f *files) Changes(after uint64) (desired.Changes, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.forgets || after > f.head.Seq {
		return desired.Changes{}, false
	}
	return desired.MergeChanges(f.steps[after:]), true
}

func (f *files) Watch() (<-chan struct{}, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan struct{}, 1)
	f.subs[c] = true
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subs, c)
	}
}

func (f *files) Content(_ context.Context, e *desired.Entry, digest string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, ok := f.blobs[digest]; ok {
		return b, nil
	}
	return nil, desired.E("read content", e.Ref, desired.NotFound, fs.ErrNotExist)
}

// write accepts a head that changes files; an empty content deletes one.
func (f *files) write(changes map[string]string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	seq := f.head.Seq + 1
	d := desired.Delta{Commit: sha(fmt.Sprint(f.tenant, seq)), Change: desired.Provenance{Seq: seq, Author: "Ann <ann@example.com>", Principal: "user:ann", At: time.Now()}}
	d.Change.Commit = d.Commit
	for _, path := range slices.Sorted(maps.Keys(changes)) {
		data := changes[path]
		d.Files = append(d.Files, desired.File{Path: path, Blob: sha(data), Data: []byte(data), Deleted: data == ""})
	}
	snap, c := f.head.Snapshot.Advance(d, nil)
	f.head = &desired.Head{Seq: seq, Commit: d.Commit, Snapshot: snap.WithPlatform(f.platform), At: time.Now()}
	f.steps = append(f.steps, c)
	f.notify()
	return seq
}

// amend replaces the head as it is: frozen, or with another platform.
func (f *files) amend(fn func(h *desired.Head)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := *f.head
	fn(&h)
	f.head = &h
	f.notify()
}

func (f *files) notify() {
	for c := range f.subs {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func sha(s string) string {
	b := sha1.Sum([]byte(s))
	return hex.EncodeToString(b[:])
}

// rig is an engine with everything around it, inside a synctest bubble.
type rig struct {
	t       *testing.T
	fake    *adaptertest.Fake
	store   *tap
	sources map[string]*files
	engine  *Engine
	stop    context.CancelFunc
	done    chan struct{}
	config  func(*Config)

	mu       sync.Mutex
	turns    []TurnEvent
	findings []plan.Finding
	errors   []error
	owners   []string
}

// tap is a store that counts writes and can die after one of them.
type tap struct {
	state.Store
	mu      sync.Mutex
	commits int
	puts    []state.Put
	dieAt   int // 0 = never; the commit with this number is the last one
	before  bool
	dead    bool
	died    func()
	pre     func([]state.Put) // before each commit, outside the lock
	fail    int               // commits to refuse
	each    func(state.Fence, []state.Put)
}

func (s *tap) Commit(ctx context.Context, f state.Fence, puts ...state.Put) (int64, error) {
	s.mu.Lock()
	s.commits++
	if s.dead {
		s.mu.Unlock()
		return 0, desired.Errorf("commit records", desired.Ref{}, desired.Transient, "the process is dead")
	}
	if s.fail > 0 {
		s.fail--
		s.mu.Unlock()
		return 0, desired.Errorf("commit records", desired.Ref{}, desired.Transient, "the store does not answer")
	}
	die := s.dieAt > 0 && s.commits == s.dieAt
	s.dead = die
	before, pre := s.before, s.pre
	s.puts = append(s.puts, puts...)
	each := s.each
	s.mu.Unlock()
	if pre != nil {
		pre(puts)
	}
	if die && before {
		s.died()
		return 0, desired.Errorf("commit records", desired.Ref{}, desired.Transient, "the process died before it could write")
	}
	rev, err := s.Store.Commit(ctx, f, puts...)
	if each != nil && err == nil {
		s.mu.Lock()
		each(f, puts)
		s.mu.Unlock()
	}
	if die {
		s.died()
		return 0, desired.Errorf("commit records", desired.Ref{}, desired.Transient, "the process died after it wrote")
	}
	return rev, err
}

func (s *tap) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits, s.puts = 0, nil
}

// written lists the keys of all writes since forget.
func (s *tap) written() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, p := range s.puts {
		out = append(out, p.Key.String()+" "+string(p.Value))
	}
	return out
}

// slow is a driver whose changes take a while.
type slow struct{ adapters.Driver }

func (d slow) Apply(ctx context.Context, c adapters.Change) (adapters.Outcome, error) {
	sleep(ctx, 5*time.Second)
	return d.Driver.Apply(ctx, c)
}

// deaf is a driver that notices nothing by itself.
type deaf struct{ adapters.Driver }

// scene runs a story in a bubble over a fresh outside, store and the control repositories of tenants.
func scene(t *testing.T, story func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mem := state.NewMemory(state.MemoryConfig{Epoch: "e1"})
		r := &rig{t: t, fake: adaptertest.NewFake(), store: &tap{Store: mem}, sources: map[string]*files{"acme": newFiles("acme")}}
		defer func() {
			if r.stop != nil {
				r.kill()
			}
			if err := mem.Close(); err != nil {
				t.Error(err)
			}
		}()
		story(r)
	})
}

// start runs an engine over everything that is there.
func (r *rig) start() {
	r.t.Helper()
	c := Config{
		Store: r.store, Drivers: map[string]adapters.Driver{"local": r.fake}, Now: time.Now, Workers: 2,
		Artifacts: func(_ context.Context, tenant, id, digest, path string) ([]byte, error) {
			return []byte(tenant + " " + id + " " + path), nil
		},
		Events: Events{
			Turn:    func(e TurnEvent) { r.mu.Lock(); defer r.mu.Unlock(); r.turns = append(r.turns, e) },
			Finding: func(f plan.Finding) { r.mu.Lock(); defer r.mu.Unlock(); r.findings = append(r.findings, f) },
			Error: func(op string, err error) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.errors = append(r.errors, fmt.Errorf("%s: %w", op, err))
			},
			Owner: func(unit string, held bool) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.owners = append(r.owners, fmt.Sprint(unit, " ", held))
			},
		},
	}
	if r.config != nil {
		r.config(&c)
	}
	e, err := New(c)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(r.sources)) {
		e.Attach(name, r.sources[name])
	}
	ctx, stop := context.WithCancel(r.t.Context())
	r.engine, r.stop, r.done = e, stop, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		if err := e.Run(ctx); err != nil {
			r.t.Error(err)
		}
	}(r.done)
	r.pass(time.Second)
}

// kill ends the engine.
func (r *rig) kill() {
	r.stop()
	<-r.done
	r.stop = nil
}

// pass lets time go by, and everything settle.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// write changes documents of acme's project booking: file name without ending -> YAML.
func (r *rig) write(docs map[string]string) uint64 { return r.writeTo("acme", docs) }

func (r *rig) writeTo(tenant string, docs map[string]string) uint64 {
	changes := map[string]string{}
	for name, yaml := range docs {
		path := "projects/booking/" + name + ".yaml"
		if strings.Contains(name, "/") {
			path = name + ".yaml"
		}
		if yaml != "" {
			yaml = "apiVersion: plumbline.dev/v1\n" + strings.TrimSpace(yaml) + "\n"
		}
		changes[path] = yaml
	}
	seq := r.sources[tenant].write(changes)
	if bad := r.sources[tenant].Head().Snapshot.Quarantined(); len(bad) > 0 && !strings.Contains(fmt.Sprint(docs), "broken") {
		r.t.Fatalf("bad test document: %v", bad[0].Err)
	}
	r.pass(time.Second)
	return seq
}

func ref(kind desired.Kind, name string) desired.Ref {
	return desired.Ref{Tenant: "acme", Project: "booking", Kind: kind, Name: name}
}

var api = ref(desired.KindRepository, "api")

const (
	apiDoc     = "kind: Repository\nmetadata: {name: api}\nspec: {description: Reservations}"
	featureDoc = "kind: Branch\nmetadata: {name: api.feature}\nspec: {repository: api, name: feature/x, fromBranch: main}"
	commitDoc  = "kind: Commit\nmetadata: {name: 01j9}\nspec:\n  repository: api\n  branch: feature/x\n  message: 'feat: cancel'\n  artifactId: art\n  changes: [{path: a.txt, operation: add}]"
	pullDoc    = "kind: PullRequest\nmetadata: {name: pr-1}\nspec: {repository: api, sourceBranch: feature/x, targetBranch: main, title: Add cancellation}"
)

// state reads the recorded state of a ref, nil when there is none.
func (r *rig) state(ref desired.Ref) *state.SyncState {
	r.t.Helper()
	s, _, ok, err := state.Read[state.SyncState](r.t.Context(), r.store, state.StateKey(ref))
	if err != nil {
		r.t.Fatal(err)
	}
	if !ok {
		return nil
	}
	return &s
}

func (r *rig) records(ref desired.Ref) *state.Records {
	r.t.Helper()
	rec, err := state.Load(r.t.Context(), r.store, ref)
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

// want asserts phase and reason of a ref ("" = any reason).
func (r *rig) want(ref desired.Ref, phase plan.Phase, reason string) *state.SyncState {
	r.t.Helper()
	s := r.state(ref)
	switch {
	case s == nil:
		r.t.Fatalf("%s has no state, want %s %s", ref, phase, reason)
	case s.Phase != phase || reason != "" && s.Reason != reason:
		r.t.Fatalf("%s is %s %s (%s), want %s %s\n%s", ref, s.Phase, s.Reason, s.Message, phase, reason, r.log())
	}
	return s
}

// log prints what happened, for failures.
func (r *rig) log() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, c := range r.fake.Calls() {
		fmt.Fprintln(&b, "call ", c)
	}
	for _, e := range r.turns {
		fmt.Fprintf(&b, "turn  %s %s %s %d %v\n", e.Ref, e.Phase, e.Outcome, e.Changes, e.Err)
	}
	for _, err := range r.errors {
		fmt.Fprintln(&b, "error", err)
	}
	return b.String()
}

// effects lists the calls that changed the outside, and forgets them.
func (r *rig) effects() []string {
	var out []string
	for _, c := range r.fake.Applies() {
		if c.Changed {
			out = append(out, strings.TrimSuffix(strings.TrimPrefix(c.String(), "apply "), " changed"))
		}
	}
	r.fake.ForgetCalls()
	return out
}

// wantEffects asserts what was done at the outside since the last time.
func (r *rig) wantEffects(want ...string) {
	r.t.Helper()
	got := r.effects()
	for i := range want {
		want[i] = strings.Replace(want[i], "$", "acme/booking/", 1)
	}
	if !slices.Equal(got, want) {
		r.t.Fatalf("effects\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// open lists the open findings of a ref as kind and cause.
func (r *rig) open(ref desired.Ref) []string {
	r.t.Helper()
	var out []string
	for _, f := range r.records(ref).Findings {
		if f.Open() {
			out = append(out, f.Kind+" "+string(f.Cause))
		}
	}
	return out
}

// transitions lists what was told about findings, and forgets it.
func (r *rig) transitions() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, f := range r.findings {
		if f.Open() {
			out = append(out, "open "+f.Kind)
		} else {
			out = append(out, "closed "+f.Kind+" by "+f.ResolvedBy)
		}
	}
	r.findings = nil
	return out
}

func outputs[T any](t *testing.T, s *state.SyncState) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(s.Outputs, &v); err != nil {
		t.Fatalf("outputs %s: %v", s.Outputs, err)
	}
	return v
}

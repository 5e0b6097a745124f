// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/adapters/feed"
	"github.com/connectsoft/plumbline/adapters/githost"
	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
	"github.com/connectsoft/plumbline/reconciler"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a whole server in this process: real control repositories, the real git host, the real artifact store, a
// hub on a store in memory, and either the real reconciler or a loop that a test scripts.
type world struct {
	t        testing.TB
	dir      string
	store    *state.Memory
	hub      *state.Hub
	host     *githost.Local
	dev      *auth.DevIssuer
	server   *Server
	script   *scripted // nil with the real reconciler
	platform *gitrepo.Repo
	registry *prometheus.Registry
	base     string // http://host:port of a listener, once listen was called

	mu      sync.Mutex
	repos   map[string]*gitrepo.Repo
	attach  func(string, *gitrepo.Repo)
	panics  []any
	request []RequestEvent
}

const (
	tenantA = "connectsoft"
	tenantB = "umbrella"
	tenantP = "operators"
)

// newWorld starts a server whose loop is scripted: every resource is Synced as soon as it is seen, unless the test
// says otherwise.
func newWorld(t *testing.T, change ...func(*Config)) *world { return startWorld(t, false, change) }

// newRealWorld starts a server with the real reconciler and the local git host.
func newRealWorld(t *testing.T, change ...func(*Config)) *world { return startWorld(t, true, change) }

func startWorld(t testing.TB, real bool, change []func(*Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), store: state.NewMemory(state.MemoryConfig{}), repos: map[string]*gitrepo.Repo{}, registry: prometheus.NewRegistry()}
	var err error
	w.hub, err = state.NewHub(state.HubConfig{Store: w.store, Heartbeat: 200 * time.Millisecond})
	w.ok(err)
	w.dev, err = auth.OpenDevIssuer(w.dir)
	w.ok(err)
	authorizer, err := auth.New(auth.Config{Dev: w.dev, PlatformTenant: tenantP})
	w.ok(err)
	artifacts, err := feed.OpenArtifacts(filepath.Join(w.dir, "artifacts"), 1<<20)
	w.ok(err)
	w.host, err = githost.NewLocal(githost.LocalConfig{Dir: filepath.Join(w.dir, "hosted"), PublicURL: func() string { return "https://git.example" }})
	w.ok(err)
	w.platform = w.open("")
	c := Config{
		Auth: authorizer, Repo: w.repo, Hub: w.hub, Artifacts: artifactStore{artifacts}, Metrics: w.registry, Now: time.Now,
		Doors: Doors{Control: w.controlDoor, Platform: func(context.Context) http.Handler { return w.platform.Door(pusher) }, Hosted: w.hostedDoor},
		Events: Events{
			Panic:   func(_ string, v any, stack []byte) { w.note(func() { w.panics = append(w.panics, string(stack)) }) },
			Request: func(e RequestEvent) { w.note(func() { w.request = append(w.request, e) }) },
		},
	}
	ctx, stop := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	if real {
		e, err := reconciler.New(reconciler.Config{
			Store: w.store, Drivers: map[string]adapters.Driver{"local": w.host}, Artifacts: artifacts.File, Now: time.Now,
		})
		w.ok(err)
		c.Engine = e
		w.attach = func(tenant string, r *gitrepo.Repo) { e.Attach(tenant, r) }
		loops.Go(func() { _ = e.Run(ctx) })
	} else {
		w.script = &scripted{store: w.store, phases: map[desired.Ref]plan.Phase{}, hold: map[desired.Kind]bool{}}
		c.Engine = w.script
		w.attach = func(tenant string, r *gitrepo.Repo) { loops.Go(func() { w.script.follow(ctx, tenant, r) }) }
	}
	loops.Go(func() { _ = w.hub.Run(ctx) })
	for _, f := range change {
		f(&c)
	}
	w.server, err = New(c)
	w.ok(err)
	t.Cleanup(func() {
		w.ok(w.server.Shutdown(context.WithoutCancel(ctx)))
		stop()
		loops.Wait()
		for _, r := range w.repos {
			w.ok(r.Close())
		}
		w.ok(w.platform.Close())
		w.ok(w.host.Close())
		for _, p := range w.panics {
			t.Errorf("a handler panicked: %v", p)
		}
	})
	<-w.hub.Ready()
	return w
}

func (w *world) note(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open(tenant string) *gitrepo.Repo {
	name := tenant
	if name == "" {
		name = "platform"
	}
	c := gitrepo.Config{Dir: filepath.Join(w.dir, name+".git"), Tenant: tenant, SealKey: bytes.Repeat([]byte("k"), 32), Now: time.Now}
	if tenant != "" {
		c.Platform = w.platform.Head().Snapshot
	}
	r, err := gitrepo.Open(context.WithoutCancel(w.t.Context()), c)
	w.ok(err)
	return r
}

// repo makes tenants as they are asked for.
func (w *world) repo(_ context.Context, tenant string) (*gitrepo.Repo, error) {
	if tenant == "" {
		return w.platform, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.repos[tenant]
	if r == nil {
		r = w.open(tenant)
		w.repos[tenant] = r
		w.attach(tenant, r)
	}
	return r, nil
}

func (w *world) controlDoor(ctx context.Context, tenant string) http.Handler {
	r, err := w.repo(ctx, tenant)
	if err != nil {
		return nil
	}
	return r.Door(pusher)
}

func (w *world) hostedDoor(_ context.Context, tenant, project, name string) http.Handler {
	h, err := w.host.Door(tenant, project, name)
	if err != nil {
		return nil
	}
	return h
}

func pusher(r *http.Request) string {
	p, _ := auth.From(r.Context())
	return p.Subject
}

type artifactStore struct{ *feed.Artifacts }

func (a artifactStore) Put(ctx context.Context, tenant, id, mediaType string, r io.Reader) (Artifact, error) {
	got, err := a.Artifacts.Put(ctx, tenant, id, mediaType, r)
	return Artifact(got), err
}

func (a artifactStore) Stat(ctx context.Context, tenant, id string) (Artifact, error) {
	got, err := a.Artifacts.Stat(ctx, tenant, id)
	return Artifact(got), err
}

func (a artifactStore) Open(ctx context.Context, tenant, id string) (io.ReadCloser, Artifact, error) {
	r, got, err := a.Artifacts.Open(ctx, tenant, id)
	return r, Artifact(got), err
}

// allScopes are all scopes of the operation table and the write scopes of all kinds.
func allScopes() []string {
	seen, out := map[string]bool{}, []string{}
	add := func(s string) {
		if s != "" && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	for _, op := range auth.Operations() {
		add(op.Scope)
	}
	for _, k := range desired.Kinds() {
		add(auth.KindScope(k))
	}
	return out
}

// token mints an access token; without scopes, one with all of them.
func (w *world) token(tenant, subject string, scopes ...string) string {
	w.t.Helper()
	if len(scopes) == 0 {
		scopes = allScopes()
	}
	token, err := w.dev.Mint(auth.MintRequest{Subject: subject, Tenant: tenant, Scopes: scopes}, time.Now())
	w.ok(err)
	return token
}

// exchange is one request and its answer.
type exchange struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any // nil when the answer is no JSON object
}

func (e exchange) text(path string) string {
	var v any = e.body
	for _, p := range strings.Split(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[p]
		case []any:
			var i int
			if _, err := fmt.Sscan(p, &i); err != nil || i >= len(at) {
				return ""
			}
			v = at[i]
		}
	}
	switch v := v.(type) {
	case string:
		return v
	case nil:
		return ""
	}
	return fmt.Sprint(v)
}

// do serves one request in process. body is a string as it is, nil, or a value to encode as JSON; headers come in
// pairs. The caller is agent:PullRequestCreator of the first tenant unless Authorization says otherwise.
func (w *world) do(method, target string, body any, headers ...string) exchange {
	w.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		w.ok(err)
		in = bytes.NewReader(raw)
	}
	r := httptest.NewRequestWithContext(w.t.Context(), method, target, in)
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+w.token(tenantA, "agent:PullRequestCreator"))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	return w.serve(r)
}

func (w *world) serve(r *http.Request) exchange {
	rec := httptest.NewRecorder()
	w.server.ServeHTTP(rec, r)
	e := exchange{status: rec.Code, header: rec.Header(), raw: rec.Body.Bytes()}
	_ = json.Unmarshal(e.raw, &e.body) // some answers are no JSON
	return e
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// want fails the test unless the answer has a status; the answer is shown then.
func (w *world) want(e exchange, status int, what string) exchange {
	w.t.Helper()
	if e.status != status {
		w.t.Fatalf("%s: status %d, want %d\n%s", what, e.status, status, e.raw)
	}
	return e
}

// listen serves on a real socket too, for streams and clients that need one.
func (w *world) listen() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.ok(err)
	w.base = "http://" + l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- w.server.HTTP(l) }()
	w.t.Cleanup(func() {
		w.server.Shutdown(context.WithoutCancel(w.t.Context()))
		w.ok(<-done)
	})
}

// provision makes a repository and returns its id.
func (w *world) provision(name string) string {
	w.t.Helper()
	e := w.want(w.do("POST", "/repositories", map[string]any{"projectId": "proj", "name": name}), http.StatusCreated, "provision "+name)
	return e.text("repositoryId")
}

// scripted is a loop that believes everything: each changed document becomes Synced, or whatever the test wants.
type scripted struct {
	store state.Store

	mu     sync.Mutex
	phases map[desired.Ref]plan.Phase // instead of Synced
	hold   map[desired.Kind]bool      // kinds that stay Pending
	ended  string                     // state of pull requests at the host, "" = as wanted
	checks []adapters.Check
	failPR error // of PostCheck
	nudged []desired.Ref
	repos  map[string]*gitrepo.Repo
}

func (s *scripted) set(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

func (s *scripted) follow(ctx context.Context, tenant string, r *gitrepo.Repo) {
	s.set(func() {
		if s.repos == nil {
			s.repos = map[string]*gitrepo.Repo{}
		}
		s.repos[tenant] = r
	})
	moved, release := r.Watch()
	defer release()
	var seq uint64
	for {
		h := r.Head()
		if h.Seq > seq {
			changes, _ := r.Changes(seq)
			s.record(ctx, tenant, h, append(append(changes.Added, changes.Changed...), changes.Removed...))
			seq = h.Seq
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// record writes what the reconciler would: Pending, the horizon, then the outcome.
func (s *scripted) record(ctx context.Context, tenant string, h *desired.Head, refs []desired.Ref) {
	var pending, outcome []state.Put
	for _, ref := range refs {
		if !managed(ref.Kind) {
			continue
		}
		e, ok := h.Snapshot.Get(ref)
		if !ok {
			outcome = append(outcome, state.Delete(state.StateKey(ref)))
			continue
		}
		st := state.SyncState{V: 1, Ref: ref, ID: e.ID, Phase: plan.Pending, DesiredSeq: e.Changed.Seq, DesiredCommit: e.Changed.Commit, Since: time.Now()}
		p, _ := state.PutState(st)
		pending = append(pending, p)
		s.mu.Lock()
		phase, scripted := s.phases[ref]
		if !scripted {
			phase, scripted = s.phases[desired.Ref{Kind: ref.Kind}]
		}
		if !scripted {
			phase = plan.Synced
		}
		held := s.hold[ref.Kind]
		st.Outputs = s.outputs(e)
		s.mu.Unlock()
		if held {
			continue
		}
		st.Phase = phase
		if phase == plan.Synced {
			st.AppliedSeq, st.AppliedCommit = st.DesiredSeq, st.DesiredCommit
		} else {
			st.Reason, st.Message = "Scripted", "as the test wants it"
		}
		p, _ = state.PutState(st)
		outcome = append(outcome, p)
	}
	horizon, _ := state.PutHorizon(state.Horizon{V: 1, Tenant: tenant, Seq: h.Seq, Commit: h.Commit, At: time.Now()})
	for _, puts := range [][]state.Put{append(pending, horizon), outcome} {
		if len(puts) > 0 {
			if _, err := s.store.Commit(ctx, state.Fence{}, puts...); err != nil && ctx.Err() == nil {
				panic(err)
			}
		}
	}
}

func (s *scripted) outputs(e *desired.Entry) json.RawMessage {
	const sha = "9f1c2b7d9f1c2b7d9f1c2b7d9f1c2b7d9f1c2b7d"
	var v any
	switch spec := e.Resource.Spec.(type) {
	case *desired.RepositorySpec:
		v = adapters.RepositoryActual{RemoteURL: "https://git.example/" + e.Ref.Name, DefaultBranch: spec.DefaultBranchOr()}
	case *desired.BranchSpec:
		v = adapters.BranchActual{Name: spec.Name, Head: sha, FromCommit: sha}
	case *desired.CommitSpec:
		v = adapters.CommitActual{SHA: sha, Branch: spec.Branch}
	case *desired.PullRequestSpec:
		st := spec.StateOr()
		if s.ended != "" {
			st = s.ended
		}
		v = adapters.PullRequestActual{Number: 42, State: st, Title: spec.Title, Mergeable: "yes", HeadCommit: sha, Checks: s.checks}
	}
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

// Reconcile implements Engine.
func (s *scripted) Reconcile(tenant string, match func(*desired.Entry) bool) []desired.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nudged = nil
	for e := range s.repos[tenant].Head().Snapshot.All() {
		if managed(e.Ref.Kind) && match(e) {
			s.nudged = append(s.nudged, e.Ref)
		}
	}
	return s.nudged
}

// PostCheck implements Engine.
func (s *scripted) Plan(_ context.Context, _, next *desired.Head, c desired.Changes) (reconciler.Forecast, error) {
	f := reconciler.Forecast{Digest: plan.Digest()}
	for _, ref := range slices.Concat(c.Added, c.Changed, c.Removed) {
		f.Previews = append(f.Previews, reconciler.Preview{Ref: ref, Unobserved: "the loop is scripted"})
	}
	return f, nil
}

func (s *scripted) PostCheck(_ context.Context, _ desired.Ref, c adapters.Check) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failPR != nil {
		return s.failPR
	}
	s.checks = append(s.checks, c)
	return nil
}

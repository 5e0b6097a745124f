// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"sigs.k8s.io/yaml"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
	"github.com/connectsoft/plumbline/reconciler"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// Engine is the loop as the API uses it. *reconciler.Engine implements it.
type Engine interface {
	// Reconcile nudges everything of a tenant that matches and returns the refs.
	Reconcile(tenant string, match func(*desired.Entry) bool) []desired.Ref
	// PostCheck posts a check on a pull request at its host.
	PostCheck(ctx context.Context, pr desired.Ref, c adapters.Check) error
	// Plan observes and plans what a head that is not committed would come to; nothing is applied or recorded.
	Plan(ctx context.Context, base, next *desired.Head, c desired.Changes) (reconciler.Forecast, error)
}

// Artifact is one stored artifact version.
type Artifact struct {
	ID        string
	Digest    string // sha256:<hex> of the stored bytes
	Size      int64
	MediaType string
	Files     []string // paths inside
}

// Artifacts is the artifact store. A name that is not there is NotFound, a bad archive Invalid.
type Artifacts interface {
	Put(ctx context.Context, tenant, id, mediaType string, r io.Reader) (Artifact, error)
	Stat(ctx context.Context, tenant, id string) (Artifact, error)
	Open(ctx context.Context, tenant, id string) (io.ReadCloser, Artifact, error)
	File(ctx context.Context, tenant, id, digest, path string) ([]byte, error)
}

// Doors finds the git doors that are mounted below /git/. Each returns nil for a repository that does not exist;
// the handlers see the request with the part up to .git stripped from its path, and the caller in its context.
type Doors struct {
	Control  func(ctx context.Context, tenant string) http.Handler
	Platform func(ctx context.Context) http.Handler
	Hosted   func(ctx context.Context, tenant, project, name string) http.Handler
}

// Events is how the server tells what it does. Nil members do nothing; they must not block.
type Events struct {
	Request func(RequestEvent)                       // one answered request or ended stream
	Panic   func(op string, value any, stack []byte) // a handler panicked; the caller got an internal error
	// Connection is told what net/http has to say about connections: bad handshakes, failed accepts.
	Connection func(message string)
}

// connections turns the lines of net/http into events.
type connections struct{ tell func(string) }

func (c connections) Write(line []byte) (int, error) {
	if c.tell != nil {
		c.tell(strings.TrimSpace(string(line)))
	}
	return len(line), nil
}

// RequestEvent is one answered request. It holds nothing of bodies or tokens.
type RequestEvent struct {
	Operation string // row of the operation table, "" for what has none
	Method    string // HTTP method or "gRPC"
	Code      string // HTTP status or gRPC code
	Tenant    string
	Subject   string
	TraceID   string
	Took      time.Duration
	Err       error // set for internal errors
}

// Config of a Server. Fields without a default are required.
type Config struct {
	Auth *auth.Authorizer
	// Repo finds the control repository of a tenant ("" = the platform's); NotFound when there is none.
	Repo      func(ctx context.Context, tenant string) (*gitrepo.Repo, error)
	Hub       *state.Hub
	Engine    Engine
	Artifacts Artifacts
	Doors     Doors
	Metrics   prometheus.Registerer // nil = not registered
	Events    Events
	Now       func() time.Time

	MaxStreams       int           // watch streams a tenant may hold at once; 0 = 2048
	MaxArtifactBytes int64         // of one upload; 0 = 256 MiB
	MaxWait          time.Duration // longest Prefer: wait; 0 = 60 s
}

func (c *Config) complete() error {
	for name, missing := range map[string]bool{
		"Auth": c.Auth == nil, "Repo": c.Repo == nil, "Hub": c.Hub == nil, "Engine": c.Engine == nil,
		"Artifacts": c.Artifacts == nil, "Now": c.Now == nil,
	} {
		if missing {
			return desired.Errorf("start api", desired.Ref{}, desired.Internal, "api.Config.%s is required", name)
		}
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = 2048
	}
	if c.MaxArtifactBytes == 0 {
		c.MaxArtifactBytes = 256 << 20
	}
	if c.MaxWait == 0 {
		c.MaxWait = 60 * time.Second
	}
	return nil
}

//go:embed openapi.yaml
var contract []byte

// Server is the outside face: REST, SSE, gRPC and the git doors. Safe for concurrent use.
type Server struct {
	cfg      Config
	openapi  []byte // the contract as JSON
	shapes   map[reflect.Type]*shape
	router   http.Handler
	metrics  *metrics
	streams  *quota
	pages    *pins
	draining *gate
	health   *health.Server
	http     *http.Server
	rpc      *grpc.Server
	buffers  sync.Pool
	waits    map[string]time.Duration // default waits by operation
}

// New checks the configuration and builds every route from the operation table: a row without a handler and a
// handler without a row are errors.
func New(c Config) (*Server, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	openapi, err := yaml.YAMLToJSON(contract)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	s := &Server{
		cfg: c, openapi: openapi, shapes: requestShapes(), streams: newQuota(c.MaxStreams), pages: newPins(c.Now),
		draining: newGate(), health: health.NewServer(), waits: defaultWaits(),
		buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}
	if s.metrics, err = newMetrics(c.Metrics, c.Auth.Operations()); err != nil {
		return nil, err
	}
	if s.router, err = s.routes(); err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(connections{c.Events.Connection}, "", 0),
	}
	s.rpc = s.newGRPC()
	return s, nil
}

// HTTP serves REST, SSE and the git doors on l until Shutdown (nil) or an error of the listener.
func (s *Server) HTTP(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// GRPC serves gRPC on l until Shutdown (nil) or an error of the listener.
func (s *Server) GRPC(l net.Listener) error { return s.rpc.Serve(l) }

// Ready says whether the server can answer: the hub has its first list and no shutdown began.
func (s *Server) Ready(ctx context.Context) error {
	if s.draining.isClosed() {
		return desired.Errorf("check readiness", desired.Ref{}, desired.Transient, "the server is shutting down")
	}
	select {
	case <-s.cfg.Hub.Ready():
		return nil
	case <-ctx.Done():
		return desired.Errorf("check readiness", desired.Ref{}, desired.Waiting, "the sync states are not loaded yet")
	}
}

// Shutdown ends gracefully: health and readiness fail, waits and streams end (streams with their resume token),
// nothing new is accepted, requests in flight finish. When ctx ends first, what is left is cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.health.Shutdown()
	s.draining.close()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.rpc.GracefulStop()
	}()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	select {
	case <-stopped:
	case <-ctx.Done():
		s.rpc.Stop()
		<-stopped
		err = errors.Join(err, context.Cause(ctx))
	}
	return err
}

// gate tells many waiters at once that the server drains.
type gate struct {
	mu     sync.Mutex
	closed bool
	next   int
	subs   map[int]func()
}

func newGate() *gate { return &gate{subs: map[int]func(){}} }

func (g *gate) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// onClose calls fn when the gate closes, at once when it has; the result takes fn back.
func (g *gate) onClose(fn func()) (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		fn()
		return func() {}
	}
	id := g.next
	g.next++
	g.subs[id] = fn
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.subs, id)
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for id, fn := range g.subs {
		fn()
		delete(g.subs, id)
	}
}

// quota counts what tenants hold at once.
type quota struct {
	max int

	mu   sync.Mutex
	held map[string]int
}

func newQuota(n int) *quota { return &quota{max: n, held: map[string]int{}} }

// take takes one of the tenant's; false when it has all. What was taken is given back by give.
func (q *quota) take(tenant string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[tenant] >= q.max {
		return false
	}
	q.held[tenant]++
	return true
}

func (q *quota) give(tenant string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[tenant]--; q.held[tenant] <= 0 {
		delete(q.held, tenant)
	}
}

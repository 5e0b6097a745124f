// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// Sentinels of Commit, wrapped in *desired.Error.
var (
	// ErrKeyReused: the idempotency key came with another request before (class Invalid).
	ErrKeyReused = errors.New("the Idempotency-Key was used for another request")
	// ErrInFlight: a request with the same idempotency key is being worked on (class Conflict).
	ErrInFlight = errors.New("a request with this Idempotency-Key is in flight")
	// ErrFrozen: the history moved backwards and an operator has to decide (class Stalled).
	ErrFrozen = errors.New("the control repository is frozen")
)

// Config of Open. Zero values take the default written at the field.
type Config struct {
	Dir     string // the bare repository; created when missing
	Tenant  string // "" = the platform repository
	Branch  string // the branch that is the truth; "main"
	SealKey []byte // the installation key; at least 32 bytes

	Platform *desired.Snapshot // attached to every snapshot; nil for the platform repository itself
	Now      func() time.Time  // required

	Queue     int           // writes waiting at most; 4096. Beyond: Throttled
	Batch     int           // members of one group commit at most; 256
	Poll      time.Duration // how often the ref is looked at besides fsnotify; 2 s
	KeepKeys  time.Duration // how long an idempotency key is remembered; 48 h
	MaxPush   int64         // bytes of one push; 0 = the default of gitstore.Door
	Resources int           // documents a tenant may hold; 100000

	Events Events
}

// Events is how a repository tells what it does. Nil members do nothing; they must not block.
type Events struct {
	Accepted func(h *desired.Head, c desired.Changes) // every accepted head
	Frozen   func(tenant, why string)                 // history moved backwards
	Batch    func(members int, took time.Duration)    // one group commit landed
	Broken   func(err error)                          // storage failed: nothing is acknowledged any more
	Error    func(op string, err error)               // background work that failed and will be tried again
}

// Request is one API write.
type Request struct {
	Edit      desired.Edit
	Subject   string // the caller: "user:alice", "agent:client"; becomes the author
	Message   string // first line of the commit
	RequestID string // trace id
	// Key is the hash of tenant, subject and Idempotency-Key, Fingerprint that of the canonical request; both
	// empty without a key. Hex digits only.
	Key, Fingerprint string
}

// Receipt is what a write gets back.
type Receipt struct {
	Tenant    string    `json:"tenant"`
	Commit    string    `json:"commit"`
	Seq       uint64    `json:"seq"`
	Base      string    `json:"base"` // the head the edit was judged against
	Replayed  bool      `json:"replayed,omitempty"`
	Unchanged bool      `json:"unchanged,omitempty"` // the edit found everything as wanted: Commit is the head's
	At        time.Time `json:"at"`
}

// Repo is one control repository (or the platform repository, tenant ""). Safe for concurrent use.
//
// One goroutine, the writer, owns the head: it alone moves the ref, advances the snapshot and publishes heads.
type Repo struct {
	cfg   Config
	ref   string // full name of the branch
	store *gitstore.Store

	head     atomic.Pointer[desired.Head]
	requests chan *pending
	control  chan func(context.Context) // pushes, platform changes: run by the writer between batches
	nudge    chan struct{}              // 1 slot: look at the ref
	tidy     chan struct{}              // 1 slot: packs or a checkpoint are due
	exited   chan struct{}              // closed when the writer ended
	stop     context.CancelCauseFunc
	done     sync.WaitGroup
	closed   atomic.Bool
	held     atomic.Pointer[string] // why the owner holds writes

	keyMu    sync.RWMutex
	keys     map[string]keyRecord // idempotency index of landed writes
	inFlight map[string]struct{}

	ringMu sync.RWMutex
	ring   ring
	subs   map[chan struct{}]struct{}

	// owned by the writer
	w writerState
}

// writerState is what only the writer goroutine touches.
type writerState struct {
	commit   gitstore.Hash
	tree     gitstore.Hash
	cache    *desired.Cache
	platform *desired.Snapshot
	pushers  map[string]pushRecord // by the head a push started from
}

// Open opens or creates a control repository, replays what happened since its last checkpoint, and starts the
// writer. Close must be called.
func Open(ctx context.Context, c Config) (*Repo, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	store, err := gitstore.Open(c.Dir, gitstore.Options{Create: true, DefaultBranch: c.Branch})
	if err != nil {
		return nil, fmt.Errorf("open control repository of %s: %w", name(c.Tenant), err)
	}
	r := &Repo{
		cfg:      c,
		ref:      "refs/heads/" + c.Branch,
		store:    store,
		requests: make(chan *pending, c.Queue),
		control:  make(chan func(context.Context)),
		nudge:    make(chan struct{}, 1),
		tidy:     make(chan struct{}, 1),
		exited:   make(chan struct{}),
		keys:     map[string]keyRecord{},
		inFlight: map[string]struct{}{},
		subs:     map[chan struct{}]struct{}{},
		w:        writerState{cache: desired.NewCache(4096), platform: c.Platform, pushers: map[string]pushRecord{}},
	}
	if err := r.load(ctx); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	watch, err := watchRef(c.Dir, c.Branch)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	run, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	r.stop = stop
	r.done.Go(func() { r.write(run) })
	r.done.Go(func() { watch.run(run, r.cfg.Poll, r.Nudge) })
	r.done.Go(func() { r.maintain(run) })
	return r, nil
}

func (c *Config) complete() error {
	if len(c.SealKey) < 32 {
		return desired.Errorf("open control repository", desired.Ref{}, desired.Internal, "the installation key is shorter than 32 bytes")
	}
	if c.Now == nil {
		return desired.Errorf("open control repository", desired.Ref{}, desired.Internal, "a clock is required")
	}
	def(&c.Branch, "main")
	def(&c.Queue, 4096)
	def(&c.Batch, 256)
	def(&c.Poll, 2*time.Second)
	def(&c.KeepKeys, 48*time.Hour)
	def(&c.Resources, 100_000)
	return nil
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func name(tenant string) string {
	if tenant == "" {
		return "the platform"
	}
	return "tenant " + tenant
}

// Tenant is whose repository this is, "" for the platform's.
func (r *Repo) Tenant() string { return r.cfg.Tenant }

// Head is the latest accepted head. Never nil after Open.
func (r *Repo) Head() *desired.Head { return r.head.Load() }

// Nudge says that the branch may have moved.
func (r *Repo) Nudge() {
	select {
	case r.nudge <- struct{}{}:
	default:
	}
}

// SetPlatform attaches another platform snapshot: the head is published again at the same seq.
func (r *Repo) SetPlatform(ctx context.Context, p *desired.Snapshot) error {
	return r.inWriter(ctx, func(context.Context) error {
		r.w.platform = p
		h := *r.Head()
		h.Snapshot = h.Snapshot.WithPlatform(p)
		r.publish(&h)
		return nil
	})
}

// Hold freezes the repository for a reason of its owner's ("" lifts it): it can be read, writes and pushes are
// refused with the reason. It is not kept across restarts.
func (r *Repo) Hold(reason string) {
	r.held.Store(&reason)
}

// inWriter runs fn in the writer goroutine, between batches, and waits for it.
func (r *Repo) inWriter(ctx context.Context, fn func(context.Context) error) error {
	answer := make(chan error, 1)
	job := func(wctx context.Context) {
		if err := ctx.Err(); err != nil {
			answer <- err
			return
		}
		answer <- fn(wctx)
	}
	if r.closed.Load() {
		return errClosing(r.cfg.Tenant)
	}
	select {
	case r.control <- job:
	case <-r.exited:
		return errClosing(r.cfg.Tenant)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// The job is in the writer's hands: it ends, and its answer says whether anything landed.
	return <-answer
}

func errClosing(tenant string) error {
	return desired.Errorf("write", desired.Ref{}, desired.Transient, "the control repository of %s is closing: try again", name(tenant))
}

// Content reads an attached blob beside the document of e at the current head: <name>.d/<hex of digest>.
func (r *Repo) Content(_ context.Context, e *desired.Entry, digest string) ([]byte, error) {
	path := desired.AttachedPath(e.Path, e.Ref.Name, digest)
	c, err := gitstore.ParseHash(r.Head().Commit)
	if err != nil {
		return nil, desired.E("read content", e.Ref, desired.NotFound, err)
	}
	commit, err := r.store.Commit(c)
	if err != nil {
		return nil, desired.E("read content", e.Ref, desired.Internal, err)
	}
	te, ok, err := gitstore.Lookup(r.store, commit.Tree, path)
	if err != nil {
		return nil, desired.E("read content", e.Ref, desired.Internal, err)
	}
	if !ok {
		return nil, desired.Errorf("read content", e.Ref, desired.NotFound, "%s is not in the control repository at %s: commit the file beside its document", path, r.Head().Commit)
	}
	data, err := r.store.Blob(te.Hash)
	if err != nil {
		return nil, desired.E("read content", e.Ref, desired.Internal, err)
	}
	return data, nil
}

// Close stops taking writes, finishes the batch in flight, saves a checkpoint and joins the goroutines.
func (r *Repo) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	r.stop(errClosing(r.cfg.Tenant))
	r.done.Wait()
	return errors.Join(r.saveCheckpoint(), r.store.Close())
}

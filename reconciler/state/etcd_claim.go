// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/connectsoft/plumbline/desired"
)

// leaseTTL is how long the units of a process that vanished stay taken, in seconds.
const leaseTTL = 15

// retryDelay lies between attempts while etcd is away.
const retryDelay = 500 * time.Millisecond

// releaseLimit is how long the release of a unit waits for etcd.
const releaseLimit = 2 * time.Second

// unitRecord is the value of a unit's key. Claim is random: it tells a claimant whether a write whose answer was
// lost had arrived.
type unitRecord struct {
	V     int    `json:"v"`
	Claim string `json:"claim"`
	Host  string `json:"host,omitempty"`
	PID   int    `json:"pid"`
}

// sessions keeps the one lease of a store alive, and replaces it when it was lost.
type sessions struct {
	mu      sync.Mutex // held while a lease is granted
	current *concurrency.Session
	ended   bool
}

func (ss *sessions) get(ctx context.Context, client *clientv3.Client) (*concurrency.Session, error) {
	const op = "grant lease"
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.ended {
		return nil, closedError(op)
	}
	if ss.current != nil {
		select {
		case <-ss.current.Done():
		default:
			return ss.current, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	lease, err := client.Grant(ctx, leaseTTL)
	if err != nil {
		return nil, etcdError(op, err)
	}
	s, err := concurrency.NewSession(client, concurrency.WithLease(lease.ID), concurrency.WithTTL(leaseTTL))
	if err != nil {
		return nil, etcdError(op, err)
	}
	ss.current = s
	return s, nil
}

// end revokes the lease and with it every claim. A lease that cannot be revoked runs out.
func (ss *sessions) end() {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.ended = true
	if ss.current == nil {
		return
	}
	ss.current.Orphan()
	client := ss.current.Client()
	ctx, cancel := context.WithTimeout(client.Ctx(), 2*time.Second)
	defer cancel()
	_, _ = client.Revoke(ctx, ss.current.Lease())
}

// Claim implements Store.
func (s *Etcd) Claim(ctx context.Context, unit string) (Fence, <-chan struct{}, func(), error) {
	const op = "claim unit"
	ctx, done, err := s.follow(ctx, op)
	if err != nil {
		return Fence{}, nil, nil, err
	}
	defer done()
	host, _ := os.Hostname()
	value, err := json.Marshal(unitRecord{V: Version, Claim: randomID(), Host: host, PID: os.Getpid()})
	if err != nil {
		return Fence{}, nil, nil, desired.E(op, desired.Ref{}, desired.Internal, err)
	}
	c := &claim{store: s, key: unitRoot + unit, value: string(value), lost: make(chan struct{})}
	for {
		err := c.attempt(ctx)
		switch {
		case err == nil && c.rev > 0:
			release, err := c.hold()
			if err != nil {
				return Fence{}, nil, nil, err
			}
			return Fence{Unit: unit, Key: c.key, Revision: c.rev}, c.lost, release, nil
		case ctx.Err() != nil:
			c.abandon()
			return Fence{}, nil, nil, desired.E(op, desired.Ref{}, desired.Transient, ctx.Err())
		case err != nil && desired.ClassOf(err) != desired.Transient && desired.ClassOf(err) != desired.Throttled:
			c.abandon()
			return Fence{}, nil, nil, err
		case err != nil:
			pause(ctx, retryDelay)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// claim is one ownership, from the first attempt to its end.
type claim struct {
	store   *Etcd
	key     string
	value   string
	session *concurrency.Session // whose lease the last attempt used
	rev     int64                // the fence, once owned
	unsure  bool                 // an attempt had no answer: the key may be there
	lost    chan struct{}
}

// attempt tries once; when another owner is there it waits until that one is gone, and leaves c.rev at 0.
func (c *claim) attempt(ctx context.Context) error {
	const op = "claim unit"
	session, err := c.store.sessions.get(ctx, c.store.client)
	if err != nil {
		return err
	}
	c.session = session
	call, cancel := context.WithTimeout(ctx, c.store.limit)
	defer cancel()
	r, err := c.store.client.Txn(call).If(clientv3.Compare(clientv3.CreateRevision(c.key), "=", 0)).
		Then(clientv3.OpPut(c.key, c.value, clientv3.WithLease(session.Lease()))).
		Else(clientv3.OpGet(c.key)).Commit()
	if errors.Is(err, rpctypes.ErrLeaseNotFound) { // it ran out, and the session has not noticed yet
		session.Orphan()
		return etcdError(op, err)
	}
	if err != nil {
		c.unsure = true
		return etcdError(op, err)
	}
	if err := c.store.same(op, r.Header); err != nil {
		return err
	}
	if r.Succeeded {
		c.rev = r.Header.Revision
		return nil
	}
	owner := r.Responses[0].GetResponseRange().Kvs[0]
	if string(owner.Value) == c.value && clientv3.LeaseID(owner.Lease) == session.Lease() { // an attempt without an answer had arrived
		c.rev = owner.CreateRevision
		return nil
	}
	return c.store.gone(ctx, c.key, owner.CreateRevision, r.Header.Revision)
}

// hold watches over an ownership until it ends, in a goroutine that the store joins.
func (c *claim) hold() (release func(), err error) {
	s := c.store
	ctx, done, err := s.follow(c.session.Ctx(), "claim unit")
	if err != nil { // the store is closing, its lease goes
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	released := make(chan struct{})
	go func() {
		defer close(ended)
		defer done()
		for ctx.Err() == nil && s.gone(ctx, c.key, c.rev, c.rev) != nil {
			pause(ctx, retryDelay)
		}
		close(c.lost)
		stop()
		select {
		case <-released:
			c.remove()
		default:
		}
	}()
	return sync.OnceFunc(func() {
		close(released)
		stop()
		select {
		case <-ended:
		case <-time.After(releaseLimit): // etcd is away; the goroutine goes on
		}
	}), nil
}

// abandon removes, in a goroutine that the store joins, a key that an attempt without an answer may have left.
func (c *claim) abandon() {
	if !c.unsure {
		return
	}
	if _, done, err := c.store.follow(c.session.Ctx(), "claim unit"); err == nil {
		go func() {
			defer done()
			c.remove()
		}()
	}
}

// remove deletes the claim's key, and keeps trying while the lease that holds it lives: other units share that
// lease, so nothing else would ever free this one.
func (c *claim) remove() {
	s := c.store
	ctx := c.session.Ctx()
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, s.limit)
		_, err := s.client.Txn(call).If(clientv3.Compare(clientv3.Value(c.key), "=", c.value)).Then(clientv3.OpDelete(c.key)).Commit()
		cancel()
		if err == nil {
			return
		}
		pause(ctx, retryDelay)
	}
}

// gone blocks until the key that was created at a revision, and was there at rev, is not there any more.
func (s *Etcd) gone(ctx context.Context, key string, created, rev int64) error {
	for {
		deleted, err := s.deletion(ctx, key, rev)
		if deleted || err != nil {
			return err
		}
		// History after rev is gone, or the watch ended without an answer: look, and watch from there.
		call, cancel := context.WithTimeout(ctx, s.limit)
		r, err := s.client.Get(call, key, clientv3.WithKeysOnly())
		cancel()
		switch {
		case err != nil:
			return etcdError("read unit", err)
		case len(r.Kvs) == 0 || r.Kvs[0].CreateRevision != created:
			return nil
		}
		rev = r.Header.Revision
	}
}

// deletion watches a key until it is deleted; false without an error means that the watch cannot tell. A member
// without a leader keeps it waiting, which is safe: who owns the key learns of it by the lease.
func (s *Etcd) deletion(ctx context.Context, key string, rev int64) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for r := range s.client.Watch(ctx, key, clientv3.WithRev(rev), clientv3.WithFilterPut()) {
		if r.CompactRevision > 0 {
			return false, nil
		}
		if err := r.Err(); err != nil {
			return false, etcdError("watch unit", err)
		}
		if len(r.Events) > 0 {
			return true, nil
		}
	}
	return false, nil
}

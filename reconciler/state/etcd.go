// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

const (
	callLimit = 5 * time.Second // of one request; well under what a lease lives
	pageSize  = 1000            // records read in one request of a list
)

// EtcdConfig of OpenEtcd.
type EtcdConfig struct {
	Endpoints []string
	TLS       *tls.Config // nil = plain text
	Username  string
	Password  adapters.Secret
	Log       *slog.Logger // what the client warns of; nil = nothing
}

// Etcd is a Store in etcd, embedded or external: the code is the same.
type Etcd struct {
	client   *clientv3.Client
	cluster  uint64
	epoch    epochRecord
	progress time.Duration // between requests for progress marks
	limit    time.Duration // of one request
	shut     func() error  // after everything else has ended; nil for an external cluster

	work sync.WaitGroup // claims and watches in flight

	mu     sync.Mutex
	closed bool

	sessions sessions
}

var _ Store = (*Etcd)(nil)

// epochRecord identifies the data. Cluster is the etcd cluster it was written in: a restore makes a new cluster, and
// that begins a new epoch although the record was restored with the rest.
type epochRecord struct {
	V       int       `json:"v"`
	ID      string    `json:"id"`
	Cluster string    `json:"cluster"`
	Birth   time.Time `json:"birth"`
}

// OpenEtcd connects to an external cluster and waits until it answers or ctx ends.
func OpenEtcd(ctx context.Context, c EtcdConfig) (*Etcd, error) {
	if len(c.Endpoints) == 0 {
		return nil, desired.Errorf("open state store", desired.Ref{}, desired.Invalid, "no etcd endpoints are given")
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: c.TLS, Username: c.Username, Password: c.Password.Reveal(),
		DialTimeout: callLimit, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		Context: context.WithoutCancel(ctx), Logger: zapLogger(c.Log),
	})
	if err != nil {
		return nil, etcdError("open state store", err)
	}
	return open(ctx, client, nil)
}

// open finishes opening; on failure everything is closed again.
func open(ctx context.Context, client *clientv3.Client, shut func() error) (*Etcd, error) {
	s := &Etcd{client: client, progress: progressEvery, limit: callLimit, shut: shut}
	if err := s.loadEpoch(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// loadEpoch reads the epoch record, and begins a new epoch in a cluster that has none of its own.
func (s *Etcd) loadEpoch(ctx context.Context) error {
	const op = "read epoch"
	for {
		ctx, cancel := context.WithTimeout(ctx, s.limit)
		defer cancel()
		r, err := s.client.Get(ctx, epochKey)
		if err != nil {
			return etcdError(op, err)
		}
		s.cluster = r.Header.ClusterId
		cluster := fmt.Sprintf("%016x", s.cluster)
		rev := int64(0)
		if len(r.Kvs) == 1 {
			rev = r.Kvs[0].ModRevision
			var e epochRecord
			if err := json.Unmarshal(r.Kvs[0].Value, &e); err != nil {
				return desired.Errorf(op, desired.Ref{}, desired.Stalled, "the key %s does not parse: %w; restore it or remove it, which begins a new epoch", epochKey, err)
			}
			if e.V > Version {
				return desired.Errorf(op, desired.Ref{}, desired.Stalled, "the data has format %d and this program reads up to %d; run the newer version", e.V, Version)
			}
			if e.Cluster == cluster {
				s.epoch = e
				return nil
			}
		}
		b, err := json.Marshal(epochRecord{V: Version, ID: randomID(), Cluster: cluster, Birth: time.Now().UTC()})
		if err != nil {
			return desired.E(op, desired.Ref{}, desired.Internal, err)
		}
		_, err = s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(epochKey), "=", rev)).
			Then(clientv3.OpPut(epochKey, string(b))).Commit()
		if err != nil {
			return etcdError(op, err)
		}
	}
}

// begin bounds one request: its deadline, and the store's end.
func (s *Etcd) begin(ctx context.Context, op string) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, desired.E(op, desired.Ref{}, desired.Transient, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, closedError(op)
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	return ctx, cancel, nil
}

// follow is begin for what lasts: it ends with the store, which waits for it.
func (s *Etcd) follow(ctx context.Context, op string) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, closedError(op)
	}
	s.work.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.client.Ctx(), cancel)
	return ctx, func() { stop(); cancel(); s.work.Done() }, nil
}

// Get implements Store.
func (s *Etcd) Get(ctx context.Context, keys ...Key) ([]KV, error) {
	const op = "read records"
	ctx, cancel, err := s.begin(ctx, op)
	if err != nil {
		return nil, err
	}
	defer cancel()
	var out []KV
	rev := int64(0) // the first part says at which revision the others read
	for start := 0; start < len(keys); start += maxOps {
		var ops []clientv3.Op
		for _, k := range keys[start:min(start+maxOps, len(keys))] {
			if err := k.check(false); err != nil {
				return nil, desired.E(op, desired.Ref{}, desired.Invalid, err)
			}
			opts := []clientv3.OpOption{clientv3.WithRev(rev)}
			if k.prefix() {
				opts = append(opts, clientv3.WithPrefix())
			}
			ops = append(ops, clientv3.OpGet(k.String(), opts...))
		}
		r, err := s.client.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			return nil, etcdError(op, err)
		}
		if err := s.same(op, r.Header); err != nil {
			return nil, err
		}
		rev = r.Header.Revision
		for _, part := range r.Responses {
			for _, kv := range part.GetResponseRange().Kvs {
				out = add(out, kv)
			}
		}
	}
	return out, nil
}

// add appends a stored pair if it is a record.
func add(out []KV, kv *mvccpb.KeyValue) []KV {
	if k, ok := parseKey(string(kv.Key)); ok {
		out = append(out, KV{Key: k, Value: kv.Value, Rev: kv.ModRevision})
	}
	return out
}

// List implements Store.
func (s *Etcd) List(ctx context.Context, tenant string, table Table) ([]KV, int64, error) {
	return s.ListAt(ctx, 0, tenant, table)
}

// ListAt implements Store.
func (s *Etcd) ListAt(ctx context.Context, rev int64, tenant string, table Table) ([]KV, int64, error) {
	tenants := []string{tenant}
	if tenant == "" {
		var err error
		if tenants, rev, err = s.tenants(ctx, rev); err != nil {
			return nil, 0, err
		}
	}
	var out []KV
	for _, t := range tenants {
		from := root + t + "/" + string(table) + "/"
		end := clientv3.GetPrefixRangeEnd(from)
		for from != "" {
			kvs, r, err := s.page(ctx, rev, from, end, pageSize)
			if err != nil {
				return nil, 0, err
			}
			rev, from = r, ""
			for _, kv := range kvs {
				out = add(out, kv)
			}
			if len(kvs) == pageSize {
				from = string(kvs[pageSize-1].Key) + "\x00"
			}
		}
	}
	return out, rev, nil
}

// tenants lists who has records, one short read for each: the tables of a tenant lie together.
func (s *Etcd) tenants(ctx context.Context, rev int64) (out []string, at int64, err error) {
	for from := root; ; {
		kvs, r, err := s.page(ctx, rev, from, root+"~", 1, clientv3.WithKeysOnly())
		if err != nil {
			return nil, 0, err
		}
		rev = r
		if len(kvs) == 0 {
			return out, rev, nil
		}
		k, ok := parseKey(string(kvs[0].Key))
		if !ok { // nothing of ours: step over it
			from = string(kvs[0].Key) + "\x00"
			continue
		}
		out = append(out, k.Tenant)
		from = root + k.Tenant + "0" // the character after the slash
	}
}

// page reads one part of a range at a revision (0 = now) and says which it was.
func (s *Etcd) page(ctx context.Context, rev int64, from, end string, limit int64, opts ...clientv3.OpOption) ([]*mvccpb.KeyValue, int64, error) {
	const op = "list records"
	ctx, cancel, err := s.begin(ctx, op)
	if err != nil {
		return nil, 0, err
	}
	defer cancel()
	r, err := s.client.Get(ctx, from, append(opts, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(rev))...)
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return nil, 0, desired.Errorf(op, desired.Ref{}, desired.Conflict, "%w: records as of revision %d are gone; list them as of now", ErrCompacted, rev)
	case errors.Is(err, rpctypes.ErrFutureRev):
		return nil, 0, desired.Errorf(op, desired.Ref{}, desired.Conflict, "%w: the store never was at revision %d; list records as of now", ErrCompacted, rev)
	case err != nil:
		return nil, 0, etcdError(op, err)
	}
	if err := s.same(op, r.Header); err != nil {
		return nil, 0, err
	}
	if rev == 0 {
		rev = r.Header.Revision
	}
	return r.Kvs, rev, nil
}

// Commit implements Store.
func (s *Etcd) Commit(ctx context.Context, f Fence, puts ...Put) (int64, error) {
	parts, err := split(f.Key != "", puts)
	if err != nil {
		return 0, err
	}
	rev := int64(0)
	for _, part := range parts {
		if rev, err = s.commit(ctx, f, part); err != nil {
			return 0, err
		}
	}
	return rev, nil
}

// commit writes one transaction. When its conditions do not hold, the same transaction reads why.
func (s *Etcd) commit(ctx context.Context, f Fence, puts []Put) (int64, error) {
	const op = "commit records"
	ctx, cancel, err := s.begin(ctx, op)
	if err != nil {
		return 0, err
	}
	defer cancel()
	var conds []clientv3.Cmp
	var writes, why []clientv3.Op
	if f.Key != "" {
		conds = append(conds, clientv3.Compare(clientv3.CreateRevision(f.Key), "=", f.Revision))
		why = append(why, clientv3.OpGet(f.Key, clientv3.WithKeysOnly()))
	}
	for _, p := range puts {
		key := p.Key.String()
		if p.IfRev != nil {
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(key), "=", *p.IfRev))
		}
		if p.Value == nil {
			writes = append(writes, clientv3.OpDelete(key))
		} else {
			writes = append(writes, clientv3.OpPut(key, string(p.Value)))
		}
	}
	r, err := s.client.Txn(ctx).If(conds...).Then(writes...).Else(why...).Commit()
	if err != nil {
		return 0, etcdError(op, err)
	}
	if err := s.same(op, r.Header); err != nil {
		return 0, err
	}
	if r.Succeeded {
		return r.Header.Revision, nil
	}
	if f.Key != "" {
		kvs := r.Responses[0].GetResponseRange().Kvs
		if len(kvs) == 0 || kvs[0].CreateRevision != f.Revision {
			return 0, fencedError(f.Unit)
		}
	}
	return 0, conflictError()
}

// Epoch implements Store.
func (s *Etcd) Epoch() string { return s.epoch.ID }

// Birth implements Store.
func (s *Etcd) Birth() time.Time { return s.epoch.Birth }

// Revision implements Store.
func (s *Etcd) Revision(ctx context.Context) (int64, error) {
	_, rev, err := s.page(ctx, 0, epochKey, epochKey+"\x00", 1, clientv3.WithKeysOnly())
	return rev, err
}

// Compact implements Store.
func (s *Etcd) Compact(ctx context.Context, rev int64) error {
	const op = "compact history"
	ctx, cancel, err := s.begin(ctx, op)
	if err != nil {
		return err
	}
	defer cancel()
	_, err = s.client.Compact(ctx, rev)
	switch {
	case errors.Is(err, rpctypes.ErrCompacted): // already
		return nil
	case errors.Is(err, rpctypes.ErrFutureRev):
		return desired.Errorf(op, desired.Ref{}, desired.Conflict, "%w: the store never was at revision %d", ErrCompacted, rev)
	case err != nil:
		return etcdError(op, err)
	}
	return nil
}

// Ready implements Store. A store that refuses writes is not ready.
func (s *Etcd) Ready(ctx context.Context) error {
	if _, err := s.Revision(ctx); err != nil {
		return err
	}
	const op = "check store"
	ctx, cancel, err := s.begin(ctx, op)
	if err != nil {
		return err
	}
	defer cancel()
	r, err := s.client.AlarmList(ctx)
	if err != nil {
		return etcdError(op, err)
	}
	for _, a := range r.Alarms {
		return desired.Errorf(op, desired.Ref{}, desired.Stalled, "etcd raised the alarm %s and refuses writes; see the operations guide for etcd alarms", a.Alarm)
	}
	return nil
}

// Close implements Store.
func (s *Etcd) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	s.sessions.end() // frees the units at once, while the client still works
	s.client.Close() // the error only says that its context has ended
	s.work.Wait()
	if s.shut != nil {
		return s.shut()
	}
	return nil
}

// same refuses answers of a cluster that took the place of the one that was opened.
func (s *Etcd) same(op string, h *etcdserverpb.ResponseHeader) error {
	if h.GetClusterId() == s.cluster {
		return nil
	}
	return desired.Errorf(op, desired.Ref{}, desired.Stalled,
		"another etcd cluster (%016x instead of %016x) answers at the same endpoints; restart this process to begin its epoch", h.GetClusterId(), s.cluster)
}

// etcdError gives an error of etcd its class.
func etcdError(op string, err error) error {
	class, hint := desired.Transient, ""
	code := ""
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		code = e.Code().String()
	}
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		class, hint = desired.Stalled, "; etcd is full: compact and defragment it, raise its quota, then disarm the alarm"
	case errors.Is(err, rpctypes.ErrCorrupt):
		class, hint = desired.Stalled, "; etcd found its data damaged: restore a snapshot"
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrDuplicateKey):
		class = desired.Invalid
	case errors.Is(err, rpctypes.ErrTooManyRequests):
		class = desired.Throttled
	case errors.Is(err, rpctypes.ErrAuthFailed), code == "PermissionDenied", code == "Unauthenticated":
		class, hint = desired.Denied, "; check the etcd user and its role for the prefix "+root
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), code == "Unavailable":
		hint = "; whether a write arrived is unknown: read before deciding"
	}
	return desired.Errorf(op, desired.Ref{}, class, "etcd: %w%s", err, hint)
}

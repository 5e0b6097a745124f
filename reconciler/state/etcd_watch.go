// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/connectsoft/plumbline/desired"
)

// Watch implements Store. One etcd watch covers all tenants and tables, so that order and completeness are etcd's.
func (s *Etcd) Watch(ctx context.Context, from int64, tables []Table, fn func(Batch) error) error {
	const op = "watch records"
	now, err := s.Revision(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if from > now { // etcd would wait for it, and swallow what comes before
		return futureError(op, from, now)
	}
	outer := ctx
	ctx, done, err := s.follow(ctx, op)
	if err != nil {
		return err
	}
	defer done()
	// A member that lost its leader must say so instead of being silent. This also gives the watches of records a
	// stream apart from those of units: etcd reports progress only when every watch of a stream has caught up.
	ctx = clientv3.WithRequireLeader(ctx)
	// From the revision itself, whose events are dropped: etcd reports no progress to a watch that begins in the
	// future, and from+1 is the future when nothing happens. Not in fragments: etcd cuts them in quadratic time, and
	// neither side of the connection limits the size of an answer.
	in := s.client.Watch(ctx, root, clientv3.WithRange(root+"~"), clientv3.WithRev(max(from, 1)),
		clientv3.WithPrevKV(), clientv3.WithProgressNotify())
	w := watch{op: op, store: s, from: from, goal: now, rev: from, tables: tables, fn: fn}
	err = w.run(ctx, in)
	switch {
	case outer.Err() != nil:
		return nil
	case ctx.Err() != nil:
		return closedError(op)
	}
	return err
}

// watch is one Watch in flight.
type watch struct {
	op     string
	store  *Etcd
	from   int64
	goal   int64 // the store's revision when the watch began
	rev    int64 // delivered up to here
	tables []Table
	fn     func(Batch) error
}

func (w *watch) run(ctx context.Context, in clientv3.WatchChan) error {
	// Whoever watches from the past waits for the word that it has caught up: ask for it soon, then seldom.
	pause := min(10*time.Millisecond, w.store.progress)
	tick := time.NewTimer(pause)
	defer tick.Stop()
	quiet := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case r, ok := <-in:
			if !ok {
				return desired.Errorf(w.op, desired.Ref{}, desired.Transient, "etcd ended the watch at revision %d; watch again from there", w.rev)
			}
			quiet = 0
			if err := w.take(r); err != nil {
				return err
			}
		case <-tick.C:
			// A lost request only costs its mark; the next tick asks again.
			ask, cancel := context.WithTimeout(ctx, w.store.progress)
			err := w.store.client.RequestProgress(ask)
			cancel()
			if w.rev < w.goal && pause < w.store.progress {
				pause = min(2*pause, w.store.progress)
			} else {
				pause = w.store.progress
				quiet++
			}
			tick.Reset(pause)
			if quiet > 6 {
				return desired.Errorf(w.op, desired.Ref{}, desired.Transient, "etcd did not answer on the watch for %v (%v); watch again from revision %d", 6*w.store.progress, err, w.rev)
			}
		}
	}
}

// take delivers one answer: events of whole revisions, or a progress mark.
func (w *watch) take(r clientv3.WatchResponse) error {
	if r.CompactRevision > 0 {
		return compactedError(w.op, w.rev, r.CompactRevision)
	}
	if err := r.Err(); err != nil {
		return etcdError(w.op, err)
	}
	if err := w.store.same(w.op, r.Header); err != nil {
		return err
	}
	b := Batch{}
	switch {
	case len(r.Events) > 0: // the header may be ahead of what was delivered
		b.Rev = r.Events[len(r.Events)-1].Kv.ModRevision
	case r.IsProgressNotify():
		b.Rev = r.Header.Revision
	}
	if b.Rev < w.rev {
		return nil
	}
	for _, e := range r.Events {
		k, ok := parseKey(string(e.Kv.Key))
		if !ok || e.Kv.ModRevision <= w.from || !slices.Contains(w.tables, k.Table) {
			continue
		}
		ev := Event{KV: KV{Key: k, Value: e.Kv.Value, Rev: e.Kv.ModRevision}}
		if e.Type == clientv3.EventTypeDelete {
			ev.Deleted, ev.KV.Value = true, nil
			if e.PrevKv != nil {
				ev.Prev = e.PrevKv.Value
			}
		}
		b.Events = append(b.Events, ev)
	}
	w.rev = b.Rev
	return w.fn(b)
}

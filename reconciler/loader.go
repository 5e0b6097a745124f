// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/internal/fp"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// loader writes the consequences of new heads: Pending with the desired seq for every changed ref, then the horizon.
// It is one goroutine of a tenant. Its cost follows what changed; only the first load looks at everything.
type loader struct {
	t        *tenant
	read     bool                    // the book is what the store says
	compared bool                    // every ref was held against a head once
	horizon  state.Horizon           // as recorded
	verdict  state.Verdict           // as recorded
	findings map[string]plan.Finding // about files and the control repository, not about resources
	platform string                  // commit of the platform snapshot
	told     string                  // why it is frozen, as recorded in a finding
	rules    []governed              // what changed rules and suspensions match, to be nudged
	swept    time.Time               // when that was done last
	pruned   time.Time
}

// loadForever loads every new head until ctx ends. What fails is tried again.
func (t *tenant) loadForever(ctx context.Context) {
	l := &loader{t: t}
	moved, release := t.source.Watch()
	defer release()
	failures := 0
	for {
		err := l.loadSafely(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := l.next()
		if err != nil {
			t.e.c.Events.Error("load head of "+t.name, err)
			failures++
			wait = min(50*time.Millisecond<<min(failures, 12), 30*time.Second)
		} else {
			failures = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-moved:
		case <-t.poke:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// loadSafely keeps a defect in one head from ending the process.
func (l *loader) loadSafely(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			l.read = false
			err = desired.Errorf("load head", desired.Ref{}, desired.Internal, "panic: %v", p)
		}
	}()
	if err = l.load(ctx); errors.Is(err, state.ErrFenced) {
		l.read = false // another owner wrote meanwhile: look at everything again
	}
	return err
}

// load brings what is recorded up to the current head.
func (l *loader) load(ctx context.Context) error {
	t, began := l.t, l.t.e.c.Now()
	fence, err := t.owner.hold(ctx, "")
	if err != nil {
		return err
	}
	t.mu.Lock()
	l.read, t.stale = l.read && !t.stale, false
	t.mu.Unlock()
	if !l.read {
		if err := l.openBook(ctx); err != nil {
			return err
		}
	}
	head := t.source.Head()
	if frozen := l.frozen(head); frozen != "" {
		return l.freeze(ctx, fence, head, frozen)
	}
	delta, ok := l.delta(head)
	if !ok {
		return l.sweep(ctx)
	}
	l.compared, l.told = false, "" // until all of it is recorded: what fails half-way is compared anew
	l.publish(head, &delta)
	if err := l.record(ctx, head, delta); err != nil {
		return err
	}
	if err := l.recordRoot(ctx, fence, head, delta); err != nil {
		return err
	}
	l.compared = true
	l.collect(delta)
	l.enqueue(head, delta)
	t.e.c.Events.Loaded(t.name, head.Seq, head.Commit, len(delta.upserts)+len(delta.removed), t.e.c.Now().Sub(began))
	return l.sweep(ctx)
}

// openBook reads what is recorded of the tenant.
func (l *loader) openBook(ctx context.Context) error {
	t := l.t
	b := newBook()
	if err := b.open(ctx, t.e.c.Store, t.name); err != nil {
		return err
	}
	var err error
	if l.horizon, _, _, err = state.Read[state.Horizon](ctx, t.e.c.Store, state.HorizonKey(t.name)); err != nil {
		return err
	}
	if l.verdict, _, _, err = state.Read[state.Verdict](ctx, t.e.c.Store, state.VerdictKey(t.name)); err != nil {
		return err
	}
	all, _, err := state.LoadFindings(ctx, t.e.c.Store, t.name)
	if err != nil {
		return err
	}
	maps.DeleteFunc(all, func(_ string, f plan.Finding) bool { _, known := f.Ref.Kind.Info(); return known })
	l.findings = all
	t.mu.Lock()
	t.book, t.verdict, t.head, t.frozen = b, l.verdict, nil, ""
	t.mu.Unlock()
	l.read, l.compared = true, false
	return nil
}

// frozen says why a head must not be acted on: it is frozen, or it lies before what was accepted already.
func (l *loader) frozen(head *desired.Head) string {
	switch {
	case head.Frozen != "":
		return head.Frozen
	case head.Seq < l.horizon.Seq:
		return fmt.Sprintf("its head is at seq %d, and seq %d was accepted before: history is missing", head.Seq, l.horizon.Seq)
	}
	return ""
}

// freeze raises the finding, and lets turns observe but change nothing.
func (l *loader) freeze(ctx context.Context, f state.Fence, head *desired.Head, why string) error {
	t := l.t
	t.mu.Lock()
	if t.frozen = why; t.head == nil && head.Frozen != "" && head.Seq >= l.horizon.Seq {
		// The last accepted head stays in force: without changes, but not out of sight.
		t.head = head
		for e := range head.Snapshot.All() {
			t.book.enter(e)
		}
	}
	t.mu.Unlock()
	if l.told == why {
		return nil
	}
	if err := l.recordFindings(ctx, f, head, why); err != nil {
		return err
	}
	l.told = why
	l.enqueueAll()
	return nil
}

// delta is what one load has to do.
type delta struct {
	upserts []*desired.Entry // documents whose state is not recorded for what they say now
	removed []desired.Ref
	policy  []governed    // rules and suspensions that came, changed or went
	files   bool          // the set of files in quarantine may be another one
	bad     []desired.Ref // refs whose file came into quarantine or left it
	all     bool          // everything has to be looked at
}

// governed is what a rule or suspension speaks about.
type governed struct {
	project string
	match   desired.Match
}

// delta compares the head with what was loaded; ok is false when there is nothing to do.
func (l *loader) delta(head *desired.Head) (d delta, ok bool) {
	t := l.t
	platform := ""
	if p := head.Snapshot.Platform(); p != nil {
		platform = p.Commit()
	}
	d.all = platform != l.platform || t.frozen != ""
	l.platform = platform
	before := t.head
	if before == nil || !l.compared {
		return l.everything(head), true
	}
	if head.Seq == before.Seq && head.Commit == before.Commit {
		return d, d.all
	}
	c, known := t.source.Changes(before.Seq)
	if !known {
		return l.everything(head), true
	}
	d.files = len(c.Quarantined)+len(c.Released) > 0
	t.mu.RLock()
	defer t.mu.RUnlock()
	seen := map[desired.Ref]bool{}
	for _, list := range [][]desired.Ref{c.Added, c.Changed, c.Removed} {
		for _, ref := range list {
			if !seen[ref] {
				seen[ref] = true
				d.see(t, ref, before, head)
			}
		}
	}
	return d, true
}

// see sorts one ref that changed between two heads.
func (d *delta) see(t *tenant, ref desired.Ref, before, head *desired.Head) {
	old, was := before.Snapshot.Get(ref)
	now, is := head.Snapshot.Get(ref)
	switch {
	case is:
		d.upserts = append(d.upserts, now)
	case was || t.book.refs[ref] != nil:
		d.removed = append(d.removed, ref)
	}
	for _, e := range []*desired.Entry{old, now} {
		if e == nil {
			continue
		}
		switch s := e.Resource.Spec.(type) {
		case *desired.DriftRuleSpec:
			d.policy = append(d.policy, governed{ref.Project, s.Match})
		case *desired.SuspensionSpec:
			d.policy = append(d.policy, governed{ref.Project, s.Match})
		case *desired.ProviderSpec, *desired.TenantSpec:
			d.all = true
		}
	}
}

// everything compares a head with the book: what is recorded for the same document is left alone.
func (l *loader) everything(head *desired.Head) delta {
	d := delta{all: true, files: true}
	l.t.mu.RLock()
	defer l.t.mu.RUnlock()
	b := &l.t.book
	for e := range head.Snapshot.All() {
		n := b.refs[e.Ref]
		if n == nil || n.digest != e.Digest || e.Changed.Seq != 0 && n.desiredSeq != e.Changed.Seq {
			d.upserts = append(d.upserts, e)
		}
	}
	for ref := range b.refs {
		if _, ok := head.Snapshot.Get(ref); !ok {
			d.removed = append(d.removed, ref)
		}
	}
	slices.SortFunc(d.removed, compareRefs)
	return d
}

// publish makes turns see the head. A turn whose document is not recorded yet leaves it to the next one.
func (l *loader) publish(head *desired.Head, d *delta) {
	t := l.t
	bad := map[desired.Ref]*desired.Quarantine{}
	for _, q := range head.Snapshot.Quarantined() {
		for _, ref := range q.Refs {
			bad[ref] = &q
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, set := range []map[desired.Ref]*desired.Quarantine{bad, t.bad} {
		for ref := range set {
			if (bad[ref] == nil) != (t.bad[ref] == nil) || bad[ref] != nil && bad[ref].Blob != t.bad[ref].Blob {
				d.bad = append(d.bad, ref)
			}
		}
	}
	if t.head == nil {
		for e := range head.Snapshot.All() {
			t.book.enter(e)
		}
	}
	for _, e := range d.upserts {
		t.book.enter(e)
	}
	for _, ref := range d.removed {
		t.book.leave(ref)
		if managed(ref.Kind) {
			t.book.gone[ref] = true
		}
	}
	t.head, t.frozen, t.bad = head, "", bad
}

const batch = 100 // states in one transaction

// record writes Pending for every document that changed and Deleting for every one that went, a transaction for a
// hundred. Kinds without a driver take effect by being loaded: they are Synced with the same write.
func (l *loader) record(ctx context.Context, head *desired.Head, d delta) error {
	byProject := map[string][]write{}
	for _, e := range d.upserts {
		byProject[e.Ref.Project] = append(byProject[e.Ref.Project], write{ref: e.Ref, entry: e})
	}
	for _, ref := range d.removed {
		byProject[ref.Project] = append(byProject[ref.Project], write{ref: ref})
	}
	for _, project := range slices.Sorted(maps.Keys(byProject)) {
		for chunk := range slices.Chunk(byProject[project], batch) {
			if err := l.recordBatch(ctx, project, head, chunk); err != nil {
				return err
			}
		}
	}
	return nil
}

// write is one state to be written: of a document, or of one that is gone.
type write struct {
	ref   desired.Ref
	entry *desired.Entry
}

// recordBatch writes the states of one unit. Turns write the same records: who comes second reads again.
func (l *loader) recordBatch(ctx context.Context, project string, head *desired.Head, chunk []write) error {
	t := l.t
	for {
		fence, err := t.owner.hold(ctx, project)
		if err != nil {
			return err
		}
		stored, err := l.stored(ctx, chunk)
		if err != nil {
			return err
		}
		var puts []state.Put
		var states []*state.SyncState
		for _, w := range chunk {
			put, s, err := l.put(head, w, stored[state.StateKey(w.ref)])
			if err != nil {
				return err
			}
			if put != nil {
				puts, states = append(puts, *put), append(states, s)
			}
		}
		if len(puts) > 0 {
			fp.Hit("load.write")
			_, err = t.e.c.Store.Commit(ctx, fence, puts...)
		}
		switch {
		case errors.Is(err, state.ErrConflict) && ctx.Err() == nil:
			continue
		case err != nil:
			return err
		}
		l.noted(chunk, states)
		return nil
	}
}

// stored reads the records that a batch replaces; what the book does not know is not there.
func (l *loader) stored(ctx context.Context, chunk []write) (map[state.Key]state.KV, error) {
	t := l.t
	var keys []state.Key
	t.mu.RLock()
	for _, w := range chunk {
		if t.book.refs[w.ref] != nil {
			keys = append(keys, state.StateKey(w.ref))
		}
	}
	t.mu.RUnlock()
	if len(keys) == 0 {
		return nil, nil
	}
	kvs, err := t.e.c.Store.Get(ctx, keys...)
	out := make(map[state.Key]state.KV, len(kvs))
	for _, kv := range kvs {
		out[kv.Key] = kv
	}
	return out, err
}

// put is the write for one ref, nil when nothing is to be written.
func (l *loader) put(head *desired.Head, w write, old state.KV) (*state.Put, *state.SyncState, error) {
	s := state.SyncState{Ref: w.ref, ID: w.ref.ID()}
	if old.Value != nil {
		was, err := state.Decode[state.SyncState](old)
		if err != nil {
			return nil, nil, err
		}
		s = was
	}
	was := s.Phase
	now := l.t.e.c.Now()
	switch {
	case w.entry != nil && old.Value != nil && s.Digest == w.entry.Digest && (w.entry.Changed.Seq == 0 || s.DesiredSeq == w.entry.Changed.Seq):
		return nil, nil, nil
	case w.entry != nil:
		s.DesiredSeq, s.DesiredCommit, s.Digest = w.entry.Changed.Seq, w.entry.Changed.Commit, w.entry.Digest
		if s.DesiredSeq == 0 {
			s.DesiredSeq, s.DesiredCommit = head.Seq, head.Commit
		}
		s.Labels = w.entry.Resource.Metadata.Labels
		s.Phase, s.Reason, s.Message, s.ActiveSince = plan.Pending, "", "accepted, not looked at yet", now
		if !managed(w.ref.Kind) {
			s.Phase, s.Reason, s.Message, s.ActiveSince = plan.Synced, "Loaded", "in force since it was loaded", time.Time{}
			s.AppliedSeq, s.AppliedCommit = s.DesiredSeq, s.DesiredCommit
		}
	case !managed(w.ref.Kind):
		put := state.Delete(state.StateKey(w.ref)).If(old.Rev)
		return &put, nil, nil
	case old.Value == nil, s.Digest == "" && s.Phase != plan.Pending:
		return nil, nil, nil // nothing of it was ever recorded, or its removal was
	default:
		s.DesiredSeq, s.DesiredCommit, s.Digest, s.ActiveSince = head.Seq, head.Commit, "", time.Time{}
		s.Reason = removedReason(&s)
		s.Phase, s.Message = plan.Deleting, "the document is gone"
	}
	if s.Phase != was {
		s.Since = now
	}
	put, err := state.PutState(s)
	if old.Value != nil {
		put = state.KeepUnknown(old.Value, put)
	}
	put = put.If(old.Rev)
	return &put, &s, err
}

// noted takes a batch that was written over into the book.
func (l *loader) noted(chunk []write, states []*state.SyncState) {
	t := l.t
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range states {
		if s != nil {
			t.book.loaded(s)
		}
	}
	for _, w := range chunk {
		if w.entry == nil && !managed(w.ref.Kind) {
			t.book.forget(w.ref)
		}
	}
}

// recordRoot writes what belongs to the tenant as a whole, the horizon last.
func (l *loader) recordRoot(ctx context.Context, f state.Fence, head *desired.Head, d delta) error {
	if d.files || len(l.findings) > 0 {
		if err := l.recordFindings(ctx, f, head, ""); err != nil {
			return err
		}
	}
	if err := l.judge(ctx, f, head); err != nil {
		return err
	}
	if l.horizon.Seq == head.Seq && l.horizon.Commit == head.Commit {
		return nil
	}
	h := state.Horizon{Tenant: l.t.name, Seq: head.Seq, Commit: head.Commit, At: l.t.e.c.Now()}
	put, err := state.PutHorizon(h)
	if err == nil {
		fp.Hit("horizon.write")
		_, err = l.t.e.c.Store.Commit(ctx, f, put)
	}
	if err == nil {
		l.horizon = h
	}
	return err
}

// recordFindings opens and closes the findings about files that no resource comes from and about the control
// repository as a whole.
func (l *loader) recordFindings(ctx context.Context, f state.Fence, head *desired.Head, frozen string) error {
	prior := slices.Collect(maps.Values(l.findings))
	open, closed := plan.FileFindings(l.t.e.c.Now(), l.t.name, head.Snapshot.Quarantined(), frozen, prior)
	var puts []state.Put
	var told []plan.Finding
	for _, v := range append(open, closed...) {
		put, err := state.PutFinding(v)
		if err != nil {
			return err
		}
		old, ok := l.findings[v.ID]
		if ok && samePut(state.PutFinding, old, put) {
			continue
		}
		puts = append(puts, put)
		if !ok || old.Open() != v.Open() {
			told = append(told, v)
		}
	}
	if len(puts) == 0 {
		return nil
	}
	if _, err := l.t.e.c.Store.Commit(ctx, f, puts...); err != nil {
		return err
	}
	for _, v := range append(open, closed...) {
		l.findings[v.ID] = v
	}
	for _, v := range told {
		l.t.e.c.Events.Finding(v)
	}
	return nil
}

func compareRefs(a, b desired.Ref) int {
	switch x, y := a.String(), b.String(); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

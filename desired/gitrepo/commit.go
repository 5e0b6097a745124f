// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
	"github.com/connectsoft/plumbline/internal/fp"
)

// pending is a write on its way through the writer.
type pending struct {
	ctx      context.Context // of the caller: an abandoned write is not started
	q        Request
	prepared []desired.Prepared
	answer   chan result // 1 slot
}

type result struct {
	receipt Receipt
	err     error
}

// keyRecord is what is known of a landed idempotency key.
type keyRecord struct {
	Fingerprint string    `json:"f"`
	Commit      string    `json:"c"`
	Seq         uint64    `json:"s"`
	Base        string    `json:"b,omitempty"`
	At          time.Time `json:"t"`
}

// Commit lands an edit: nil means durable and visible in Head. Errors are *desired.Error: the edit's own; Invalid
// with ErrKeyReused and Conflict with ErrInFlight for idempotency keys; Throttled when the queue is full; Transient
// when the repository is closing or storage failed; Stalled with ErrFrozen. When ctx ends while the write is under
// way the outcome is open: ask Lookup, or repeat with the same key.
func (r *Repo) Commit(ctx context.Context, q Request) (Receipt, error) {
	fp.Hit("recv")
	if q.Key != "" {
		if !r.claimKey(q.Key) {
			return Receipt{}, desired.E("write", desired.Ref{}, desired.Conflict, ErrInFlight)
		}
		defer r.releaseKey(q.Key)
	}
	p := &pending{ctx: ctx, q: q, answer: make(chan result, 1)}
	if rc, done, err := r.prepare(p); done || err != nil {
		return rc, err
	}
	fp.Hit("validate")
	if r.closed.Load() {
		return Receipt{}, errClosing(r.cfg.Tenant)
	}
	select {
	case r.requests <- p:
	case <-r.exited:
		return Receipt{}, errClosing(r.cfg.Tenant)
	default:
		return Receipt{}, &desired.Error{
			Class: desired.Throttled, Op: "write", After: time.Second,
			Err: fmt.Errorf("%d writes are waiting for the control repository of %s: try again in a second", r.cfg.Queue, name(r.cfg.Tenant)),
		}
	}
	select {
	case a := <-p.answer:
		return a.receipt, a.err
	case <-ctx.Done():
		return Receipt{}, context.Cause(ctx)
	case <-r.exited:
	}
	select {
	case a := <-p.answer: // answered on the writer's way out
		return a.receipt, a.err
	default:
		return Receipt{}, errClosing(r.cfg.Tenant)
	}
}

// prepare runs the edit against the current head in the caller's goroutine. It answers replays and refusals at
// once and parses the files that the edit writes, so that the writer finds them in its cache.
func (r *Repo) prepare(p *pending) (Receipt, bool, error) {
	if rec, ok := r.lookup(p.q.Key); ok {
		rc, err := r.replay(rec, p.q.Fingerprint)
		return rc, true, err
	}
	h := r.Head()
	if why := r.readOnly(); why != "" {
		return Receipt{}, false, frozenError(why)
	}
	v, err := r.viewOf(h)
	if err != nil {
		return Receipt{}, false, err
	}
	writes, err := p.q.Edit(v)
	if err != nil {
		return Receipt{}, false, err
	}
	for _, w := range writes {
		place := desired.Place{Tenant: r.cfg.Tenant, Path: w.Path}
		if !w.Delete && place.Managed() {
			p.prepared = append(p.prepared, desired.Prepare(place, gitstore.HashBlob(w.Data).String(), w.Data))
		}
	}
	return Receipt{}, false, nil
}

// readOnly says why nothing may be written now, "" when it may.
func (r *Repo) readOnly() string {
	if why := r.held.Load(); why != nil && *why != "" {
		return *why
	}
	return r.Head().Frozen
}

func frozenError(why string) error {
	return desired.Errorf("write", desired.Ref{}, desired.Stalled, "%w: %s", ErrFrozen, why)
}

// Lookup finds the receipt of an idempotency key.
func (r *Repo) Lookup(key string) (rc Receipt, fingerprint string, ok bool) {
	rec, ok := r.lookup(key)
	if !ok {
		return Receipt{}, "", false
	}
	return r.receipt(rec), rec.Fingerprint, true
}

func (r *Repo) lookup(key string) (keyRecord, bool) {
	if key == "" {
		return keyRecord{}, false
	}
	r.keyMu.RLock()
	defer r.keyMu.RUnlock()
	rec, ok := r.keys[key]
	return rec, ok
}

func (r *Repo) replay(rec keyRecord, fingerprint string) (Receipt, error) {
	if rec.Fingerprint != fingerprint {
		return Receipt{}, desired.E("write", desired.Ref{}, desired.Invalid, ErrKeyReused)
	}
	return r.receipt(rec), nil
}

func (r *Repo) receipt(rec keyRecord) Receipt {
	return Receipt{Tenant: r.cfg.Tenant, Commit: rec.Commit, Seq: rec.Seq, Base: rec.Base, Replayed: true, At: rec.At}
}

func (r *Repo) claimKey(key string) bool {
	r.keyMu.Lock()
	defer r.keyMu.Unlock()
	if _, busy := r.inFlight[key]; busy {
		return false
	}
	r.inFlight[key] = struct{}{}
	return true
}

func (r *Repo) releaseKey(key string) {
	r.keyMu.Lock()
	defer r.keyMu.Unlock()
	delete(r.inFlight, key)
}

// member is one write of a batch that was built and waits for the batch to be durable.
type member struct {
	p       *pending
	receipt Receipt
}

// build is a batch under construction: the tree, snapshot and parent that the next member builds on.
type build struct {
	objects  *gitstore.Batch
	from     gitstore.Hash // the head it lands on
	parent   gitstore.Hash
	tree     gitstore.Hash
	head     *desired.Head
	accepted []step
	members  []member
	keys     map[string]keyRecord
	ahead    *build // still being made durable when this one was begun
	tries    int
	started  time.Time
}

// step is one commit on the way from one head to the next.
type step struct {
	head    *desired.Head
	changes desired.Changes
}

// write is the writer goroutine: it owns the head until ctx ends. One batch is made durable while the next one fills;
// what another program or a push changes is looked at between batches.
func (r *Repo) write(ctx context.Context) {
	defer close(r.exited)
	var flying, next *build
	landed := make(chan error, 1)
	for {
		if flying == nil && next != nil {
			flying, next = next, nil
			go func(b *build) { landed <- r.land(ctx, b) }(flying) // its answer is always taken below
		}
		requests, control, nudge := r.requests, r.control, r.nudge
		if flying != nil {
			control, nudge = nil, nil
		}
		if next != nil && len(next.members) >= r.cfg.Batch {
			requests = nil
		}
		select {
		case p := <-requests:
			if next == nil {
				next = r.newBuild(flying)
			}
			r.fill(next, p)
		case err := <-landed:
			next = r.settle(ctx, flying, next, err)
			flying = nil
			next = r.between(ctx, next)
		case job := <-control:
			job(ctx)
		case <-nudge:
			r.look(ctx)
		case <-ctx.Done():
			if flying != nil {
				next = r.settle(ctx, flying, next, <-landed)
			}
			r.abandon(next, errClosing(r.cfg.Tenant))
			r.drain(ctx)
			return
		}
	}
}

// fill adds a write, and what else is waiting, up to the batch bound.
func (r *Repo) fill(b *build, p *pending) {
	for {
		r.add(b, p)
		if len(b.members) >= r.cfg.Batch {
			return
		}
		select {
		case p = <-r.requests:
		default:
			return
		}
	}
}

// between does what has to be done while no batch is in flight. A push waits for the batch that was already built;
// a branch that another program moved makes that batch be built again.
func (r *Repo) between(ctx context.Context, next *build) *build {
	select {
	case job := <-r.control:
		for next != nil {
			next = r.settle(ctx, next, nil, r.land(ctx, next))
		}
		job(ctx)
	case <-r.nudge:
		before := r.w.commit
		r.look(ctx)
		if r.w.commit != before {
			next = r.rebuild(next)
		}
	default:
	}
	return next
}

// look follows the branch and reports what went wrong; the poll looks again.
func (r *Repo) look(ctx context.Context) {
	if err := r.follow(ctx); err != nil && ctx.Err() == nil {
		r.report("follow the branch", err)
	}
}

// drain answers what was queued when the repository closed; ctx has ended.
func (r *Repo) drain(ctx context.Context) {
	for {
		select {
		case p := <-r.requests:
			p.answer <- result{err: errClosing(r.cfg.Tenant)}
		case job := <-r.control:
			job(ctx)
		default:
			return
		}
	}
}

// newBuild begins a batch on the one in flight, or on the head.
func (r *Repo) newBuild(ahead *build) *build {
	b := &build{keys: map[string]keyRecord{}, started: r.cfg.Now()}
	if ahead != nil {
		b.objects, b.from, b.parent, b.tree, b.head, b.ahead = ahead.objects.Next(), ahead.parent, ahead.parent, ahead.tree, ahead.head, ahead
		return b
	}
	b.objects, b.from, b.parent, b.tree, b.head = r.store.NewBatch(), r.w.commit, r.w.commit, r.w.tree, r.Head()
	return b
}

// rebuild replays the members of batches on the head; nil when nothing is left to land.
func (r *Repo) rebuild(batches ...*build) *build {
	b := r.newBuild(nil)
	for _, old := range batches {
		if old == nil {
			continue
		}
		b.tries = max(b.tries, old.tries)
		for _, m := range old.members {
			r.add(b, m.p)
		}
	}
	if len(b.members) == 0 {
		return nil
	}
	return b
}

// settle takes the outcome of a landing: its members are answered, or, when another program moved the branch,
// replayed on the new head. It returns the batch to land next; next was built on b.
func (r *Repo) settle(ctx context.Context, b, next *build, err error) *build {
	const tries = 16
	var moved *gitstore.RefError
	if errors.As(err, &moved) && b.tries < tries {
		if err = r.follow(ctx); err == nil {
			b.tries++
			return r.rebuild(b, next)
		}
	}
	if err != nil {
		r.abandon(b, r.storageError(err))
		return r.rebuild(next)
	}
	r.landed(b)
	if next != nil {
		next.ahead = nil
	}
	return next
}

// landed publishes a durable batch and answers its members.
func (r *Repo) landed(b *build) {
	fp.Hit("batch.landed")
	if len(b.accepted) > 0 {
		r.w.commit, r.w.tree = b.parent, b.tree
		r.keyMu.Lock()
		for k, rec := range b.keys {
			r.keys[k] = rec
		}
		r.keyMu.Unlock()
		r.accept(b.accepted)
		if r.cfg.Events.Batch != nil {
			r.cfg.Events.Batch(len(b.accepted), r.cfg.Now().Sub(b.started))
		}
	}
	fp.Hit("ack.before")
	for _, m := range b.members {
		m.p.answer <- result{receipt: m.receipt}
	}
}

// abandon answers the members of a batch that will not land.
func (r *Repo) abandon(b *build, err error) {
	if b == nil {
		return
	}
	for _, m := range b.members {
		m.p.answer <- result{err: err}
	}
}

// add builds one member on the batch. A member that is refused is answered at once and leaves the batch as it was.
func (r *Repo) add(b *build, p *pending) {
	if err := p.ctx.Err(); err != nil {
		p.answer <- result{err: context.Cause(p.ctx)}
		return
	}
	for _, prep := range p.prepared {
		r.w.cache.Add(prep)
	}
	if rec, known := r.known(b, p.q.Key); known {
		rc, err := r.replay(rec, p.q.Fingerprint)
		if err != nil {
			p.answer <- result{err: err}
			return
		}
		b.members = append(b.members, member{p: p, receipt: rc})
		return
	}
	before := b.objects.Len()
	m, err := r.addCommit(b, p)
	if err != nil {
		b.objects.Truncate(before)
		p.answer <- result{err: err}
		return
	}
	b.members = append(b.members, m)
}

// known finds an idempotency key that landed, or is about to in this batch or the one ahead of it.
func (r *Repo) known(b *build, key string) (keyRecord, bool) {
	if key == "" {
		return keyRecord{}, false
	}
	for ; b != nil; b = b.ahead {
		if rec, ok := b.keys[key]; ok {
			return rec, true
		}
	}
	return r.lookup(key)
}

func (r *Repo) addCommit(b *build, p *pending) (member, error) {
	if why := r.readOnly(); why != "" {
		return member{}, frozenError(why)
	}
	writes, err := p.q.Edit(view{snapshot: b.head.Snapshot, objects: b.objects, tree: b.tree})
	if err != nil {
		return member{}, err
	}
	at := r.cfg.Now().UTC().Truncate(time.Second)
	base := b.head.Commit
	if len(writes) == 0 {
		return member{p: p, receipt: Receipt{Tenant: r.cfg.Tenant, Commit: base, Seq: b.head.Seq, Base: base, Unchanged: true, At: at}}, nil
	}
	tree, files, err := r.applyWrites(b, writes)
	if err != nil {
		return member{}, err
	}
	msg, err := message(&p.q)
	if err != nil {
		return member{}, desired.E("write", desired.Ref{}, desired.Invalid, err)
	}
	c := gitstore.Commit{Tree: tree, Author: author(p.q.Subject, at), Committer: committer(at), Message: msg}
	if !b.parent.IsZero() {
		c.Parents = []gitstore.Hash{b.parent}
	}
	id := b.objects.AddCommit(&c, func(raw []byte) []byte { return seal(r.cfg.SealKey, raw) })
	seq := b.head.Seq + 1
	next, changes := b.head.Snapshot.Advance(desired.Delta{
		Commit: id.String(),
		Change: desired.Provenance{Commit: id.String(), Seq: seq, Author: person(c.Author), Principal: p.q.Subject, At: at},
		Files:  files,
	}, r.w.cache)
	if err := refuse(changes); err != nil {
		return member{}, err
	}
	if err := r.withinQuota(b.head.Snapshot, next); err != nil {
		return member{}, err
	}
	b.parent, b.tree = id, tree
	b.head = &desired.Head{Seq: seq, Commit: id.String(), Snapshot: next, At: at}
	b.accepted = append(b.accepted, step{b.head, changes})
	rec := keyRecord{Fingerprint: p.q.Fingerprint, Commit: id.String(), Seq: seq, Base: base, At: at}
	if p.q.Key != "" {
		b.keys[p.q.Key] = rec
	}
	return member{p: p, receipt: Receipt{Tenant: r.cfg.Tenant, Commit: id.String(), Seq: seq, Base: base, At: at}}, nil
}

// applyWrites turns the writes of an edit into blobs and the next tree.
func (r *Repo) applyWrites(b *build, writes []desired.Write) (gitstore.Hash, []desired.File, error) {
	entries := make(map[string]gitstore.TreeEntry, len(writes))
	files := make([]desired.File, 0, len(writes))
	for _, w := range writes {
		place := desired.Place{Tenant: r.cfg.Tenant, Path: w.Path}
		switch {
		case !place.Managed() && !attached(w.Path):
			return gitstore.Zero, nil, desired.Errorf("write", desired.Ref{}, desired.Internal, "an edit wrote %q, which no document may live at", w.Path)
		case w.Delete:
			entries[w.Path] = gitstore.TreeEntry{}
			files = append(files, desired.File{Path: w.Path, Deleted: true})
		default:
			id := b.objects.AddBlob(w.Data)
			entries[w.Path] = gitstore.TreeEntry{Mode: 0o100644, Hash: id}
			files = append(files, desired.File{Path: w.Path, Blob: id.String(), Data: w.Data})
		}
	}
	tree, err := b.objects.WriteTree(b.tree, entries)
	if err != nil {
		return gitstore.Zero, nil, desired.E("write", desired.Ref{}, desired.Internal, err)
	}
	return tree, files, nil
}

// attached reports whether a path is that of content beside a document: …/<name>.d/<64 hex digits>.
func attached(path string) bool {
	dir, file, ok := cutLast(path)
	if !ok || len(file) != 64 || !strings.HasSuffix(dir, ".d") || !strings.HasPrefix(path, "projects/") {
		return false
	}
	return strings.Trim(file, "0123456789abcdef") == ""
}

func cutLast(path string) (dir, file string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// refuse turns files that became bad by a write into the error of that write.
func refuse(c desired.Changes) error {
	if len(c.Quarantined) == 0 {
		return nil
	}
	e := &desired.Error{Class: desired.Invalid, Op: "load documents"}
	for _, q := range c.Quarantined {
		if len(q.Err.Fields) == 0 {
			e.Fields = append(e.Fields, desired.FieldError{File: q.Path, Detail: q.Err.Detail()})
		}
		e.Fields = append(e.Fields, q.Err.Fields...)
	}
	return e
}

// land makes a batch durable. It runs beside the writer, which builds the next batch meanwhile.
func (r *Repo) land(ctx context.Context, b *build) error {
	if len(b.accepted) == 0 {
		return nil
	}
	fp.Hit("batch.seal")
	b.objects.Set(gitstore.RefUpdate{Name: r.ref, Old: b.from, New: b.parent})
	// Once begun, a batch is finished, also when the repository is closing.
	return r.store.Write(context.WithoutCancel(ctx), b.objects)
}

// storageError classes what a failed landing means for callers.
func (r *Repo) storageError(err error) error {
	if errors.Is(err, gitstore.ErrBroken) && r.cfg.Events.Broken != nil {
		r.cfg.Events.Broken(err)
	}
	var e *desired.Error
	if errors.As(err, &e) {
		return err
	}
	var moved *gitstore.RefError
	if errors.As(err, &moved) {
		return desired.Errorf("write", desired.Ref{}, desired.Transient, "the branch of the control repository is held by another program: try again (%w)", err)
	}
	var disk *fs.PathError
	if errors.As(err, &disk) { // where on this machine is for the log, not for callers
		if r.cfg.Events.Error != nil {
			r.cfg.Events.Error("write", err)
		}
		return desired.Errorf("write", desired.Ref{}, desired.Transient, "nothing was stored, the server's disk refuses it: %w; try again later", disk.Err)
	}
	return desired.Errorf("write", desired.Ref{}, desired.Transient, "nothing was stored: %w", err)
}

// view is the tree that an edit is judged against.
type view struct {
	snapshot *desired.Snapshot
	objects  gitstore.Reader
	tree     gitstore.Hash
}

func (v view) Snapshot() *desired.Snapshot { return v.snapshot }

func (v view) Read(path string) ([]byte, bool, error) {
	if v.tree.IsZero() {
		return nil, false, nil
	}
	e, ok, err := gitstore.Lookup(v.objects, v.tree, path)
	if err != nil || !ok {
		return nil, false, err
	}
	data, err := v.objects.Blob(e.Hash)
	return data, err == nil, err
}

// author is the git identity of a caller.
func author(subject string, at time.Time) gitstore.Signature {
	subject = oneLine(strings.NewReplacer("<", "", ">", "").Replace(subject), "unknown")
	local := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
			return c
		}
		return '-'
	}, subject)
	return gitstore.Signature{Name: subject, Email: local + "@callers.plumbline.invalid", When: at}
}

func committer(at time.Time) gitstore.Signature {
	return gitstore.Signature{Name: "Plumbline", Email: "plumbline@plumbline.invalid", When: at}
}

func person(s gitstore.Signature) string { return s.Name + " <" + s.Email + ">" }

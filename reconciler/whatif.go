// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// Bounds of one what-if.
const (
	previewRefs    = 50
	previewTime    = 10 * time.Second
	previewWorkers = 4
)

// Forecast is what a head that is not committed would come to.
type Forecast struct {
	Previews  []Preview      // in order of their refs
	Deletions plan.Judgement // of all that would be pending then, what is pending already included
	Deleting  int            // how many of those the head would add
	Digest    string         // of the changes of all previews: an approval would name it
}

// Preview is the plan of one ref on a fresh observation.
type Preview struct {
	Ref        desired.Ref
	Unobserved string // why there is no plan; "" = there is one
	Plan       plan.Plan
	Decision   plan.Decision // of the guard, on the changes of the plan
}

// Plan says what next, a head that would follow base by some changes, would come to. Every ref that the changes
// touch, and every one that a touched rule or suspension speaks about, is observed and planned: at most 50, within
// 10 seconds; the others are told as not observed. Nothing is applied or recorded, and only providers that are
// committed as base has them are asked.
func (e *Engine) Plan(ctx context.Context, base, next *desired.Head, c desired.Changes) (Forecast, error) {
	t := e.tenant(base.Snapshot.Tenant())
	if t == nil {
		return Forecast{}, desired.Errorf("plan write", desired.Ref{}, desired.Transient, "the tenant is not looked after by this process yet: try again")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, previewTime, errPreviewTime)
	defer cancel()
	t, err := t.read(ctx, base)
	if err != nil {
		return Forecast{}, err
	}
	already := len(t.pending(base.Snapshot).Pending)
	pending := t.pending(next.Snapshot, c.Removed...)
	f := Forecast{Deletions: plan.JudgeDeletions(pending), Deleting: len(pending.Pending) - already}
	f.Previews = t.preview(ctx, base, next, affected(base.Snapshot, next.Snapshot, c), f.Deletions)
	var plans []plan.Plan
	for _, p := range f.Previews {
		plans = append(plans, p.Plan)
	}
	f.Digest = plan.Digest(plans...)
	return f, nil
}

var errPreviewTime = errors.New("observing took longer than 10 s")

// read returns a tenant whose book is filled: t itself once it has loaded a head, else a copy that only reads.
func (t *tenant) read(ctx context.Context, base *desired.Head) (*tenant, error) {
	t.mu.RLock()
	loaded := t.head != nil
	t.mu.RUnlock()
	if loaded {
		return t, nil
	}
	own := &tenant{e: t.e, name: t.name, source: t.source, head: base, frozen: base.Frozen, book: newBook()}
	if err := own.book.open(ctx, t.e.c.Store, t.name); err != nil {
		return nil, err
	}
	for e := range base.Snapshot.All() {
		own.book.enter(e)
	}
	return own, nil
}

// affected lists what changes touch, then what the rules and suspensions among them speak about, each in order.
func affected(base, next *desired.Snapshot, c desired.Changes) []desired.Ref {
	refs := slices.Concat(c.Added, c.Changed, c.Removed)
	slices.SortFunc(refs, compareRefs)
	seen := map[desired.Ref]bool{}
	var spoken []governed
	for _, r := range refs {
		seen[r] = true
		for _, s := range []*desired.Snapshot{base, next} {
			if e, ok := s.Get(r); ok {
				spoken = append(spoken, speaks(e)...)
			}
		}
	}
	if len(spoken) == 0 {
		return refs
	}
	for e := range next.All() {
		about := func(g governed) bool {
			return (g.project == "" || g.project == e.Ref.Project) && g.match.Matches(e.Ref, e.Resource.Metadata.Labels)
		}
		if managed(e.Ref.Kind) && !seen[e.Ref] && slices.ContainsFunc(spoken, about) {
			refs = append(refs, e.Ref)
		}
	}
	return refs
}

// speaks is what a rule or suspension is about.
func speaks(e *desired.Entry) []governed {
	switch s := e.Resource.Spec.(type) {
	case *desired.DriftRuleSpec:
		return []governed{{e.Ref.Project, s.Match}}
	case *desired.SuspensionSpec:
		return []governed{{e.Ref.Project, s.Match}}
	}
	return nil
}

// preview plans refs, a few at a time.
func (t *tenant) preview(ctx context.Context, base, next *desired.Head, refs []desired.Ref, j plan.Judgement) []Preview {
	out := make([]Preview, len(refs))
	work := make(chan int)
	var all sync.WaitGroup
	for range previewWorkers {
		all.Go(func() {
			for i := range work {
				out[i] = t.previewOne(ctx, base, next, refs[i], j)
			}
		})
	}
	for i, r := range refs {
		if i < previewRefs {
			work <- i
			continue
		}
		out[i] = Preview{Ref: r, Unobserved: "more than 50 resources are affected"}
	}
	close(work)
	all.Wait()
	return out
}

// previewOne is the first three steps of a turn, on a head that is not committed. What fails is told, as a person who
// asks what would happen has to know.
func (t *tenant) previewOne(ctx context.Context, base, next *desired.Head, ref desired.Ref, j plan.Judgement) (p Preview) {
	p.Ref = ref
	defer func() {
		if v := recover(); v != nil { // a defect in a driver must not end the process
			t.e.c.Events.Error("plan write", desired.Errorf("plan write", ref, desired.Internal, "%w: %v", errPanic, v))
			p = Preview{Ref: ref, Unobserved: "an internal error; the log has the details"}
		}
	}()
	w := &turn{t: t, ref: ref, began: t.e.c.Now().UTC(), head: next, whatIf: true}
	w.entry, _ = next.Snapshot.Get(ref)
	if err := w.suppose(ctx); err != nil {
		p.Unobserved = detail(err)
		return p
	}
	if name, ok := w.uncommitted(base.Snapshot); ok {
		p.Unobserved = "its provider " + name + " is not committed as this write has it: commit the provider first"
		return p
	}
	w.gatherInput(ctx)
	w.in.DeletionAllowed, w.in.DeletionReason = slices.Contains(j.Allowed, ref), ""
	if slices.Contains(j.Stopped, ref) {
		w.in.DeletionReason = j.Reason
	}
	if err := w.observe(ctx); err != nil {
		p.Unobserved = detail(err)
		return p
	}
	w.diff()
	p.Plan, p.Decision = w.plan, plan.Guard(w.in, w.plan)
	if !p.Decision.Allow {
		p.Plan = plan.Await(w.in, w.plan, p.Decision)
	}
	return p
}

// suppose reads what is recorded of a ref, with its state as the loader would leave it.
func (w *turn) suppose(ctx context.Context) (err error) {
	if err := ctxLost(ctx); err != nil {
		return err
	}
	store := w.t.e.c.Store
	if w.records, err = state.Load(ctx, store, w.ref); err != nil {
		return err
	}
	w.run = w.records.Run
	var old state.KV
	kvs, err := store.Get(ctx, state.StateKey(w.ref))
	if err != nil {
		return err
	}
	for _, kv := range kvs {
		old = kv
	}
	_, s, err := (&loader{t: w.t}).put(w.head, write{ref: w.ref, entry: w.entry}, old)
	if s != nil {
		w.records.State = s
	}
	if err == nil && w.records.State == nil && w.entry != nil {
		err = desired.Errorf("plan write", w.ref, desired.Waiting, "it was not loaded yet: try again")
	}
	return err
}

// uncommitted names the provider that a ref would be looked for at, where the head does not have it as it is in the
// snapshot that is planned: its address and credential are not to be used before they are committed.
func (w *turn) uncommitted(base *desired.Snapshot) (string, bool) {
	if !managed(w.ref.Kind) {
		return "", false
	}
	name := ""
	if a := w.records.Applied; a != nil {
		name = a.Provider
	}
	names := []string{name}
	if w.entry != nil {
		names = append(names, w.providerNamed())
	}
	for _, n := range names {
		if n == "" {
			continue
		}
		ref, _, err := w.head.Snapshot.Provider(n)
		if err != nil || ref.Tenant == "" { // a wrong name is told by the plan; the platform's are not the tenant's to change
			continue
		}
		then, _ := w.head.Snapshot.Get(ref)
		now, ok := base.Get(ref)
		if then != nil && (!ok || now.Digest != then.Digest) {
			return ref.Name, true
		}
	}
	return "", false
}

// providerNamed is the provider that the document, or that of its repository, names.
func (w *turn) providerNamed() string {
	spec := w.entry.Resource.Spec
	if parent := parentOf(w.ref, spec); !parent.IsZero() {
		w.t.mu.RLock()
		n := w.t.book.refs[parent]
		w.t.mu.RUnlock()
		if n != nil && n.provider != "" {
			return n.provider
		}
		e, ok := w.head.Snapshot.Get(parent)
		if !ok {
			return ""
		}
		spec = e.Resource.Spec
	}
	if repo, ok := spec.(*desired.RepositorySpec); ok {
		return repo.ProviderOr()
	}
	return ""
}

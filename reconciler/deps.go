// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"maps"
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// dependencies lists what a ref may have to wait for. tenant.mu is held.
func (t *tenant) dependencies(w *turn) []plan.Dependency {
	if w.entry == nil {
		return t.childrenFirst(w)
	}
	var deps []plan.Dependency
	add := func(role plan.Role, refs ...desired.Ref) {
		for _, r := range refs {
			if r != w.ref {
				deps = append(deps, t.dependency(w.head.Snapshot, r, role))
			}
		}
	}
	p, inside := placeOf(w.entry)
	if inside {
		add(plan.RoleParent, p.repo)
	}
	if a := w.records.Applied; a != nil && a.Digest == w.entry.Digest {
		return deps // all that the document asks for is applied: nothing new has to wait
	}
	for _, name := range w.entry.Resource.Metadata.DependsOn {
		if kind, name, ok := strings.Cut(name, "/"); ok {
			add(plan.RoleExplicit, w.ref.Sibling(desired.Kind(kind), name))
		}
	}
	if !inside {
		return deps
	}
	switch s := w.entry.Resource.Spec.(type) {
	case *desired.BranchSpec:
		if s.FromCommit == "" && s.Commit == "" {
			from := place{p.repo, s.FromBranch}
			if from.branch == "" {
				from.branch = t.defaultBranch(w.head.Snapshot, p.repo)
			}
			add(plan.RoleBranch, t.book.branchesOf(from)...)
			add(plan.RoleOrder, t.before(w, from)...)
		}
		if w.records.Applied == nil && !w.entry.Changed.At.After(t.e.c.Store.Birth()) {
			add(plan.RoleSeen, t.book.pullsOf(p)...)
		}
	case *desired.CommitSpec:
		add(plan.RoleBranch, t.book.branchesOf(p)...)
		add(plan.RoleOrder, t.before(w, p)...)
	case *desired.PullRequestSpec:
		add(plan.RoleBranch, t.book.branchesOf(p)...)
		if s.TargetBranch != "" {
			add(plan.RoleBranch, t.book.branchesOf(place{p.repo, s.TargetBranch})...)
		}
		add(plan.RoleOrder, t.before(w, p)...)
	}
	return deps
}

// childrenFirst: a repository is deleted after what is to be deleted inside it. tenant.mu is held.
func (t *tenant) childrenFirst(w *turn) []plan.Dependency {
	if w.ref.Kind != desired.KindRepository {
		return nil
	}
	var deps []plan.Dependency
	for ref := range t.book.gone {
		n := t.book.refs[ref]
		if n != nil && n.repo == w.ref.Name && ref.Project == w.ref.Project && n.applied && !n.terminal && n.policy == desired.Delete {
			deps = append(deps, t.dependency(w.head.Snapshot, ref, plan.RoleChild))
		}
	}
	slices.SortFunc(deps, func(a, b plan.Dependency) int { return compareRefs(a.Ref, b.Ref) })
	return deps
}

func (t *tenant) dependency(snap *desired.Snapshot, ref desired.Ref, role plan.Role) plan.Dependency {
	d := plan.Dependency{Ref: ref, Role: role}
	_, d.Exists = snap.Get(ref)
	if n := t.book.refs[ref]; n != nil {
		d.Phase, d.Reason, d.Applied = n.phase, n.reason, n.applied
		d.Current = n.desiredSeq > 0 && n.appliedSeq >= n.desiredSeq
	}
	return d
}

// before lists the authored commits on a branch that come first: those of an earlier seq, or of the same seq and an
// earlier name, that have not ended.
func (t *tenant) before(w *turn, p place) []desired.Ref {
	k := t.book.kins[p]
	if k == nil {
		return nil
	}
	own := w.records.State.DesiredSeq
	var out []desired.Ref
	for ref := range k.commits {
		n := t.book.refs[ref]
		switch {
		case n == nil || n.desiredSeq > own:
		case n.desiredSeq == own && w.ref.Kind == desired.KindCommit && ref.Name >= w.ref.Name:
		default:
			out = append(out, ref)
		}
	}
	slices.SortFunc(out, compareRefs)
	return out
}

func (b *book) branchesOf(p place) []desired.Ref {
	if k := b.kins[p]; k != nil {
		return slices.SortedFunc(maps.Keys(k.branches), compareRefs)
	}
	return nil
}

func (b *book) pullsOf(p place) []desired.Ref {
	if k := b.kins[p]; k != nil {
		return slices.SortedFunc(maps.Keys(k.pulls), compareRefs)
	}
	return nil
}

func (t *tenant) defaultBranch(snap *desired.Snapshot, repo desired.Ref) string {
	if e, ok := snap.Get(repo); ok {
		if s, ok := e.Resource.Spec.(*desired.RepositorySpec); ok {
			return s.DefaultBranchOr()
		}
	}
	return new(desired.RepositorySpec).DefaultBranchOr()
}

// retiredBy finds the ended pull request that took the branch of a ref with it: one that ended after the branch was
// made, or, where no record says when that was, one whose document is younger. tenant.mu is held.
func (t *tenant) retiredBy(w *turn) desired.Ref {
	p, ok := w.ownPlace()
	if !ok {
		return desired.Ref{}
	}
	for _, pr := range t.book.pullsOf(p) {
		n := t.book.refs[pr]
		if n == nil || !n.applied || !n.terminal {
			continue
		}
		a := w.records.Applied
		if a != nil && !n.endedAt.Before(a.At) ||
			a == nil && n.desiredSeq >= w.records.State.DesiredSeq && w.entry.Changed.At.Before(t.e.c.Store.Birth().Truncate(time.Second)) {
			return pr
		}
	}
	return desired.Ref{}
}

// await notes that a ref waits for another one: it is queued when that one's standing changes. tenant.mu is held.
func (t *tenant) await(ref, on desired.Ref) {
	if t.waiters[on] == nil {
		t.waiters[on] = map[desired.Ref]struct{}{}
	}
	t.waiters[on][ref] = struct{}{}
}

// wake queues who waits for a ref. tenant.mu is held.
func (t *tenant) wake(ref desired.Ref) {
	for waiter := range t.waiters[ref] {
		t.queue.Add(waiter)
	}
	delete(t.waiters, ref)
}

// around lists what a change of a ref moves at the outside besides itself. tenant.mu is held.
func (t *tenant) around(w *turn) []desired.Ref {
	if w.applied == 0 || w.entry == nil {
		return nil
	}
	p, ok := placeOf(w.entry)
	if !ok {
		return nil
	}
	out := t.book.branchesOf(p)
	switch s := w.entry.Resource.Spec.(type) {
	case *desired.CommitSpec:
		out = append(out, t.book.pullsOf(p)...)
	case *desired.PullRequestSpec:
		out = append(out, t.book.branchesOf(place{p.repo, s.TargetBranchOr(t.defaultBranch(w.head.Snapshot, p.repo))})...)
	default:
		return nil
	}
	return out
}

// located is where the outside object of a ref is to be found.
type located struct {
	subject  adapters.Subject
	driver   adapters.Driver
	provider string // name of the provider
}

// locate finds the driver of a ref and what to ask it about.
func (w *turn) locate(ctx context.Context) {
	t, snap := w.t, w.head.Snapshot
	if !managed(w.ref.Kind) {
		return
	}
	if w.entry != nil {
		if parent, ok := snap.Get(parentOf(w.ref, w.entry.Resource.Spec)); ok {
			w.in.Parent = parent
		}
	}
	spec := plan.Pinned(w.in)
	if spec == nil {
		return // never applied, and the document is gone: nothing is asked
	}
	provider := ""
	if a := w.in.Applied; a != nil {
		provider = a.Provider
	}
	if repo, ok := spec.(*desired.RepositorySpec); ok && w.entry != nil {
		ref, now, err := snap.Provider(repo.ProviderOr())
		if err != nil {
			w.placed = err // also where the object is known to be elsewhere: the document has to be corrected
			return
		}
		w.in.Provider = ref.Name
		if _, was, err := snap.Provider(provider); provider != "" && err == nil && sameOutside(was, now) {
			w.in.Provider = provider // another name for the same place
		}
	}
	w.place, w.placed = t.subject(ctx, snap, w.ref, spec, provider)
	if w.ref.Kind != desired.KindRepository {
		w.in.Provider = w.place.provider
	}
	w.place.subject.Handle = w.handle()
	if w.entry != nil {
		w.place.subject.Content = t.content(w.entry)
	}
}

// sameOutside reports whether two Provider documents name the same place.
func sameOutside(a, b *desired.ProviderSpec) bool {
	return a.Type == b.Type && a.URL == b.URL && a.Owner == b.Owner && a.Projects == b.Projects
}

func parentOf(ref desired.Ref, spec desired.Spec) desired.Ref {
	switch s := spec.(type) {
	case *desired.BranchSpec:
		return ref.Sibling(desired.KindRepository, s.Repository)
	case *desired.CommitSpec:
		return ref.Sibling(desired.KindRepository, s.Repository)
	case *desired.PullRequestSpec:
		return ref.Sibling(desired.KindRepository, s.Repository)
	}
	return desired.Ref{}
}

// subject builds what a driver is asked about, without handle and content. recorded is the provider that the object
// was applied at, "" = as its repository, or the document itself, says.
func (t *tenant) subject(ctx context.Context, snap *desired.Snapshot, ref desired.Ref, spec desired.Spec, recorded string) (located, error) {
	at := located{subject: adapters.Subject{Ref: ref, Spec: spec}, provider: recorded}
	if parent := parentOf(ref, spec); !parent.IsZero() {
		s, provider, err := t.parent(ctx, snap, parent)
		if err != nil {
			return at, err
		}
		at.subject.Parent, at.provider = s, provider // it is where its repository is
	}
	name := at.provider
	if repo, ok := spec.(*desired.RepositorySpec); ok && name == "" {
		name = repo.ProviderOr()
	}
	pref, pspec, err := snap.Provider(name)
	if err != nil {
		return at, err
	}
	if at.provider == "" {
		at.provider = pref.Name
	}
	at.subject.Provider = adapters.Provider{Ref: pref, Type: pspec.Type, Spec: *pspec}
	if pspec.Credential != nil && t.e.c.Credential != nil {
		if at.subject.Provider.Credential, err = t.e.c.Credential(ctx, t.name, pref, pspec); err != nil {
			return at, err
		}
	}
	if at.subject.Parent != nil {
		at.subject.Parent.Provider = at.subject.Provider
	}
	at.driver, err = t.driver(ref.Kind, pspec.Type)
	return at, err
}

func (t *tenant) driver(k desired.Kind, kind string) (adapters.Driver, error) {
	d, ok := t.e.c.Drivers[kind]
	if !ok {
		return nil, desired.Errorf("find driver", desired.Ref{}, desired.Invalid, "this server has no driver for providers of type %s; it has %s",
			kind, strings.Join(slices.Sorted(maps.Keys(t.e.c.Drivers)), ", "))
	}
	if !slices.Contains(d.Kinds(), k) {
		return nil, desired.Errorf("find driver", desired.Ref{}, desired.Invalid, "providers of type %s do not know the kind %s: name another provider", kind, k)
	}
	return d, nil
}

// parent is the repository that a ref is inside, as a subject, and the name of its provider.
func (t *tenant) parent(ctx context.Context, snap *desired.Snapshot, ref desired.Ref) (*adapters.Subject, string, error) {
	t.mu.RLock()
	n := t.book.refs[ref]
	t.mu.RUnlock()
	s := &adapters.Subject{Ref: ref}
	provider := ""
	if n != nil {
		s.Handle, provider = n.handle, n.provider
	}
	if e, ok := snap.Get(ref); ok {
		repo, _ := e.Resource.Spec.(*desired.RepositorySpec)
		s.Spec = repo
		if provider == "" {
			provider = repo.ProviderOr()
		}
		return s, provider, nil
	}
	a, _, ok, err := state.Read[plan.Applied](ctx, t.e.c.Store, state.AppliedKey(ref))
	if err != nil {
		return nil, "", err
	}
	in := plan.Input{Ref: ref, Applied: &a}
	if s.Spec = plan.Pinned(in); !ok || s.Spec == nil {
		return nil, "", desired.Errorf("find repository", ref, desired.Waiting, "its repository %s is neither declared nor recorded", ref.Name)
	}
	s.Handle = a.Handle
	return s, a.Provider, nil
}

// content opens what a Commit document brings.
func (t *tenant) content(e *desired.Entry) func(context.Context, string, string) ([]byte, error) {
	s, ok := e.Resource.Spec.(*desired.CommitSpec)
	if !ok {
		return nil
	}
	return func(ctx context.Context, path, digest string) ([]byte, error) {
		switch {
		case digest != "":
			return t.source.Content(ctx, e, digest)
		case t.e.c.Artifacts == nil || s.ArtifactID == "":
			return nil, desired.Errorf("read content", e.Ref, desired.Invalid, "no content is given for a file of the commit, and no artifact")
		}
		return t.e.c.Artifacts(ctx, t.name, s.ArtifactID, s.ArtifactDigest, path)
	}
}

// author is who a change is made for: who the document names, else who changed the document last.
func author(e *desired.Entry) desired.Person {
	if e == nil {
		return desired.Person{Name: "Plumbline", Email: "plumbline@localhost"}
	}
	if s, ok := e.Resource.Spec.(*desired.CommitSpec); ok && s.Author != nil {
		return *s.Author
	}
	if a, err := mail.ParseAddress(e.Changed.Author); err == nil {
		return desired.Person{Name: a.Name, Email: a.Address}
	}
	name := e.Changed.Principal
	if name == "" || name == "unknown" {
		name = "Plumbline"
	}
	_, plain, _ := strings.Cut(name, ":")
	if plain == "" {
		plain = name
	}
	return desired.Person{Name: name, Email: strings.ToLower(plain) + "@localhost"}
}

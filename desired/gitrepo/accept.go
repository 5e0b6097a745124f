// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"errors"
	"fmt"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// accept publishes the last of some steps and remembers what each changed. Writer only.
func (r *Repo) accept(steps []step) {
	if len(steps) == 0 {
		return
	}
	r.ringMu.Lock()
	for _, s := range steps {
		r.ring.add(s.head.Seq, s.changes)
	}
	r.ringMu.Unlock()
	last := steps[len(steps)-1]
	h := *last.head
	r.publish(&h)
	if r.cfg.Events.Accepted != nil {
		for _, s := range steps {
			r.cfg.Events.Accepted(s.head, s.changes)
		}
	}
	select {
	case r.tidy <- struct{}{}:
	default:
	}
}

// publish makes h the head and wakes the watchers. Writer only (and load, before there is a writer).
func (r *Repo) publish(h *desired.Head) {
	if h.Snapshot.Platform() != r.w.platform {
		h.Snapshot = h.Snapshot.WithPlatform(r.w.platform)
	}
	r.head.Store(h)
	r.ringMu.RLock()
	defer r.ringMu.RUnlock()
	for c := range r.subs {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Watch returns a 1-slot channel that receives after the head moved, and its release.
func (r *Repo) Watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	r.ringMu.Lock()
	r.subs[c] = struct{}{}
	r.ringMu.Unlock()
	return c, func() {
		r.ringMu.Lock()
		delete(r.subs, c)
		r.ringMu.Unlock()
	}
}

// Changes merges what changed after seq up to the current head; ok is false when that is no longer known and the
// caller must compare everything.
func (r *Repo) Changes(after uint64) (desired.Changes, bool) {
	r.ringMu.RLock()
	defer r.ringMu.RUnlock()
	return r.ring.since(after)
}

// ring remembers the changes of the latest heads, bounded by the refs they name.
type ring struct {
	first   uint64 // seq of steps[0]
	steps   []desired.Changes
	refs    int
	current uint64 // seq of the newest
}

const ringRefs = 200_000

func size(c desired.Changes) int {
	return 1 + len(c.Added) + len(c.Changed) + len(c.Removed) + len(c.Quarantined) + len(c.Released)
}

func (g *ring) add(seq uint64, c desired.Changes) {
	if len(g.steps) == 0 || seq != g.current+1 {
		// A seq that skips (a merge that took first-parenthood over) leaves nothing to merge across.
		*g = ring{first: seq}
	}
	g.steps, g.current = append(g.steps, c), seq
	g.refs += size(c)
	for g.refs > ringRefs && len(g.steps) > 1 {
		g.refs -= size(g.steps[0])
		g.steps[0] = desired.Changes{}
		g.steps = g.steps[1:]
		g.first++
	}
}

// since merges the steps after a seq: a ref counts by how it stands at the end.
func (g *ring) since(after uint64) (desired.Changes, bool) {
	switch {
	case after == g.current:
		return desired.Changes{}, true
	case after > g.current || len(g.steps) == 0 || after+1 < g.first:
		return desired.Changes{}, false
	case after+1 == g.current:
		return g.steps[len(g.steps)-1], true
	}
	return desired.MergeChanges(g.steps[after+1-g.first:]), true
}

// freeze keeps the last accepted head in force and says why. Writer only.
func (r *Repo) freeze(format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	h := *r.Head()
	if h.Frozen == why {
		return
	}
	h.Frozen = why
	r.publish(&h)
	if r.cfg.Events.Frozen != nil {
		r.cfg.Events.Frozen(r.cfg.Tenant, why)
	}
}

// follow looks at the branch and accepts what another program put there. History that does not descend from the
// accepted head freezes the repository; a branch that is back at a descendant thaws it. Writer only.
func (r *Repo) follow(ctx context.Context) error {
	tip, err := r.store.Resolve(r.ref)
	switch {
	case errors.Is(err, gitstore.ErrNoRef) && r.w.commit.IsZero():
		return nil
	case errors.Is(err, gitstore.ErrNoRef):
		r.freeze("branch %s is gone; its accepted head is %s: put it back with git update-ref", r.cfg.Branch, r.w.commit)
		return nil
	case errors.Is(err, gitstore.ErrCorrupt):
		r.freeze("branch %s cannot be read; its accepted head is %s: put it back with git update-ref", r.cfg.Branch, r.w.commit)
		return nil
	case err != nil:
		return err
	}
	if tip != r.w.commit {
		if !r.w.commit.IsZero() {
			ok, err := gitstore.IsAncestor(ctx, r.store, r.w.commit, tip)
			if err != nil {
				return err
			}
			if !ok {
				r.freeze("branch %s was moved to %s, which does not contain the accepted head %s: put it back, or merge the accepted head", r.cfg.Branch, tip, r.w.commit)
				return nil
			}
		}
		var steps []step
		tree, err := r.walk(ctx, r.store, r.Head(), r.w.commit, r.w.tree, tip, func(s step) { steps = append(steps, s) })
		if err != nil {
			return err
		}
		r.w.commit, r.w.tree = tip, tree
		thaw(steps)
		r.accept(steps)
		return nil
	}
	if h := *r.Head(); h.Frozen != "" {
		h.Frozen = ""
		r.publish(&h)
	}
	return nil
}

func thaw(steps []step) {
	for _, s := range steps {
		s.head.Frozen = ""
	}
}

// walk advances from a head at commit from to commit to, one first-parent commit after another, exactly as if each
// had been accepted by itself, and returns the tree of to. When from is an ancestor off the first-parent line,
// everything between is one step. Sealed commits bring their idempotency keys back.
func (r *Repo) walk(ctx context.Context, objects gitstore.Reader, h *desired.Head, from, tree, to gitstore.Hash, fn func(step)) (gitstore.Hash, error) {
	chain, position, err := firstParentChain(ctx, objects, from, to)
	if err != nil {
		return gitstore.Zero, err
	}
	seq := h.Seq
	if position > 0 { // from is not on the line: count from the root, never backwards
		seq = max(h.Seq, position-1)
	}
	pushes := r.pushesAlong(h.Commit, chain)
	var push pushRecord
	for i := len(chain) - 1; i >= 0; i-- {
		if err := ctx.Err(); err != nil {
			return gitstore.Zero, context.Cause(ctx)
		}
		c, err := objects.Commit(chain[i])
		if err != nil {
			return gitstore.Zero, fmt.Errorf("read commit %s: %w", chain[i], err)
		}
		if p, ok := pushes[h.Commit]; ok && push.To == "" {
			push = p
		}
		seq++
		prov := r.provenance(c, seq, push)
		if push.To == prov.Commit {
			push = pushRecord{}
		}
		files, err := changedFiles(objects, r.cfg.Tenant, tree, c.Tree)
		if err != nil {
			return gitstore.Zero, err
		}
		next, changes := h.Snapshot.Advance(desired.Delta{Commit: prov.Commit, Change: prov, Files: files}, r.w.cache)
		h = &desired.Head{Seq: seq, Commit: prov.Commit, Snapshot: next, At: prov.At, Frozen: h.Frozen}
		tree = c.Tree
		r.remember(c, seq)
		fn(step{h, changes})
	}
	return tree, nil
}

// pushesAlong picks the push records whose whole range lies on a chain, by the head they started from: a record of a
// push that never landed must not give its name to what somebody else put there.
func (r *Repo) pushesAlong(from string, chain []gitstore.Hash) map[string]pushRecord {
	if len(r.w.pushers) == 0 {
		return nil
	}
	on := make(map[string]bool, len(chain)+1)
	on[from] = true
	for _, h := range chain {
		on[h.String()] = true
	}
	out := map[string]pushRecord{}
	for start, p := range r.w.pushers {
		if on[start] && on[p.To] {
			out[start] = p
		}
	}
	return out
}

// firstParentChain lists the commits from to back to from, newest first, without from. position is 0 when from is
// on the line (or zero); else the chain is to alone and position its place counted from the root.
func firstParentChain(ctx context.Context, objects gitstore.Reader, from, to gitstore.Hash) (chain []gitstore.Hash, position uint64, err error) {
	met := from.IsZero()
	err = gitstore.FirstParents(ctx, objects, to, func(c *gitstore.Commit) (bool, error) {
		if c.Hash == from {
			met = true
			return false, nil
		}
		chain = append(chain, c.Hash)
		return true, nil
	})
	if err != nil {
		return nil, 0, err
	}
	if !met {
		return chain[:1], uint64(len(chain)), nil
	}
	return chain, 0, nil
}

// provenance says who is behind a commit: the sealed subject, the one who pushed it through the door, or unknown.
func (r *Repo) provenance(c *gitstore.Commit, seq uint64, push pushRecord) desired.Provenance {
	p := desired.Provenance{Commit: c.Hash.String(), Seq: seq, Author: person(c.Author), Principal: "unknown", At: c.Committer.When.UTC()}
	if f := facts(r.cfg.SealKey, c); f.ok {
		p.Principal = f.subject
	} else if push.Subject != "" {
		p.Principal = push.Subject
	}
	return p
}

// remember takes the idempotency key of a sealed commit into the index while it is young enough.
func (r *Repo) remember(c *gitstore.Commit, seq uint64) {
	f := facts(r.cfg.SealKey, c)
	if !f.ok || f.key == "" || r.cfg.Now().Sub(c.Committer.When) > r.cfg.KeepKeys {
		return
	}
	rec := keyRecord{Fingerprint: f.fingerprint, Commit: c.Hash.String(), Seq: seq, At: c.Committer.When.UTC()}
	if len(c.Parents) > 0 {
		rec.Base = c.Parents[0].String()
	}
	r.keyMu.Lock()
	r.keys[f.key] = rec
	r.keyMu.Unlock()
}

// changedFiles lists the managed files that differ between two trees, with their bytes.
func changedFiles(objects gitstore.Reader, tenant string, old, new gitstore.Hash) ([]desired.File, error) {
	var files []desired.File
	err := gitstore.DiffTrees(objects, old, new, func(c gitstore.FileChange) error {
		if !(desired.Place{Tenant: tenant, Path: c.Path}).Managed() {
			return nil
		}
		if c.New.Mode != 0o100644 { // gone, or a link, an executable, a submodule: not read
			if c.Old.Mode == 0o100644 {
				files = append(files, desired.File{Path: c.Path, Deleted: true})
			}
			return nil
		}
		data, err := objects.Blob(c.New.Hash)
		if err != nil {
			return fmt.Errorf("read %s: %w", c.Path, err)
		}
		files = append(files, desired.File{Path: c.Path, Blob: c.New.Hash.String(), Data: data})
		return nil
	})
	return files, err
}

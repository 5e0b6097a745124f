// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// branchHandle is what the state keeps of a branch, a second record beside the pinned reference.
type branchHandle struct {
	Head string `json:"head"`
	From string `json:"from,omitempty"`
}

// readHandle reads a handle of ours; what cannot be read counts as none, for names find everything but a number.
func readHandle[H any](raw json.RawMessage) (h H) {
	if raw != nil && json.Unmarshal(raw, &h) != nil {
		var none H
		return none
	}
	return h
}

func writeHandle(h any) json.RawMessage {
	data, err := json.Marshal(h)
	if err != nil {
		panic(err) // handles are plain structs of strings and numbers
	}
	return data
}

// keepRef is where the last head of a branch is pinned. The name is flat, so that a branch a/b can follow a branch
// a that is gone.
func keepRef(branch string) string {
	flat := strings.NewReplacer("%", "%25", "/", "%2F").Replace(branch)
	if len(flat) > 200 {
		sum := sha256.Sum256([]byte(branch))
		flat = "%" + hex.EncodeToString(sum[:])
	}
	return keeps + flat
}

// branchActual is what was seen of a branch, nil when it is not there. It asks for its head to be pinned.
func (v *view) branchActual(name string, handle json.RawMessage) (adapters.Actual, json.RawMessage) {
	head := v.branch(name)
	if head.IsZero() {
		return nil, nil
	}
	v.pin(keepRef(name), head)
	from := cmp.Or(v.set.Branches[name].From, readHandle[branchHandle](handle).From)
	return &adapters.BranchActual{Name: name, Head: head.String(), FromCommit: from}, writeHandle(branchHandle{Head: head.String(), From: from})
}

// fit refuses a change of what lies in an archived repository.
func (v *view) fit(c adapters.Change) error {
	if v.set.Archived && c.Op != adapters.Rename {
		return refuse(c, desired.Denied, "repository %s is archived: set spec.archived of its document to false first", v.h.ref.Name)
	}
	return nil
}

func (l *Local) applyBranch(ctx context.Context, h *hosted, c adapters.Change, s *desired.BranchSpec) (adapters.Outcome, error) {
	if err := desired.ValidRefName(s.Name); err != nil {
		return adapters.Outcome{}, refuse(c, desired.Invalid, "%w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.look()
	if err == nil {
		err = v.fit(c)
	}
	if err != nil {
		return adapters.Outcome{}, err
	}
	exists := !v.branch(s.Name).IsZero()
	switch {
	case c.Op == adapters.Create && !exists:
		err = l.createBranch(ctx, v, c, s)
	case c.Op == adapters.Restore && !exists:
		err = l.restoreBranch(ctx, v, c, s.Name)
	case c.Op == adapters.Update:
		err = l.moveBranch(ctx, v, c, s)
	case c.Op == adapters.Remove:
		return adapters.Outcome{Done: true}, l.removeBranch(ctx, v, c, s.Name)
	case c.Op == adapters.Create, c.Op == adapters.Restore, c.Op == adapters.Rename:
	default:
		err = refuse(c, desired.Invalid, "a branch knows no %s", c.Op)
	}
	if err != nil {
		return adapters.Outcome{}, err
	}
	if v, err = h.look(); err != nil {
		return adapters.Outcome{}, err
	}
	actual, handle := v.branchActual(s.Name, c.Handle)
	return adapters.Outcome{Done: true, Actual: actual, Handle: handle}, nil
}

func (l *Local) createBranch(ctx context.Context, v *view, c adapters.Change, s *desired.BranchSpec) error {
	start, err := v.start(c, s)
	if err != nil {
		return err
	}
	// First the record, then the branch: a branch without the record would have lost its start, a record without
	// the branch is replaced when this is repeated.
	err = l.modify(v.h, func(set *settings) error {
		if set.Branches == nil {
			set.Branches = map[string]branchRecord{}
		}
		set.Branches[s.Name] = branchRecord{From: start.String()}
		return nil
	})
	if err != nil {
		return err
	}
	return l.setBranch(ctx, v, s.Name, start)
}

// setBranch moves a branch and its pin together.
func (l *Local) setBranch(ctx context.Context, v *view, name string, to gitstore.Hash) error {
	b := v.h.store.NewBatch()
	b.Set(gitstore.RefUpdate{Name: heads + name, Old: v.branch(name), New: to})
	b.Set(gitstore.RefUpdate{Name: keepRef(name), Old: v.ref(keepRef(name)), New: to})
	err := l.write(ctx, v.h, b)
	if desired.ClassOf(err) == desired.Conflict { // a/b beside a: only a person can say which one shall go
		return desired.Errorf("set branch", desired.Ref{}, desired.Stalled, "%w", err)
	}
	return err
}

// start is the commit where a new branch begins.
func (v *view) start(c adapters.Change, s *desired.BranchSpec) (gitstore.Hash, error) {
	if id := cmp.Or(s.FromCommit, s.Commit); id != "" {
		return v.commit(c, id)
	}
	from := cmp.Or(s.FromBranch, v.head)
	head := v.branch(from)
	if head.IsZero() {
		return head, refuse(c, desired.Waiting, "branch %q, where it starts, does not exist yet", from)
	}
	return head, nil
}

// commit finds a commit by its id.
func (v *view) commit(c adapters.Change, id string) (gitstore.Hash, error) {
	h, err := gitstore.ParseHash(id)
	if err != nil {
		return h, refuse(c, desired.Invalid, "a commit is named by its full id of 40 hex digits")
	}
	if !v.h.store.Has(h) {
		return h, refuse(c, desired.Waiting, "commit %s is not in the repository yet", id)
	}
	if _, err := v.h.store.Commit(h); err != nil {
		return h, refuse(c, desired.Invalid, "%s is no commit: %w", id, err)
	}
	return h, nil
}

// restoreBranch puts a branch back where it was last seen: the pinned reference, else the recorded handle.
func (l *Local) restoreBranch(ctx context.Context, v *view, c adapters.Change, name string) error {
	last := v.ref(keepRef(name))
	if last.IsZero() {
		id := readHandle[branchHandle](c.Handle).Head
		if a, ok := c.Actual.(*adapters.BranchActual); ok && id == "" {
			id = a.Head
		}
		if h, err := gitstore.ParseHash(id); err == nil && v.h.store.Has(h) {
			last = h
		}
	}
	if last.IsZero() {
		return refuse(c, desired.Stalled, "no record says where branch %q was: push it again, or set spec.fromCommit and approve that it is created anew", name)
	}
	return l.setBranch(ctx, v, name, last)
}

// moveBranch brings a pinned branch to its commit, forward only unless its protection says otherwise.
func (l *Local) moveBranch(ctx context.Context, v *view, c adapters.Change, s *desired.BranchSpec) error {
	if s.Commit == "" {
		return nil
	}
	to, err := v.commit(c, s.Commit)
	now := v.branch(s.Name)
	if err != nil || now == to {
		return err
	}
	rule, protected := v.set.rule(s.Name)
	if protected && rule.RequirePull {
		return refuse(c, desired.Denied, "branch %q takes changes by pull request only, so spec.commit cannot move it: drop spec.commit or the protection", s.Name)
	}
	if !now.IsZero() && !(protected && rule.AllowForcePush) {
		forward, err := gitstore.IsAncestor(ctx, v.h.store, now, to)
		if err != nil {
			return err
		}
		if !forward {
			return refuse(c, desired.Stalled, "moving branch %q from %s to %s would lose commits: merge them, or allow it with allowForcePush in the protection of the repository", s.Name, now, to)
		}
	}
	return l.setBranch(ctx, v, s.Name, to)
}

// removeBranch deletes a branch; its head stays pinned.
func (l *Local) removeBranch(ctx context.Context, v *view, c adapters.Change, name string) error {
	head := v.branch(name)
	if head.IsZero() {
		return nil
	}
	if why := v.undeletable(name); why != "" {
		return refuse(c, desired.Denied, "%s", why)
	}
	return l.deleteBranch(ctx, v, name, head)
}

// undeletable says why a branch must stay, "" when it need not.
func (v *view) undeletable(name string) string {
	if rule, protected := v.set.rule(name); protected && !rule.AllowDeletion {
		return "branch \"" + name + "\" is protected: set allowDeletion in the protection of the repository to delete it"
	}
	if name == v.head {
		return "branch \"" + name + "\" is the default branch: make another one the default first"
	}
	return ""
}

func (l *Local) deleteBranch(ctx context.Context, v *view, name string, head gitstore.Hash) error {
	b := v.h.store.NewBatch()
	b.Set(gitstore.RefUpdate{Name: keepRef(name), Old: v.ref(keepRef(name)), New: head})
	b.Set(gitstore.RefUpdate{Name: heads + name, Old: head})
	return l.write(ctx, v.h, b)
}

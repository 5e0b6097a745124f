// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

func (l *Local) repositoryActual(v *view) (*adapters.RepositoryActual, error) {
	a := &adapters.RepositoryActual{
		RemoteURL: l.remoteURL(v.h.ref), DefaultBranch: v.head, Visibility: v.set.Visibility,
		Description: v.set.Description, Archived: v.set.Archived, Protection: byPattern(v.set.Protection),
	}
	if !v.branch(v.head).IsZero() {
		return a, nil
	}
	branches, err := v.h.store.Refs(heads)
	a.Empty = len(branches) == 0
	return a, err
}

func (l *Local) remoteURL(r desired.Ref) string {
	if l.cfg.PublicURL == nil {
		return (&url.URL{Scheme: "file", Path: filepath.ToSlash(l.path(r))}).String()
	}
	return strings.TrimSuffix(l.cfg.PublicURL(), "/") + "/git/hosted/" + r.Tenant + "/" + r.Project + "/" + r.Name + ".git"
}

func (l *Local) applyRepository(ctx context.Context, c adapters.Change, s *desired.RepositorySpec) (adapters.Outcome, error) {
	var err error
	switch c.Op {
	case adapters.Create:
		err = l.createRepository(ctx, c.Ref, s)
	case adapters.Update:
		err = l.updateRepository(ctx, c, s)
	case adapters.Remove:
		return adapters.Outcome{Done: true, Message: "moved to the trash of the git host"}, l.trashRepository(ctx, c.Ref)
	case adapters.Restore:
		err = l.untrashRepository(ctx, c)
	case adapters.Rename:
		err = l.renameRepository(ctx, c)
	default:
		err = refuse(c, desired.Invalid, "a repository knows no %s", c.Op)
	}
	if err != nil {
		return adapters.Outcome{}, err
	}
	h, release, err := l.use(ctx, c.Ref)
	if err != nil {
		return adapters.Outcome{}, err
	}
	defer release()
	v, err := h.look()
	if err != nil {
		return adapters.Outcome{}, err
	}
	actual, err := l.repositoryActual(v)
	if err != nil {
		return adapters.Outcome{}, err
	}
	return adapters.Outcome{Done: true, Actual: actual}, nil
}

// createRepository builds the repository aside and moves it to its place, so that it is there whole or not at all.
// One that is there already is adopted.
func (l *Local) createRepository(ctx context.Context, ref desired.Ref, s *desired.RepositorySpec) error {
	switch _, err := l.stat(ref); {
	case err == nil:
		return nil
	case !errors.Is(err, errMissing):
		return err
	}
	free, err := l.reserve(ctx, ref)
	if err != nil {
		return err
	}
	defer free()
	if _, err := l.stat(ref); !errors.Is(err, errMissing) {
		return err // somebody was faster
	}
	dir := filepath.Join(l.nursery(), trashName(ref))
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := l.touch(); err != nil {
		return err
	}
	for _, d := range []string{l.nursery(), filepath.Dir(l.path(ref))} {
		if err := makeDirs(d); err != nil {
			return err
		}
	}
	if err := l.build(ctx, dir, ref, s); err != nil {
		return err
	}
	if err := l.touch(); err != nil {
		return err
	}
	return moveDir(dir, l.path(ref))
}

// build makes a repository with an initial commit: a branch can start from its default branch at once.
func (l *Local) build(ctx context.Context, dir string, ref desired.Ref, s *desired.RepositorySpec) error {
	branch := cmp.Or(s.DefaultBranch, "main")
	store, err := gitstore.Open(dir, gitstore.Options{Create: true, DefaultBranch: branch})
	if err != nil {
		return err
	}
	b := store.NewBatch()
	readme := "# " + ref.Name + "\n"
	if s.Description != "" {
		readme += "\n" + s.Description + "\n"
	}
	tree, err := b.WriteTree(gitstore.Zero, map[string]gitstore.TreeEntry{"README.md": {Mode: plainFile, Hash: b.AddBlob([]byte(readme))}})
	if err == nil {
		who := l.sign(l.cfg.Committer)
		b.Set(gitstore.RefUpdate{Name: heads + branch, New: b.AddCommit(&gitstore.Commit{Tree: tree, Author: who, Committer: who, Message: "Initial commit\n"}, nil)})
		err = store.Write(ctx, b)
	}
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	set := &settings{V: 1, Visibility: cmp.Or(s.Visibility, "private"), Description: s.Description, Archived: s.Archived, Protection: byPattern(s.Protection)}
	return l.save(dir, set, nil)
}

func wants(c adapters.Change, field string) bool {
	return len(c.Fields) == 0 || slices.Contains(c.Fields, field)
}

func (l *Local) updateRepository(ctx context.Context, c adapters.Change, s *desired.RepositorySpec) error {
	h, release, err := l.use(ctx, c.Ref)
	if errors.Is(err, errMissing) {
		return refuse(c, desired.Waiting, "the repository is missing")
	}
	if err != nil {
		return err
	}
	defer release()
	h.mu.Lock()
	defer h.mu.Unlock()
	if wants(c, "spec.defaultBranch") {
		if err := l.setDefaultBranch(ctx, h, c, cmp.Or(s.DefaultBranch, "main")); err != nil {
			return err
		}
	}
	return l.modify(h, func(now *settings) error {
		if wants(c, "spec.visibility") {
			now.Visibility = cmp.Or(s.Visibility, "private")
		}
		if wants(c, "spec.description") {
			now.Description = s.Description
		}
		if wants(c, "spec.archived") {
			now.Archived = s.Archived
		}
		if wants(c, "spec.protection") {
			now.Protection = byPattern(s.Protection)
		}
		return nil
	})
}

func (l *Local) setDefaultBranch(ctx context.Context, h *hosted, c adapters.Change, branch string) error {
	v, err := h.look()
	if err != nil || v.head == branch {
		return err
	}
	now, err := l.repositoryActual(v)
	if err != nil {
		return err
	}
	if v.branch(branch).IsZero() && !now.Empty {
		return refuse(c, desired.Waiting, "branch %q does not exist yet, so it cannot be the default branch: push it, or add a Branch document", branch)
	}
	if err := l.touch(); err != nil {
		return err
	}
	return h.store.SetHead(ctx, heads+branch)
}

// trash is where removed repositories go. Nothing empties it: that is the operator's decision.
func (l *Local) trash() string { return filepath.Join(l.cfg.Dir, ".trash") }

// trashName holds no dot in tenant or project, so it says which repository it was.
func trashName(r desired.Ref) string { return r.Tenant + "." + r.Project + "." + r.Name + ".git" }

const trashStamp = "20060102T150405.000000000Z"

func (l *Local) trashRepository(ctx context.Context, ref desired.Ref) error {
	if _, err := l.stat(ref); err != nil {
		if errors.Is(err, errMissing) {
			return nil
		}
		return err
	}
	free, err := l.reserve(ctx, ref)
	if err != nil {
		return err
	}
	defer free()
	if err := makeDirs(l.trash()); err != nil {
		return err
	}
	if err := l.touch(); err != nil {
		return err
	}
	for at := l.cfg.Now().UTC(); ; at = at.Add(1) {
		to := filepath.Join(l.trash(), at.Format(trashStamp)+"-"+trashName(ref))
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			return moveDir(l.path(ref), to)
		} else if err != nil {
			return err
		}
	}
}

// untrashRepository brings back what was removed last. A repository that vanished otherwise is a person's business.
func (l *Local) untrashRepository(ctx context.Context, c adapters.Change) error {
	if _, err := l.stat(c.Ref); !errors.Is(err, errMissing) {
		return err
	}
	entries, err := os.ReadDir(l.trash())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range slices.Backward(entries) { // sorted by name, so the latest comes first
		if len(e.Name()) < len(trashStamp) || e.Name()[len(trashStamp):] != "-"+trashName(c.Ref) {
			continue
		}
		free, err := l.reserve(ctx, c.Ref)
		if err != nil {
			return err
		}
		defer free()
		if err := makeDirs(filepath.Dir(l.path(c.Ref))); err != nil {
			return err
		}
		if err := l.touch(); err != nil {
			return err
		}
		return moveDir(filepath.Join(l.trash(), e.Name()), l.path(c.Ref))
	}
	return refuse(c, desired.Stalled, "nothing of it is left in the trash of the git host: bring it back from a backup or a clone, or approve that it is created anew")
}

func (l *Local) renameRepository(ctx context.Context, c adapters.Change) error {
	if err := checkRef(string(c.Op), c.Former); err != nil {
		return err
	}
	if c.Former.Tenant != c.Ref.Tenant {
		return refuse(c, desired.Denied, "a repository cannot move to another tenant")
	}
	_, oldErr := l.stat(c.Former)
	_, newErr := l.stat(c.Ref)
	was, is := oldErr == nil, newErr == nil
	switch {
	case oldErr != nil && !errors.Is(oldErr, errMissing):
		return oldErr
	case newErr != nil && !errors.Is(newErr, errMissing):
		return newErr
	case was && is:
		return refuse(c, desired.Stalled, "both %s and %s exist: remove or rename one of them", c.Former.Name, c.Ref.Name)
	case is:
		return nil
	case !was:
		return refuse(c, desired.Stalled, "the repository %s, which it was, is missing: bring it back, or drop metadata.formerName", c.Former.Name)
	}
	for _, r := range []desired.Ref{c.Former, c.Ref} {
		free, err := l.reserve(ctx, r)
		if err != nil {
			return err
		}
		defer free()
	}
	if err := makeDirs(filepath.Dir(l.path(c.Ref))); err != nil {
		return err
	}
	if err := l.touch(); err != nil {
		return err
	}
	return moveDir(l.path(c.Former), l.path(c.Ref))
}

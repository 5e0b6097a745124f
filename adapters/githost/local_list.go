// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// List implements adapters.Lister. Repositories are listed as tenant/project/name, those of the provider's tenant
// only when it has one; branches by name; pull requests by number.
func (l *Local) List(ctx context.Context, kind desired.Kind, p adapters.Provider, parent *adapters.Subject) ([]adapters.Listed, error) {
	const op = "list"
	if err := ended(ctx, op, desired.Ref{}); err != nil {
		return nil, err
	}
	if kind == desired.KindRepository {
		refs, err := l.all(func(string) {})
		if err != nil {
			return nil, classify(op, desired.Ref{}, err)
		}
		var out []adapters.Listed
		for _, r := range refs {
			if p.Ref.Tenant == "" || p.Ref.Tenant == r.Tenant {
				out = append(out, adapters.Listed{Name: r.Tenant + "/" + r.Project + "/" + r.Name})
			}
		}
		return out, nil
	}
	if kind != desired.KindBranch && kind != desired.KindPullRequest || parent == nil {
		return nil, desired.Errorf(op, desired.Ref{}, desired.Invalid, "repositories, and branches and pull requests of a repository, can be listed, a %s cannot", kind)
	}
	home, err := homeOf(*parent, op)
	if err != nil {
		return nil, err
	}
	h, release, err := l.use(ctx, home)
	if errors.Is(err, errMissing) {
		return nil, desired.Errorf(op, home, desired.NotFound, "the repository is missing")
	}
	if err != nil {
		return nil, classify(op, home, err)
	}
	defer release()
	v, err := h.look()
	if err != nil {
		return nil, classify(op, home, err)
	}
	return v.list(kind), nil
}

func (v *view) list(kind desired.Kind) []adapters.Listed {
	var out []adapters.Listed
	if kind == desired.KindPullRequest {
		for _, p := range v.set.Pulls {
			out = append(out, adapters.Listed{Name: fmt.Sprint(p.Number), Handle: writeHandle(pullHandle{Number: p.Number})})
		}
		return out
	}
	for name, head := range v.refs {
		if branch, ok := strings.CutPrefix(name, heads); ok {
			out = append(out, adapters.Listed{Name: branch, Handle: writeHandle(branchHandle{Head: head.String(), From: v.set.Branches[branch].From})})
		}
	}
	slices.SortFunc(out, func(a, b adapters.Listed) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// all finds every hosted repository, in order of its path. It calls visit with each directory before it reads it.
func (l *Local) all(visit func(dir string)) ([]desired.Ref, error) {
	if _, err := os.Stat(filepath.Join(l.cfg.Dir, marker)); err != nil {
		return nil, desired.Errorf("list repositories", desired.Ref{}, desired.Stalled, "the directory of hosted repositories is not there (%w): mount or restore it", err)
	}
	var refs []desired.Ref
	subdirs := func(dir string) ([]string, error) {
		visit(dir)
		return subdirs(dir)
	}
	tenants, err := subdirs(l.cfg.Dir)
	for _, tenant := range tenants {
		projects, perr := subdirs(filepath.Join(l.cfg.Dir, tenant))
		err = errors.Join(err, perr)
		for _, project := range projects {
			names, nerr := subdirs(filepath.Join(l.cfg.Dir, tenant, project))
			err = errors.Join(err, nerr)
			for _, name := range names {
				r := desired.Ref{Tenant: tenant, Project: project, Kind: desired.KindRepository}
				var ok bool
				if r.Name, ok = strings.CutSuffix(name, ".git"); ok && checkRef("list", r) == nil {
					refs = append(refs, r)
				}
			}
		}
	}
	return refs, err
}

// subdirs lists directories, our own hidden ones not among them. One that vanishes meanwhile is empty.
func subdirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// Door serves a hosted repository over git smart HTTP, below a prefix that the caller strips. Pushes keep to the
// protection of its branches; an archived repository is read-only; refs/plumbline/ is hidden. Who may come in is
// the caller's business. NotFound for a repository that is not there: a door never makes one.
func (l *Local) Door(tenant, project, name string) (http.Handler, error) {
	const op = "open door"
	ref := desired.Ref{Tenant: tenant, Project: project, Kind: desired.KindRepository, Name: name}
	gone := desired.Errorf(op, ref, desired.NotFound, "there is no such repository")
	if checkRef(op, ref) != nil {
		return nil, gone
	}
	if _, err := l.stat(ref); errors.Is(err, errMissing) {
		return nil, gone
	} else if err != nil {
		return nil, classify(op, ref, err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, release, err := l.use(r.Context(), ref)
		switch {
		case errors.Is(err, errMissing):
			http.NotFound(w, r)
		case desired.ClassOf(err) == desired.Transient:
			http.Error(w, "the repository is being changed, try again", http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, "the repository cannot be read", http.StatusInternalServerError)
		default:
			defer release()
			h.door.ServeHTTP(w, r)
		}
	}), nil
}

func (l *Local) doorOf(h *hosted) *gitstore.Door {
	return &gitstore.Door{
		Store:      h.store,
		HiddenRefs: []string{"refs/plumbline"},
		OnError:    l.cfg.OnError,
		MaxPack:    l.cfg.MaxPush,
		ReadOnly: func() string {
			s, err := h.settings()
			switch {
			case err != nil:
				return "the settings of the repository cannot be read, so nothing can be pushed"
			case s.Archived:
				return "the repository is archived: nothing can be pushed"
			}
			return ""
		},
		AllowForce: func(string) bool { return true }, // judge knows better
		Accept: func(ctx context.Context, p *gitstore.Push) error {
			if err := h.judge(ctx, p); err != nil {
				return err
			}
			return p.Land(ctx)
		},
	}
}

// judge holds a push to the protection of the branches that it moves.
func (h *hosted) judge(ctx context.Context, p *gitstore.Push) error {
	v, err := h.look()
	if err != nil {
		return err
	}
	var faults []desired.FieldError
	for _, u := range p.Updates {
		branch, ok := strings.CutPrefix(u.Name, heads)
		if !ok {
			continue
		}
		why, err := v.refused(ctx, p, branch, u)
		if err != nil {
			return err
		}
		if why != "" {
			faults = append(faults, desired.FieldError{Detail: why})
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return &desired.Error{Class: desired.Denied, Op: "push", Ref: h.ref, Fields: faults}
}

// refused says why a push may not move a branch, "" when it may.
func (v *view) refused(ctx context.Context, p *gitstore.Push, branch string, u gitstore.RefUpdate) (string, error) {
	rule, protected := v.set.rule(branch)
	switch {
	case u.New.IsZero():
		return v.undeletable(branch), nil
	case u.Old.IsZero() || !protected:
		return "", nil
	case rule.RequirePull:
		return fmt.Sprintf("branch %q takes changes by pull request only: push another branch and open a pull request", branch), nil
	case rule.AllowForcePush:
		return "", nil
	}
	forward, err := gitstore.IsAncestor(ctx, p, u.Old, u.New)
	if err != nil || forward {
		return "", err
	}
	return fmt.Sprintf("branch %q is protected against losing commits: fetch and merge or rebase first, then push without force", branch), nil
}

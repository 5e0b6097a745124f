// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
)

// provisionRepository is operation 1.
func (s *Server) provisionRepository(ctx context.Context, c *call) (answer, error) {
	var in ProvisionRepositoryRequest
	if err := s.decode(c, maxBody, false, &in, &in.TenantID); err != nil {
		return answer{}, err
	}
	if faults := (faults{}).need("/projectId", in.ProjectID).need("/name", in.Name).
		check("/projectId", in.ProjectID, desired.ValidTenant).most("/moduleId", in.ModuleID, 128); len(faults) > 0 {
		return answer{}, invalid("provision repository", faults...)
	}
	ref := desired.Ref{Tenant: c.who.Tenant, Project: in.ProjectID, Kind: desired.KindRepository, Name: in.Name}
	l, err := s.create(ctx, c, creation{
		message: "Provision repository " + in.Name,
		build:   func(snap *desired.Snapshot) (made, error) { return buildRepository(snap, ref, in) },
		find: func(snap *desired.Snapshot, _ gitrepo.Receipt) (desired.Ref, bool) {
			_, ok := snap.Get(ref)
			return ref, ok
		},
		pointer: renamed(map[string]string{"/metadata/name": "/name"}),
	})
	return respond(c, l, err, repositoryView)
}

func buildRepository(snap *desired.Snapshot, ref desired.Ref, in ProvisionRepositoryRequest) (made, error) {
	spec := &desired.RepositorySpec{
		Provider: in.Provider, ModuleID: in.ModuleID, Description: in.Description,
		DefaultBranch: cmp.Or(in.DefaultBranch, "main"), Visibility: cmp.Or(in.Visibility, "private"),
	}
	if _, _, err := snap.Provider(spec.ProviderOr()); err != nil {
		var e *desired.Error
		if !errors.As(err, &e) {
			return made{}, err
		}
		return made{}, invalid("provision repository", desired.FieldError{Pointer: "/provider", Detail: e.Detail()})
	}
	if e, ok := snap.Get(ref); ok { // providers are named without regard to case
		if old, ok := e.Resource.Spec.(*desired.RepositorySpec); ok && strings.EqualFold(old.ProviderOr(), spec.ProviderOr()) {
			spec.Provider = old.Provider
		}
	}
	return made{ref: ref, resource: document(ref, spec)}, nil
}

func repositoryView(st standing, about said) Repository {
	spec, _ := st.entry.Resource.Spec.(*desired.RepositorySpec)
	if spec == nil {
		spec = &desired.RepositorySpec{}
	}
	var actual adapters.RepositoryActual
	st.outputs(&actual)
	return Repository{
		RepositoryID: st.entry.ID, Name: st.entry.Ref.Name, ProjectID: st.entry.Ref.Project, ModuleID: spec.ModuleID,
		Provider: spec.ProviderOr(), RemoteURL: actual.RemoteURL, DefaultBranch: spec.DefaultBranchOr(),
		Visibility: spec.VisibilityOr(), Description: spec.Description, Archived: spec.Archived,
		Status: word("Repository", st.phase), Problem: st.problem(), Sync: st.sync(), Source: st.source(),
		Commit: about.commit, TraceID: about.trace, Warnings: about.warnings,
	}
}

// faults collects what is wrong with a request body.
type faults []desired.FieldError

// need refuses an empty member.
func (f faults) need(pointer, value string) faults {
	if value == "" {
		return append(f, desired.FieldError{Pointer: pointer, Detail: "is required"})
	}
	return f
}

// check refuses a member that is there and that valid finds wrong.
func (f faults) check(pointer, value string, valid func(string) error) faults {
	if value == "" {
		return f
	}
	err := valid(value)
	if err == nil {
		return f
	}
	detail := err.Error()
	var e *desired.Error
	if errors.As(err, &e) {
		detail = e.Detail()
	}
	return append(f, desired.FieldError{Pointer: pointer, Detail: detail})
}

// most refuses a member of more than n characters.
func (f faults) most(pointer, value string, n int) faults {
	if len(value) > n && len([]rune(value)) > n {
		return append(f, desired.FieldError{Pointer: pointer, Detail: "is too long: at most " + strconv.Itoa(n) + " characters"})
	}
	return f
}

// among refuses a member that is there and none of the words.
func (f faults) among(pointer, value string, words ...string) faults {
	if value == "" {
		return f
	}
	for _, w := range words {
		if w == value {
			return f
		}
	}
	return append(f, desired.FieldError{Pointer: pointer, Detail: "must be one of " + strings.Join(words, ", ")})
}

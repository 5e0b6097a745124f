// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"slices"
	"strings"
	"time"
)

// tenantSpec is the Tenant document of the snapshot's tenant, nil when there is none.
func (s *Snapshot) tenantSpec() *TenantSpec {
	if s.platform == nil || s.tenant == "" {
		return nil
	}
	e, ok := s.platform.Get(Ref{Kind: KindTenant, Name: s.tenant})
	if !ok {
		return nil
	}
	t, _ := e.Resource.Spec.(*TenantSpec)
	return t
}

// Provider resolves a Repository's provider name: the tenant's own Provider document, then the platform's (within
// what the Tenant document allows), without regard to case; else its type when exactly one of that type is there;
// else the built-in "local", whose ref has no tenant. The empty name means "local". The error is Invalid and lists
// the known names.
func (s *Snapshot) Provider(name string) (Ref, *ProviderSpec, error) {
	if name == "" {
		name = LocalProvider
	}
	var typed []*Entry
	known := []string{LocalProvider}
	for e := range s.providers() {
		if strings.EqualFold(e.Ref.Name, name) {
			spec, _ := e.Resource.Spec.(*ProviderSpec)
			return e.Ref, spec, nil
		}
		if spec, _ := e.Resource.Spec.(*ProviderSpec); strings.EqualFold(spec.Type, name) {
			typed = append(typed, e)
		}
		known = append(known, e.Ref.Name)
	}
	switch {
	case len(typed) == 1:
		spec, _ := typed[0].Resource.Spec.(*ProviderSpec)
		return typed[0].Ref, spec, nil
	case strings.EqualFold(name, LocalProvider):
		return Ref{Kind: KindProvider, Name: LocalProvider}, &ProviderSpec{Type: LocalProvider}, nil
	case len(typed) > 1:
		return Ref{}, nil, Errorf("resolve provider", Ref{}, Invalid, "%d providers are of this type: name one of %s", len(typed), names(typed))
	}
	slices.Sort(known)
	return Ref{}, nil, Errorf("resolve provider", Ref{}, Invalid, "no such provider; known: %s", strings.Join(slices.Compact(known), ", "))
}

func names(entries []*Entry) string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Ref.Name)
	}
	return strings.Join(out, ", ")
}

// providers walks what the tenant may name: its own providers, then the platform's that it is allowed and that no
// own one hides.
func (s *Snapshot) providers() func(yield func(*Entry) bool) {
	return func(yield func(*Entry) bool) {
		for e := range s.List(KindProvider, "", "") {
			if !yield(e) {
				return
			}
		}
		if s.platform == nil {
			return
		}
		t := s.tenantSpec()
		for e := range s.platform.List(KindProvider, "", "") {
			_, hidden := s.Get(Ref{Tenant: s.tenant, Kind: KindProvider, Name: e.Ref.Name})
			if !hidden && (t == nil || allowed(t.Providers, e.Ref.Name)) && !yield(e) {
				return
			}
		}
	}
}

// allowed reports whether a list of names has one, without regard to case; an empty list allows all.
func allowed(list []string, name string) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
}

// DriftRules lists the rules that speak about a resource with these labels at now: its project's first, then the
// tenant's, each in name order. The first that covers a finding wins.
func (s *Snapshot) DriftRules(r Ref, labels map[string]string, now time.Time) []*DriftRuleSpec {
	var out []*DriftRuleSpec
	for e := range s.governing(KindDriftRule, r.Project) {
		if spec, _ := e.Resource.Spec.(*DriftRuleSpec); spec.InForce(now) && spec.Match.Matches(r, labels) {
			out = append(out, spec)
		}
	}
	return out
}

// Suspended returns the suspension in force for a resource with these labels at now: its project's first, then the
// tenant's, each in name order.
func (s *Snapshot) Suspended(r Ref, labels map[string]string, now time.Time) (*Entry, bool) {
	for e := range s.governing(KindSuspension, r.Project) {
		if spec, _ := e.Resource.Spec.(*SuspensionSpec); spec.InForce(now) && spec.Match.Matches(r, labels) {
			return e, true
		}
	}
	return nil, false
}

// governing walks the entries of a kind in a project, then those that belong to no project.
func (s *Snapshot) governing(k Kind, project string) func(yield func(*Entry) bool) {
	return func(yield func(*Entry) bool) {
		for _, p := range slices.Compact([]string{dash(project), "-"}) {
			for e := range s.List(k, p, "") {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// Stage is the stage of a project by the Tenant document, "" when undeclared.
func (s *Snapshot) Stage(project string) string {
	if t := s.tenantSpec(); t != nil {
		return t.Stages[project]
	}
	return ""
}

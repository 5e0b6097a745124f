// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"reflect"
	"strconv"
	"strings"
)

// Resource is one YAML document. It is immutable once it is part of a Snapshot.
type Resource struct {
	APIVersion string   `json:"apiVersion"`
	Kind       Kind     `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`
}

// Metadata is common to all kinds.
type Metadata struct {
	// Name of the resource, unique among those of its kind in the project.
	Name string `json:"name" check:"name"`
	// FormerName is the name that the resource had before: a rename is this, not delete plus create.
	FormerName string `json:"formerName,omitempty" check:"name"`
	// Tenant may be left out; it must agree with the repository.
	Tenant string `json:"tenant,omitempty" check:"tenant"`
	// Project may be left out; it must agree with the path.
	Project string `json:"project,omitempty" check:"tenant"`
	// Labels are for selection.
	Labels map[string]string `json:"labels,omitempty" check:"line,items=64"`
	// Annotations are for tools; they are not interpreted.
	Annotations map[string]string `json:"annotations,omitempty" check:"text,items=64"`
	// DependsOn lists resources of the same project, as "Kind/name", that are waited for before apply.
	DependsOn []string `json:"dependsOn,omitempty" check:"line,items=64"`
}

// CommonSpec is embedded in every spec.
type CommonSpec struct {
	// Sync overrides how the resource follows its document.
	Sync *Sync `json:"sync,omitempty"`
	// DeletionPolicy says what happens to the outside object when the document is removed.
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty" check:"retain|delete"`
}

// Common implements Spec.
func (c *CommonSpec) Common() *CommonSpec { return c }

// ApplyOr is how changes of the document are applied: what it says, else fallback.
func (c *CommonSpec) ApplyOr(fallback ApplyMode) ApplyMode {
	if c.Sync != nil && c.Sync.Apply != "" {
		return c.Sync.Apply
	}
	return fallback
}

// DriftOr is what happens to differences at the outside: what the document says, else fallback.
func (c *CommonSpec) DriftOr(fallback DriftMode) DriftMode {
	if c.Sync != nil && c.Sync.Drift != "" {
		return c.Sync.Drift
	}
	return fallback
}

// DeletionPolicyOr is the document's deletion policy, else the default of its kind.
func (c *CommonSpec) DeletionPolicyOr(k Kind) DeletionPolicy {
	switch info, _ := k.Info(); {
	case c.DeletionPolicy != "":
		return c.DeletionPolicy
	case info.Retain:
		return Retain
	}
	return Delete
}

// Sync overrides how a resource follows its document.
type Sync struct {
	// Apply says whether a change of the document is applied without being asked; default automatic.
	Apply ApplyMode `json:"apply,omitempty" check:"automatic|manual"`
	// Drift says what happens to a difference that appeared at the outside; the default depends on kind and stage.
	Drift DriftMode `json:"drift,omitempty" check:"report|revert"`
}

// ApplyMode says whether a change of the document is applied without being asked.
type ApplyMode string

// DriftMode says what happens to a difference that appeared at the outside.
type DriftMode string

// DeletionPolicy says what happens to the outside object when its document is removed.
type DeletionPolicy string

// The values.
const (
	ApplyAutomatic ApplyMode      = "automatic"
	ApplyManual    ApplyMode      = "manual"
	DriftReport    DriftMode      = "report"
	DriftRevert    DriftMode      = "revert"
	Retain         DeletionPolicy = "retain"
	Delete         DeletionPolicy = "delete"
)

// Validate returns every fault of r as the document of ref: its frame, its metadata and its spec. It consults no
// other resource.
func (r *Resource) Validate(ref Ref) []FieldError {
	var l faults
	info, known := kindTable[r.Kind]
	switch {
	case r.APIVersion != APIVersion:
		l.add("/apiVersion", "must be "+APIVersion)
	case !known:
		l.add("/kind", "is no known kind"+didYouMean(string(r.Kind), kindNames()))
	case r.Spec == nil || reflect.TypeOf(r.Spec) != reflect.TypeOf(info.newSpec()) || reflect.ValueOf(r.Spec).IsNil():
		l.add("/spec", "must be the spec of a "+string(r.Kind))
	}
	if l != nil {
		return l
	}
	r.Metadata.validate(ref, &l)
	return append(l, r.Spec.Validate(ref)...)
}

func (m *Metadata) validate(ref Ref, l *faults) {
	metadataShape.validate(reflect.ValueOf(m).Elem(), "/metadata", l.add)
	switch {
	case m.Name != ref.Name:
		l.add("/metadata/name", "does not agree with the name that the resource is stored under")
	case m.FormerName != "" && m.FormerName == m.Name:
		l.add("/metadata/formerName", "is the name that the resource has: remove it")
	case ref.Kind == KindTenant && m.Name != "" && ValidTenant(m.Name) != nil:
		l.add("/metadata/name", ValidTenant(m.Name).Error())
	}
	if m.Tenant != "" && m.Tenant != ref.Tenant {
		l.add("/metadata/tenant", "does not agree with the repository: remove it or correct it")
	}
	if m.Project != "" && m.Project != ref.Project {
		l.add("/metadata/project", "does not agree with the folder that the file lies in: remove it or correct it")
	}
	for i, d := range m.DependsOn {
		at := "/metadata/dependsOn/" + strconv.Itoa(i)
		kind, name, ok := strings.Cut(d, "/")
		info, known := kindTable[Kind(kind)]
		switch {
		case !ok || d == "":
			l.add(at, "must be Kind/name, as in Repository/web")
		case !known:
			l.add(at, "names no known kind"+didYouMean(kind, kindNames()))
		case !info.Project:
			l.add(at, "must name a kind that belongs to a project")
		case ValidName(name) != nil:
			l.add(at, "must end with a resource name, as in Repository/web")
		case Kind(kind) == ref.Kind && name == ref.Name:
			l.add(at, "names the resource itself: remove it")
		}
	}
}

// Dependencies are the refs that metadata.dependsOn of the resource ref names.
func (m *Metadata) Dependencies(ref Ref) []Ref {
	out := make([]Ref, 0, len(m.DependsOn))
	for _, d := range m.DependsOn {
		kind, name, _ := strings.Cut(d, "/")
		out = append(out, ref.Sibling(Kind(kind), name))
	}
	return out
}

// SPDX-License-Identifier: Apache-2.0

package desired

// Resource is one YAML document. It is immutable once it is part of a Snapshot.
type Resource struct {
	APIVersion string   `json:"apiVersion"`
	Kind       Kind     `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`
}

// Metadata is common to all kinds.
type Metadata struct {
	Name        string            `json:"name"`
	FormerName  string            `json:"formerName,omitempty"`  // a rename is this, not delete plus create
	Tenant      string            `json:"tenant,omitempty"`      // optional; must agree with the repository
	Project     string            `json:"project,omitempty"`     // optional; must agree with the path
	Labels      map[string]string `json:"labels,omitempty"`      // for selection; values up to 256 characters
	Annotations map[string]string `json:"annotations,omitempty"` // for tools; not interpreted
	DependsOn   []string          `json:"dependsOn,omitempty"`   // "Kind/name" in the same project; waited for before apply
}

// CommonSpec is embedded in every spec.
type CommonSpec struct {
	Sync           *Sync          `json:"sync,omitempty"`
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// Common implements Spec.
func (c *CommonSpec) Common() *CommonSpec { return c }

// Sync overrides how a resource follows its document.
type Sync struct {
	Apply ApplyMode `json:"apply,omitempty"` // automatic (default) | manual
	Drift DriftMode `json:"drift,omitempty"` // report | revert; default depends on kind and stage
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

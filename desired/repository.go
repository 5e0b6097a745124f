// SPDX-License-Identifier: Apache-2.0

package desired

// RepositorySpec is a git repository at a git host.
type RepositorySpec struct {
	CommonSpec    `json:",inline"`
	Provider      string             `json:"provider,omitempty"` // name of a Provider, or a type; default "local"
	ModuleID      string             `json:"moduleId,omitempty"`
	Description   string             `json:"description,omitempty"`
	DefaultBranch string             `json:"defaultBranch,omitempty"` // default "main"
	Visibility    string             `json:"visibility,omitempty"`    // private (default) | internal | public
	Protection    []BranchProtection `json:"protection,omitempty"`
	Archived      bool               `json:"archived,omitempty"`
}

// BranchProtection guards branches of a repository against pushes and merges that break its terms.
type BranchProtection struct {
	Pattern           string   `json:"pattern"`                      // exact name or a glob with one trailing *
	RequirePull       bool     `json:"requirePullRequest,omitempty"` // direct pushes are refused
	RequiredChecks    []string `json:"requiredChecks,omitempty"`     // must be Succeeded before a merge
	RequiredApprovals int      `json:"requiredApprovals,omitempty"`
	AllowForcePush    bool     `json:"allowForcePush,omitempty"`
	AllowDeletion     bool     `json:"allowDeletion,omitempty"`
}

// Validate implements Spec.
func (s *RepositorySpec) Validate(ref Ref) []FieldError { return nil }

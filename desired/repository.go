// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"strconv"
	"strings"
)

// RepositorySpec is a git repository at a git host.
type RepositorySpec struct {
	CommonSpec `json:",inline"`
	// Provider is the name of a Provider, or a type of which there is exactly one; default local.
	Provider string `json:"provider,omitempty" check:"word"`
	// ModuleID is the module whose source the repository holds.
	ModuleID string `json:"moduleId,omitempty" check:"line"`
	// Description that the host shows.
	Description string `json:"description,omitempty" check:"text,max=4096"`
	// DefaultBranch of the repository; default main.
	DefaultBranch string `json:"defaultBranch,omitempty" check:"branch"`
	// Visibility at the host; default private.
	Visibility string `json:"visibility,omitempty" check:"private|internal|public"`
	// Protection of branches.
	Protection []BranchProtection `json:"protection,omitempty" check:",items=100"`
	// Archived repositories accept no pushes.
	Archived bool `json:"archived,omitempty"`
}

// BranchProtection guards branches of a repository against pushes and merges that break its terms.
type BranchProtection struct {
	// Pattern is the name of a branch, or a part of one with a '*' at its end.
	Pattern string `json:"pattern" check:"branch*"`
	// RequirePull refuses direct pushes.
	RequirePull bool `json:"requirePullRequest,omitempty"`
	// RequiredChecks must have succeeded before a merge.
	RequiredChecks []string `json:"requiredChecks,omitempty" check:"line,items=100"`
	// RequiredApprovals is the number of approvals that a merge needs.
	RequiredApprovals int `json:"requiredApprovals,omitempty" check:",max=100"`
	// AllowForcePush lets pushes rewrite history.
	AllowForcePush bool `json:"allowForcePush,omitempty"`
	// AllowDeletion lets the branches be deleted.
	AllowDeletion bool `json:"allowDeletion,omitempty"`
}

const (
	defaultBranch = "main"
	// LocalProvider is the provider that is there with nothing configured.
	LocalProvider = "local"
	// VisibilityPrivate is the visibility of a Repository that names none.
	VisibilityPrivate = "private"
)

// Validate implements Spec.
func (s *RepositorySpec) Validate(ref Ref) []FieldError {
	l := checkForms(s)
	seen := map[string]bool{}
	for i, p := range s.Protection {
		if p.Pattern != "" && seen[p.Pattern] {
			l.add("/spec/protection/"+strconv.Itoa(i)+"/pattern", "is in the list twice: merge the two entries")
		}
		seen[p.Pattern] = true
	}
	return l
}

// DefaultBranchOr is the default branch, main when none is given.
func (s *RepositorySpec) DefaultBranchOr() string {
	if s.DefaultBranch == "" {
		return defaultBranch
	}
	return s.DefaultBranch
}

// VisibilityOr is the visibility, private when none is given.
func (s *RepositorySpec) VisibilityOr() string {
	if s.Visibility == "" {
		return VisibilityPrivate
	}
	return s.Visibility
}

// ProviderOr is the provider's name, local when none is given.
func (s *RepositorySpec) ProviderOr() string {
	if s.Provider == "" {
		return LocalProvider
	}
	return s.Provider
}

// ProtectionOf is the protection of a branch: the entry that names it exactly, else the one with the longest
// pattern that matches. False when no entry does.
func (s *RepositorySpec) ProtectionOf(branch string) (BranchProtection, bool) {
	best := -1
	for i, p := range s.Protection {
		if p.Pattern == branch {
			return p, true
		}
		if matchStar(p.Pattern, branch) && (best < 0 || len(p.Pattern) > len(s.Protection[best].Pattern)) {
			best = i
		}
	}
	if best < 0 {
		return BranchProtection{}, false
	}
	return s.Protection[best], true
}

// matchStar reports whether s is pattern, or begins with what stands before a '*' at the pattern's end.
func matchStar(pattern, s string) bool {
	if head, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(s, head)
	}
	return s == pattern
}

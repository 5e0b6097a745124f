// SPDX-License-Identifier: Apache-2.0

package desired

// BranchSpec is a branch of a Repository of the same project.
type BranchSpec struct {
	CommonSpec `json:",inline"`
	// Repository that the branch belongs to.
	Repository string `json:"repository" check:"name"`
	// Name of the branch in git, without refs/heads/.
	Name string `json:"name" check:"branch"`
	// FromBranch is the start point at creation; default: the repository's default branch.
	FromBranch string `json:"fromBranch,omitempty" check:"branch"`
	// FromCommit is the start point as a full commit id; it wins over FromBranch.
	FromCommit string `json:"fromCommit,omitempty" check:"commit"`
	// Commit pins the branch: only then is a moved branch drift.
	Commit string `json:"commit,omitempty" check:"commit"`
}

// Validate implements Spec.
func (s *BranchSpec) Validate(ref Ref) []FieldError {
	l := checkForms(s)
	if s.FromBranch != "" && s.FromBranch == s.Name {
		l.add("/spec/fromBranch", "must be another branch than the one to be made")
	}
	return l
}

// SPDX-License-Identifier: Apache-2.0

package desired

// BranchSpec is a branch of a Repository of the same project.
type BranchSpec struct {
	CommonSpec `json:",inline"`
	Repository string `json:"repository"`
	Name       string `json:"name"`                 // git branch name, without refs/heads/
	FromBranch string `json:"fromBranch,omitempty"` // start point at creation; default: the repository's default branch
	FromCommit string `json:"fromCommit,omitempty"` // start point as a full commit id; wins over FromBranch
	Commit     string `json:"commit,omitempty"`     // pins the branch: only then is a moved branch drift
}

// Validate implements Spec.
func (s *BranchSpec) Validate(ref Ref) []FieldError { return nil }

// SPDX-License-Identifier: Apache-2.0

package desired

// PullRequestSpec is a pull request between two branches of a Repository of the same project.
type PullRequestSpec struct {
	CommonSpec         `json:",inline"`
	Repository         string   `json:"repository"`
	SourceBranch       string   `json:"sourceBranch"`
	TargetBranch       string   `json:"targetBranch,omitempty"` // default: the repository's default branch
	Title              string   `json:"title"`
	Description        string   `json:"description,omitempty"`
	Reviewers          []string `json:"reviewers,omitempty"`
	State              string   `json:"state,omitempty"`         // open (default) | merged | closed
	MergeStrategy      string   `json:"mergeStrategy,omitempty"` // merge (default) | squash | fast-forward
	MergeMessage       string   `json:"mergeMessage,omitempty"`
	DeleteSourceBranch bool     `json:"deleteSourceBranch,omitempty"`
}

// Validate implements Spec.
func (s *PullRequestSpec) Validate(ref Ref) []FieldError { return nil }

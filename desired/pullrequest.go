// SPDX-License-Identifier: Apache-2.0

package desired

// PullRequestSpec is a pull request between two branches of a Repository of the same project.
type PullRequestSpec struct {
	CommonSpec `json:",inline"`
	// Repository that both branches belong to.
	Repository string `json:"repository" check:"name"`
	// SourceBranch holds the changes.
	SourceBranch string `json:"sourceBranch" check:"branch"`
	// TargetBranch receives the changes; default: the repository's default branch.
	TargetBranch string `json:"targetBranch,omitempty" check:"branch"`
	// Title of the pull request.
	Title string `json:"title" check:"line"`
	// Description of the pull request.
	Description string `json:"description,omitempty" check:"text"`
	// Reviewers that are asked.
	Reviewers []string `json:"reviewers,omitempty" check:"line,items=100"`
	// State that the pull request is to have; default open.
	State string `json:"state,omitempty" check:"open|merged|closed"`
	// MergeStrategy of a merge; default merge.
	MergeStrategy string `json:"mergeStrategy,omitempty" check:"merge|squash|fast-forward"`
	// MergeMessage is the message of the merge commit; default: title and description.
	MergeMessage string `json:"mergeMessage,omitempty" check:"text"`
	// DeleteSourceBranch deletes the source branch after the merge.
	DeleteSourceBranch bool `json:"deleteSourceBranch,omitempty"`
}

// The states and merge strategies of a PullRequest.
const (
	PullRequestOpen   = "open"
	PullRequestMerged = "merged"
	PullRequestClosed = "closed"

	MergeCommit      = "merge"
	MergeSquash      = "squash"
	MergeFastForward = "fast-forward"
)

// Validate implements Spec.
func (s *PullRequestSpec) Validate(ref Ref) []FieldError {
	l := checkForms(s)
	if s.SourceBranch != "" && s.SourceBranch == s.TargetBranch {
		l.add("/spec/targetBranch", "must be another branch than sourceBranch")
	}
	return l
}

// StateOr is the wanted state, open when none is given.
func (s *PullRequestSpec) StateOr() string {
	if s.State == "" {
		return PullRequestOpen
	}
	return s.State
}

// MergeStrategyOr is the merge strategy, merge when none is given.
func (s *PullRequestSpec) MergeStrategyOr() string {
	if s.MergeStrategy == "" {
		return MergeCommit
	}
	return s.MergeStrategy
}

// TargetBranchOr is the target branch, else the repository's default branch, which the caller knows.
func (s *PullRequestSpec) TargetBranchOr(defaultBranch string) string {
	if s.TargetBranch == "" {
		return defaultBranch
	}
	return s.TargetBranch
}

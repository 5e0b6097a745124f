// SPDX-License-Identifier: Apache-2.0

package desired

// CommitSpec is an authored commit: one-shot, made exactly once per ref.
type CommitSpec struct {
	CommonSpec     `json:",inline"`
	Repository     string       `json:"repository"`
	Branch         string       `json:"branch"`
	Message        string       `json:"message"`
	Author         *Person      `json:"author,omitempty"` // default: the caller
	ArtifactID     string       `json:"artifactId,omitempty"`
	ArtifactDigest string       `json:"artifactDigest,omitempty"` // sha256:<hex> of the artifact, so that a replay gives the same bytes
	Changes        []FileChange `json:"changes"`
}

// Person is a git identity.
type Person struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

// FileChange is one file of an authored commit. Content is never inline: Digest names a blob that lies beside the
// document (<document name>.d/<hex>), or, when empty and the operation needs content, the file of the same path in
// the artifact.
type FileChange struct {
	Path      string `json:"path"`
	Operation string `json:"operation"`        // add | modify | delete | rename
	From      string `json:"from,omitempty"`   // rename: the old path
	Digest    string `json:"digest,omitempty"` // sha256:<hex> of the content
	Size      int64  `json:"size,omitempty"`
	Mode      string `json:"mode,omitempty"` // "100644" (default) | "100755"
}

// Validate implements Spec.
func (s *CommitSpec) Validate(ref Ref) []FieldError { return nil }

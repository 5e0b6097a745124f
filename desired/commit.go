// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"strconv"
	"strings"
)

// CommitSpec is an authored commit: one-shot, made exactly once per ref.
type CommitSpec struct {
	CommonSpec `json:",inline"`
	// Repository to commit to.
	Repository string `json:"repository" check:"name"`
	// Branch to commit on.
	Branch string `json:"branch" check:"branch"`
	// Message of the commit.
	Message string `json:"message" check:"text"`
	// Author of the commit; default: the caller.
	Author *Person `json:"author,omitempty"`
	// ArtifactID names the artifact that files without a digest are taken from.
	ArtifactID string `json:"artifactId,omitempty" check:"word"`
	// ArtifactDigest pins the artifact, so that a replay gives the same bytes.
	ArtifactDigest string `json:"artifactDigest,omitempty" check:"digest"`
	// Changes are the files of the commit.
	Changes []FileChange `json:"changes" check:",items=1000"`
}

// Person is a git identity.
type Person struct {
	// Name of the person.
	Name string `json:"name" check:"person"`
	// Email of the person.
	Email string `json:"email" check:"person"`
}

// FileChange is one file of an authored commit. Content is never inline: Digest names a blob that lies beside the
// document (<document name>.d/<hex>), or, when empty and the operation needs content, the file of the same path in
// the artifact.
type FileChange struct {
	// Path of the file, relative to the root of the repository.
	Path string `json:"path" check:"path"`
	// Operation on the file.
	Operation string `json:"operation" check:"add|modify|delete|rename"`
	// From is the old path of a rename.
	From string `json:"from,omitempty" check:"path"`
	// Digest of the content that lies beside the document.
	Digest string `json:"digest,omitempty" check:"digest"`
	// Size of the content in bytes.
	Size int64 `json:"size,omitempty" check:",max=1048576"`
	// Mode of the file; default "100644".
	Mode string `json:"mode,omitempty" check:"100644|100755"`
}

// The operations of a FileChange.
const (
	OpAdd    = "add"
	OpModify = "modify"
	OpDelete = "delete"
	OpRename = "rename"
)

// Limits of the content of an authored commit.
const (
	MaxContentBytes = 1 << 20 // one file
	MaxCommitBytes  = 8 << 20 // all files of one document
)

// Validate implements Spec.
func (s *CommitSpec) Validate(ref Ref) []FieldError {
	l := checkForms(s)
	for line := range strings.Lines(s.Message) {
		if key, _, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(key), "Plumbline-Change") {
			l.add("/spec/message", "must not carry a Plumbline-Change trailer, which marks what Plumbline made itself: remove the line")
			break
		}
	}
	if s.ArtifactDigest != "" && s.ArtifactID == "" {
		l.add("/spec/artifactId", "is required where artifactDigest is given: add it")
	}
	if len(s.Changes) > maxItems {
		return l // reported already
	}
	var total int64
	for i := range s.Changes {
		s.validateChange(i, &l)
		total += s.Changes[i].Size
	}
	if total > MaxCommitBytes {
		l.add("/spec/changes", "the files must not have more than 8 MiB together: split the commit")
	}
	s.validatePaths(&l)
	return l
}

func (s *CommitSpec) validateChange(i int, l *faults) {
	c, at := &s.Changes[i], "/spec/changes/"+strconv.Itoa(i)
	switch {
	case c.Operation == OpRename && c.From == "":
		l.add(at+"/from", "is required for a rename: add the old path")
	case c.Operation == OpRename && c.From == c.Path:
		l.add(at+"/from", "must be another path than the new one")
	case c.Operation != OpRename && c.From != "":
		l.add(at+"/from", "is allowed for a rename only")
	}
	if c.Operation == OpDelete && (c.Digest != "" || c.Size != 0 || c.Mode != "") {
		l.add(at, "a deletion must not have digest, size or mode")
	}
	if c.Digest == "" && c.Size != 0 {
		l.add(at+"/size", "is allowed together with digest only")
	}
	if (c.Operation == OpAdd || c.Operation == OpModify) && c.Digest == "" && s.ArtifactID == "" {
		l.add(at+"/digest", "the content is missing: give the digest of a file beside the document, or artifactId")
	}
}

// validatePaths refuses paths that are there twice, and files below a path that another change makes a file.
func (s *CommitSpec) validatePaths(l *faults) {
	at := func(i int) string { return "/spec/changes/" + strconv.Itoa(i) + "/path" }
	seen, written := map[string]bool{}, map[string]bool{}
	for i, c := range s.Changes {
		if c.Path != "" && seen[c.Path] {
			l.add(at(i), "is in the list twice: one change a file")
		}
		seen[c.Path] = true
		if c.Operation != OpDelete {
			written[c.Path] = true
		}
	}
	for i, c := range s.Changes {
		if c.Operation == OpDelete {
			continue
		}
		for p := c.Path; ; {
			k := strings.LastIndexByte(p, '/')
			if k < 0 {
				break
			}
			if p = p[:k]; written[p] {
				l.add(at(i), "lies below a path that another change makes a file")
				break
			}
		}
	}
}

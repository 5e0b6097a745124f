// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"io"
)

// Artifact is one stored artifact version.
type Artifact struct {
	ID        string   `json:"artifactId"`
	Digest    string   `json:"digest"` // sha256:<hex> of the stored archive bytes
	Size      int64    `json:"size"`
	MediaType string   `json:"mediaType"`
	Files     []string `json:"files"` // paths inside
}

// Artifacts is the store. Safe for concurrent use.
type Artifacts struct{}

// OpenArtifacts opens or creates the store below dir.
func OpenArtifacts(dir string, maxBytes int64) (*Artifacts, error) { panic("not built") }

// Put stores an archive (application/zip, application/x-tar, application/gzip = tar+gzip) or, for any other type, a
// single file, durably, under tenant and id, replacing what the id meant before; older digests stay readable.
func (a *Artifacts) Put(ctx context.Context, tenant, id, mediaType string, r io.Reader) (Artifact, error) {
	panic("not built")
}

// Stat returns the artifact an id means now; NotFound when none.
func (a *Artifacts) Stat(ctx context.Context, tenant, id string) (Artifact, error) {
	panic("not built")
}

// Open streams the archive bytes of an id.
func (a *Artifacts) Open(ctx context.Context, tenant, id string) (io.ReadCloser, Artifact, error) {
	panic("not built")
}

// File reads one file of an artifact; digest "" = what the id means now. NotFound names the path.
func (a *Artifacts) File(ctx context.Context, tenant, id, digest, path string) ([]byte, error) {
	panic("not built")
}

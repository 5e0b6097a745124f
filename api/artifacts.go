// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// putArtifact is operation x3.
func (s *Server) putArtifact(ctx context.Context, c *call) (answer, error) {
	id := c.param("id")
	if err := goodArtifactID(id); err != nil {
		return answer{}, invalid("store artifact", desired.FieldError{Pointer: "id", Detail: err.Error()})
	}
	if err := c.refuseWhatIf(); err != nil {
		return answer{}, err
	}
	media, _, err := mime.ParseMediaType(cmp.Or(c.r.Header.Get("Content-Type"), "application/octet-stream"))
	if err != nil {
		return answer{}, faultf(CodeMediaType, "store artifact", "the Content-Type cannot be read: name the media type of the artifact")
	}
	if c.r.ContentLength > s.cfg.MaxArtifactBytes {
		return answer{}, tooLarge(s.cfg.MaxArtifactBytes)
	}
	control := http.NewResponseController(c.w) // transports without deadlines have their own
	_ = control.SetReadDeadline(time.Now().Add(uploadTime))
	art, err := s.cfg.Artifacts.Put(ctx, c.who.Tenant, id, media, http.MaxBytesReader(c.w, c.r.Body, s.cfg.MaxArtifactBytes))
	_ = control.SetReadDeadline(time.Time{})
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return answer{}, tooLarge(s.cfg.MaxArtifactBytes)
	}
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusCreated, body: s.artifactView(c, art), location: "/artifacts/" + id, etag: art.Digest}, nil
}

// getArtifact answers with the bytes, or with what is known of them when the caller accepts nothing but JSON.
func (s *Server) getArtifact(ctx context.Context, c *call) (answer, error) {
	id := c.param("id")
	if goodArtifactID(id) != nil {
		return answer{}, notFound("artifact")
	}
	if onlyJSON(c.r.Header.Values("Accept")) {
		art, err := s.cfg.Artifacts.Stat(ctx, c.who.Tenant, id)
		if err != nil {
			return answer{}, absent(err)
		}
		return answer{status: http.StatusOK, body: s.artifactView(c, art), etag: art.Digest}, nil
	}
	body, art, err := s.cfg.Artifacts.Open(ctx, c.who.Tenant, id)
	if err != nil {
		return answer{}, absent(err)
	}
	defer body.Close()
	h := c.w.Header()
	h.Set("Content-Type", art.MediaType)
	h.Set("Content-Length", strconv.FormatInt(art.Size, 10))
	h.Set("Content-Disposition", `attachment; filename="`+id+`"`)
	h.Set("ETag", `"`+art.Digest+`"`)
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(uploadTime))
	c.w.WriteHeader(http.StatusOK)
	if _, err := io.Copy(c.w, body); err != nil {
		panic(http.ErrAbortHandler) // the caller must not take a part for the whole
	}
	return answer{}, nil
}

func absent(err error) error {
	if desired.ClassOf(err) == desired.NotFound {
		return notFound("artifact")
	}
	return err
}

func (s *Server) artifactView(c *call, a Artifact) StoredArtifact {
	return StoredArtifact{
		ArtifactID: a.ID, Digest: a.Digest, Size: a.Size, MediaType: a.MediaType, Files: a.Files,
		Commit: c.repo.Head().Commit, TraceID: c.trace(),
	}
}

// goodArtifactID checks an artifact's id.
func goodArtifactID(id string) error {
	const first = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	if id == "" || len(id) > 128 || strings.Trim(id, first+"._-") != "" || !strings.ContainsRune(first, rune(id[0])) {
		return errors.New("must be 1 to 128 characters of A-Z, a-z, 0-9, '.', '_', '-', and begin with a letter or digit")
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/connectsoft/plumbline/desired"
)

// Artifact is one stored artifact version.
type Artifact struct {
	ID        string   `json:"artifactId"`
	Digest    string   `json:"digest"` // sha256:<hex> of the stored archive bytes
	Size      int64    `json:"size"`
	MediaType string   `json:"mediaType"`
	Files     []string `json:"files"` // paths inside, sorted; of a single file: "content"
}

// SingleFile is the path at which an artifact that is no archive offers its bytes.
const SingleFile = "content"

// Limits of an artifact, beside the size that OpenArtifacts was given.
const (
	MaxFiles    = 10_000
	MaxInflated = 8        // times the largest archive: what all files of an archive may take together
	MaxFile     = 64 << 20 // of one file that File reads
)

// Artifacts is the store. Safe for concurrent use; one process owns its directory. It keeps
//
//	<tenant>/blobs/sha256/<2>/<hex>    the bytes of an archive, written once
//	<tenant>/ids/<id>/<hex>.json       what the id meant with these bytes
//	<tenant>/ids/<id>/current.json     what the id means now
//
// Bytes are durable before anything points at them, so a crash leaves at most a blob that nobody names.
type Artifacts struct {
	dir      string
	maxBytes int64
}

// OpenArtifacts opens or creates the store below dir. An archive may have maxBytes; 0 = 256 MiB.
func OpenArtifacts(dir string, maxBytes int64) (*Artifacts, error) {
	a := &Artifacts{dir: dir, maxBytes: cmp.Or(maxBytes, 256<<20)}
	if err := makeDirs(dir); err != nil {
		return nil, desired.E("open artifacts", desired.Ref{}, desired.Internal, err)
	}
	tenants, err := os.ReadDir(dir)
	for _, t := range tenants {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, t.Name(), "tmp"))) // uploads that a crash cut off
	}
	if err != nil {
		return nil, desired.E("open artifacts", desired.Ref{}, desired.Internal, err)
	}
	return a, nil
}

// Put stores an archive (application/zip, application/x-tar, application/gzip = tar+gzip) or, for any other type, a
// single file, durably, under tenant and id, replacing what the id meant before; older digests stay readable. An
// archive that is damaged, too large, holds links, devices or paths that lead outside is Invalid, and nothing is
// stored.
func (a *Artifacts) Put(ctx context.Context, tenant, id, mediaType string, r io.Reader) (Artifact, error) {
	const op = "store artifact"
	if err := check(op, tenant, id); err != nil {
		return Artifact{}, err
	}
	format, err := formatOf(mediaType)
	if err != nil {
		return Artifact{}, invalid(op, "%w", err)
	}
	tmp, digest, size, err := a.receive(ctx, tenant, r)
	if err != nil {
		return Artifact{}, class(op, err)
	}
	art := Artifact{ID: id, Digest: "sha256:" + digest, Size: size, MediaType: mediaType}
	if art.Files, err = a.inspect(ctx, format, tmp, size); err == nil {
		err = ctx.Err()
	}
	if err != nil {
		os.Remove(tmp)
		return Artifact{}, class(op, err)
	}
	if err := a.land(tenant, tmp, digest, art); err != nil {
		return Artifact{}, class(op, err)
	}
	return art, nil
}

// receive writes the upload to a synced temporary file.
func (a *Artifacts) receive(ctx context.Context, tenant string, r io.Reader) (path, digest string, size int64, err error) {
	dir := filepath.Join(a.dir, tenant, "tmp")
	if err := makeDirs(dir); err != nil {
		return "", "", 0, err
	}
	f, err := os.CreateTemp(dir, "put-*")
	if err != nil {
		return "", "", 0, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	sum := sha256.New()
	size, err = io.Copy(io.MultiWriter(f, sum), io.LimitReader(during{ctx, upload{r}}, a.maxBytes+1))
	if err != nil {
		return "", "", 0, err
	}
	if size > a.maxBytes {
		return "", "", 0, fault("it is larger than the limit of %d bytes: split it", a.maxBytes)
	}
	return f.Name(), hex.EncodeToString(sum.Sum(nil)), size, f.Sync()
}

// land puts a received file in its place, then what points at it.
func (a *Artifacts) land(tenant, tmp, digest string, art Artifact) error {
	blob := a.blob(tenant, digest)
	if err := makeDirs(filepath.Dir(blob)); err != nil {
		return err
	}
	if err := os.Rename(tmp, blob); err != nil { // the same bytes once more replace themselves
		return err
	}
	if err := syncDir(filepath.Dir(blob)); err != nil {
		return err
	}
	record, err := json.Marshal(art)
	if err != nil {
		return err
	}
	ids := filepath.Join(a.dir, tenant, "ids", art.ID)
	if err := makeDirs(ids); err != nil {
		return err
	}
	for _, name := range []string{digest, "current"} {
		if err := writeFile(filepath.Join(a.dir, tenant, "tmp"), filepath.Join(ids, name+".json"), record); err != nil {
			return err
		}
	}
	return nil
}

func (a *Artifacts) blob(tenant, digest string) string {
	return filepath.Join(a.dir, tenant, "blobs", "sha256", digest[:2], digest)
}

// Stat returns the artifact an id means now; NotFound when none.
func (a *Artifacts) Stat(ctx context.Context, tenant, id string) (Artifact, error) {
	return a.record(ctx, "read artifact", tenant, id, "")
}

// record reads what an id means now, or what it meant with a digest.
func (a *Artifacts) record(ctx context.Context, op, tenant, id, digest string) (Artifact, error) {
	var art Artifact
	if err := check(op, tenant, id); err != nil {
		return art, err
	}
	if err := ctx.Err(); err != nil {
		return art, class(op, err)
	}
	name := "current"
	if digest != "" {
		name = strings.TrimPrefix(digest, "sha256:")
		if !digestPattern.MatchString(digest) {
			return art, invalid(op, "a digest is sha256: and 64 hex digits")
		}
	}
	data, err := os.ReadFile(filepath.Join(a.dir, tenant, "ids", id, name+".json"))
	switch {
	case errors.Is(err, fs.ErrNotExist) && digest != "":
		return art, desired.Errorf(op, desired.Ref{}, desired.NotFound, "artifact %s has no version %s", id, digest)
	case errors.Is(err, fs.ErrNotExist):
		return art, desired.Errorf(op, desired.Ref{}, desired.NotFound, "there is no artifact %s: store it first with PUT /artifacts/%s", id, id)
	case err == nil:
		err = json.Unmarshal(data, &art)
	}
	if err != nil {
		return art, class(op, err)
	}
	return art, nil
}

// Open streams the archive bytes of an id. The caller closes the stream.
func (a *Artifacts) Open(ctx context.Context, tenant, id string) (io.ReadCloser, Artifact, error) {
	const op = "open artifact"
	art, err := a.record(ctx, op, tenant, id, "")
	if err != nil {
		return nil, art, err
	}
	f, err := a.open(tenant, art)
	if err != nil {
		return nil, art, class(op, err)
	}
	return f, art, nil
}

func (a *Artifacts) open(tenant string, art Artifact) (*os.File, error) {
	if !digestPattern.MatchString(art.Digest) {
		return nil, fmt.Errorf("the record of artifact %s is damaged", art.ID)
	}
	return os.Open(a.blob(tenant, strings.TrimPrefix(art.Digest, "sha256:")))
}

// File reads one file of an artifact; digest "" = what the id means now. NotFound names the path. An artifact that
// is no archive has one file, at SingleFile.
func (a *Artifacts) File(ctx context.Context, tenant, id, digest, path string) ([]byte, error) {
	const op = "read artifact file"
	art, err := a.record(ctx, op, tenant, id, digest)
	if err != nil {
		return nil, err
	}
	format, err := formatOf(art.MediaType)
	if err != nil {
		return nil, class(op, err)
	}
	f, err := a.open(tenant, art)
	if err != nil {
		return nil, class(op, err)
	}
	defer f.Close()
	data, err := format.file(ctx, f, art.Size, a.roomUnpacked(), path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, desired.Errorf(op, desired.Ref{}, desired.NotFound, "artifact %s (%s) has no file %s", id, art.Digest, path)
	}
	if err != nil {
		return nil, class(op, err)
	}
	return data, nil
}

var (
	idPattern     = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

func check(op, tenant, id string) error {
	if err := desired.ValidTenant(tenant); err != nil {
		return invalid(op, "tenant name: %w", err)
	}
	if !idPattern.MatchString(id) || strings.Trim(id, ".") == "" {
		return invalid(op, "an artifact id is 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-', and not only dots")
	}
	return nil
}

func invalid(op, format string, args ...any) error {
	return desired.Errorf(op, desired.Ref{}, desired.Invalid, format, args...)
}

// faulty is an error in what the caller sent.
type faulty struct{ error }

func fault(format string, args ...any) error { return faulty{fmt.Errorf(format, args...)} }

// class says what happens next after an error of the store.
func class(op string, err error) error {
	var sent faulty
	var known *desired.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &sent):
		return desired.E(op, desired.Ref{}, desired.Invalid, sent.error)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errUpload):
		return desired.E(op, desired.Ref{}, desired.Transient, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return desired.Errorf(op, desired.Ref{}, desired.Transient, "nothing was stored, the server's disk is full: try again later")
	}
	return desired.E(op, desired.Ref{}, desired.Internal, err)
}

var errUpload = errors.New("the upload broke off")

// during reads until ctx ends.
type during struct {
	ctx context.Context // of the caller: it lives as long as one Put
	r   io.Reader
}

func (d during) Read(p []byte) (int, error) {
	if d.ctx.Err() != nil {
		return 0, d.ctx.Err()
	}
	return d.r.Read(p)
}

// upload marks the errors of what a caller sends, to tell them from those of the disk. A *desired.Error stays.
type upload struct{ r io.Reader }

func (u upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	var known *desired.Error
	if err != nil && err != io.EOF && !errors.As(err, &known) {
		err = fmt.Errorf("%w: %w", errUpload, err)
	}
	return n, err
}

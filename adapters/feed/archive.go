// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"mime"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// format is how the bytes of an artifact hold files.
type format int

const (
	single format = iota
	zipped
	tarred
	gzipped // tar in gzip
)

func formatOf(mediaType string) (format, error) {
	if len(mediaType) > 255 {
		return single, errors.New("the media type is longer than 255 characters")
	}
	base, _, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return single, errors.New("the media type cannot be read: use application/zip, application/x-tar, application/gzip or, for a single file, any other type/subtype")
	}
	switch base {
	case "application/zip", "application/x-zip-compressed":
		return zipped, nil
	case "application/x-tar", "application/tar":
		return tarred, nil
	case "application/gzip", "application/x-gzip", "application/x-tar+gzip":
		return gzipped, nil
	}
	if !strings.Contains(base, "/") {
		return single, errors.New("a media type is type/subtype")
	}
	return single, nil
}

// inspect reads an archive from one end to the other, as a later reader would, and lists its files.
func (a *Artifacts) inspect(ctx context.Context, f format, path string, size int64) ([]string, error) {
	if f == single {
		return []string{SingleFile}, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	in := inspection{ctx: ctx, left: a.roomUnpacked(), kind: map[string]bool{}}
	if err := f.walk(ctx, file, size, a.roomUnpacked(), "", in.entry); err != nil {
		return nil, err
	}
	slices.Sort(in.files)
	return in.files, nil
}

// roomUnpacked is what the files of one archive may take together.
func (a *Artifacts) roomUnpacked() int64 { return MaxInflated * a.maxBytes }

// inspection counts and checks the entries of one archive.
type inspection struct {
	ctx   context.Context // of the caller: it lives as long as one Put
	left  int64           // bytes that the files may still take
	files []string
	kind  map[string]bool // path -> is a file
}

func (in *inspection) entry(path string, size int64, r io.Reader) error {
	if err := goodPath(path); err != nil {
		return err
	}
	if len(in.files) == MaxFiles {
		return fault("it holds more than %d files: split it", MaxFiles)
	}
	if _, taken := in.kind[path]; taken {
		return fault("%s is in it twice, or is a file and a directory at once", path)
	}
	in.kind[path] = true
	for i := range path {
		if path[i] == '/' {
			if in.kind[path[:i]] {
				return fault("%s is a file and a directory at once", path[:i])
			}
			in.kind[path[:i]] = false
		}
	}
	in.files = append(in.files, path)
	if size > in.left {
		return in.bomb()
	}
	n, err := io.Copy(io.Discard, io.LimitReader(during{in.ctx, r}, in.left+1))
	if in.left -= n; in.left < 0 {
		return in.bomb()
	}
	if err != nil && in.ctx.Err() == nil {
		return fault("%s in it is damaged: %w", path, err)
	}
	return err
}

func (in *inspection) bomb() error {
	return fault("its files take too much room unpacked (more than %d times the largest archive)", MaxInflated)
}

const maxDepth = 64

// goodPath refuses whatever could lead out of a directory, or look like something that it is not.
func goodPath(path string) error {
	if path == "" || len(path) > 1024 || !utf8.ValidString(path) {
		return fault("it holds a path that is empty, longer than 1024 bytes or not UTF-8")
	}
	if strings.HasPrefix(path, "/") || strings.Contains(path, `\`) || len(path) > 1 && path[1] == ':' {
		return fault("%q in it is not a relative path with forward slashes", path)
	}
	if strings.ContainsFunc(path, unicode.IsControl) {
		return fault("%q in it holds control characters", path)
	}
	if strings.Count(path, "/") >= maxDepth {
		return fault("%q in it lies deeper than %d directories", path, maxDepth)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fault("%q in it has an empty, \".\" or \"..\" segment", path)
		}
	}
	return nil
}

var errFound = errors.New("found")

// file reads one file; fs.ErrNotExist when it is not there.
func (f format) file(ctx context.Context, from *os.File, size, room int64, path string) ([]byte, error) {
	var data []byte
	err := f.walk(ctx, from, size, room, path, func(_ string, _ int64, r io.Reader) error {
		var err error
		if data, err = io.ReadAll(io.LimitReader(r, MaxFile+1)); err != nil {
			return err
		}
		if len(data) > MaxFile {
			return fault("%s is larger than the %d bytes that can be read as one file", path, MaxFile)
		}
		return errFound
	})
	if err == nil {
		return nil, fs.ErrNotExist
	}
	if err != errFound {
		return nil, err
	}
	return data, nil
}

// visit looks at one file of an archive, with its size as declared.
type visit func(path string, size int64, r io.Reader) error

// walk calls fn for each file, or for the one named only. Directories are passed over; everything else that is not
// a regular file is a fault.
func (f format) walk(ctx context.Context, from *os.File, size, room int64, only string, fn visit) error {
	switch f {
	case zipped:
		return walkZip(ctx, from, size, only, fn)
	case tarred:
		return walkTar(ctx, bufio.NewReader(from), only, fn)
	case gzipped:
		z, err := gzip.NewReader(bufio.NewReader(from))
		if err != nil {
			return fault("it is not gzip: %w", err)
		}
		defer z.Close()
		return walkTar(ctx, &roomReader{z, room + tarHeaders}, only, fn)
	}
	if only == SingleFile {
		return fn(SingleFile, size, from)
	}
	return nil
}

// tarHeaders is what headers and padding of an unpacked tar archive may take beside its files.
const tarHeaders = 64 << 20

// roomReader ends a stream that inflates beyond its room. It has one user at a time.
type roomReader struct {
	r    io.Reader
	left int64
}

func (r *roomReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, fault("it takes too much room unpacked")
	}
	return n, err
}

func walkTar(ctx context.Context, r io.Reader, only string, fn visit) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			_, err = io.Copy(io.Discard, io.LimitReader(r, 1<<20)) // what comes after the end, to check gzip's sum
			if err != nil {
				return fault("it is damaged: %w", err)
			}
			return nil
		}
		if err != nil {
			return fault("it is not a tar archive, or damaged: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name := strings.TrimPrefix(h.Name, "./")
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeDir:
			if dir := strings.TrimSuffix(name, "/"); dir != "" && dir != "." {
				if err := goodPath(dir); err != nil {
					return err
				}
			}
			continue
		case tar.TypeReg:
		default:
			return fault("%q in it is a link or a device: only files and directories can be stored", h.Name)
		}
		if only != "" && only != name {
			continue
		}
		if err := fn(name, h.Size, t); err != nil {
			return err
		}
	}
}

// zipDirectory bounds the bytes that are read to list a zip archive, and so the memory of a forged one.
const zipDirectory = 8 << 20

func walkZip(ctx context.Context, from *os.File, size int64, only string, fn visit) error {
	budget := &budgetReader{from: from, left: zipDirectory}
	z, err := zip.NewReader(budget, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return fault("it is not a zip archive, or damaged: %w", err)
	}
	budget.left = -1
	for _, f := range z.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		if only != "" && only != f.Name {
			continue
		}
		mode := f.Mode()
		switch {
		case mode.IsDir():
			if err := goodPath(strings.TrimSuffix(f.Name, "/")); err != nil {
				return err
			}
			continue
		case !mode.IsRegular():
			return fault("%q in it is a link or a device: only files and directories can be stored", f.Name)
		case f.Flags&1 != 0:
			return fault("%q in it is encrypted", f.Name)
		case f.UncompressedSize64 > 1<<62:
			return fault("%q in it declares an impossible size", f.Name)
		}
		if err := openZip(f, fn); err != nil {
			return err
		}
	}
	return nil
}

func openZip(f *zip.File, fn visit) error {
	r, err := f.Open()
	if err != nil {
		return fault("%q in it cannot be unpacked: %w", f.Name, err)
	}
	defer r.Close()
	return fn(f.Name, int64(f.UncompressedSize64), r)
}

// budgetReader reads until its budget is used up; a negative budget has no end. It has one user at a time.
type budgetReader struct {
	from io.ReaderAt
	left int64
}

func (b *budgetReader) ReadAt(p []byte, off int64) (int, error) {
	if b.left >= 0 {
		if b.left -= int64(len(p)); b.left < 0 {
			b.left = 0
			return 0, errors.New("its directory is too large")
		}
	}
	return b.from.ReadAt(p, off)
}

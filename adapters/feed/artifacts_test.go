// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/connectsoft/plumbline/desired"
)

type entry struct {
	name, data string
	tarType    byte // 0 = a file
	mode       fs.FileMode
}

func zipOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(e.mode | 0o644)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(e.data)), Linkname: "elsewhere"}
		if e.tarType != 0 {
			h.Typeflag = e.tarType
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(t *testing.T, maxBytes int64) *Artifacts {
	t.Helper()
	a, err := OpenArtifacts(filepath.Join(t.TempDir(), "artifacts [1]"), maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func put(t *testing.T, a *Artifacts, tenant, id, mediaType string, data []byte) Artifact {
	t.Helper()
	art, err := a.Put(t.Context(), tenant, id, mediaType, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return art
}

func wantFile(t *testing.T, a *Artifacts, tenant, id, digest, path, want string) {
	t.Helper()
	got, err := a.File(t.Context(), tenant, id, digest, path)
	if err != nil || string(got) != want {
		t.Errorf("file %s of %s %s: got %q and %v, want %q", path, id, digest, got, err, want)
	}
}

func wantClass(t *testing.T, what string, err error, want desired.Class, text ...string) {
	t.Helper()
	if got := desired.ClassOf(err); got != want {
		t.Errorf("%s: got class %q (%v), want %q", what, got, err, want)
		return
	}
	for _, s := range text {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%s: %q does not say %q", what, err, s)
		}
	}
}

func TestEachFormatIsStoredAndRead(t *testing.T) {
	files := []entry{{name: "src/Controllers/A.cs", data: "class A {}\n"}, {name: "README.md", data: "# x\n"}, {name: "bin/x", data: "\x00\xff"}, {name: "empty"}}
	dirs := append([]entry{{name: "src/", tarType: tar.TypeDir, mode: fs.ModeDir}}, files...)
	dotted := []entry{{name: "./", tarType: tar.TypeDir}, {name: "./README.md", data: "# x\n"}}
	for _, row := range []struct {
		mediaType string
		data      []byte
		files     []string
	}{
		{"application/zip", zipOf(t, dirs...), []string{"README.md", "bin/x", "empty", "src/Controllers/A.cs"}},
		{"application/x-tar", tarOf(t, dirs...), []string{"README.md", "bin/x", "empty", "src/Controllers/A.cs"}},
		{"application/gzip", gzipOf(t, tarOf(t, dirs...)), []string{"README.md", "bin/x", "empty", "src/Controllers/A.cs"}},
		{"application/x-tar", tarOf(t, dotted...), []string{"README.md"}},
		{"text/plain; charset=utf-8", []byte("just text\n"), []string{"content"}},
		{"application/zip", zipOf(t), nil},
	} {
		a := open(t, 1<<20)
		art := put(t, a, "acme", "art-1", row.mediaType, row.data)
		sum := sha256.Sum256(row.data)
		if want := "sha256:" + hex.EncodeToString(sum[:]); art.Digest != want || art.Size != int64(len(row.data)) || !slices.Equal(art.Files, row.files) {
			t.Errorf("%s: got %+v, want digest %s, size %d, files %v", row.mediaType, art, want, len(row.data), row.files)
		}
		for _, f := range row.files {
			want := "just text\n"
			for _, e := range files {
				if e.name == f {
					want = e.data
				}
			}
			wantFile(t, a, "acme", "art-1", "", f, want)
		}
		_, err := a.File(t.Context(), "acme", "art-1", "", "src")
		wantClass(t, "a directory", err, desired.NotFound, "src", "art-1")
		r, same, err := a.Open(t.Context(), "acme", "art-1")
		if err != nil {
			t.Fatal(err)
		}
		back, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(back, row.data) || same.Digest != art.Digest {
			t.Errorf("%s: the bytes do not come back: %v", row.mediaType, err)
		}
		r.Close()
	}
}

func TestOlderDigestsStayReadableAndOutliveARestart(t *testing.T) {
	a := open(t, 0)
	old := put(t, a, "acme", "art", "application/zip", zipOf(t, entry{name: "v", data: "1"}))
	now := put(t, a, "acme", "art", "application/x-tar", tarOf(t, entry{name: "v", data: "2"}))
	put(t, a, "acme", "other", "application/zip", zipOf(t, entry{name: "v", data: "3"}))
	if err := os.WriteFile(filepath.Join(a.dir, "acme", "tmp", "put-cut-off"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := OpenArtifacts(a.dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, b, "acme", "art", "", "v", "2")
	wantFile(t, b, "acme", "art", now.Digest, "v", "2")
	wantFile(t, b, "acme", "art", old.Digest, "v", "1")
	_, err = b.File(t.Context(), "acme", "other", old.Digest, "v")
	wantClass(t, "a digest of another artifact", err, desired.NotFound, old.Digest)
	if _, err := os.Stat(filepath.Join(b.dir, "acme", "tmp", "put-cut-off")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a crash left behind is still there: %v", err)
	}
	put(t, b, "acme", "art", "application/zip", zipOf(t, entry{name: "v", data: "1"}))
	wantFile(t, b, "acme", "art", "", "v", "1")
}

func TestTenantsDoNotSeeEachOther(t *testing.T) {
	a := open(t, 0)
	art := put(t, a, "acme", "art", "text/plain", []byte("secret"))
	for _, digest := range []string{"", art.Digest} {
		_, err := a.File(t.Context(), "evil", "art", digest, SingleFile)
		wantClass(t, "another tenant's file", err, desired.NotFound)
	}
	_, err := a.Stat(t.Context(), "evil", "art")
	wantClass(t, "another tenant's artifact", err, desired.NotFound)
}

// stored lists every file below the store except directories.
func stored(t *testing.T, a *Artifacts) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(a.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestHostileArchivesAreRefusedAndNothingIsStored(t *testing.T) {
	var many []entry
	for i := range MaxFiles + 1 {
		many = append(many, entry{name: fmt.Sprint("f", i)})
	}
	zeros := strings.Repeat("\x00", 1<<20)
	encrypted := zipOf(t, entry{name: "a", data: "a"})
	encrypted[6] |= 1
	encrypted[bytes.Index(encrypted, []byte("PK\x01\x02"))+8] |= 1
	flipped := zipOf(t, entry{name: "a", data: strings.Repeat("abc", 100)})
	flipped[40] ^= 0xff
	deep := strings.Repeat("d/", 70) + "f"
	for _, row := range []struct {
		name, mediaType string
		data            []byte
		says            string
	}{
		{"zip slip", "application/zip", zipOf(t, entry{name: "../../etc/passwd", data: "x"}), "../../etc/passwd"},
		{"zip slip inside", "application/zip", zipOf(t, entry{name: "a/../../b", data: "x"}), ".."},
		{"absolute", "application/zip", zipOf(t, entry{name: "/etc/passwd", data: "x"}), "relative"},
		{"backslash", "application/zip", zipOf(t, entry{name: `..\windows`, data: "x"}), "relative"},
		{"drive", "application/zip", zipOf(t, entry{name: "C:/windows", data: "x"}), "relative"},
		{"control", "application/zip", zipOf(t, entry{name: "a\x1b[31m", data: "x"}), "control"},
		{"not UTF-8", "application/zip", zipOf(t, entry{name: "a\xff", data: "x"}), "UTF-8"},
		{"empty segment", "application/zip", zipOf(t, entry{name: "a//b", data: "x"}), "segment"},
		{"too deep", "application/zip", zipOf(t, entry{name: deep, data: "x"}), "deeper"},
		{"bad directory", "application/zip", zipOf(t, entry{name: "../x/", mode: fs.ModeDir}), ".."},
		{"twice", "application/zip", zipOf(t, entry{name: "a", data: "1"}, entry{name: "a", data: "2"}), "twice"},
		{"file and directory", "application/zip", zipOf(t, entry{name: "a", data: "1"}, entry{name: "a/b", data: "2"}), "directory at once"},
		{"directory and file", "application/zip", zipOf(t, entry{name: "a/b", data: "1"}, entry{name: "a", data: "2"}), "directory at once"},
		{"zip symlink", "application/zip", zipOf(t, entry{name: "link", data: "/etc/passwd", mode: fs.ModeSymlink}), "link"},
		{"encrypted", "application/zip", encrypted, "encrypted"},
		{"damaged", "application/zip", flipped, "damaged"},
		{"no zip", "application/zip", []byte("hello"), "not a zip"},
		{"zip bomb", "application/zip", zipOf(t, entry{data: zeros}.times(9)...), "too much room"},
		{"too many", "application/gzip", gzipOf(t, tarOf(t, many...)), "more than 10000 files"},
		{"tar slip", "application/x-tar", tarOf(t, entry{name: "../x", data: "x"}), ".."},
		{"tar symlink", "application/x-tar", tarOf(t, entry{name: "l", tarType: tar.TypeSymlink}), "link"},
		{"tar hard link", "application/x-tar", tarOf(t, entry{name: "l", tarType: tar.TypeLink}), "link"},
		{"tar device", "application/x-tar", tarOf(t, entry{name: "d", tarType: tar.TypeChar}), "device"},
		{"tar pipe", "application/x-tar", tarOf(t, entry{name: "p", tarType: tar.TypeFifo}), "device"},
		{"tar directory out", "application/x-tar", tarOf(t, entry{name: "../", tarType: tar.TypeDir}), ".."},
		{"no tar", "application/x-tar", []byte("hello"), "not a tar"},
		{"cut off", "application/x-tar", tarOf(t, entry{name: "a", data: "12345"})[:514], "damaged"},
		{"no gzip", "application/gzip", []byte("hello"), "not gzip"},
		{"gzip of no tar", "application/gzip", gzipOf(t, []byte("hello")), "not a tar"},
		{"gzip bomb", "application/gzip", gzipOf(t, tarOf(t, entry{data: zeros}.times(9)...)), "too much room"},
		{"gzip cut off", "application/gzip", gzipOf(t, tarOf(t, entry{name: "a", data: "1"}))[:60], "damaged"},
		{"too large", "text/plain", bytes.Repeat([]byte("x"), 1<<20+1), "limit"},
		{"media type", "zip", nil, "media type"},
		{"no media type", "", nil, "media type"},
	} {
		a := open(t, 1<<20)
		_, err := a.Put(t.Context(), "acme", "art", row.mediaType, bytes.NewReader(row.data))
		wantClass(t, row.name, err, desired.Invalid, row.says)
		if left := stored(t, a); len(left) > 0 {
			t.Errorf("%s: left behind %v", row.name, left)
		}
	}
}

// times is n files of the same content.
func (e entry) times(n int) []entry {
	var out []entry
	for i := range n {
		out = append(out, entry{name: fmt.Sprint("f", i), data: e.data})
	}
	return out
}

// A stream that never ends and never holds a file still comes to an end.
func TestEndlessHeadersAreBounded(t *testing.T) {
	head := tarOf(t, entry{name: "dir", tarType: tar.TypeDir})[:512]
	data := gzipOf(t, bytes.Repeat(head, (tarHeaders+9<<20)/512))
	_, err := open(t, 1<<20).Put(t.Context(), "acme", "art", "application/gzip", bytes.NewReader(data))
	wantClass(t, "endless", err, desired.Invalid, "too much room")
}

// A directory of half a million entries that share one file is listed no further than its budget.
func TestForgedZipDirectoryIsBounded(t *testing.T) {
	one := zipOf(t, entry{name: "a"})
	at := bytes.Index(one, []byte("PK\x01\x02"))
	end := bytes.Index(one, []byte("PK\x05\x06"))
	forged := slices.Concat(one[:at], bytes.Repeat(one[at:end], 300_000), one[end:])
	_, err := open(t, 0).Put(t.Context(), "acme", "art", "application/zip", bytes.NewReader(forged))
	wantClass(t, "forged", err, desired.Invalid)
}

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	a := open(t, 0)
	for _, row := range [][2]string{
		{"acme", ""},
		{"acme", "."},
		{"acme", ".."},
		{"acme", "a/b"},
		{"acme", `a\b`},
		{"acme", "a b"},
		{"acme", strings.Repeat("a", 129)},
		{"", "art"},
		{"..", "art"},
		{"a/b", "art"},
		{"UPPER", "art"},
	} {
		_, err := a.Put(t.Context(), row[0], row[1], "text/plain", strings.NewReader("x"))
		wantClass(t, fmt.Sprintf("put %q", row), err, desired.Invalid)
		_, err = a.Stat(t.Context(), row[0], row[1])
		wantClass(t, fmt.Sprintf("stat %q", row), err, desired.Invalid)
	}
	for _, digest := range []string{"sha256:..", "current", "sha256:" + strings.Repeat("A", 64), "md5:" + strings.Repeat("a", 64)} {
		_, err := a.File(t.Context(), "acme", "art", digest, "content")
		wantClass(t, "digest "+digest, err, desired.Invalid)
	}
	if left := stored(t, a); len(left) > 0 {
		t.Errorf("left behind %v", left)
	}
}

func TestABrokenUploadStoresNothing(t *testing.T) {
	a := open(t, 0)
	_, err := a.Put(t.Context(), "acme", "art", "text/plain", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	wantClass(t, "broken upload", err, desired.Transient, "broke off")
	tooLarge := desired.Errorf("read body", desired.Ref{}, desired.Invalid, "the body is too large")
	_, err = a.Put(t.Context(), "acme", "art", "text/plain", iotest.ErrReader(tooLarge))
	wantClass(t, "an error of the caller's own", err, desired.Invalid, "too large")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("shutting down"))
	_, err = a.Put(ctx, "acme", "art", "text/plain", strings.NewReader("x"))
	wantClass(t, "cancelled", err, desired.Transient)
	if left := stored(t, a); len(left) > 0 {
		t.Errorf("left behind %v", left)
	}
}

func TestDamagedRecordIsInternalNotMissing(t *testing.T) {
	a := open(t, 0)
	put(t, a, "acme", "art", "text/plain", []byte("x"))
	if err := os.WriteFile(filepath.Join(a.dir, "acme", "ids", "art", "current.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := a.Stat(t.Context(), "acme", "art")
	wantClass(t, "torn record", err, desired.Internal)
}

func TestManyPutAtOnce(t *testing.T) {
	a := open(t, 0)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			data := fmt.Sprint("version ", i%4)
			art, err := a.Put(t.Context(), "acme", "art", "text/plain", strings.NewReader(data))
			if err != nil {
				t.Error(err)
				return
			}
			wantFile(t, a, "acme", "art", art.Digest, SingleFile, data)
		})
	}
	wg.Wait()
	now, err := a.Stat(t.Context(), "acme", "art")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.File(t.Context(), "acme", "art", "", SingleFile); err != nil || !strings.HasPrefix(string(got), "version ") || now.Files[0] != SingleFile {
		t.Errorf("after all: got %q and %v", got, err)
	}
}

// FuzzPut: whatever is sent, it is stored whole and readable, or refused as Invalid with nothing left behind.
func FuzzPut(f *testing.F) {
	for _, seed := range [][]byte{zipOf(f, entry{name: "a/b", data: "x"}), tarOf(f, entry{name: "a", data: "y"}), gzipOf(f, tarOf(f, entry{name: "a", data: "z"}))} {
		for kind := range 3 {
			f.Add(seed, kind)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, kind int) {
		types := []string{"application/zip", "application/x-tar", "application/gzip"}
		a, err := OpenArtifacts(t.TempDir(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		art, err := a.Put(t.Context(), "acme", "art", types[uint(kind)%3], bytes.NewReader(data))
		if err != nil {
			wantClass(t, "put", err, desired.Invalid)
			if left := stored(t, a); len(left) > 0 {
				t.Errorf("left behind %v", left)
			}
			return
		}
		for _, path := range art.Files {
			if _, err := a.File(t.Context(), "acme", "art", art.Digest, path); err != nil {
				t.Errorf("file %q: %v", path, err)
			}
		}
	})
}

// A full disk is no fault of the caller nor of the program, and its place is nobody's business.
func TestFullDisk(t *testing.T) {
	err := class("store artifact", &fs.PathError{Op: "write", Path: "/srv/state/tmp/put-1", Err: syscall.ENOSPC})
	var got *desired.Error
	if !errors.As(err, &got) || got.Class != desired.Transient || strings.Contains(err.Error(), "/srv") || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("got %v, want a transient error that says the disk is full, and not where it is", err)
	}
}

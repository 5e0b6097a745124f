// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"context"
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
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// Ref is a reference with its value.
type Ref struct {
	Name string // full: refs/heads/main
	Hash Hash
}

// RefUpdate moves a reference. A zero Old demands that it does not exist; a zero New deletes it.
type RefUpdate struct {
	Name     string
	Old, New Hash
}

// RefError says that a reference was not what an update expected, or is locked by another program.
type RefError struct {
	Name     string
	Expected Hash
	Actual   Hash
	Locked   bool
}

func (e *RefError) Error() string {
	switch {
	case e.Locked:
		return fmt.Sprintf("%s is locked by another program: remove %s.lock if none is running", e.Name, e.Name)
	case e.Expected.IsZero():
		return fmt.Sprintf("%s exists already, at %s", e.Name, e.Actual)
	case e.Actual.IsZero():
		return fmt.Sprintf("%s does not exist, expected it at %s", e.Name, e.Expected)
	}
	return fmt.Sprintf("%s is at %s, expected %s", e.Name, e.Actual, e.Expected)
}

// CheckRefName applies the rules of git-check-ref-format to a full name below refs/.
func CheckRefName(name string) error {
	bad := func(why string) error {
		return desired.Errorf("check ref name", desired.Ref{}, desired.Invalid, "not a valid ref name: %s", why)
	}
	if !strings.HasPrefix(name, "refs/") || strings.Count(name, "/") < 2 {
		return bad("it is not of the form refs/heads/name")
	}
	if len(name) > 1024 {
		return bad("it is longer than 1024 bytes")
	}
	if strings.Contains(name, "..") || strings.Contains(name, "@{") {
		return bad("it holds .. or @{")
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return bad(`it holds a control character, a space or one of ~^:?*[\`)
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part[0] == '.':
			return bad("a part is empty or begins with a dot")
		case strings.HasSuffix(part, ".lock") || strings.HasSuffix(part, "."):
			return bad("a part ends in .lock or a dot")
		case len(part) > 240:
			return bad("a part is longer than 240 bytes")
		}
	}
	return nil
}

// Resolve reads a reference as git does (loose, then packed). An empty or torn loose ref is ErrCorrupt, never a
// fall back to packed-refs. ErrNoRef when absent.
func (s *Store) Resolve(name string) (Hash, error) {
	at := name
	for range 5 { // git's own limit on symbolic refs
		h, target, err := s.readRef(at)
		if err != nil {
			return Zero, err
		}
		if target == "" {
			return h, nil
		}
		at = target
	}
	return Zero, fmt.Errorf("%s: too many symbolic references: %w", name, ErrCorrupt)
}

// readRef reads one reference without following it: its value, or the name that it points at.
func (s *Store) readRef(name string) (h Hash, target string, err error) {
	if name != "HEAD" {
		if err := CheckRefName(name); err != nil {
			return Zero, "", err
		}
	}
	for range 3 {
		h, target, err = s.readLooseRef(name)
		if err == nil || !errors.Is(err, ErrNoRef) || name == "HEAD" {
			return h, target, err
		}
		packed, err := s.packed.load(s.path("packed-refs"))
		if err != nil {
			return Zero, "", err
		}
		if h, ok := packed.find(name); ok {
			return h, "", nil
		}
		// git may have packed the loose file between the two looks: only a second miss counts.
		if _, err := os.Lstat(s.path(name)); err != nil {
			break
		}
	}
	return Zero, "", fmt.Errorf("%s: %w", name, ErrNoRef)
}

func (s *Store) readLooseRef(name string) (Hash, string, error) {
	f, err := os.Open(s.path(name))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			err = fmt.Errorf("%s: %w", name, ErrNoRef)
		}
		return Zero, "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return Zero, "", fmt.Errorf("%s: %w", name, ErrNoRef)
	}
	raw, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return Zero, "", err
	}
	return parseLooseRef(name, raw)
}

func parseLooseRef(name string, raw []byte) (Hash, string, error) {
	if rest, ok := bytes.CutPrefix(raw, []byte("ref:")); ok {
		target := string(bytes.TrimSpace(rest))
		if CheckRefName(target) != nil || !bytes.HasSuffix(raw, []byte("\n")) {
			return Zero, "", fmt.Errorf("%s is a torn symbolic ref: %w", name, ErrCorrupt)
		}
		return Zero, target, nil
	}
	if len(raw) < 40 || len(raw) > 40 && !isSpace(raw[40]) && raw[40] != '\n' {
		return Zero, "", fmt.Errorf("%s is empty or torn; restore it with git update-ref from a clone: %w", name, ErrCorrupt)
	}
	h, err := ParseHash(string(raw[:40]))
	if err != nil || h.IsZero() {
		return Zero, "", fmt.Errorf("%s is torn; restore it with git update-ref from a clone: %w", name, ErrCorrupt)
	}
	return h, "", nil
}

// packedRefs caches the packed-refs file. git replaces the file and never writes into it.
type packedRefs struct {
	mu   sync.Mutex
	info fs.FileInfo
	read time.Time
	refs packedList
}

// packedList is sorted by name.
type packedList []packedRef

type packedRef struct {
	name   string
	hash   Hash
	peeled Hash
}

func (l packedList) find(name string) (Hash, bool) {
	i, ok := slices.BinarySearchFunc(l, name, func(r packedRef, n string) int { return strings.Compare(r.name, n) })
	if !ok {
		return Zero, false
	}
	return l[i].hash, true
}

// below returns the refs whose names begin with prefix.
func (l packedList) below(prefix string) packedList {
	from, _ := slices.BinarySearchFunc(l, prefix, func(r packedRef, n string) int { return strings.Compare(r.name, n) })
	to := from
	for to < len(l) && strings.HasPrefix(l[to].name, prefix) {
		to++
	}
	return l[from:to]
}

// load returns the refs in the file, parsed again only when the file is another one.
func (p *packedRefs) load(path string) (packedList, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		p.info, p.refs = nil, nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Like git: a file that was changed just before it was read may have been changed again within the same tick.
	const grain = 50 * time.Millisecond
	if p.info != nil && os.SameFile(p.info, info) && p.info.ModTime().Equal(info.ModTime()) &&
		p.info.Size() == info.Size() && p.read.Sub(info.ModTime()) > grain {
		return p.refs, nil
	}
	now := time.Now()
	raw, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	refs, err := parsePackedRefs(raw)
	if err != nil {
		return nil, err
	}
	p.info, p.read, p.refs = info, now, refs
	return refs, nil
}

func parsePackedRefs(raw []byte) (packedList, error) {
	var out packedList
	torn := fmt.Errorf("packed-refs is torn: %w", ErrCorrupt)
	for len(raw) > 0 {
		line, rest, whole := bytes.Cut(raw, []byte("\n"))
		raw = rest
		switch {
		case !whole:
			return nil, torn
		case len(line) == 0 || line[0] == '#':
		case line[0] == '^':
			h, err := ParseHash(string(line[1:]))
			if err != nil || len(out) == 0 {
				return nil, torn
			}
			out[len(out)-1].peeled = h
		case len(line) > 41 && line[40] == ' ':
			h, err := ParseHash(string(line[:40]))
			if err != nil || h.IsZero() {
				return nil, torn
			}
			out = append(out, packedRef{name: string(line[41:]), hash: h})
		default:
			return nil, torn
		}
	}
	slices.SortStableFunc(out, func(a, b packedRef) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// encodePackedRefs renders the file without one reference.
func encodePackedRefs(list packedList, without map[string]bool) []byte {
	out := []byte("# pack-refs with: peeled fully-peeled sorted \n")
	for _, r := range list {
		if without[r.name] {
			continue
		}
		out = append(out, r.hash.String()...)
		out = append(out, ' ')
		out = append(out, r.name...)
		out = append(out, '\n')
		if !r.peeled.IsZero() {
			out = append(out, '^')
			out = append(out, r.peeled.String()...)
			out = append(out, '\n')
		}
	}
	return out
}

// Refs lists references with a prefix ("refs/heads/"), sorted by name. Symbolic references are listed with the
// value they lead to, and left out when they lead nowhere. One torn reference fails the whole list: a list that
// lacks a ref must not be taken for the truth.
func (s *Store) Refs(prefix string) ([]Ref, error) {
	byName := make(map[string]Hash)
	// Loose before packed: a ref that git packs in between is then seen at least once.
	if err := s.looseRefs(prefix, byName); err != nil {
		return nil, err
	}
	packed, err := s.packed.load(s.path("packed-refs"))
	if err != nil {
		return nil, err
	}
	for _, r := range packed.below(prefix) {
		if _, ok := byName[r.name]; !ok && CheckRefName(r.name) == nil {
			byName[r.name] = r.hash
		}
	}
	out := make([]Ref, 0, len(byName))
	for name, h := range byName {
		out = append(out, Ref{name, h})
	}
	slices.SortFunc(out, func(a, b Ref) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (s *Store) looseRefs(prefix string, into map[string]Hash) error {
	top := s.path("refs")
	if dir, _ := splitLast(prefix); strings.HasPrefix(dir, "refs/") && !strings.Contains(dir, "..") {
		top = s.path(dir)
	}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
				return nil // removed while we walk
			}
			return err
		}
		rel, err := filepath.Rel(s.dir, path)
		if err != nil || d.IsDir() {
			return err
		}
		name := filepath.ToSlash(rel)
		if !strings.HasPrefix(name, prefix) || CheckRefName(name) != nil {
			return nil // locks, and files that no git program takes for a ref
		}
		h, err := s.Resolve(name)
		if errors.Is(err, ErrNoRef) {
			return nil
		}
		if err == nil {
			into[name] = h
		}
		return err
	})
	return err
}

// splitLast cuts a path before its last slash.
func splitLast(path string) (dir, base string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// verifyRefs demands that every reference is whole and that its object is there.
func (s *Store) verifyRefs() error {
	if _, err := s.Head(); err != nil && !errors.Is(err, errDetached) {
		return err
	}
	refs, err := s.Refs("refs/")
	if err != nil {
		return err
	}
	for _, r := range refs {
		if !s.Has(r.Hash) {
			return fmt.Errorf("%s points at %s, which is missing; fetch it from a clone: %w", r.Name, r.Hash, ErrCorrupt)
		}
	}
	return nil
}

var errDetached = errors.New("HEAD names no branch")

// Head returns the branch that HEAD names, as a full ref name. The branch need not exist yet.
func (s *Store) Head() (string, error) {
	_, target, err := s.readRef("HEAD")
	if errors.Is(err, ErrNoRef) {
		return "", fmt.Errorf("HEAD is missing: %w", ErrCorrupt)
	}
	if err != nil {
		return "", err
	}
	if target == "" {
		return "", desired.E("read HEAD", desired.Ref{}, desired.Conflict, errDetached)
	}
	return target, nil
}

// SetHead points HEAD at a branch, durably.
func (s *Store) SetHead(ctx context.Context, ref string) error {
	if err := CheckRefName(ref); err != nil {
		return err
	}
	if !strings.HasPrefix(ref, "refs/heads/") {
		return desired.Errorf("set HEAD", desired.Ref{}, desired.Invalid, "HEAD names a branch: refs/heads/name")
	}
	if err := s.writable(); err != nil {
		return err
	}
	unlock, err := s.names.lock(ctx, []string{"HEAD"})
	if err != nil {
		return err
	}
	defer unlock()
	l, err := s.newLock("HEAD", []byte("ref: "+ref+"\n"))
	if err != nil {
		return err
	}
	defer l.release()
	if err := l.acquire(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.commit(); err != nil {
		return err
	}
	return s.syncDir(s.dir)
}

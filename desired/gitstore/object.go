// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// Hash is a SHA-1 object id.
type Hash [20]byte

// Zero is the id that stands for "no object".
var Zero Hash

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h stands for no object.
func (h Hash) IsZero() bool { return h == Hash{} }

// ParseHash reads 40 hex digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != 2*len(h) {
		return Hash{}, desired.Errorf("parse object id", desired.Ref{}, desired.Invalid, "an object id is 40 hex digits")
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return Hash{}, desired.Errorf("parse object id", desired.Ref{}, desired.Invalid, "an object id is 40 hex digits")
	}
	return h, nil
}

// Type is an object type.
type Type uint8

// Object types, numbered as in a pack.
const (
	CommitObject Type = 1
	TreeObject   Type = 2
	BlobObject   Type = 3
	TagObject    Type = 4
)

func (t Type) String() string {
	switch t {
	case CommitObject:
		return "commit"
	case TreeObject:
		return "tree"
	case BlobObject:
		return "blob"
	case TagObject:
		return "tag"
	}
	return "type " + strconv.Itoa(int(t))
}

func parseType(s string) (Type, bool) {
	switch s {
	case "commit":
		return CommitObject, true
	case "tree":
		return TreeObject, true
	case "blob":
		return BlobObject, true
	case "tag":
		return TagObject, true
	}
	return 0, false
}

// Sentinels. Everything else that goes wrong with a repository is a *desired.Error or an I/O error.
var (
	ErrNotFound = errors.New("object not found")
	ErrNoRef    = errors.New("reference not found")
	ErrCorrupt  = errors.New("repository is corrupt")
	// ErrBroken: an fsync failed. The store accepts no further write until it is opened again.
	ErrBroken = errors.New("storage failed: no further write is accepted")
)

// TreeEntry is one entry of a tree. Mode is git's octal mode: 0o100644, 0o100755, 0o120000, 0o160000, 0o40000.
type TreeEntry struct {
	Name string
	Mode uint32
	Hash Hash
}

// The modes of tree entries.
const (
	modeTree = 0o40000
	modeLink = 0o160000 // a commit of another repository
)

// Signature is an author or committer line.
type Signature struct {
	Name, Email string
	When        time.Time
}

// Commit is a commit object. Raw is the object's exact bytes when it was read.
type Commit struct {
	Hash      Hash
	Tree      Hash
	Parents   []Hash
	Author    Signature
	Committer Signature
	Message   string // with trailers
	Extra     []byte // further header lines (gpgsig, encoding), verbatim
	Raw       []byte
}

// Reader reads objects. Store, Batch and Push implement it. Results are shared: do not modify them.
type Reader interface {
	Object(Hash) (Type, []byte, error)
	Blob(Hash) ([]byte, error)
	Tree(Hash) ([]TreeEntry, error)
	Commit(Hash) (*Commit, error)
	Has(Hash) bool
}

// objectHeader appends the header that is hashed before an object's bytes.
func objectHeader(dst []byte, t Type, size int) []byte {
	dst = append(dst, t.String()...)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(size), 10)
	return append(dst, 0)
}

// hashObject is the id of an object.
func hashObject(t Type, data []byte) Hash {
	var head [32]byte
	d := sha1.New()
	d.Write(objectHeader(head[:0], t, len(data)))
	d.Write(data)
	var h Hash
	d.Sum(h[:0])
	return h
}

// hasher computes object ids without allocating for each. For one goroutine.
type hasher struct {
	digest hash.Hash
	head   [32]byte
	sum    [20]byte
}

func (w *hasher) hash(t Type, data []byte) Hash {
	if w.digest == nil {
		w.digest = sha1.New()
	}
	w.digest.Reset()
	w.digest.Write(objectHeader(w.head[:0], t, len(data)))
	w.digest.Write(data)
	w.digest.Sum(w.sum[:0])
	return w.sum
}

// compareEntries is git's order of tree entries: a directory sorts as if its name ended in a slash.
func compareEntries[A, B string | []byte](a A, aTree bool, b B, bTree bool) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return int(a[i]) - int(b[i])
		}
	}
	return int(byteAfter(a, n, aTree)) - int(byteAfter(b, n, bTree))
}

func byteAfter[S string | []byte](s S, n int, tree bool) byte {
	if n < len(s) {
		return s[n]
	}
	if tree {
		return '/'
	}
	return 0
}

// sortEntries puts entries in git's order.
func sortEntries(entries []TreeEntry) {
	slices.SortFunc(entries, func(a, b TreeEntry) int {
		return compareEntries(a.Name, a.Mode == modeTree, b.Name, b.Mode == modeTree)
	})
}

// encodeTree encodes entries that are in git's order.
func encodeTree(entries []TreeEntry) []byte {
	n := 0
	for _, e := range entries {
		n += len(e.Name) + 28
	}
	out := make([]byte, 0, n)
	for _, e := range entries {
		out = appendEntry(out, e)
	}
	return out
}

func appendEntry(dst []byte, e TreeEntry) []byte {
	dst = strconv.AppendUint(dst, uint64(e.Mode), 8)
	dst = append(dst, ' ')
	dst = append(dst, e.Name...)
	dst = append(dst, 0)
	return append(dst, e.Hash[:]...)
}

// rawEntry is one entry within the bytes of a tree: raw[start:end] encodes it.
type rawEntry struct {
	name       []byte
	mode       uint32
	hash       Hash
	start, end int
}

func (e *rawEntry) isTree() bool { return e.mode == modeTree }

func (e *rawEntry) entry() TreeEntry {
	return TreeEntry{Name: string(e.name), Mode: e.mode, Hash: e.hash}
}

// nextEntry reads the entry of an encoded tree at off; ok is false when the bytes there are no entry.
func nextEntry(raw []byte, off int) (e rawEntry, ok bool) {
	e.start = off
	i := off
	for ; i < len(raw) && raw[i] >= '0' && raw[i] <= '7' && i-off < 7; i++ {
		e.mode = e.mode<<3 | uint32(raw[i]-'0')
	}
	if i == off || i >= len(raw) || raw[i] != ' ' {
		return e, false
	}
	i++
	z := bytes.IndexByte(raw[i:], 0)
	if z < 1 || i+z+21 > len(raw) {
		return e, false
	}
	e.name = raw[i : i+z]
	e.end = i + z + 21
	copy(e.hash[:], raw[i+z+1:e.end])
	return e, true
}

// parseTree decodes a tree. Names are kept as they are: judging them is the caller's business.
func parseTree(raw []byte) ([]TreeEntry, error) {
	var out []TreeEntry
	names := string(raw) // one allocation holds every name
	for off := 0; off < len(raw); {
		e, ok := nextEntry(raw, off)
		if !ok {
			return nil, fmt.Errorf("tree entry at byte %d is malformed: %w", off, ErrCorrupt)
		}
		at := e.end - 21 - len(e.name)
		out = append(out, TreeEntry{Name: names[at : at+len(e.name)], Mode: e.mode, Hash: e.hash})
		off = e.end
	}
	return out, nil
}

// encodeCommit renders a commit object. Characters that would break its lines are left out.
func encodeCommit(c *Commit) []byte {
	out := make([]byte, 0, 256+len(c.Extra)+len(c.Message))
	out = append(out, "tree "...)
	out = hex.AppendEncode(out, c.Tree[:])
	for _, p := range c.Parents {
		out = append(out, "\nparent "...)
		out = hex.AppendEncode(out, p[:])
	}
	out = append(out, "\nauthor "...)
	out = appendSignature(out, c.Author)
	out = append(out, "\ncommitter "...)
	out = appendSignature(out, c.Committer)
	out = append(out, '\n')
	if extra := bytes.Trim(c.Extra, "\n"); len(extra) > 0 {
		out = append(out, extra...)
		out = append(out, '\n')
	}
	out = append(out, '\n')
	return append(out, strings.ReplaceAll(c.Message, "\x00", "")...)
}

func appendSignature(dst []byte, s Signature) []byte {
	name := cleanIdent(s.Name)
	if name == "" {
		name = "unknown"
	}
	dst = append(dst, name...)
	dst = append(dst, " <"...)
	dst = append(dst, cleanIdent(s.Email)...)
	dst = append(dst, "> "...)
	dst = strconv.AppendInt(dst, max(s.When.Unix(), 0), 10)
	dst = append(dst, ' ')
	return s.When.AppendFormat(dst, "-0700")
}

// cleanIdent drops what git does not allow in a name or an e-mail address.
func cleanIdent(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '<' || r == '>' {
			return -1
		}
		return r
	}, s)
	return strings.Trim(s, " .,:;\"\\'")
}

// parseCommit decodes a commit object. It is lenient in what people's commits contain, and strict in the lines
// that hold object ids.
func parseCommit(h Hash, raw []byte) (*Commit, error) {
	c := &Commit{Hash: h, Raw: raw}
	head, message, found := bytes.Cut(raw, []byte("\n\n"))
	if !found {
		head = bytes.TrimSuffix(raw, []byte("\n"))
	}
	c.Message = string(message)
	rest, err := parseCommitIDs(c, head)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", h, err)
	}
	for len(rest) > 0 {
		line, tail := rest, []byte(nil)
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			line, tail = rest[:i], rest[i+1:]
		}
		key, value, _ := bytes.Cut(line, []byte(" "))
		switch {
		case string(key) == "author" && c.Author == Signature{}:
			c.Author = parseSignature(value)
		case string(key) == "committer" && c.Committer == Signature{}:
			c.Committer = parseSignature(value)
		default:
			c.Extra = append(append(c.Extra, line...), '\n')
		}
		rest = tail
	}
	return c, nil
}

// parseCommitIDs reads the tree and parent lines and returns the header lines after them.
func parseCommitIDs(c *Commit, head []byte) ([]byte, error) {
	tree, rest, ok := idLine(head, "tree ")
	if !ok {
		return nil, fmt.Errorf("malformed tree line: %w", ErrCorrupt)
	}
	c.Tree = tree
	for {
		p, tail, ok := idLine(rest, "parent ")
		if !ok {
			break
		}
		c.Parents = append(c.Parents, p)
		rest = tail
	}
	if bytes.HasPrefix(rest, []byte("parent ")) {
		return nil, fmt.Errorf("malformed parent line: %w", ErrCorrupt)
	}
	return rest, nil
}

// idLine reads "key<40 hex>\n" at the start of b.
func idLine(b []byte, key string) (Hash, []byte, bool) {
	var h Hash
	n := len(key) + 40
	if len(b) < n || string(b[:len(key)]) != key || len(b) > n && b[n] != '\n' {
		return h, b, false
	}
	if _, err := hex.Decode(h[:], b[len(key):n]); err != nil {
		return h, b, false
	}
	return h, b[min(n+1, len(b)):], true
}

// parseSignature reads "Name <mail> 1700000000 +0100"; parts that cannot be read stay zero.
func parseSignature(b []byte) Signature {
	var s Signature
	text := string(b)
	open := strings.IndexByte(text, '<')
	if open < 0 {
		s.Name = strings.TrimSpace(text)
		return s
	}
	s.Name = strings.TrimSpace(text[:open])
	end := strings.LastIndexByte(text, '>')
	if end < open {
		s.Email = text[open+1:]
		return s
	}
	s.Email = text[open+1 : end]
	stamp, zone, _ := strings.Cut(strings.TrimSpace(text[end+1:]), " ")
	sec, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return s
	}
	s.When = time.Unix(sec, 0).In(parseZone(zone))
	return s
}

func parseZone(s string) *time.Location {
	n, err := strconv.Atoi(s)
	if err != nil || len(s) != 5 || n == 0 {
		return time.UTC
	}
	return time.FixedZone("", (n/100*60+n%100)*60)
}

// commitDate is the committer's time in seconds, 0 when it cannot be read. It does not decode the rest.
func commitDate(raw []byte) int64 {
	i := bytes.Index(raw, []byte("\ncommitter "))
	if i < 0 {
		return 0
	}
	line := raw[i+1:]
	if j := bytes.IndexByte(line, '\n'); j >= 0 {
		line = line[:j]
	}
	k := bytes.LastIndexByte(line, '>')
	if k < 0 {
		return 0
	}
	stamp, _, _ := bytes.Cut(bytes.TrimSpace(line[k+1:]), []byte(" "))
	sec, err := strconv.ParseInt(string(stamp), 10, 64)
	if err != nil {
		return 0
	}
	return max(sec, 0)
}

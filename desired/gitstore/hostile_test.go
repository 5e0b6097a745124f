// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// hostile is a push that must be refused with a reason.
type hostile struct {
	pack []byte
	tip  Hash
	want string
}

func binaryCount(pack []byte, n int) { binary.BigEndian.PutUint32(pack[8:], uint32(n)) }

// sealPack appends the right checksum.
func sealPack(pack []byte) []byte {
	sum := sha1.Sum(pack)
	return append(slices.Clone(pack), sum[:]...)
}

func flip(b []byte, i int) []byte {
	b = slices.Clone(b)
	b[i] ^= 1
	return b
}

// object adds an object to a pack in the making and returns its id.
func entry(t testing.TB, w *packWriter, typ Type, data []byte) Hash {
	t.Helper()
	h := hashObject(typ, data)
	if err := w.object(h, typ, data); err != nil {
		t.Fatal(err)
	}
	return h
}

func commitText(tree Hash, more string) []byte {
	return fmt.Appendf(nil, "tree %s\n%sauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n", tree, more)
}

func goodPack(t testing.TB, s *Store) (pack []byte, tip Hash) {
	pack = packOf(s, t, func(w *packWriter) {
		blob := entry(t, w, BlobObject, []byte("fine"))
		tree := entry(t, w, TreeObject, encodeTree([]TreeEntry{{"f", 0o100644, blob}}))
		tip = entry(t, w, CommitObject, commitText(tree, ""))
	})
	return pack, tip
}

// commitOn packs a tree of the given bytes, a blob for its entries, and a commit.
func commitOn(t testing.TB, s *Store, raw []byte) (pack []byte, tip Hash) {
	pack = packOf(s, t, func(w *packWriter) {
		entry(t, w, BlobObject, []byte("fine"))
		tip = entry(t, w, CommitObject, commitText(entry(t, w, TreeObject, raw), ""))
	})
	return pack, tip
}

type hostileTree struct {
	entries []string // "mode name"
	want    string
}

func (h hostileTree) raw(t testing.TB, s *Store) []byte {
	blob := hashObject(BlobObject, []byte("fine"))
	var out []byte
	for _, e := range h.entries {
		out = append(out, e...)
		out = append(out, 0)
		out = append(out, blob[:]...)
	}
	return out
}

var hostileTrees = []hostileTree{
	{[]string{"100644 .."}, "a name is . or .."},
	{[]string{"100644 ."}, "a name is . or .."},
	{[]string{"40000 .git"}, "stands for .git"},
	{[]string{"40000 .GiT"}, "stands for .git"},
	{[]string{"100644 git~1"}, "stands for .git"},
	{[]string{"40000 .git ."}, "stands for .git"},
	{[]string{"40000 .g\u200cit"}, "stands for .git"},
	{[]string{"40000 .git::$INDEX_ALLOCATION"}, "stands for .git"},
	{[]string{"100644 a/b"}, "slash"},
	{[]string{"100644 /etc/passwd"}, "slash"},
	{[]string{"100644 "}, "malformed"},
	{[]string{"100644 a", "100644 a"}, "twice"},
	{[]string{"100644 a", "100644 a-", "40000 a"}, "twice"},
	{[]string{"100644 b", "100644 a"}, "out of order"},
	{[]string{"100664 a"}, "unknown mode"},
	{[]string{"040000 a"}, "padded"},
	{[]string{"8 a"}, "malformed"},
	{[]string{"120000 .gitmodules"}, "no plain file"},
	{[]string{"40000 a"}, "is a blob, not a tree"},
	{[]string{"100644 a", "x"}, "malformed"}, // cut short
}

// deflated is a zlib stream of data.
func deflated(data []byte) []byte {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	z.Write(data)
	z.Close()
	return b.Bytes()
}

// hostileEntries are packs whose entries lie.
func hostileEntries(t testing.TB, s *Store) map[string]hostile {
	tip := Hash{9}
	rows := map[string]hostile{}
	one := func(name, want string, parts ...[]byte) {
		pack := []byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00")
		for _, p := range parts {
			pack = append(pack, p...)
		}
		binaryCount(pack, len(parts))
		rows[name] = hostile{sealPack(pack), tip, want}
	}
	object := func(kind byte, size int, extra, body []byte) []byte {
		return slices.Concat(appendEntryHeader(nil, kind, size), extra, body)
	}
	zeros := make([]byte, 3<<20)
	one("size too small", "longer than its header", object(3, 4, nil, deflated([]byte("12345"))))
	one("size too large", "ends early", object(3, 6, nil, deflated([]byte("12345"))))
	one("a giant", "more than", object(3, maxPushedObject+1, nil, deflated([]byte("1"))))
	one("a giant tree", "more than", object(2, maxPushedMeta+1, nil, deflated([]byte("1"))))
	one("no zlib", "compressed data", object(3, 5, nil, []byte("not zlib at all")))
	one("unknown type", "unknown entry type", object(5, 5, nil, deflated([]byte("12345"))))
	one("type zero", "unknown entry type", object(0, 5, nil, deflated([]byte("12345"))))
	one("endless size", "out of range", bytes.Repeat([]byte{0xff}, 40))
	one("base before the pack", "outside the pack", object(ofsDelta, 3, []byte{0x7f}, deflated([]byte("abc"))))
	one("base at itself", "outside the pack", object(ofsDelta, 3, []byte{0}, deflated([]byte("abc"))))
	one("base elsewhere", "no base in the pack", object(refDelta, 3, make([]byte, 20), deflated([]byte("abc"))))
	blob := object(3, 5, nil, deflated([]byte("12345")))
	base := hashObject(BlobObject, []byte("12345"))
	one("same object twice", "twice", blob, blob)
	for name, delta := range map[string][]byte{
		"wrong base size": {4, 1, 1, 'x'}, "copy past the base": {5, 9, 0x90, 9}, "insert past the delta": {5, 9, 9, 'x'},
		"opcode zero": {5, 1, 0}, "result too short": {5, 9, 1, 'x'}, "result too long": {5, 1, 2, 'x', 'y'}, "no sizes": {0x80},
	} {
		one("delta: "+name, "delta", blob, object(refDelta, len(delta), base[:], deflated(delta)))
	}
	huge := binary.AppendUvarint([]byte{5}, maxPushedObject+1)
	one("delta: giant result", "more than", blob, object(refDelta, len(huge), base[:], deflated(huge)))
	bombs := make([][]byte, 600)
	for i := range bombs {
		binary.BigEndian.PutUint32(zeros, uint32(i))
		bombs[i] = object(3, len(zeros), nil, nil)
	}
	packed := deflated(zeros)
	for i := range bombs {
		bombs[i] = append(bombs[i], packed...)
	}
	one("zip bomb", "inflates to far more", bombs...)
	loop := hashObject(BlobObject, []byte("loop"))
	one("a delta on itself", "no base in the pack", object(refDelta, 3, loop[:], deflated([]byte("abc"))))
	rows["dangling blob"] = dangling(t, s, func(w *packWriter) Hash {
		tree := entry(t, w, TreeObject, encodeTree([]TreeEntry{{"f", 0o100644, Hash{5}}}))
		return entry(t, w, CommitObject, commitText(tree, ""))
	}, "lacks objects")
	rows["dangling tree"] = dangling(t, s, func(w *packWriter) Hash {
		return entry(t, w, CommitObject, commitText(Hash{5}, ""))
	}, "lacks objects")
	rows["dangling parent"] = dangling(t, s, func(w *packWriter) Hash {
		tree := entry(t, w, TreeObject, nil)
		return entry(t, w, CommitObject, commitText(tree, "parent "+Hash{5}.String()+"\n"))
	}, "lacks objects")
	rows["a file that is a commit"] = dangling(t, s, func(w *packWriter) Hash {
		c := entry(t, w, CommitObject, commitText(entry(t, w, TreeObject, nil), ""))
		tree := entry(t, w, TreeObject, encodeTree([]TreeEntry{{"f", 0o100644, c}}))
		return entry(t, w, CommitObject, commitText(tree, ""))
	}, "is a file and its object")
	rows["a branch that is a blob"] = dangling(t, s, func(w *packWriter) Hash {
		return entry(t, w, BlobObject, []byte("blob"))
	}, "must hold a commit")
	for name, raw := range map[string]string{
		"no author":    "committer A <a@b> 1 +0000\n\nx\n",
		"bad author":   "author A a@b 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n",
		"bad date":     "author A <a@b> x +0000\ncommitter A <a@b> 1 +0000\n\nx\n",
		"padded date":  "author A <a@b> 01 +0000\ncommitter A <a@b> 1 +0000\n\nx\n",
		"bad zone":     "author A <a@b> 1 +00\ncommitter A <a@b> 1 +0000\n\nx\n",
		"two authors":  "author A <a@b> 1 +0000\nauthor B <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n",
		"NUL":          "author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\x00y\n",
		"no committer": "author A <a@b> 1 +0000\n\nx\n",
	} {
		rows["commit: "+name] = dangling(t, s, func(w *packWriter) Hash {
			tree := entry(t, w, TreeObject, nil)
			return entry(t, w, CommitObject, fmt.Appendf(nil, "tree %s\n%s", tree, raw))
		}, "commit ")
	}
	modules := "[submodule \"x\"]\n\tpath = x\n\turl = -oProxyCommand=evil\n"
	rows["submodule"] = dangling(t, s, func(w *packWriter) Hash {
		m := entry(t, w, BlobObject, []byte(modules))
		tree := entry(t, w, TreeObject, encodeTree([]TreeEntry{{".gitmodules", 0o100644, m}}))
		return entry(t, w, CommitObject, commitText(tree, ""))
	}, "submodule is hostile")
	return rows
}

func dangling(t testing.TB, s *Store, build func(*packWriter) Hash, want string) hostile {
	h := hostile{want: want}
	h.pack = packOf(s, t, func(w *packWriter) { h.tip = build(w) })
	return h
}

func TestModulesThatAreFine(t *testing.T) {
	text := "[submodule \"a/b\"]\n\tpath = a/b\n\turl = https://example.org/x.git\n\tupdate = rebase\n"
	if why := badModules([]byte(text)); why != "" {
		t.Errorf("refused: %s", why)
	}
	for _, bad := range []string{
		"[submodule \"../x\"]", "[submodule \"a\"]\nurl = \"-x\"", "[submodule \"a\"]\npath=-x", "[submodule \"a\"]\nupdate = !rm",
		"[submodule \"a\"]\nurl = https://x/%0ahost", strings.Repeat("#\n", 1<<20),
	} {
		if badModules([]byte(bad)) == "" {
			t.Errorf("accepted: %.40q", bad)
		}
	}
}

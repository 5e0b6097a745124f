// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/connectsoft/plumbline/desired"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// git runs the real git program in a repository and returns what it prints.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := tryGit(t, dir, "", args...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimRight(out, "\n")
}

// tryGit runs git with input and returns stdout and stderr together.
func tryGit(t testing.TB, dir, input string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=T", "GIT_AUTHOR_EMAIL=t@example.org", "GIT_COMMITTER_NAME=T", "GIT_COMMITTER_EMAIL=t@example.org",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=init.defaultBranch", "GIT_CONFIG_VALUE_0=main")
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func fsck(t testing.TB, s *Store) {
	t.Helper()
	out, err := tryGit(t, s.Dir(), "", "fsck", "--full", "--strict", "--no-dangling")
	if err != nil || strings.Contains(out, "error") || strings.Contains(out, "missing") {
		t.Fatalf("git fsck: %v\n%s", err, out)
	}
}

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "repo.git"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	n, err := Open(s.Dir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

var someone = Signature{Name: "Ada", Email: "ada@example.org", When: time.Unix(1_700_000_000, 0).UTC()}

// put commits files onto a branch in one write and returns the new head. Empty content deletes.
func put(t testing.TB, s *Store, branch string, files map[string]string, parents ...Hash) Hash {
	t.Helper()
	b := s.NewBatch()
	h := add(t, b, files, parents...)
	old, err := s.Resolve("refs/heads/" + branch)
	if err != nil && !errors.Is(err, ErrNoRef) {
		t.Fatal(err)
	}
	b.Set(RefUpdate{Name: "refs/heads/" + branch, Old: old, New: h})
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return h
}

// add adds a commit with file changes on top of its first parent to a batch.
func add(t testing.TB, b *Batch, files map[string]string, parents ...Hash) Hash {
	t.Helper()
	root := Zero
	when := someone
	if len(parents) > 0 {
		c, err := b.Commit(parents[0])
		if err != nil {
			t.Fatal(err)
		}
		root = c.Tree
		when.When = c.Committer.When.Add(time.Second)
	}
	changes := make(map[string]TreeEntry)
	for path, content := range files {
		if content == "" {
			changes[path] = TreeEntry{}
			continue
		}
		changes[path] = TreeEntry{Mode: 0o100644, Hash: b.AddBlob([]byte(content))}
	}
	tree, err := b.WriteTree(root, changes)
	if err != nil {
		t.Fatal(err)
	}
	return b.AddCommit(&Commit{Tree: tree, Parents: parents, Author: when, Committer: when, Message: "change\n"}, nil)
}

func TestRoundTripWithGit(t *testing.T) {
	s := newStore(t)
	b := s.NewBatch()
	blob := b.AddBlob([]byte("hello\n"))
	big := b.AddBlob(bytes.Repeat([]byte("0123456789abcdef"), 20_000))
	none := b.AddBlob(nil)
	sub := b.AddTree([]TreeEntry{{Name: "z", Mode: 0o100644, Hash: big}, {Name: "a", Mode: 0o100755, Hash: blob}}, Zero)
	root := b.AddTree([]TreeEntry{
		{Name: "dir", Mode: 0o40000, Hash: sub},
		{Name: "dir.x", Mode: 0o100644, Hash: blob},
		{Name: "dir-x", Mode: 0o100644, Hash: none},
		{Name: "link", Mode: 0o120000, Hash: blob},
	}, Zero)
	head := b.AddCommit(&Commit{
		Tree: root, Author: Signature{Name: "Ünï <x>", Email: "u@example.org", When: time.Unix(1_700_000_000, 0).In(time.FixedZone("", 5400))},
		Committer: someone, Message: "title\n\nbody\n\nKey: value\n",
	}, func(raw []byte) []byte { return append(raw, "Seal: 1\n"...) })
	tag := b.AddObject(TagObject, []byte("object "+head.String()+"\ntype commit\ntag v1\ntagger T <t@example.org> 1700000000 +0000\n\nv1\n"))
	b.Set(RefUpdate{Name: "refs/heads/main", New: head})
	b.Set(RefUpdate{Name: "refs/tags/v1", New: tag})
	if got := b.Len(); got != 7 {
		t.Errorf("batch holds %d objects, want 7", got)
	}
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	fsck(t, s)
	if got := git(t, s.Dir(), "cat-file", "blob", "main:dir/a"); got != "hello" {
		t.Errorf("git reads %q, want hello", got)
	}
	for h, want := range map[Hash]string{blob: "blob", big: "blob", none: "blob", sub: "tree", root: "tree", head: "commit", tag: "tag"} {
		if got := git(t, s.Dir(), "cat-file", "-t", h.String()); got != want {
			t.Errorf("git says %s is a %s, want %s", h, got, want)
		}
	}
	if got := git(t, s.Dir(), "show", "-s", "--format=%an|%ae|%ad|%cn|%(trailers:key=Seal,valueonly)", "--date=raw", "v1^{commit}"); got != "Ünï x|u@example.org|1700000000 +0130|Ada|1" {
		t.Errorf("git shows the commit as %q", got)
	}
	again := reopen(t, s)
	for _, r := range []Reader{s, again, b} {
		c, err := r.Commit(head)
		if err != nil {
			t.Fatal(err)
		}
		if c.Tree != root || len(c.Parents) != 0 || c.Author.Name != "Ünï x" || !c.Author.When.Equal(someone.When) {
			t.Errorf("commit reads back as %+v", c)
		}
		if got := encodeCommit(c); !bytes.Equal(got, c.Raw) {
			t.Errorf("commit encodes again as %q, want %q", got, c.Raw)
		}
		data, err := r.Blob(big)
		if err != nil || len(data) != 320_000 {
			t.Errorf("big blob: %d bytes, %v", len(data), err)
		}
		if _, err := r.Blob(root); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("a tree read as a blob: got %v, want invalid", err)
		}
		if _, _, err := r.Object(Hash{1}); !errors.Is(err, ErrNotFound) {
			t.Errorf("absent object: got %v, want ErrNotFound", err)
		}
		if r.Has(Hash{1}) || !r.Has(head) {
			t.Error("Has is wrong")
		}
	}
}

func TestObjectsOfOtherPrograms(t *testing.T) {
	s := newStore(t)
	work := t.TempDir()
	git(t, work, "init", "-q")
	for i := range 12 {
		lines := strings.Repeat(fmt.Sprintf("line of %d\n", i%3), 200)
		write(t, filepath.Join(work, "file"), lines+fmt.Sprint(i))
		write(t, filepath.Join(work, fmt.Sprintf("d%d", i), "f"), "x")
		git(t, work, "add", "-A")
		git(t, work, "commit", "-qm", fmt.Sprint("c", i))
	}
	git(t, work, "push", "-q", s.Dir(), "HEAD:main")
	check := func(what string) {
		t.Helper()
		h, err := s.Resolve("refs/heads/main")
		if err != nil {
			t.Fatal(err)
		}
		fresh := reopen(t, s)
		n := 0
		err = FirstParents(t.Context(), fresh, h, func(c *Commit) (bool, error) {
			n++
			e, ok, err := Lookup(fresh, c.Tree, "file")
			if err != nil || !ok {
				return false, fmt.Errorf("lookup: %v, %w", ok, err)
			}
			want := git(t, work, "rev-parse", c.Hash.String()+":file")
			if e.Hash.String() != want {
				t.Errorf("%s: got blob %s, want %s", what, e.Hash, want)
			}
			_, err = fresh.Blob(e.Hash)
			return true, err
		})
		if err != nil || n != 12 {
			t.Fatalf("%s: walked %d commits, %v; want 12", what, n, err)
		}
	}
	check("pushed")
	git(t, s.Dir(), "gc", "-q", "--aggressive", "--prune=now") // OFS_DELTA chains
	check("packed")
	git(t, s.Dir(), "repack", "-qadf", "--depth=40", "--window=50")
	check("repacked")
	unpack(t, s)
	check("unpacked")
	loose := git(t, s.Dir(), "cat-file", "--batch-all-objects", "--batch-check")
	for line := range strings.SplitSeq(loose, "\n") {
		h, err := ParseHash(line[:40])
		if err != nil {
			t.Fatal(err)
		}
		typ, data, err := s.Object(h)
		if err != nil || fmt.Sprintf("%s %s %d", h, typ, len(data)) != line {
			t.Errorf("got %s %s %d, %v; want %s", h, typ, len(data), err, line)
		}
	}
}

// unpack turns every pack into loose objects.
func unpack(t testing.TB, s *Store) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(s.Dir(), "objects/pack/*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatal("no packs", err)
	}
	for _, p := range packs {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
		if out, err := tryGit(t, s.Dir(), string(data), "unpack-objects", "-q"); err != nil {
			t.Fatal(err, out)
		}
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, Options{}); desired.ClassOf(err) != desired.NotFound {
		t.Errorf("empty directory: got %v, want not-found", err)
	}
	sha256 := filepath.Join(dir, "sha256")
	git(t, dir, "init", "-q", "--bare", "--object-format=sha256", sha256)
	if _, err := Open(sha256, Options{}); desired.ClassOf(err) != desired.Invalid || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("sha256 repository: got %v, want a refusal that says so", err)
	}
	for file, content := range map[string]string{
		"objects/info/alternates": "/elsewhere\n", "shallow": Hash{1}.String() + "\n",
		"config": "[core]\nrepositoryformatversion = 7\n",
	} {
		odd := filepath.Join(dir, filepath.Base(file))
		git(t, dir, "init", "-q", "--bare", odd)
		write(t, filepath.Join(odd, file), content)
		if _, err := Open(odd, Options{}); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("repository with an odd %s: got %v, want invalid", file, err)
		}
	}
	other := filepath.Join(dir, "other")
	write(t, filepath.Join(other, "precious"), "x")
	if _, err := Open(other, Options{Create: true}); desired.ClassOf(err) != desired.Conflict {
		t.Errorf("directory with files: got %v, want conflict", err)
	}
	plain := filepath.Join(dir, "plain")
	git(t, dir, "init", "-q", "--bare", plain)
	s, err := Open(plain, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if head, err := s.Head(); err != nil || head != "refs/heads/main" {
		t.Errorf("HEAD of git's repository: got %q, %v", head, err)
	}
	s.Close()
	if err := s.Write(t.Context(), s.NewBatch()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write after Close: got %v, want ErrClosed", err)
	}
}

func TestCreateAfterACrash(t *testing.T) {
	s := newStore(t)
	if err := os.Remove(filepath.Join(s.Dir(), "HEAD")); err != nil { // the last thing that creation makes
		t.Fatal(err)
	}
	again, err := Open(s.Dir(), Options{Create: true, DefaultBranch: "trunk"})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if head, err := again.Head(); err != nil || head != "refs/heads/trunk" {
		t.Errorf("head: got %q, %v, want refs/heads/trunk", head, err)
	}
	put(t, again, "trunk", map[string]string{"a": "1"})
	fsck(t, again)
}

func TestOpenRemovesOnlyOurLeftovers(t *testing.T) {
	s := newStore(t)
	put(t, s, "main", map[string]string{"a": "1"})
	s.Close()
	ours := []string{"objects/pack/plumbline-x-pack.tmp", "plumbline/incoming/x/pack", "plumbline/locks/dead"}
	theirs := []string{"objects/pack/tmp_pack_x", "objects/pack/pack-y.keep", "refs/heads/other.lock", "packed-refs.lock"}
	for _, name := range append(ours, theirs...) {
		write(t, filepath.Join(s.Dir(), name), "")
	}
	write(t, filepath.Join(s.Dir(), "objects/pack/pack-z.keep"), keepNote)
	write(t, filepath.Join(s.Dir(), "plumbline/locks/live"), Hash{1}.String()+"\n")
	if err := os.Link(filepath.Join(s.Dir(), "plumbline/locks/live"), filepath.Join(s.Dir(), "refs/heads/main.lock")); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	gone := append(ours, "objects/pack/pack-z.keep", "plumbline/locks/live", "refs/heads/main.lock")
	for _, name := range gone {
		if _, err := os.Lstat(filepath.Join(s.Dir(), name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
	for _, name := range theirs {
		if _, err := os.Lstat(filepath.Join(s.Dir(), name)); err != nil {
			t.Errorf("%s of another program was removed: %v", name, err)
		}
	}
}

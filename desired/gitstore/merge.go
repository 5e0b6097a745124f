// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/desired"
)

// Merge is the result of a three-way merge.
type Merge struct {
	Tree      Hash     // zero when there are conflicts
	Conflicts []string // paths
	Base      Hash     // merge base, zero for unrelated histories
}

// Merge computes a real three-way merge of two commits with git merge-tree in a quarantine object directory. Both
// commits must be in the store, not only in b. The new objects are added to b; the store itself is not changed.
// Unrelated histories are merged as if their base were empty: the caller judges by Base whether that is wanted.
func (s *Store) Merge(ctx context.Context, b *Batch, ours, theirs Hash) (Merge, error) {
	for _, h := range []Hash{ours, theirs} {
		if _, err := load(s, h); err != nil {
			return Merge{}, err
		}
	}
	dir := filepath.Join(s.path("plumbline/incoming"), uniqueName())
	if err := os.MkdirAll(filepath.Join(dir, "pack"), 0o777); err != nil {
		return Merge{}, err
	}
	defer os.RemoveAll(dir) // the next Open removes what stays
	var m Merge
	out, code, err := s.quarantined(ctx, dir, "merge-base", ours.String(), theirs.String())
	if err != nil {
		return m, err
	}
	if code == 0 {
		if m.Base, err = ParseHash(strings.TrimSpace(string(out))); err != nil {
			return m, err
		}
	}
	out, code, err = s.quarantined(ctx, dir, "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages",
		"--allow-unrelated-histories", ours.String(), theirs.String())
	if err != nil {
		return m, err
	}
	tree, paths, _ := bytes.Cut(out, []byte{0})
	if code == 1 {
		for p := range bytes.SplitSeq(bytes.TrimRight(paths, "\x00"), []byte{0}) {
			m.Conflicts = append(m.Conflicts, string(p))
		}
		slices.Sort(m.Conflicts)
		m.Conflicts = slices.Compact(m.Conflicts)
		return m, nil
	}
	if m.Tree, err = ParseHash(strings.TrimSpace(string(tree))); err != nil {
		return Merge{}, err
	}
	return m, s.adopt(b, dir, m.Tree, 0)
}

// quarantined runs git with an object directory of its own over the store's. Exit codes above 1 are errors.
func (s *Store) quarantined(ctx context.Context, dir string, args ...string) ([]byte, int, error) {
	var out bytes.Buffer
	code, says, err := s.run(ctx, program{
		args:   append([]string{"--git-dir=" + s.dir}, args...),
		stdout: &out,
		env: []string{
			"GIT_OBJECT_DIRECTORY=" + dir,
			"GIT_ALTERNATE_OBJECT_DIRECTORIES=" + quotePath(s.path("objects")),
		},
	})
	if err == nil && code > 1 {
		err = desired.Errorf("merge", desired.Ref{}, desired.Internal, "git %s: exit code %d: %s", args[0], code, says)
	}
	return out.Bytes(), code, err
}

// quotePath writes a path for a list that is separated by colons.
func quotePath(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
}

// adopt adds a tree and what it needs to a batch, as far as they are in the quarantine.
func (s *Store) adopt(b *Batch, dir string, h Hash, depth int) error {
	if b.Has(h) {
		return nil
	}
	if depth > maxTreeDepth {
		return fmt.Errorf("directories are nested deeper than %d: %w", maxTreeDepth, ErrCorrupt)
	}
	x := h.String()
	f, err := os.Open(filepath.Join(dir, x[:2], x[2:]))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("merge: %s: %w", h, ErrNotFound)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	t, data, err := readLoose(f)
	if err != nil {
		return err
	}
	if b.AddObject(t, data) != h {
		return fmt.Errorf("merge: %s: its bytes have another id: %w", h, ErrCorrupt)
	}
	if t != TreeObject {
		return nil
	}
	entries, err := parseTree(data)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Mode == modeLink {
			continue
		}
		if err := s.adopt(b, dir, e.Hash, depth+1); err != nil {
			return err
		}
	}
	return nil
}

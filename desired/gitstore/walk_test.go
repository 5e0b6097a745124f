// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// history is a random graph of commits in a batch, with the ancestors of each by brute force.
type history struct {
	b         *Batch
	commits   []Hash
	ancestors map[Hash]map[Hash]bool // each with itself
}

func drawHistory(rt *rapid.T, s *Store) *history {
	h := &history{b: s.NewBatch(), ancestors: make(map[Hash]map[Hash]bool)}
	tree := h.b.AddTree(nil, Zero)
	when := someone
	for i := range rapid.IntRange(1, 25).Draw(rt, "commits") {
		var parents []Hash
		if i > 0 {
			for _, p := range rapid.SliceOfNDistinct(rapid.IntRange(0, i-1), 0, 3, rapid.ID[int]).Draw(rt, "parents") {
				parents = append(parents, h.commits[p])
			}
		}
		// Clocks of people are wrong by hours, and commits share a second.
		when.When = when.When.Add(time.Duration(rapid.IntRange(-3600, 7200).Draw(rt, "seconds")) * time.Second)
		c := h.b.AddCommit(&Commit{Tree: tree, Parents: parents, Author: when, Committer: when, Message: fmt.Sprintf("%d\n", i)}, nil)
		all := map[Hash]bool{c: true}
		for _, p := range parents {
			for a := range h.ancestors[p] {
				all[a] = true
			}
		}
		h.commits = append(h.commits, c)
		h.ancestors[c] = all
	}
	return h
}

func TestWalksAgreeWithBruteForce(t *testing.T) {
	s := newStore(t)
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt, s)
		pick := rapid.SampledFrom(h.commits)
		a, b := pick.Draw(rt, "a"), pick.Draw(rt, "b")
		got, err := IsAncestor(t.Context(), h.b, a, b)
		if want := h.ancestors[b][a]; err != nil || got != want {
			rt.Fatalf("IsAncestor: got %v, %v, want %v", got, err, want)
		}
		not := rapid.SliceOfN(pick, 0, 3).Draw(rt, "not")
		want := make(map[Hash]bool)
		for c := range h.ancestors[b] {
			if !slices.ContainsFunc(not, func(n Hash) bool { return h.ancestors[n][c] }) {
				want[c] = true
			}
		}
		var order []Hash
		err = NewCommits(t.Context(), h.b, b, append(not, Zero), func(c *Commit) error {
			if !want[c.Hash] || slices.Contains(order, c.Hash) {
				rt.Fatalf("%s is reported, but is old or was reported before", c.Hash)
			}
			for _, p := range c.Parents {
				if want[p] && !slices.Contains(order, p) {
					rt.Fatalf("%s comes before its parent", c.Hash)
				}
			}
			order = append(order, c.Hash)
			return nil
		})
		if err != nil || len(order) != len(want) {
			rt.Fatalf("NewCommits: %d commits, %v, want %d", len(order), err, len(want))
		}
	})
}

func TestWalksReportWhatIsMissing(t *testing.T) {
	s := newStore(t)
	b := s.NewBatch()
	tree := b.AddTree(nil, Zero)
	lone := b.AddCommit(&Commit{Tree: tree, Parents: []Hash{{1}}, Author: someone, Committer: someone}, nil)
	other := b.AddCommit(&Commit{Tree: tree, Author: someone, Committer: someone}, nil)
	if _, err := IsAncestor(t.Context(), b, other, lone); !errors.Is(err, ErrNotFound) {
		t.Errorf("IsAncestor over a hole: got %v, want ErrNotFound", err)
	}
	err := NewCommits(t.Context(), b, lone, []Hash{other}, func(*Commit) error { return nil })
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("NewCommits over a hole: got %v, want ErrNotFound", err)
	}
	err = FirstParents(t.Context(), b, lone, func(*Commit) (bool, error) { return true, nil })
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("FirstParents over a hole: got %v, want ErrNotFound", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := IsAncestor(ctx, b, other, lone); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestTrailersAgreeWithGit(t *testing.T) {
	dir := t.TempDir()
	git(t, dir, "init", "-q")
	fixed := []string{
		"title", "title\n\nKey: value", "title\n\nbody\n\nKey: value\nOther-Key:x\n", "Key: value\n", "title\nKey: value\n",
		"title\n\nbody: x\nnot a trailer\n", "title\n\nnot a trailer\nno\nSigned-off-by: A <a@b>\nKey: 1\n",
		"title\n\nno\nno\nno\nno\nSigned-off-by: A <a@b>\n", "title\n\nKey: a\n  folded\n\tmore\nNext: b\n", "title\n\n(cherry picked from commit 1)\nnope\n",
		"title\n\n  leading: space\n", "title\n\nKey : spaced\n", "title\n\nKey: v\n\n\n", "title\n\n#comment\nKey: v\n", "title\n\n: v\n", "title\n\nK y: v\n",
		"\n\ntitle\n\nKey: v", "title\n\nhttps://example.org\n", "title\n\nKey:\n", "title\n\na: 1\n\nb: 2\n", "title\n \nKey: v\n",
	}
	check := func(message string) error {
		out, err := tryGit(t, dir, message, "interpret-trailers", "--parse", "--no-divider")
		if err != nil {
			return fmt.Errorf("git interpret-trailers: %w", err)
		}
		var want []string
		for line := range strings.SplitSeq(strings.TrimRight(out, "\n"), "\n") {
			if k, v, ok := strings.Cut(line, ":"); ok {
				want = append(want, k+":"+strings.TrimSpace(v))
			}
		}
		var got []string
		for _, tr := range (&Commit{Message: message}).Trailers() {
			got = append(got, tr.Key+":"+tr.Value)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%q:\ngot  %q\nwant %q", message, got, want)
		}
		return nil
	}
	for _, m := range fixed {
		if err := check(m); err != nil {
			t.Error(err)
		}
	}
	line := rapid.SampledFrom([]string{"", "title", "Key: v", "Two-Words: x y", " folded", "Signed-off-by: A <a@b>", "no trailer here", "a:b"})
	lines := rapid.SliceOfN(line, 1, 8)
	for seed := range 40 { // each asks git, which takes its time
		if err := check("title\n\n" + strings.Join(lines.Example(seed), "\n") + "\n"); err != nil {
			t.Error(err)
		}
	}
}

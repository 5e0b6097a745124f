// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func benchLocal(b *testing.B) (*Local, adapters.Subject) {
	b.Helper()
	l, err := NewLocal(LocalConfig{Dir: filepath.Join(b.TempDir(), "hosted")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	r := repository("r", desired.RepositorySpec{})
	benchApply(b, l, r, adapters.Create)
	return l, r
}

func benchApply(b *testing.B, l *Local, s adapters.Subject, op adapters.Op) {
	b.Helper()
	out, err := l.Apply(b.Context(), adapters.Change{Subject: s, Op: op, Tag: s.Ref.Name, Log: io.Discard})
	if err != nil || !out.Done {
		b.Fatalf("got %+v and %v", out, err)
	}
}

// One branch costs the same to observe whether 10 or 1,000 others are there.
func BenchmarkObserveBranch(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l, r := benchLocal(b)
			store, release, err := l.use(b.Context(), r.Ref)
			if err != nil {
				b.Fatal(err)
			}
			head, err := store.store.Resolve("refs/heads/main")
			if err != nil {
				b.Fatal(err)
			}
			release()
			updates := ""
			for i := range n {
				updates += fmt.Sprintf("create refs/heads/b%d %s\n", i, head)
			}
			cmd := gitCommand(l.path(r.Ref), updates, "update-ref", "--stdin")
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
			s := []adapters.Subject{branchOf(r, "b7")}
			for b.Loop() {
				if got, err := l.Observe(b.Context(), s); err != nil || got[0].Presence != adapters.Known {
					b.Fatal(got, err)
				}
			}
		})
	}
}

// An authored commit of one file, durable when it returns.
func BenchmarkCommit(b *testing.B) {
	l, r := benchLocal(b)
	i := 0
	for b.Loop() {
		i++
		s := commitOf(r, fmt.Sprint("c", i), desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{{Path: "f", Operation: "modify"}}}, nil)
		s.Content = func(context.Context, string, string) ([]byte, error) { return []byte(fmt.Sprint(i)), nil }
		benchApply(b, l, s, adapters.Run)
	}
}

// A look for a change that was never made, in a history of 10,000 commits: the first one after opening, and the next.
func BenchmarkFindChange(b *testing.B) {
	l, r := benchLocal(b)
	stream := &strings.Builder{}
	for i := range 10_000 {
		fmt.Fprintf(stream, "commit refs/heads/main\ncommitter A <a@b.c> %d +0000\ndata <<X\nc%d\n\nPlumbline-Change: t%d\nX\n", 1_700_000_000+i, i, i)
		if i == 0 {
			fmt.Fprint(stream, "from refs/heads/main^0\n")
		}
		fmt.Fprintf(stream, "M 100644 inline f\ndata <<X\n%d\nX\n\n", i)
	}
	cmd := gitCommand(l.path(r.Ref), stream.String(), "fast-import", "--quiet")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	h, release, err := l.use(b.Context(), r.Ref)
	if err != nil {
		b.Fatal(err)
	}
	defer release()
	for _, warm := range []bool{false, true} {
		b.Run(map[bool]string{false: "first", true: "next"}[warm], func(b *testing.B) {
			for b.Loop() {
				if !warm {
					h.changes = changes{}
				}
				if id, err := l.made(b.Context(), h, "t4242"); err != nil || id.IsZero() {
					b.Fatal(id, err)
				}
			}
		})
	}
}

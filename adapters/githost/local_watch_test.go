// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"go.uber.org/goleak"
)

// watching runs Watch until the test ends and gives what it nudges.
func watching(t *testing.T, l *Local) <-chan desired.Ref {
	t.Helper()
	others := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(t.Context())
	nudges, ended := make(chan desired.Ref, 1000), make(chan error, 1)
	go func() { ended <- l.Watch(ctx, func(r desired.Ref) { nudges <- r }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("watch ended with %v", err)
		}
		goleak.VerifyNone(t, others)
	})
	return nudges
}

func wantNudge(t *testing.T, nudges <-chan desired.Ref, what string, ref desired.Ref) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		select {
		case got := <-nudges:
			if got == ref {
				return
			}
		case <-deadline:
			t.Fatalf("%s: no nudge for %s", what, ref)
		}
	}
}

func TestWatchNudgesWhateverChanged(t *testing.T) {
	for _, poll := range []time.Duration{time.Hour, 30 * time.Millisecond} { // told by the file system, or by looking
		o := newOutside(t)
		o.local.cfg.Poll = poll
		r := o.made("r")
		o.must(branchOf(r, "other"), adapters.Create)
		nudges := watching(t, o.local)
		begun := make(chan struct{})
		go func() { // the watch has begun when a change is seen
			defer close(begun)
			wantNudge(t, nudges, "a start", r.Ref)
		}()
		for i, running := 0, true; running; i++ {
			o.edit(r.Ref, func(s *settings) { s.Description += "x" })
			select {
			case <-begun:
				running = false
			case <-time.After(100 * time.Millisecond):
			}
		}
		for _, step := range []struct {
			what string
			do   func()
		}{
			{"a push straight into the directory", func() { o.push(r.Ref, "main", map[string]string{"a": "a\n"}) }},
			{"a new branch in a new directory", func() { o.git(r.Ref, "", "update-ref", "refs/heads/deep/er/x", "refs/heads/main") }},
			{"a push to it", func() { o.push(r.Ref, "deep/er/x", map[string]string{"a": "b\n"}) }},
			{"packed refs", func() { o.git(r.Ref, "", "pack-refs", "--all") }},
			{"a deleted branch", func() { o.git(r.Ref, "", "update-ref", "-d", "refs/heads/deep/er/x") }},
			{"another default branch", func() { o.git(r.Ref, "", "symbolic-ref", "HEAD", "refs/heads/other") }},
			{"an edit of host.json", func() { o.edit(r.Ref, func(s *settings) { s.Visibility = "public" }) }},
			{"a removal", func() { o.must(r, adapters.Remove) }},
			{"a new one in its place", func() { o.must(r, adapters.Create) }},
			{"a push to that", func() { o.push(r.Ref, "main", map[string]string{"a": "c\n"}) }},
			{"a directory that is deleted", func() {
				if err := os.RemoveAll(o.local.path(r.Ref)); err != nil {
					t.Fatal(err)
				}
			}},
		} {
			quiet(nudges)
			step.do()
			wantNudge(t, nudges, step.what, r.Ref)
		}
		other := desired.Ref{Tenant: "new", Project: "new", Kind: desired.KindRepository, Name: "new"}
		o.must(adapters.Subject{Ref: other, Spec: &desired.RepositorySpec{}}, adapters.Create)
		wantNudge(t, nudges, "the first repository of a new tenant", other)
	}
}

// quiet drops nudges until there was none for a while.
func quiet(nudges <-chan desired.Ref) {
	for {
		select {
		case <-nudges:
		case <-time.After(60 * time.Millisecond):
			return
		}
	}
}

func TestWatchIsQuietWhenNothingChanged(t *testing.T) {
	o := newOutside(t)
	r := o.made("r")
	o.must(branchOf(r, "b"), adapters.Create)
	o.local.cfg.Poll = 20 * time.Millisecond
	nudges := watching(t, o.local)
	o.push(r.Ref, "b", map[string]string{"a": "a\n"})
	wantNudge(t, nudges, "a push", r.Ref)
	quiet(nudges)
	o.want(branchOf(r, "b"), adapters.Known) // pins the new head
	o.must(branchOf(r, "b"), adapters.Create)
	if err := os.WriteFile(filepath.Join(o.local.path(r.Ref), "stray"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-nudges:
		t.Errorf("nudged %s though no branch and no setting changed", got)
	case <-time.After(200 * time.Millisecond):
	}
}

func TestWatchMergesPacks(t *testing.T) {
	o := newOutside(t)
	r := o.made("r")
	for i := range 60 {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26))
		o.must(commitOf(r, name, desired.CommitSpec{Branch: "main", Changes: []desired.FileChange{{Path: name, Operation: "add"}}}, map[string]string{name: name}), adapters.Run)
	}
	packs := func() int {
		all, err := filepath.Glob(filepath.Join(o.local.path(r.Ref), "objects", "pack", "*.pack"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := packs()
	o.local.cfg.Poll = 20 * time.Millisecond
	watching(t, o.local)
	for deadline := time.Now().Add(15 * time.Second); packs() >= before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still %d packs", before)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"errors"
	"strings"
	"testing"

	"github.com/connectsoft/plumbline/desired"
)

// TestTryCommitsNothing tries each kind of write and compares what it says with what the commit then does.
func TestTryCommitsNothing(t *testing.T) {
	r := open(t, config(t.TempDir()))
	ref, _ := rule("quiet", "report")
	for _, step := range []struct {
		name    string
		edit    desired.Edit
		existed bool
		delete  bool
		files   int
	}{
		{"create", put("quiet", "ignore"), false, false, 1},
		{"create again", put("quiet", "ignore"), false, false, 0},
		{"change", put("quiet", "report"), true, false, 1},
		{"remove", desired.Remove(ref, ""), true, true, 1},
	} {
		before := r.Head()
		q := Request{Edit: step.edit, Subject: "user:alice", Message: "Try", Key: "ab", Fingerprint: step.name}
		trial, err := r.Try(t.Context(), q)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if r.Head() != before {
			t.Fatalf("%s: the head moved", step.name)
		}
		if _, _, known := r.Lookup("ab"); known {
			t.Fatalf("%s: the idempotency key was consumed", step.name)
		}
		if len(trial.Files) != step.files {
			t.Fatalf("%s: %d files, want %d", step.name, len(trial.Files), step.files)
		}
		q.Key, q.Fingerprint = "", ""
		rc := commit(t, r, q)
		if rc.Unchanged != (step.files == 0) || rc.Seq != trial.Next.Seq || rc.Base != trial.Base.Commit {
			t.Errorf("%s: the commit became %+v, the trial said seq %d on %s", step.name, rc, trial.Next.Seq, trial.Base.Commit)
		}
		for _, f := range trial.Files {
			if f.Existed != step.existed || f.Delete != step.delete || f.Existed != (len(f.Before) > 0) {
				t.Errorf("%s: file %+v", step.name, f)
			}
		}
		want, got := "", ""
		for e := range trial.Next.Snapshot.All() {
			want += e.Ref.String() + " " + e.Digest + "\n"
		}
		for e := range r.Head().Snapshot.All() {
			got += e.Ref.String() + " " + e.Digest + "\n"
		}
		if got != want {
			t.Errorf("%s: the commit made\n%swhere the trial said\n%s", step.name, got, want)
		}
	}
}

// TestTryRefusesAsCommitDoes compares the words of both for writes that are refused.
func TestTryRefusesAsCommitDoes(t *testing.T) {
	c := config(t.TempDir())
	c.Resources = 1
	r := open(t, c)
	commit(t, r, Request{Edit: put("one", "ignore"), Subject: "user:alice", Message: "One"})
	ref, _ := rule("none", "report")
	for name, edit := range map[string]desired.Edit{
		"quota":     put("two", "ignore"),
		"not there": desired.Remove(ref, ""),
		"outside":   func(desired.View) ([]desired.Write, error) { return []desired.Write{{Path: "elsewhere"}}, nil },
		"quarantine": func(desired.View) ([]desired.Write, error) {
			return []desired.Write{{Path: "projects/shop/x.yaml", Data: []byte("a: [")}}, nil
		},
	} {
		q := Request{Edit: edit, Subject: "user:alice", Message: name}
		_, tried := r.Try(t.Context(), q)
		_, done := r.Commit(t.Context(), q)
		if tried == nil || done == nil || tried.Error() != done.Error() || desired.ClassOf(tried) != desired.ClassOf(done) {
			t.Errorf("%s: trial %v, commit %v", name, tried, done)
		}
	}
	r.Hold("for the test")
	if _, err := r.Try(t.Context(), Request{Edit: put("one", "report"), Subject: "user:alice", Message: "x"}); !errors.Is(err, ErrFrozen) || !strings.Contains(err.Error(), "for the test") {
		t.Errorf("frozen: %v", err)
	}
}

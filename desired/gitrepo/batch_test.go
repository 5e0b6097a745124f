// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func queued(t *testing.T, q Request) *pending {
	return &pending{ctx: t.Context(), q: q, answer: make(chan result, 1)}
}

// answered takes the answer that a member must have by now.
func answered(t *testing.T, p *pending) Receipt {
	t.Helper()
	select {
	case a := <-p.answer:
		if a.err != nil {
			t.Fatal(a.err)
		}
		return a.receipt
	default:
		t.Fatal("a member of a settled batch has no answer")
		return Receipt{}
	}
}

// TestABranchThatMovesUnderABatchReplaysItAndTheNextOne: another program moves the branch while one batch is on its
// way and the next one is built on it. Both are replayed on the new head, and nobody is left without an answer.
func TestABranchThatMovesUnderABatchReplaysItAndTheNextOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	c := config(dir)
	c.Poll = time.Hour
	r := open(t, c)
	commit(t, r, Request{Edit: put("root", "report"), Subject: "user:a"})
	one, two := queued(t, Request{Edit: put("one", "report"), Subject: "user:a"}), queued(t, Request{Edit: put("two", "report"), Subject: "user:b"})
	err := r.inWriter(t.Context(), func(ctx context.Context) error {
		b := r.newBuild(nil)
		r.add(b, one)
		next := r.newBuild(b)
		r.add(next, two)
		theirs := git(t, dir, "commit-tree", "main^{tree}", "-p", "main", "-m", "theirs")
		git(t, dir, "update-ref", "refs/heads/main", theirs)
		again := r.settle(ctx, b, next, r.land(ctx, b))
		for again != nil {
			again = r.settle(ctx, again, nil, r.land(ctx, again))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	first, second := answered(t, one), answered(t, two)
	if first.Seq != 3 || second.Seq != 4 {
		t.Errorf("seq %d and %d, want 3 and 4 after the foreign commit", first.Seq, second.Seq)
	}
	mustGet(t, r, "one")
	mustGet(t, r, "two")
	if got := git(t, dir, "rev-list", "--count", "main"); got != "4" {
		t.Errorf("%s commits, want 4", got)
	}
}

// TestARepeatFindsItsKeyInTheBatchAhead: a caller gave up while its write was on its way, and repeats it under the
// same key before it landed. It is one commit.
func TestARepeatFindsItsKeyInTheBatchAhead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	r := open(t, config(dir))
	q := Request{Edit: put("one", "report"), Subject: "user:a", Key: "aa", Fingerprint: "bb"}
	repeat := q
	repeat.Edit = put("two", "report") // would be seen if it ran
	first, again := queued(t, q), queued(t, repeat)
	err := r.inWriter(t.Context(), func(ctx context.Context) error {
		b := r.newBuild(nil)
		r.add(b, first)
		next := r.newBuild(b)
		r.add(next, again)
		next = r.settle(ctx, b, next, r.land(ctx, b))
		r.settle(ctx, next, nil, r.land(ctx, next))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	made, replayed := answered(t, first), answered(t, again)
	if !replayed.Replayed || replayed.Commit != made.Commit || r.Head().Seq != 1 {
		t.Errorf("the repeat gave %+v, head seq %d", replayed, r.Head().Seq)
	}
}

// TestAPushThatNeverLandedNamesNobody: its journal entry starts at the head from which somebody else then wrote.
func TestAPushThatNeverLandedNamesNobody(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	r := open(t, config(dir))
	head := commit(t, r, Request{Edit: put("root", "report"), Subject: "user:a"})
	if err := r.journalPush(pushRecord{From: head.Commit, To: strings.Repeat("a", 40), Subject: "user:mallory"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	work := clone(t, dir)
	write(t, work, "projects/shop/hand.yaml", yaml("hand", "report"))
	commitAll(t, work, "by hand")
	git(t, work, "push", "-q", "origin", "main")
	r = open(t, config(dir))
	if p := mustGet(t, r, "hand").Changed.Principal; p != "unknown" {
		t.Errorf("principal %q for what nobody pushed through the door", p)
	}
}

// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// bubble runs f in simulated time. rapid steers and shrinks by panicking, so the panic has to leave the bubble.
func bubble(t *testing.T, f func(ctx context.Context)) {
	var p any
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { p = recover(); cancel(); synctest.Wait() }()
		f(ctx)
	})
	// rapid tells failures apart by where they panic: one place for "draw other data", one for real failures.
	if fmt.Sprintf("%T", p) == "rapid.invalidData" {
		panic(p)
	}
	if p != nil {
		panic(p)
	}
}

var phases = []plan.Phase{plan.Pending, plan.Progressing, plan.Synced, plan.OutOfSync}

// TestStreamNeverLies: whoever applies a cursor's updates has at every token exactly what the store had at that
// revision, whatever the reader's pace, the filter, the ring, compactions, and changes of the hub.
func TestStreamNeverLies(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bubble(t, func(ctx context.Context) {
			w := newWorld(rt, ctx)
			readers := []*reader{w.reader("a", nil), w.reader("b", nil), w.reader("a", w.matchPhase()), w.reader("a", w.matchPhase(), Findings)}
			rt.Repeat(map[string]func(*rapid.T){
				"write":   func(rt *rapid.T) { w.write(rt) },
				"write2":  func(rt *rapid.T) { w.write(rt) },
				"compact": func(rt *rapid.T) { w.compact(rt) },
				"read":    func(rt *rapid.T) { rapid.SampledFrom(readers).Draw(rt, "reader").read(rt) },
				"read2":   func(rt *rapid.T) { rapid.SampledFrom(readers).Draw(rt, "reader").read(rt) },
				"resume":  func(rt *rapid.T) { rapid.SampledFrom(readers).Draw(rt, "reader").resume(rt) },
				"restart": func(rt *rapid.T) {
					w.restart(rt)
					for _, r := range readers {
						r.resume(rt)
					}
				},
			})
			for _, r := range readers { // at the end every reader gets to the end
				r.drain(rt)
			}
		})
	})
}

// world is a store, the truth at every revision, and the hub of the day.
type world struct {
	rt    *rapid.T
	ctx   context.Context
	store *Memory
	truth map[int64]map[Key]*Item // by revision
	hub   *Hub
	stop  context.CancelFunc
}

func newWorld(rt *rapid.T, ctx context.Context) *world {
	w := &world{rt: rt, ctx: ctx, store: NewMemory(MemoryConfig{History: rapid.IntRange(4, 64).Draw(rt, "history")}), truth: map[int64]map[Key]*Item{1: {}}}
	w.restart(rt)
	return w
}

func (w *world) restart(rt *rapid.T) {
	if w.stop != nil {
		w.stop()
		<-w.hub.done
	}
	h, err := NewHub(HubConfig{Store: w.store, Ring: rapid.IntRange(1, 40).Draw(rt, "ring"), Backfill: rapid.IntRange(-1, 20).Draw(rt, "backfill")})
	if err != nil {
		rt.Fatal(err)
	}
	h.batch = rapid.IntRange(1, 8).Draw(rt, "batch")
	ctx, cancel := context.WithCancel(w.ctx)
	w.hub, w.stop = h, cancel
	go h.Run(ctx)
	<-h.Ready()
	synctest.Wait()
}

// write commits a random transaction and notes the truth of its revision.
func (w *world) write(rt *rapid.T) {
	n := rapid.IntRange(1, 5).Draw(rt, "puts")
	before, _ := w.store.Revision(w.ctx)
	now := maps.Clone(w.truth[before])
	seen := map[Key]bool{}
	var puts []Put
	for range n {
		p := randomPut(rt)
		if !seen[p.Key] {
			seen[p.Key] = true
			puts = append(puts, p)
		}
	}
	rev, err := w.store.Commit(w.ctx, Fence{}, puts...)
	if err != nil {
		rt.Fatal(err)
	}
	for _, p := range puts {
		delete(now, p.Key)
		if p.Value != nil {
			now[p.Key], _ = itemOf(KV{Key: p.Key, Value: p.Value, Rev: rev})
		}
	}
	w.truth[rev] = now
	if rapid.Bool().Draw(rt, "settle") {
		synctest.Wait()
	}
}

func randomPut(rt *rapid.T) Put {
	ref := desired.Ref{Tenant: rapid.SampledFrom([]string{"a", "a", "b"}).Draw(rt, "tenant"), Project: "p", Kind: desired.KindBranch, Name: fmt.Sprint(rapid.IntRange(0, 6).Draw(rt, "n"))}
	var p Put
	switch rapid.IntRange(0, 4).Draw(rt, "what") {
	case 0, 1:
		p, _ = PutState(SyncState{Ref: ref, Phase: rapid.SampledFrom(phases).Draw(rt, "phase"), DesiredSeq: rapid.Uint64().Draw(rt, "seq")})
	case 2:
		p, _ = PutFinding(plan.Finding{Ref: ref, ID: "drift-" + ref.ID(), Occurrences: rapid.IntRange(0, 3).Draw(rt, "occ")})
	case 3:
		p, _ = PutHorizon(Horizon{Tenant: ref.Tenant, Seq: rapid.Uint64().Draw(rt, "seq")})
	case 4:
		p, _ = PutRun(plan.Run{Ref: ref, ID: "x"}) // a table that nobody streams
	}
	if rapid.IntRange(0, 3).Draw(rt, "delete") == 0 {
		p.Value = nil
	}
	return p
}

func (w *world) compact(rt *rapid.T) {
	rev, _ := w.store.Revision(w.ctx)
	if err := w.store.Compact(w.ctx, rev-rapid.Int64Range(0, rev-1).Draw(rt, "keep")); err != nil {
		rt.Fatal(err)
	}
}

// matchPhase is a filter on a value: records enter and leave it.
func (w *world) matchPhase() func(*Item) bool {
	return func(i *Item) bool {
		switch {
		case i.State != nil:
			return i.State.Phase != plan.Synced
		case i.Finding != nil:
			return i.Finding.Occurrences%2 == 0
		}
		return true
	}
}

// reader applies what a cursor delivers to a map and compares it with the truth at every token.
type reader struct {
	w      *world
	filter Filter
	c      *Cursor
	have   map[Key]*Item
	token  *Token
}

func (w *world) reader(tenant string, match func(*Item) bool, tables ...Table) *reader {
	r := &reader{w: w, filter: Filter{Tenant: tenant, Match: match, Tables: tables}}
	r.resume(w.rt)
	return r
}

func (r *reader) resume(rt *rapid.T) {
	if r.c != nil {
		r.c.Close()
	}
	var err error
	if r.c, err = r.w.hub.Subscribe(r.filter, r.token); err != nil {
		rt.Fatal(err)
	}
}

func (r *reader) read(rt *rapid.T) (progress bool) {
	ctx, cancel := context.WithTimeout(r.w.ctx, 11*time.Second)
	defer cancel()
	u, err := r.c.Next(ctx)
	if err != nil {
		rt.Fatalf("next: %v", err)
	}
	if u.Reset {
		r.have = map[Key]*Item{}
	} else if r.token == nil {
		rt.Fatal("the first update of a new cursor is no reset")
	}
	last := int64(0)
	for _, i := range u.Items {
		r.apply(rt, i, u.Reset)
		if i.Rev < last && !u.Reset {
			rt.Fatalf("item at revision %d after one at %d", i.Rev, last)
		}
		if last = i.Rev; i.Rev > u.Token.Rev {
			rt.Fatalf("item at revision %d under token %d", i.Rev, u.Token.Rev)
		}
	}
	if r.token != nil && u.Token.Rev < r.token.Rev {
		rt.Fatalf("token went back from %d to %d", r.token.Rev, u.Token.Rev)
	}
	r.token = &u.Token
	r.compare(rt, u)
	return len(u.Items) > 0
}

func (r *reader) apply(rt *rapid.T, i *Item, full bool) {
	k := Key{i.Tenant, i.Table, i.ID}
	if i.Deleted {
		if r.have[k] == nil || full {
			rt.Fatalf("%v is deleted but was never delivered", k)
		}
		delete(r.have, k)
		return
	}
	r.have[k] = i
}

// compare checks the reader's map and horizon against the store's truth at the token.
func (r *reader) compare(rt *rapid.T, u Update) {
	want := map[Key]int64{}
	var horizon uint64
	for k, i := range r.w.at(u.Token.Rev) {
		if k.Tenant != r.filter.Tenant || slot(k.Table) < 0 {
			continue
		}
		if i.Horizon != nil {
			horizon = i.Horizon.Seq
		}
		if (len(r.filter.Tables) == 0 || slices.Contains(r.filter.Tables, k.Table)) && r.c.match(i) {
			want[Key{k.Tenant, k.Table, itemID(k)}] = i.Rev
		}
	}
	got := map[Key]int64{}
	for k, i := range r.have {
		got[k] = i.Rev
	}
	if !maps.Equal(got, want) {
		rt.Fatalf("at token %d (reset %q) the reader has\n%v, the store had\n%v", u.Token.Rev, u.Why, got, want)
	}
	if u.Horizon.Seq != horizon {
		rt.Fatalf("at token %d the horizon is %d, the store had %d", u.Token.Rev, u.Horizon.Seq, horizon)
	}
}

// at is the truth as of a revision.
func (w *world) at(rev int64) map[Key]*Item {
	for ; rev > 0; rev-- {
		if m, ok := w.truth[rev]; ok {
			return m
		}
	}
	return nil
}

func (r *reader) drain(rt *rapid.T) {
	time.Sleep(time.Second) // simulated: the hub's retry after a compaction
	synctest.Wait()
	for r.read(rt) || r.token.Rev < r.w.hub.revision() {
	}
	rev, err := r.w.store.Revision(r.w.ctx)
	if err != nil {
		rt.Fatal(err)
	}
	if r.token.Rev != rev {
		rt.Fatalf("a drained reader is at %d, the store at %d", r.token.Rev, rev)
	}
}

// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// runHub runs a hub until the test ends and waits until it is ready.
func runHub(t testing.TB, c HubConfig) *Hub {
	t.Helper()
	h, err := NewHub(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Run(ctx); err != nil {
			t.Errorf("hub: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-h.Ready()
	return h
}

func branch(name string) desired.Ref {
	return desired.Ref{Tenant: "acme", Project: "p", Kind: desired.KindBranch, Name: name}
}

func mustPut(t testing.TB, v any) Put {
	t.Helper()
	p, err := putOf(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func subscribe(t *testing.T, h *Hub, f Filter, after *Token) *Cursor {
	t.Helper()
	c, err := h.Subscribe(f, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func next(t *testing.T, c *Cursor) Update {
	t.Helper()
	u, err := c.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// show is an update in one line.
func show(u Update) string {
	var b strings.Builder
	if u.Reset {
		fmt.Fprintf(&b, "reset(%s) ", u.Why)
	}
	for _, i := range u.Items {
		sign := ""
		if i.Deleted {
			sign = "-"
		}
		switch {
		case i.State != nil:
			fmt.Fprintf(&b, "%s%s=%d ", sign, i.State.Ref.Name, i.State.DesiredSeq)
		case i.Finding != nil:
			fmt.Fprintf(&b, "%s%s ", sign, i.Finding.ID)
		case i.Horizon != nil:
			fmt.Fprintf(&b, "%shorizon=%d ", sign, i.Horizon.Seq)
		}
	}
	return strings.TrimSpace(b.String())
}

func TestHubReads(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	finding := func(ref desired.Ref, id string, closed time.Time) Put {
		return mustPut(t, plan.Finding{Ref: ref, ID: id, ClosedAt: closed})
	}
	commit(t, m, mustPut(t, SyncState{Ref: branch("b")}), mustPut(t, SyncState{Ref: branch("a")}),
		finding(branch("a"), "drift-1", day), finding(branch("a"), "drift-2", time.Time{}), finding(branch("b"), "drift-0", time.Time{}),
		mustPut(t, SyncState{Ref: desired.Ref{Kind: desired.KindTenant, Name: "acme"}}))
	h := runHub(t, HubConfig{Store: m})
	rev := commit(t, m, mustPut(t, Horizon{Tenant: "acme", Seq: 3}))
	eventually(t, func() bool { return h.revision() == rev })

	items, at := h.List("acme", States)
	if len(items) != 2 || at != rev || items[0].ID > items[1].ID {
		t.Errorf("%d states at %d, want 2 at %d", len(items), at, rev)
	}
	if i, ok := h.State("acme", branch("a").ID()); !ok || i.State.Ref != branch("a") || i.Tenant != "acme" || i.ID != branch("a").ID() {
		t.Errorf("state of a: %+v, %v", i, ok)
	}
	var ids []string
	for _, i := range h.FindingsOf("acme", branch("a")) {
		ids = append(ids, i.ID)
	}
	if want := []string{"drift-2", "drift-1"}; !slices.Equal(ids, want) {
		t.Errorf("findings %v, want %v", ids, want)
	}
	if i, ok := h.Finding("acme", "drift-1"); !ok || i.Finding.Ref != branch("a") {
		t.Errorf("finding: %+v, %v", i, ok)
	}
	if hz, ok := h.Horizon("acme"); !ok || hz.Seq != 3 {
		t.Errorf("horizon %+v, %v", hz, ok)
	}
	// Nothing of one tenant is seen under another; an empty tenant is the platform's.
	_, o1 := h.State("other", branch("a").ID())
	_, o2 := h.Finding("other", "drift-1")
	_, o3 := h.Horizon("other")
	none, _ := h.List("other", States)
	if o1 || o2 || o3 || len(none) > 0 || len(h.FindingsOf("other", branch("a"))) > 0 {
		t.Error("another tenant sees records of acme")
	}
	if items, _ := h.List("", States); len(items) != 1 || items[0].Tenant != Platform {
		t.Errorf("states of the platform: %v", items)
	}
	if items, _ := h.List("acme", Runs); items != nil {
		t.Errorf("a table that is not followed: %v", items)
	}
	rev = commit(t, m, Delete(FindingKey(branch("a"), "drift-1")), Delete(StateKey(branch("a"))))
	eventually(t, func() bool { return h.revision() == rev })
	_, o1 = h.State("acme", branch("a").ID())
	_, o2 = h.Finding("acme", "drift-1")
	if o1 || o2 || len(h.FindingsOf("acme", branch("a"))) != 1 {
		t.Error("deleted records are still there")
	}
}

func TestCursorStory(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	h := runHub(t, HubConfig{Store: m})
	set := func(name string, seq uint64) Put {
		return mustPut(t, SyncState{Ref: branch(name), DesiredSeq: seq})
	}
	commit(t, m, set("a", 1))
	c := subscribe(t, h, Filter{Tenant: "acme"}, nil)
	eventually(t, func() bool { _, ok := h.State("acme", branch("a").ID()); return ok })
	expect := func(c *Cursor, want string) Update {
		t.Helper()
		u := next(t, c)
		if got := show(u); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		return u
	}
	expect(c, "reset(initial) a=1")
	commit(t, m, set("a", 2))
	first := expect(c, "a=2")
	rev := commit(t, m, set("b", 3), mustPut(t, plan.Finding{Ref: branch("b"), ID: "drift-1"}))
	if u := next(t, c); len(u.Items) != 2 || u.Token != (Token{m.Epoch(), rev}) {
		t.Errorf("got %q at %v", show(u), u.Token)
	}
	commit(t, m, Delete(StateKey(branch("a"))))
	expect(c, "-a=2")
	rev = commit(t, m, mustPut(t, Horizon{Tenant: "acme", Seq: 9}))
	if u := expect(c, "horizon=9"); u.Horizon.Seq != 9 {
		t.Errorf("horizon %+v", u.Horizon)
	}
	// Another tenant's changes wake nobody here, and a token of the past replays what came after it.
	commit(t, m, mustPut(t, SyncState{Ref: desired.Ref{Tenant: "other", Kind: desired.KindBranch, Name: "x"}}))
	eventually(t, func() bool { return h.revision() > rev })
	again := subscribe(t, h, Filter{Tenant: "acme", Tables: []Table{States}}, &first.Token)
	u := expect(again, "b=3 -a=2")
	if u.Horizon.Seq != 9 {
		t.Errorf("horizon %+v", u.Horizon)
	}
	// A hub of another process over the same store takes the token too.
	h2 := runHub(t, HubConfig{Store: m})
	expect(subscribe(t, h2, Filter{Tenant: "acme", Tables: []Table{States}}, &first.Token), "b=3 -a=2")
	// One without that history, and one of another installation, say so.
	h3 := runHub(t, HubConfig{Store: m, Backfill: -1})
	expect(subscribe(t, h3, Filter{Tenant: "acme", Tables: []Table{States}}, &first.Token), "reset(compacted) b=3")
	expect(subscribe(t, h, Filter{Tenant: "acme", Tables: []Table{States}}, &Token{"elsewhere", first.Token.Rev}), "reset(epoch) b=3")
}

func TestRecordsEnterAndLeaveAFilter(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	h := runHub(t, HubConfig{Store: m})
	c := subscribe(t, h, Filter{Tenant: "acme", Match: func(i *Item) bool { return i.State != nil && i.State.Phase == plan.OutOfSync }}, nil)
	next(t, c)
	phase := func(p plan.Phase, seq uint64) {
		commit(t, m, mustPut(t, SyncState{Ref: branch("a"), Phase: p, DesiredSeq: seq}))
	}
	phase(plan.Synced, 1)
	phase(plan.OutOfSync, 2)
	if got := show(next(t, c)); got != "a=2" {
		t.Errorf("entering: %q", got)
	}
	phase(plan.Synced, 3)
	if got := show(next(t, c)); got != "-a=3" {
		t.Errorf("leaving: %q", got)
	}
	phase(plan.Synced, 4)
	phase(plan.OutOfSync, 5)
	if got := show(next(t, c)); got != "a=5" {
		t.Errorf("entering again: %q", got)
	}
}

func TestSlowReaderGetsTheLatest(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	h := runHub(t, HubConfig{Store: m, Ring: 1000})
	slow, slower := subscribe(t, h, Filter{Tenant: "acme"}, nil), subscribe(t, h, Filter{Tenant: "acme"}, nil)
	next(t, slow)
	next(t, slower)
	write := func(n int) {
		var rev int64
		for i := range n {
			rev = commit(t, m, mustPut(t, SyncState{Ref: branch(fmt.Sprint(i % 3)), DesiredSeq: uint64(i)}))
		}
		eventually(t, func() bool { return h.revision() >= rev })
	}
	write(900)
	if got, want := show(next(t, slow)), "0=897 1=898 2=899"; got != want {
		t.Errorf("behind by 900: got %q, want %q", got, want)
	}
	write(30)
	if u := next(t, slow); len(u.Items) != 30 {
		t.Errorf("a reader that keeps up gets %d of 30 changes", len(u.Items))
	}
	write(100)
	if got, want := show(next(t, slower)), "reset(gap) 0=99 1=97 2=98"; !sameWords(got, want) {
		t.Errorf("behind by more than the ring: got %q, want %q", got, want)
	}
	if h.size != 1000 || len(h.tenants["acme"].entries) != 1000 || cap(h.tenants["acme"].entries) > 4000 {
		t.Errorf("the ring holds %d of 1000, %d allocated", h.size, cap(h.tenants["acme"].entries))
	}
}

func sameWords(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

func TestCompactionUnderAHubIsAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryConfig{History: 8})
		gate := &gatedStore{Memory: m}
		h := runHub(t, HubConfig{Store: gate})
		c := subscribe(t, h, Filter{Tenant: "acme"}, nil)
		next(t, c)
		gate.shut.Store(true) // the watch breaks, and meanwhile history goes
		for i := range 100 {
			commit(t, m, mustPut(t, SyncState{Ref: branch("a"), DesiredSeq: uint64(i)}))
		}
		time.Sleep(time.Minute)
		gate.shut.Store(false)
		if got := show(next(t, c)); got != "reset(compacted) a=99" {
			t.Errorf("got %q", got)
		}
	})
}

// gatedStore is a store that cannot be watched while it is shut.
type gatedStore struct {
	*Memory
	shut atomic.Bool
}

func (g *gatedStore) Watch(ctx context.Context, from int64, tables []Table, fn func(Batch) error) error {
	if g.shut.Load() {
		return closedError("watch records")
	}
	return g.Memory.Watch(ctx, from, tables, func(b Batch) error {
		if g.shut.Load() {
			return closedError("watch records")
		}
		return fn(b)
	})
}

func TestBookmarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryConfig{})
		h := runHub(t, HubConfig{Store: m, Heartbeat: 3 * time.Second})
		c := subscribe(t, h, Filter{Tenant: "acme", Tables: []Table{States}, Match: func(*Item) bool { return false }}, nil)
		next(t, c)
		began := time.Now()
		at := func(what string, u Update, want time.Duration, rev int64, seq uint64) {
			t.Helper()
			if d := time.Since(began); len(u.Items) > 0 || u.Reset || d != want || u.Token.Rev != rev || u.Horizon.Seq != seq {
				t.Errorf("%s: %q after %v at %d with horizon %d; want after %v at %d with %d", what, show(u), d, u.Token.Rev, u.Horizon.Seq, want, rev, seq)
			}
		}
		at("idle", next(t, c), 3*time.Second, 1, 0)
		rev := commit(t, m, mustPut(t, SyncState{Ref: branch("a")}))
		at("nothing matched", next(t, c), 6*time.Second, rev, 0)
		rev = commit(t, m, Put{Key: Key{"other", Runs, "x"}, Value: []byte("{}")})
		at("others' changes", next(t, c), 9*time.Second, rev, 0)
		rev = commit(t, m, mustPut(t, Horizon{Tenant: "acme", Seq: 1}))
		at("a new horizon", next(t, c), 9*time.Second+horizonDelay, rev, 1)
		rev = commit(t, m, mustPut(t, Horizon{Tenant: "acme", Seq: 2}))
		rev = max(rev, commit(t, m, mustPut(t, Horizon{Tenant: "acme", Seq: 3})))
		at("two more", next(t, c), 9*time.Second+2*horizonDelay, rev, 3)
	})
}

func TestTokenAheadOfTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryConfig{})
		gate := &gatedStore{Memory: m}
		h := runHub(t, HubConfig{Store: gate})
		gate.shut.Store(true)
		rev := commit(t, m, mustPut(t, SyncState{Ref: branch("a")})) // seen by the reader at another replica
		c := subscribe(t, h, Filter{Tenant: "acme"}, &Token{m.Epoch(), rev})
		got := make(chan Update, 1)
		go func() { u, _ := c.Next(t.Context()); got <- u }()
		time.Sleep(2 * time.Second)
		select {
		case u := <-got:
			t.Fatalf("got %q before the hub had caught up", show(u))
		default:
		}
		gate.shut.Store(false)
		time.Sleep(5 * time.Second)
		commit(t, m, mustPut(t, SyncState{Ref: branch("b")}))
		if u := <-got; show(u) != "b=0" {
			t.Errorf("got %q, want only what came after the token", show(u))
		}
		// One that the store never gets to.
		c = subscribe(t, h, Filter{Tenant: "acme"}, &Token{m.Epoch(), rev + 1000})
		if u := next(t, c); !u.Reset || u.Why != "epoch" || len(u.Items) != 2 {
			t.Errorf("got %q", show(u))
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryConfig{})
		h := runHub(t, HubConfig{Store: m})
		calls := 0
		type answer struct {
			s   *SyncState
			err error
		}
		got := make(chan answer, 1)
		go func() {
			s, err := h.Wait(t.Context(), branch("a"), func(s *SyncState) bool { calls++; return s != nil && s.AppliedSeq >= 2 })
			got <- answer{s, err}
		}()
		synctest.Wait()
		for seq := range uint64(3) {
			commit(t, m, mustPut(t, SyncState{Ref: branch("a"), AppliedSeq: seq}))
			synctest.Wait()
		}
		time.Sleep(time.Hour)
		if a := <-got; a.err != nil || a.s.AppliedSeq != 2 {
			t.Errorf("got %+v, %v", a.s, a.err)
		}
		if calls != 4 { // before there was a state, and once for each change: not by a clock
			t.Errorf("looked %d times", calls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s, err := h.Wait(ctx, branch("a"), func(*SyncState) bool { return false })
		if !errors.Is(err, context.DeadlineExceeded) || desired.ClassOf(err) != desired.Waiting || s == nil || s.AppliedSeq != 2 {
			t.Errorf("ended wait: %+v, %v", s, err)
		}
	})
}

func TestEndOfTheHubEndsReaders(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	h, err := NewHub(HubConfig{Store: m})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	c := subscribe(t, h, Filter{Tenant: "acme"}, nil)
	next(t, c)
	ended := make(chan error, 2)
	go func() { _, err := c.Next(t.Context()); ended <- err }()
	go func() {
		_, err := h.Wait(t.Context(), branch("a"), func(*SyncState) bool { return false })
		ended <- err
	}()
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; desired.ClassOf(err) != desired.Transient {
			t.Errorf("got %v", err)
		}
	}
	c.Close()
	if _, err := c.Next(t.Context()); desired.ClassOf(err) != desired.Invalid {
		t.Errorf("after close: %v", err)
	}
	if _, err := h.Subscribe(Filter{Tables: []Table{Runs}}, nil); desired.ClassOf(err) != desired.Invalid {
		t.Errorf("a table that is not streamed: %v", err)
	}
	if _, err := NewHub(HubConfig{}); desired.ClassOf(err) != desired.Invalid {
		t.Errorf("no store: %v", err)
	}
}

func TestRestoredStoreStopsTheHub(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	h := runHub(t, HubConfig{Store: m})
	rev := commit(t, m, mustPut(t, SyncState{Ref: branch("a")}))
	eventually(t, func() bool { return h.revision() == rev })
	h.store = NewMemory(MemoryConfig{})
	if err := h.list(t.Context()); desired.ClassOf(err) != desired.Stalled || !strings.Contains(err.Error(), "went back") {
		t.Errorf("got %v", err)
	}
}

func TestUnreadableRecordIsToldAndStepsAside(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	bad := put(StateKey(branch("b")), `{"v":99}`)
	commit(t, m, bad, mustPut(t, SyncState{Ref: branch("a"), DesiredSeq: 1}))
	var mu sync.Mutex
	var told []Key
	h := runHub(t, HubConfig{Store: m, Backfill: -1, Bad: func(k Key, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			told = append(told, k)
		}
	}})
	rev := commit(t, m, put(StateKey(branch("a")), "{"), Delete(bad.Key), mustPut(t, SyncState{Ref: branch("c")}))
	eventually(t, func() bool { return h.revision() == rev })
	mu.Lock()
	defer mu.Unlock()
	if want := []Key{bad.Key, StateKey(branch("a"))}; !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
	if i, ok := h.State("acme", branch("a").ID()); !ok || i.State.DesiredSeq != 1 {
		t.Errorf("the last readable value is %+v, %v", i, ok)
	}
	if _, ok := h.State("acme", branch("c").ID()); !ok {
		t.Error("the record beside it is missing")
	}
}

func TestMemoComputesOncePerEncoding(t *testing.T) {
	i := &Item{ID: "x"}
	var computed atomic.Int32
	var wg sync.WaitGroup
	for n := range 32 {
		wg.Go(func() {
			key := []string{"grpc", "sse"}[n%2]
			if v := i.Memo(key, func() any { computed.Add(1); return key + "!" }); v != key+"!" {
				t.Errorf("got %v for %s", v, key)
			}
		})
	}
	wg.Wait()
	if n := computed.Load(); n != 2 {
		t.Errorf("computed %d times for 2 encodings", n)
	}
}

func TestTokens(t *testing.T) {
	for _, tok := range []Token{{"abc234", 1}, {"z", 0}, {strings.Repeat("a", 64), 1<<63 - 1}} {
		got, err := ParseToken(tok.String())
		if err != nil || got != tok {
			t.Errorf("%v became %v, %v", tok, got, err)
		}
	}
	for _, s := range []string{
		"", ".", "abc", "abc.", ".5", "abc.-1", "abc.+1", "abc.01", "abc. 1", "abc.1 ", "abc.0x1", "abc.9223372036854775808", "ABC.1", "a b.1", "abc.1.2", "a\x00.1",
		strings.Repeat("a", 65) + ".1", "\u00e9.1",
	} {
		if got, err := ParseToken(s); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("%q became %v, %v", s, got, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("abc234.17")
	f.Add("abc.-1")
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := ParseToken(s); err == nil && tok.String() != s {
			t.Errorf("%q became %v", s, tok)
		}
	})
}

func TestMemoryProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryConfig{})
		r := record(t, m, 1, States)
		time.Sleep(time.Minute)
		r.mu.Lock()
		defer r.mu.Unlock()
		if n := len(r.batches); n < 6 {
			t.Errorf("%d marks in a minute", n)
		}
	})
}

func TestMemoryLosesUnits(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	f, lost, release, err := m.Claim(t.Context(), "u")
	if err != nil {
		t.Fatal(err)
	}
	m.Lose("nobody's")
	m.Lose("u")
	waitClosed(t, lost)
	if _, err := m.Commit(t.Context(), f, put(key(t, "k"), "1")); !errors.Is(err, ErrFenced) {
		t.Errorf("got %v", err)
	}
	if _, _, _, err := m.Claim(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	release() // of the first owner: the second keeps it
	if m.units["u"] == nil {
		t.Error("the last owner released the next one's claim")
	}
}

// TestHubOverEtcd: the hub on the real thing, with a restart in between.
func TestHubOverEtcd(t *testing.T) {
	dir := t.TempDir()
	s := openEmbedded(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	h, err := NewHub(HubConfig{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	c := subscribe(t, h, Filter{Tenant: "acme"}, nil)
	if got := show(next(t, c)); got != "reset(initial)" {
		t.Errorf("got %q", got)
	}
	commit(t, s, mustPut(t, SyncState{Ref: branch("a"), DesiredSeq: 1}), mustPut(t, Horizon{Tenant: "acme", Seq: 1}))
	u := next(t, c)
	if !sameWords(show(u), "a=1 horizon=1") || u.Horizon.Seq != 1 {
		t.Errorf("got %q", show(u))
	}
	commit(t, s, mustPut(t, SyncState{Ref: branch("a"), DesiredSeq: 2}))
	commit(t, s, Delete(StateKey(branch("a"))))
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openEmbedded(t, dir)
	h = runHub(t, HubConfig{Store: s})
	if got := show(next(t, subscribe(t, h, Filter{Tenant: "acme"}, &u.Token))); got != "a=2 -a=2" {
		t.Errorf("resumed after a restart: %q", got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/connectsoft/plumbline/desired"
)

// TestStoreSuite is what every Store keeps.
func TestStoreSuite(t *testing.T) {
	stores := map[string]func(t *testing.T) Store{
		"memory":   func(t *testing.T) Store { return NewMemory(MemoryConfig{}) },
		"embedded": func(t *testing.T) Store { return openEmbedded(t, t.TempDir()) },
		"external": openExternal,
	}
	rules := map[string]func(t *testing.T, s Store){
		"what was committed is read": readBack, "prefix reads": prefixReads, "lists": lists, "lists of the past": listsAt,
		"large lists": largeLists, "conditions": conditions, "bad writes": badWrites, "large commits": largeCommits,
		"fencing": fencing, "watch from a revision": watchFrom, "watch is complete under load": watchLoad,
		"watch of missing history": watchCompacted, "watch of large changes": watchLarge, "progress marks": progressMarks, "claims": claims,
		"claim gives up with its context": claimGivesUp, "ended contexts": endedContexts, "closing": closing,
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { s.Close() })
			if s.Epoch() == "" || time.Since(s.Birth()) > time.Minute {
				t.Errorf("epoch %q, born %v", s.Epoch(), s.Birth())
			}
			for _, rule := range slices.Sorted(func(yield func(string) bool) {
				for r := range rules {
					if r != "closing" && !yield(r) {
						return
					}
				}
			}) {
				// Rules share the store; each has a tenant of its own.
				t.Run(rule, func(t *testing.T) { rules[rule](t, s) })
			}
			t.Run("closing", func(t *testing.T) { closing(t, s) })
		})
	}
}

func openEmbedded(t *testing.T, dir string) *Etcd {
	t.Helper()
	s, err := OpenEmbedded(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.progress = 50 * time.Millisecond
	t.Cleanup(func() { s.Close() })
	return s
}

// openExternal starts an etcd with a loopback port and connects to it.
func openExternal(t *testing.T) Store {
	t.Helper()
	server := startExternal(t)
	return connect(t, server)
}

func startExternal(t *testing.T) *embed.Etcd {
	t.Helper()
	c, err := embeddedConfig(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	loopback := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	c.ListenClientUrls, c.AdvertiseClientUrls = loopback, loopback
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	<-server.Server.ReadyNotify()
	return server
}

func connect(t *testing.T, server *embed.Etcd) *Etcd {
	t.Helper()
	return connectTo(t, server.Clients[0].Addr().String())
}

func connectTo(t *testing.T, addr string) *Etcd {
	t.Helper()
	s, err := OpenEtcd(t.Context(), EtcdConfig{Endpoints: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	s.progress = 50 * time.Millisecond
	t.Cleanup(func() { s.Close() })
	return s
}

// tenant is a tenant name of the test's own.
func tenant(t *testing.T) string {
	return strings.ToLower(strings.NewReplacer("_", "-", "/", "-").Replace(t.Name()))
}

func key(t *testing.T, id string) Key { return Key{tenant(t), States, id} }

func commit(t *testing.T, s Store, puts ...Put) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), Fence{}, puts...)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func put(k Key, v string) Put { return Put{Key: k, Value: []byte(v)} }

func text(kvs []KV) string {
	var b strings.Builder
	for _, kv := range kvs {
		fmt.Fprintf(&b, "%s/%s=%s@%d ", kv.Key.Table, kv.Key.ID, kv.Value, kv.Rev)
	}
	return strings.TrimSpace(b.String())
}

func readBack(t *testing.T, s Store) {
	a, b, c := key(t, "a"), key(t, "b"), key(t, "c")
	r1 := commit(t, s, put(a, "1"), put(b, "1"))
	r2 := commit(t, s, put(b, "2"), Delete(c))
	if r2 <= r1 {
		t.Errorf("revision %d after %d", r2, r1)
	}
	check := func(want string, keys ...Key) {
		t.Helper()
		kvs, err := s.Get(t.Context(), keys...)
		if got := text(kvs); err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	check(fmt.Sprintf("state/b=2@%d state/a=1@%d", r2, r1), b, c, a)
	commit(t, s, Delete(a))
	check(fmt.Sprintf("state/b=2@%d", r2), a, b)
	check("")
	rev, err := s.Revision(t.Context())
	if err != nil || rev != r2+1 {
		t.Errorf("revision %d, %v; want %d", rev, err, r2+1)
	}
	// An empty tenant is the platform's.
	r3 := commit(t, s, put(Key{"", States, "p"}, "x"))
	kvs, err := s.Get(t.Context(), Key{Platform, States, "p"})
	if err != nil || !reflect.DeepEqual(kvs, []KV{{Key{Platform, States, "p"}, []byte("x"), r3}}) {
		t.Errorf("platform record %+v, %v", kvs, err)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func prefixReads(t *testing.T, s Store) {
	f := func(id string) Key { return Key{tenant(t), Findings, id} }
	rev := commit(t, s, put(key(t, "repo-1"), "s"), put(f("repo-1.a"), "1"), put(f("repo-1.b"), "2"), put(f("repo-10.a"), "3"), put(f("repo-2.a"), "4"))
	kvs, err := s.Get(t.Context(), key(t, "repo-1"), f("repo-1."), f("repo-3."))
	want := fmt.Sprintf("state/repo-1=s@%d finding/repo-1.a=1@%d finding/repo-1.b=2@%d", rev, rev, rev)
	if got := text(kvs); err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	// More keys than fit one transaction.
	var keys []Key
	for range 2 * maxOps {
		keys = append(keys, f("repo-2.a"))
	}
	kvs, err = s.Get(t.Context(), keys...)
	if err != nil || len(kvs) != len(keys) {
		t.Errorf("got %d records, %v; want %d", len(kvs), err, len(keys))
	}
}

func lists(t *testing.T, s Store) {
	a, b := tenant(t), tenant(t)+"2"
	r := commit(t, s, put(Key{b, States, "x"}, "1"), put(Key{a, States, "y"}, "2"), put(Key{a, States, "b"}, "3"), put(Key{a, Runs, "r"}, "4"))
	check := func(tenant, want string) {
		t.Helper()
		kvs, rev, err := s.List(t.Context(), tenant, States)
		kvs = slices.DeleteFunc(kvs, func(kv KV) bool { return kv.Rev != r }) // other rules' tenants
		if got := text(kvs); err != nil || got != want || rev < r {
			t.Errorf("list of %q: %q at %d, %v; want %q", tenant, got, rev, err, want)
		}
	}
	check(a, fmt.Sprintf("state/b=3@%d state/y=2@%d", r, r))
	check("", fmt.Sprintf("state/b=3@%d state/y=2@%d state/x=1@%d", r, r, r))
	check("nobody", "")
}

func listsAt(t *testing.T, s Store) {
	k := key(t, "k")
	r1 := commit(t, s, put(k, "1"))
	r2 := commit(t, s, put(k, "2"), put(key(t, "l"), "2"))
	r3 := commit(t, s, Delete(k))
	for rev, want := range map[int64]string{
		r1 - 1: "", r1: fmt.Sprintf("state/k=1@%d", r1), r2: fmt.Sprintf("state/k=2@%d state/l=2@%d", r2, r2), r3: fmt.Sprintf("state/l=2@%d", r2),
	} {
		for _, of := range []string{k.Tenant, ""} {
			kvs, at, err := s.ListAt(t.Context(), rev, of, States)
			kvs = slices.DeleteFunc(kvs, func(kv KV) bool { return kv.Key.Tenant != k.Tenant })
			if got := text(kvs); err != nil || at != rev || got != want {
				t.Errorf("list as of %d: %q at %d, %v; want %q", rev, got, at, err, want)
			}
		}
	}
	if _, _, err := s.ListAt(t.Context(), r3+1000, "", States); !errors.Is(err, ErrCompacted) {
		t.Errorf("list of the future: %v", err)
	}
	if err := s.Compact(t.Context(), r3); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.ListAt(t.Context(), r2, k.Tenant, States); !errors.Is(err, ErrCompacted) {
		t.Errorf("list of compacted history: %v", err)
	}
	for _, rev := range []int64{r2, r3} {
		if err := s.Compact(t.Context(), rev); err != nil {
			t.Errorf("compacting twice: %v", err)
		}
	}
	if err := s.Compact(t.Context(), r3+1000); !errors.Is(err, ErrCompacted) {
		t.Errorf("compacting the future: %v", err)
	}
}

func largeLists(t *testing.T, s Store) {
	const n = pageSize + 300
	var puts []Put
	for i := range n {
		puts = append(puts, put(key(t, fmt.Sprintf("%05d", i)), "v"))
	}
	commit(t, s, puts...)
	for _, of := range []string{tenant(t), ""} {
		kvs, _, err := s.List(t.Context(), of, States)
		kvs = slices.DeleteFunc(kvs, func(kv KV) bool { return kv.Key.Tenant != tenant(t) })
		if err != nil || len(kvs) != n || kvs[n-1].Key.ID != fmt.Sprintf("%05d", n-1) {
			t.Errorf("got %d records, %v; want %d", len(kvs), err, n)
		}
	}
}

func conditions(t *testing.T, s Store) {
	a, b := key(t, "a"), key(t, "b")
	try := func(puts ...Put) error {
		_, err := s.Commit(t.Context(), Fence{}, puts...)
		return err
	}
	r := commit(t, s, put(a, "1").If(0))
	for name, puts := range map[string][]Put{
		"must not exist": {put(a, "2").If(0)}, "must be at another revision": {put(a, "2").If(r - 1)}, "must exist": {put(b, "2").If(r)},
		"delete of another revision": {Delete(a).If(r - 1)}, "one of several": {put(b, "2"), put(a, "2").If(0)},
	} {
		err := try(puts...)
		if !errors.Is(err, ErrConflict) || desired.ClassOf(err) != desired.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	kvs, err := s.Get(t.Context(), a, b)
	if got, want := text(kvs), fmt.Sprintf("state/a=1@%d", r); err != nil || got != want {
		t.Errorf("refused writes left %q, %v; want %q", got, err, want)
	}
	if err := try(put(a, "2").If(r), put(b, "1").If(0)); err != nil {
		t.Error(err)
	}
}

func badWrites(t *testing.T, s Store) {
	k := key(t, "k")
	for name, puts := range map[string][]Put{
		"twice":        {put(k, "1"), put(k, "2")},
		"too large":    {{Key: k, Value: make([]byte, maxBytes+1)}},
		"no id":        {put(Key{"a", States, ""}, "1")},
		"prefix":       {put(key(t, "k."), "1")},
		"slash":        {put(key(t, "k/l"), "1")},
		"outer tenant": {put(Key{"~", "units", "x"}, "1")},
		"last of many": {put(k, "1"), put(key(t, ""), "1")},
	} {
		if _, err := s.Commit(t.Context(), Fence{}, puts...); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if kvs, err := s.Get(t.Context(), k); err != nil || len(kvs) > 0 {
		t.Errorf("a refused write left %v, %v", kvs, err)
	}
	if _, err := s.Get(t.Context(), Key{"a", States, ""}); desired.ClassOf(err) != desired.Invalid {
		t.Errorf("read without id: %v", err)
	}
}

func largeCommits(t *testing.T, s Store) {
	var puts []Put
	for i := range 2*maxOps + 7 {
		puts = append(puts, put(key(t, fmt.Sprintf("%03d", i)), "v").If(0))
	}
	unit := tenant(t)
	f, _, release, err := s.Claim(t.Context(), unit)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	before, _ := s.Revision(t.Context())
	// With a fence and a condition each, 127 writes fit a transaction.
	if rev, err := s.Commit(t.Context(), f, puts...); err != nil || rev != before+3 {
		t.Errorf("committed at %d, %v; want %d", rev, err, before+3)
	}
	for i := range puts {
		puts[i].IfRev = nil
	}
	if rev, err := s.Commit(t.Context(), Fence{}, puts[:maxOps]...); err != nil || rev != before+4 {
		t.Errorf("%d writes took until %d, %v; want one transaction at %d", maxOps, rev, err, before+4)
	}
	big := bytes.Repeat([]byte("x"), maxBytes/2)
	rev, err := s.Commit(t.Context(), f, Put{Key: key(t, "big1"), Value: big}, Put{Key: key(t, "big2"), Value: big}, Put{Key: key(t, "big3"), Value: big})
	if err != nil || rev != before+7 {
		t.Errorf("large values at %d, %v; want %d", rev, err, before+7)
	}
	// Split in order: what is before the failing part stays.
	puts[maxOps] = put(puts[maxOps].Key, "w").If(1)
	puts[0] = put(puts[0].Key, "first")
	if _, err := s.Commit(t.Context(), Fence{}, puts...); !errors.Is(err, ErrConflict) {
		t.Errorf("condition of a later part: %v", err)
	}
	kvs, err := s.Get(t.Context(), puts[0].Key, puts[maxOps].Key)
	if err != nil || len(kvs) != 2 || string(kvs[0].Value) != "first" || string(kvs[1].Value) != "v" {
		t.Errorf("after a later part failed: %s, %v", text(kvs), err)
	}
}

func fencing(t *testing.T, s Store) {
	unit, k := tenant(t)+"/project", key(t, "k")
	f, lost, release, err := s.Claim(t.Context(), unit)
	if err != nil {
		t.Fatal(err)
	}
	if f.Unit != unit || f.Revision == 0 {
		t.Errorf("fence %+v", f)
	}
	if _, err := s.Commit(t.Context(), f, put(k, "1")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), f); err != nil {
		t.Errorf("a fence that holds, checked alone: %v", err)
	}
	if _, err := s.Commit(t.Context(), f, put(k, "2").If(0)); !errors.Is(err, ErrConflict) || errors.Is(err, ErrFenced) {
		t.Errorf("conflict under a fence that holds: %v", err)
	}
	release()
	release()
	waitClosed(t, lost)
	f2, _, release2, err := s.Claim(t.Context(), unit)
	if err != nil {
		t.Fatal(err)
	}
	defer release2()
	if f2.Revision <= f.Revision {
		t.Errorf("the next owner's revision is %d, the last one's %d", f2.Revision, f.Revision)
	}
	for name, puts := range map[string][]Put{"write": {put(k, "old")}, "conflict too": {put(k, "old").If(0)}, "alone": nil} {
		if _, err := s.Commit(t.Context(), f, puts...); !errors.Is(err, ErrFenced) || errors.Is(err, ErrConflict) {
			t.Errorf("%s by the last owner: %v", name, err)
		}
	}
	if kvs, _ := s.Get(t.Context(), k); len(kvs) != 1 || string(kvs[0].Value) != "1" {
		t.Errorf("the last owner wrote: %s", text(kvs))
	}
}

func waitClosed(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("the channel stays open")
	}
}

// recorder collects what a watch delivers.
type recorder struct {
	mu      sync.Mutex
	batches []Batch
	events  []Event
	rev     int64
	err     error
	done    chan struct{}
}

// record watches until the test ends or the store reports an error.
func record(t *testing.T, s Store, from int64, tables ...Table) *recorder {
	r := &recorder{rev: from, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(r.done)
		r.err = s.Watch(ctx, from, tables, func(b Batch) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if b.Rev < r.rev {
				return fmt.Errorf("batch of revision %d after %d", b.Rev, r.rev)
			}
			for _, e := range b.Events {
				if e.KV.Rev <= r.rev && len(r.events) > 0 && e.KV.Rev < r.events[len(r.events)-1].KV.Rev {
					return fmt.Errorf("event of revision %d after %d", e.KV.Rev, r.rev)
				}
				r.events = append(r.events, e)
			}
			r.rev = b.Rev
			r.batches = append(r.batches, b)
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
		if r.err != nil {
			t.Errorf("watch: %v", r.err)
		}
	})
	return r
}

// upTo waits until the watch has reached a revision and returns the events of a tenant as text.
func (r *recorder) upTo(t *testing.T, rev int64) string {
	t.Helper()
	eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.rev >= rev
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.events {
		if e.KV.Key.Tenant != tenant(t) {
			continue
		}
		if e.Deleted {
			fmt.Fprintf(&b, "-%s(%s)@%d ", e.KV.Key.ID, e.Prev, e.KV.Rev)
		} else {
			fmt.Fprintf(&b, "%s=%s@%d ", e.KV.Key.ID, e.KV.Value, e.KV.Rev)
		}
	}
	return strings.TrimSpace(b.String())
}

func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within 10 s")
		}
	}
}

func watchFrom(t *testing.T, s Store) {
	a, b := key(t, "a"), key(t, "b")
	r1 := commit(t, s, put(a, "1"))
	r2 := commit(t, s, put(a, "2"), put(b, "2"), put(Key{tenant(t), Runs, "x"}, "unwatched"))
	r3 := commit(t, s, Delete(a))
	past, now := record(t, s, r1, States), record(t, s, r3, States, Findings)
	r4 := commit(t, s, put(Key{tenant(t), Findings, "f"}, "4"), put(b, "4"))
	r5 := commit(t, s, put(Key{tenant(t), Runs, "x"}, "only unwatched tables"))
	for name, c := range map[string]struct {
		r    *recorder
		want []string
	}{
		"past": {past, []string{
			fmt.Sprintf("a=2@%d b=2@%d -a(2)@%d b=4@%d", r2, r2, r3, r4),
			fmt.Sprintf("b=2@%d a=2@%d -a(2)@%d b=4@%d", r2, r2, r3, r4),
		}},
		"now": {now, []string{fmt.Sprintf("f=4@%d b=4@%d", r4, r4), fmt.Sprintf("b=4@%d f=4@%d", r4, r4)}},
	} {
		if got := c.r.upTo(t, r5); !slices.Contains(c.want, got) {
			t.Errorf("%s: got %q, want %q", name, got, c.want[0])
		}
	}
	// The function's own error ends a watch.
	mine := errors.New("mine")
	if err := s.Watch(t.Context(), r1, []Table{States}, func(Batch) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("watch ended by its reader: %v", err)
	}
}

// watchLoad: 8 writers, transactions of several records; a watch from the start, one from the middle, and one that
// stops and resumes again and again see each record once, in order, and no batch ends within a revision.
func watchLoad(t *testing.T, s Store) {
	start, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	whole := record(t, s, start, States)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				id := fmt.Sprintf("%d-%d", w, i)
				if _, err := s.Commit(t.Context(), Fence{}, put(key(t, id+"-x"), "1"), put(key(t, id+"-y"), "1"), put(key(t, id+"-z"), "1")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	stop := errors.New("stop")
	seen, at := map[Key]int64{}, start
	for len(seen) < 1200 { // a reader that gets one batch and comes back
		err := s.Watch(t.Context(), at, []Table{States}, func(b Batch) error {
			perRev := map[int64]int{}
			for _, e := range b.Events {
				if e.KV.Rev <= at || seen[e.KV.Key] != 0 {
					t.Errorf("%v at %d came twice or too early", e.KV.Key, e.KV.Rev)
				}
				seen[e.KV.Key] = e.KV.Rev
				perRev[e.KV.Rev]++
			}
			for rev, n := range perRev {
				if n != 3 {
					t.Errorf("a batch has %d of the 3 records of revision %d", n, rev)
				}
			}
			at = b.Rev
			return stop
		})
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if got := whole.upTo(t, at); strings.Count(got, "=") != 1200 {
		t.Errorf("the watch from the start has %d of 1200 records", strings.Count(got, "="))
	}
}

// watchLarge: what etcd gathers into one answer may be larger than the 4 MiB that gRPC takes by default.
func watchLarge(t *testing.T, s Store) {
	from, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("x"), maxBytes-1000)
	var rev int64
	for i := range 6 {
		rev = commit(t, s, Put{Key: key(t, fmt.Sprint(i)), Value: big})
	}
	if n := len(record(t, s, from, States).upTo(t, rev)); n < 6*len(big) {
		t.Errorf("got %d bytes of %d", n, 6*len(big))
	}
}

func watchCompacted(t *testing.T, s Store) {
	r1 := commit(t, s, put(key(t, "a"), "1"))
	commit(t, s, put(key(t, "a"), "2"))
	r3 := commit(t, s, put(key(t, "a"), "3"))
	if err := s.Compact(t.Context(), r3); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]int64{"compacted": r1 - 1, "of the future": r3 + 1000} {
		err := s.Watch(t.Context(), from, []Table{States}, func(Batch) error { t.Errorf("%s: delivered", name); return nil })
		if !errors.Is(err, ErrCompacted) || desired.ClassOf(err) != desired.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := record(t, s, r3, States)
	r4 := commit(t, s, put(key(t, "a"), "4"))
	if got, want := r.upTo(t, r4), fmt.Sprintf("a=4@%d", r4); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func progressMarks(t *testing.T, s Store) {
	if _, ok := s.(*Memory); ok {
		t.Skip("in simulated time: TestMemoryProgress")
	}
	rev := commit(t, s, put(key(t, "a"), "1"))
	r := record(t, s, rev, Horizons)
	eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.batches) >= 2
	})
	next := commit(t, s, put(Key{tenant(t), Runs, "r"}, "1")) // of a table that is not watched
	if got := r.upTo(t, next); got != "" {
		t.Errorf("got %q, want marks only", got)
	}
}

func claims(t *testing.T, s Store) {
	unit := tenant(t)
	var mu sync.Mutex
	owners, most, last := 0, 0, int64(0)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			for range 3 {
				f, lost, release, err := s.Claim(t.Context(), unit)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				owners++
				most = max(most, owners)
				if f.Revision <= last {
					t.Errorf("fence %d after %d", f.Revision, last)
				}
				last = f.Revision
				mu.Unlock()
				select {
				case <-lost:
					t.Error("lost at once")
				default:
				}
				mu.Lock()
				owners--
				mu.Unlock()
				release()
				waitClosed(t, lost)
			}
		})
	}
	wg.Wait()
	if most != 1 {
		t.Errorf("%d owners at once", most)
	}
	// Other units are free meanwhile.
	_, _, r1, err1 := s.Claim(t.Context(), unit+"1")
	_, _, r2, err2 := s.Claim(t.Context(), unit+"2")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	r1()
	r2()
}

func claimGivesUp(t *testing.T, s Store) {
	unit := tenant(t)
	_, _, release, err := s.Claim(t.Context(), unit)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, _, err := s.Claim(ctx, unit); !errors.Is(err, context.DeadlineExceeded) || desired.ClassOf(err) != desired.Transient {
		t.Errorf("claim of a taken unit: %v", err)
	}
	release()
	if _, _, release, err = s.Claim(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	release()
}

func endedContexts(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := key(t, "k")
	_, err1 := s.Get(ctx, k)
	_, _, err2 := s.List(ctx, "", States)
	_, err3 := s.Commit(ctx, Fence{}, put(k, "1"))
	_, err4 := s.Revision(ctx)
	err5 := s.Ready(ctx)
	_, _, _, err6 := s.Claim(ctx, tenant(t))
	for i, err := range []error{err1, err2, err3, err4, err5, err6} {
		if desired.ClassOf(err) != desired.Transient || !errors.Is(err, context.Canceled) {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
	if err := s.Watch(ctx, 1, []Table{States}, func(Batch) error { return nil }); err != nil {
		t.Errorf("watch: %v", err)
	}
	if kvs, err := s.Get(t.Context(), k); err != nil || len(kvs) > 0 {
		t.Errorf("a cancelled commit wrote: %s, %v", text(kvs), err)
	}
}

func closing(t *testing.T, s Store) {
	_, lost, release, err := s.Claim(t.Context(), tenant(t))
	if err != nil {
		t.Fatal(err)
	}
	rev, _ := s.Revision(t.Context())
	watched, claimed := make(chan error, 1), make(chan error, 1)
	began := make(chan struct{})
	go func() {
		watched <- s.Watch(t.Context(), rev-1, []Table{States}, func(Batch) error {
			select {
			case <-began:
			default:
				close(began)
			}
			return nil
		})
	}()
	go func() {
		_, _, _, err := s.Claim(t.Context(), tenant(t))
		claimed <- err
	}()
	<-began
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	waitClosed(t, lost)
	for name, c := range map[string]chan error{"watch": watched, "claim": claimed} {
		if err := <-c; desired.ClassOf(err) != desired.Transient {
			t.Errorf("%s in flight: %v", name, err)
		}
	}
	release()
	if _, err := s.Commit(t.Context(), Fence{}, put(key(t, "k"), "1")); desired.ClassOf(err) != desired.Transient {
		t.Errorf("commit after close: %v", err)
	}
	if _, err := s.Get(t.Context(), key(t, "k")); desired.ClassOf(err) != desired.Transient {
		t.Errorf("get after close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

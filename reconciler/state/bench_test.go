// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// BenchmarkHubFanout: events delivered a second to 1,000 cursors of one tenant, in process, from a writer that goes
// as fast as the store takes it. Every cursor gets every event.
func BenchmarkHubFanout(b *testing.B) {
	for _, cursors := range []int{100, 1000} {
		b.Run(fmt.Sprint(cursors, " cursors"), func(b *testing.B) { fanout(b, cursors) })
	}
}

func fanout(b *testing.B, cursors int) {
	m := NewMemory(MemoryConfig{})
	h := runHub(b, HubConfig{Store: m})
	h.batch = 1 << 20 // nothing coalesced: all of them are counted
	var delivered atomic.Int64
	var ready, wg sync.WaitGroup
	ready.Add(cursors)
	for range cursors {
		c, err := h.Subscribe(Filter{Tenant: "acme", Tables: []Table{States}}, nil)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			if _, err := c.Next(b.Context()); err != nil {
				b.Error(err)
			}
			ready.Done()
			for n := 0; n < b.N; {
				u, err := c.Next(b.Context())
				if err != nil || u.Reset {
					b.Errorf("reset %q, %v", u.Why, err)
					return
				}
				n += len(u.Items)
				delivered.Add(int64(len(u.Items)))
			}
		})
	}
	ready.Wait()
	puts := make([]Put, 64)
	for i := range puts {
		puts[i] = mustPut(b, SyncState{Ref: branch(fmt.Sprint(i)), Phase: plan.Synced, Message: "observed equal to the document"})
	}
	began := cpu()
	b.ResetTimer()
	for n := 0; n < b.N; n++ {
		if _, err := m.Commit(b.Context(), Fence{}, puts[n%len(puts)]); err != nil {
			b.Fatal(err)
		}
		if n%1024 == 1023 { // the writer may not run away from the ring
			for h.revision() < int64(n) || int64(n)*int64(cursors)-delivered.Load() > int64(h.ring/2*cursors) {
				time.Sleep(time.Millisecond)
			}
		}
	}
	wg.Wait()
	b.StopTimer()
	if got, want := delivered.Load(), int64(b.N*cursors); got != want {
		b.Errorf("delivered %d of %d", got, want)
	}
	b.ReportMetric(float64(delivered.Load())/b.Elapsed().Seconds(), "items/s")
	b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(delivered.Load()), "cpu-ns/item")
}

// BenchmarkHubPaced: the CPU that 1,000 cursors cost at 500 events a second, and how late they are.
func BenchmarkHubPaced(b *testing.B) {
	const cursors, rate = 1000, 500
	m := NewMemory(MemoryConfig{})
	h := runHub(b, HubConfig{Store: m})
	var delivered atomic.Int64
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	for range cursors {
		c, err := h.Subscribe(Filter{Tenant: "acme", Tables: []Table{States}}, nil)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			for {
				u, err := c.Next(ctx)
				if err != nil {
					return
				}
				delivered.Add(int64(len(u.Items)))
			}
		})
	}
	began := cpu()
	b.ResetTimer()
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for n := range b.N {
		<-tick.C
		commitTo(b, m, mustPut(b, SyncState{Ref: branch(fmt.Sprint(n % 100)), DesiredSeq: uint64(n)}))
	}
	for delivered.Load() < int64(b.N*cursors) {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpu()-began)/float64(b.Elapsed())*100, "%cpu")
	b.ReportMetric(float64(delivered.Load())/b.Elapsed().Seconds(), "items/s")
	cancel()
	wg.Wait()
}

func commitTo(b *testing.B, s Store, puts ...Put) {
	b.Helper()
	if _, err := s.Commit(b.Context(), Fence{}, puts...); err != nil {
		b.Fatal(err)
	}
}

func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkCommit: fenced records a second into the embedded etcd, fsync on, one transaction each.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 32} {
		b.Run(fmt.Sprint(writers, " writers"), func(b *testing.B) {
			s, err := OpenEmbedded(b.Context(), b.TempDir(), nil)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			f, _, _, err := s.Claim(b.Context(), "unit")
			if err != nil {
				b.Fatal(err)
			}
			var wg sync.WaitGroup
			var n atomic.Int64
			b.ResetTimer()
			for w := range writers {
				wg.Go(func() {
					for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
						p, err := PutState(SyncState{Ref: branch(fmt.Sprint(w)), DesiredSeq: uint64(i), DesiredCommit: "0123456789abcdef0123456789abcdef01234567"})
						if _, err2 := s.Commit(b.Context(), f, p); errors.Join(err, err2) != nil {
							b.Error(err, err2)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkOpenEmbedded: until the first answer of a store with 10,000 records, and of a hub over it.
func BenchmarkOpenEmbedded(b *testing.B) {
	dir := b.TempDir()
	s, err := OpenEmbedded(b.Context(), dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	var puts []Put
	for i := range 10000 {
		puts = append(puts, mustPut(b, SyncState{Ref: desired.Ref{Tenant: fmt.Sprint("t", i%10), Kind: desired.KindBranch, Name: fmt.Sprint(i)}}))
	}
	commitTo(b, s, puts...)
	s.Close()
	var open, list time.Duration
	for b.Loop() {
		began := time.Now()
		s, err := OpenEmbedded(b.Context(), dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		open += time.Since(began)
		began = time.Now()
		h, err := NewHub(HubConfig{Store: s})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		var wg sync.WaitGroup
		wg.Go(func() { h.Run(ctx) })
		<-h.Ready()
		list += time.Since(began)
		cancel()
		wg.Wait()
		s.Close()
	}
	b.ReportMetric(float64(open.Milliseconds())/float64(b.N), "ms-open")
	b.ReportMetric(float64(list.Milliseconds())/float64(b.N), "ms-hub")
}

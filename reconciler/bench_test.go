// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/adapters/adaptertest"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// loadedBench runs an engine over a control repository with n rules, and returns it once they are loaded.
func loadedBench(b *testing.B, n int, store state.Store) (*files, func(seq uint64)) {
	b.Helper()
	src := newFiles("acme")
	docs := map[string]string{}
	for i := range n {
		docs[rulePath(i)] = ruleDoc(i, "report")
	}
	src.write(docs)
	loaded := make(chan uint64, 1024)
	e, err := New(Config{
		Store: store, Now: time.Now, Drivers: map[string]adapters.Driver{"local": adaptertest.NewFake()},
		Events: Events{
			Loaded: func(_ string, seq uint64, _ string, _ int, _ time.Duration) { loaded <- seq },
			Error:  func(op string, err error) { b.Error(op, err) },
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		<-done
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	e.Attach("acme", src)
	wait := func(seq uint64) {
		for got := range loaded {
			if got >= seq {
				return
			}
		}
	}
	wait(1)
	return src, wait
}

func rulePath(i int) string {
	return fmt.Sprintf("projects/booking/drift-rules/%02x/r%d.yaml", i%256, i)
}

func ruleDoc(i int, action string) string {
	return fmt.Sprintf("apiVersion: plumbline.dev/v1\nkind: DriftRule\nmetadata: {name: r%d}\nspec: {action: %s}\n", i, action)
}

// BenchmarkLoadRules: a head that changes a hundred rules, until their states and the horizon are recorded.
func BenchmarkLoadRules(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			loadRules(b, n, state.NewMemory(state.MemoryConfig{}))
		})
	}
	b.Run("etcd", func(b *testing.B) {
		store, err := state.OpenEmbedded(b.Context(), b.TempDir(), nil)
		if err != nil {
			b.Fatal(err)
		}
		loadRules(b, 10_000, store)
	})
}

func loadRules(b *testing.B, n int, store state.Store) {
	src, wait := loadedBench(b, n, store)
	heads := make([]map[string]string, 16)
	for i := range heads {
		heads[i] = map[string]string{}
		for k := range 100 {
			j := (i*100 + k) % n
			heads[i][rulePath(j)] = ruleDoc(j, "revert")
		}
	}
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		for p, d := range heads[i%16] {
			heads[i%16][p] = d + "# " + fmt.Sprint(i) + "\n"
		}
		wait(src.write(heads[i%16]))
	}
	b.ReportMetric(float64(b.N*100)/b.Elapsed().Seconds(), "rules/s")
}

// BenchmarkOneFileToPlan: one changed repository document until its plan is made.
func BenchmarkOneFileToPlan(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			src, wait := loadedBench(b, n, state.NewMemory(state.MemoryConfig{}))
			for i := 0; b.Loop(); i++ {
				doc := fmt.Sprintf("apiVersion: plumbline.dev/v1\nkind: Repository\nmetadata: {name: api}\nspec: {description: d%d}\n", i)
				wait(src.write(map[string]string{"projects/booking/api.yaml": doc}))
			}
		})
	}
}

func BenchmarkDiff(b *testing.B) {
	spec := &desired.RepositorySpec{Description: "d", Protection: []desired.BranchProtection{{Pattern: "main", RequirePull: true}}}
	r := ref(desired.KindRepository, "api")
	e := &desired.Entry{Ref: r, Digest: "x", Resource: &desired.Resource{Kind: r.Kind, Spec: spec}}
	in := plan.Input{
		Now: time.Now(), Ref: r, Want: e, Applied: &plan.Applied{Ref: r, Digest: "x", Spec: []byte(`{"description":"d"}`)},
		Have: adapters.Observation{Presence: adapters.Known, Actual: &adapters.RepositoryActual{DefaultBranch: "main", Visibility: "private", Description: "d", Protection: spec.Protection}},
	}
	for b.Loop() {
		if p := plan.Diff(in); p.Phase != plan.Synced {
			b.Fatal(p)
		}
	}
}

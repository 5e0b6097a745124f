// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"
)

// BenchmarkGroupCommit writes batches of 64 commits, each with one changed file of a tree of 10,000 files in 256
// directories. One op is one batch. In "ahead" the next batch is built while the one before it is being synced, and
// maintenance runs beside both.
func BenchmarkGroupCommit(b *testing.B) {
	b.Run("serial", func(b *testing.B) { benchGroupCommit(b, false) })
	b.Run("ahead", func(b *testing.B) { benchGroupCommit(b, true) })
}

const benchGroup = 64

const benchBody = "kind: Repository\nmetadata: {name: x}\nspec: {provider: AzureDevOps, defaultBranch: main, visibility: private}\n"

func benchGroupCommit(b *testing.B, ahead bool) {
	s, err := Open(filepath.Join(b.TempDir(), "repo.git"), Options{Create: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	files := make(map[string]string)
	for i := range 10_000 {
		files[benchPath(i)] = fmt.Sprint(benchBody, i)
	}
	head := put(b, s, "main", files)
	b.ReportAllocs()
	n := 0
	build := func(batch *Batch) {
		old := head
		for range benchGroup {
			n++
			head = add(b, batch, map[string]string{benchPath(n * 7919 % 10_000): fmt.Sprint(benchBody, "v", n)}, head)
		}
		batch.Set(RefUpdate{"refs/heads/main", old, head})
	}
	batch := s.NewBatch()
	build(batch)
	var merges, writes errgroup.Group
	merges.SetLimit(1)
	for b.Loop() {
		if ahead {
			next := batch.Next()
			writes.Go(func() error { return s.Write(b.Context(), batch) })
			build(next)
			err = writes.Wait()
			batch = next
		} else {
			err = s.Write(b.Context(), batch)
			batch = s.NewBatch()
			build(batch)
		}
		if err != nil {
			b.Fatal(err)
		}
		if ahead && s.MaintenanceDue() {
			merges.TryGo(func() error {
				_, err := s.Maintain(b.Context())
				return err
			})
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "commits/s")
	if err := merges.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(s.PackCount()), "packs")
}

func benchPath(i int) string {
	return fmt.Sprintf("projects/travel/repositories/%02x/booking-%05d.yaml", i%256, i)
}

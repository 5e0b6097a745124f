// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"fmt"
	"path/filepath"
	"testing"
)

// BenchmarkGroupCommit writes batches of 64 commits, each with one changed file of a tree of 10,000 files in 256
// directories. One op is one batch.
func BenchmarkGroupCommit(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "repo.git"), Options{Create: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	files := make(map[string]string)
	body := "kind: Repository\nmetadata: {name: x}\nspec: {provider: AzureDevOps, defaultBranch: main, visibility: private}\n"
	for i := range 10_000 {
		files[benchPath(i)] = fmt.Sprint(body, i)
	}
	head := put(b, s, "main", files)
	const group = 64
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		batch := s.NewBatch()
		old := head
		for range group {
			n++
			head = add(b, batch, map[string]string{benchPath(n * 7919 % 10_000): fmt.Sprint(body, "v", n)}, head)
		}
		batch.Set(RefUpdate{"refs/heads/main", old, head})
		if err := s.Write(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		if s.MaintenanceDue() && n%(50*group) == 0 {
			if _, err := s.Maintain(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "commits/s")
}

func benchPath(i int) string {
	return fmt.Sprintf("projects/travel/repositories/%02x/booking-%05d.yaml", i%256, i)
}

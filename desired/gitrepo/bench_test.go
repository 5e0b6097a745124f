// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkCommit is durable commits of one new document each, by writers that wait for their receipts.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("x%d", writers), func(b *testing.B) {
			r, err := Open(b.Context(), config(filepath.Join(b.TempDir(), "acme.git")))
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						if _, err := r.Commit(b.Context(), Request{Edit: put(fmt.Sprintf("r-%07d", i), "report"), Subject: "user:u"}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

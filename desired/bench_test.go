// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"runtime"
	"testing"
)

// document800 is a document of about 800 bytes, as people write them.
const document800 = `# The service that takes reservations.
apiVersion: plumbline.dev/v1
kind: Repository
metadata:
  name: reservations-api
  labels:
    module: module-reservations-api
    team: booking
    cost-centre: cc-4711
  annotations:
    owner: booking@example.com
  dependsOn:
    - Repository/platform-base
spec:
  provider: AzureDevOps
  moduleId: module-reservations-api
  description: |
    Takes, changes and cancels reservations.
    Runbook: see the wiki of the booking team.
  defaultBranch: main      # never master
  visibility: private
  protection:
    - pattern: main
      requirePullRequest: true
      requiredChecks: [build, policy-gate]
      requiredApprovals: 1
    - pattern: release/*
      requirePullRequest: true
  sync:
    apply: automatic
    drift: report
  deletionPolicy: retain
`

func BenchmarkParseFile(b *testing.B) {
	p := Place{Tenant: "acme", Path: "projects/booking/web.yaml"}
	b.SetBytes(int64(len(document800)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseFile(p, []byte(document800)); err != nil {
			b.Fatal(err)
		}
	}
}

// bigSnapshot holds n branches, one a file, spread over 20 projects as the API lays them out.
func bigSnapshot(tb testing.TB, n int) *Snapshot {
	tb.Helper()
	d := Delta{Commit: "start"}
	for i := range n {
		d.Files = append(d.Files, branchFile(i, "main"))
	}
	s, c := Empty("acme").Advance(d, nil)
	if len(c.Added) != n || len(c.Quarantined) != 0 {
		tb.Fatalf("got %d added, %d in quarantine; want %d, 0", len(c.Added), len(c.Quarantined), n)
	}
	return s
}

func branchFile(i int, from string) File {
	ref := Ref{Tenant: "acme", Project: fmt.Sprintf("project-%02d", i%20), Kind: KindBranch, Name: fmt.Sprintf("web.feature-%06d", i)}
	data := fmt.Sprintf("apiVersion: %s\nkind: Branch\nmetadata: {name: %s}\nspec: {repository: web-%d, name: feature/%06d, fromBranch: %s}\n",
		APIVersion, ref.Name, i%50, i, from)
	return File{Path: Path(ref), Blob: fmt.Sprintf("%s-%d", from, i), Data: []byte(data)}
}

// BenchmarkAdvance is one changed file, with its parsing, at growing numbers of files. The figures of 100k and 1k
// are to lie within a factor of 1.5.
func BenchmarkAdvance(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("%dk", n/1000), func(b *testing.B) {
			s := bigSnapshot(b, n)
			var changed []Delta
			for i := range 512 {
				changed = append(changed, Delta{Commit: "next", Files: []File{branchFile(i*7919%n, "a")}})
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d := changed[i%len(changed)]
				d.Files[0].Blob = fmt.Sprint(i) // a new commit of the file every time
				s, _ = s.Advance(d, nil)
			}
		})
	}
}

// BenchmarkLoad is the first Advance, from nothing, per file; it also gives the heap that a file keeps.
func BenchmarkLoad(b *testing.B) {
	const n = 20_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var s *Snapshot
	for b.Loop() {
		s = bigSnapshot(b, n)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/file")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/file")
	runtime.KeepAlive(s)
}

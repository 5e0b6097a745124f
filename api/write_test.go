// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

func TestDerivedBranchNames(t *testing.T) {
	for branch, want := range map[string]string{
		"feature/reservation-cancellation": "reservations-api.feature-reservation-cancellation-",
		"main":                             "reservations-api.main-",
		"Über/Straße#1":                    "reservations-api.-ber-stra-e-1-",
		strings.Repeat("x", 255):           "reservations-api.xxxx",
	} {
		got := branchName("reservations-api", branch, 4)
		if !strings.HasPrefix(got, want) || len(got) > 128 || desired.ValidName(got) != nil {
			t.Errorf("%s: %s (%d characters), want %s…", branch, got, len(got), want)
		}
	}
	if branchName("r", "a/b", 4) == branchName("r", "a-b", 4) {
		t.Error("two branches have one name")
	}
	a, b := branchName(strings.Repeat("r", 128), "main", 4), branchName(strings.Repeat("r", 127), "main", 4)
	if desired.ValidName(a) != nil || a == b {
		t.Errorf("repositories with long names: %s and %s", a, b)
	}
}

// TestABranchIsFoundWhereAPersonKeepsIt shows that a branch has one document, whatever a person called it.
func TestABranchIsFoundWhereAPersonKeepsIt(t *testing.T) {
	w := newWorld(t)
	repo := w.provision("r")
	doc := "apiVersion: plumbline.dev/v1\nkind: Branch\nmetadata: {name: our-branch}\nspec: {repository: r, name: x, fromBranch: main}\n"
	w.want(w.do("POST", "/resources/apply?project=proj", doc, "Content-Type", "application/yaml", "Prefer", "wait=5"), 201, "apply")
	same := w.want(w.do("POST", "/repositories/"+repo+"/branches", map[string]any{"name": "x", "fromBranch": "main"}), 200, "the same")
	other := w.want(w.do("POST", "/repositories/"+repo+"/branches", map[string]any{"name": "x"}), 409, "another start")
	id := desired.Ref{Tenant: tenantA, Project: "proj", Kind: desired.KindBranch, Name: "our-branch"}.ID()
	if same.text("branchId") != id || !strings.Contains(other.text("detail"), id) {
		t.Errorf("got %s and %s, want %s", same.text("branchId"), other.text("detail"), id)
	}
}

// TestOneKeyMakesOneResource sends one request many times at once: one commit, one pull request, one id.
func TestOneKeyMakesOneResource(t *testing.T) {
	w := newWorld(t)
	repo := w.provision("r")
	before := w.repos[tenantA].Head().Seq
	var wg sync.WaitGroup
	var mu sync.Mutex
	ids := map[string]int{}
	for range 16 {
		wg.Go(func() {
			for {
				e := w.do("POST", "/pull-requests", map[string]any{"repositoryId": repo, "sourceBranch": "x", "title": "t"}, "Idempotency-Key", "k")
				if e.status == http.StatusConflict && e.text("code") == string(CodeInFlight) {
					continue
				}
				mu.Lock()
				ids[fmt.Sprint(e.status, " ", e.text("pullRequestId"))]++
				mu.Unlock()
				return
			}
		})
	}
	wg.Wait()
	if n := w.repos[tenantA].Head().Seq - before; n != 1 || len(ids) != 1 {
		t.Errorf("%d commits, answers %v", n, ids)
	}
}

// TestKeysOutliveARestart shows that a repeated request finds what the first one made in another life of the server.
func TestKeysOutliveARestart(t *testing.T) {
	w := newWorld(t)
	repo := w.provision("r")
	ask := func() exchange {
		return w.want(w.do("POST", "/pull-requests", map[string]any{"repositoryId": repo, "sourceBranch": "x", "title": "t"}, "Idempotency-Key", "k"), 201, "open")
	}
	first := ask()
	w.note(func() {
		w.ok(w.repos[tenantA].Close())
		delete(w.repos, tenantA)
	})
	for range 3 { // others came in between
		w.want(w.do("POST", "/pull-requests", map[string]any{"repositoryId": repo, "sourceBranch": "y", "title": "t"}), 201, "another")
	}
	if again := ask(); again.text("pullRequestId") != first.text("pullRequestId") || again.text("commit") != first.text("commit") {
		t.Errorf("got %s, want %s", again.raw, first.raw)
	}
}

// BenchmarkApply is the write path over real sockets: one DriftRule a request, each its own durable commit.
func BenchmarkApply(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) { benchApply(b, writers) })
	}
}

func benchApply(b *testing.B, writers int) {
	w := startBench(b)
	token := w.token(tenantA, "alice")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: writers, MaxConnsPerHost: writers}}
	defer client.CloseIdleConnections()
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for range writers {
		wg.Go(func() {
			for {
				i := n.Add(1)
				if i > int64(b.N) {
					return
				}
				body := fmt.Sprintf(`{"documents":[{"apiVersion":"plumbline.dev/v1","kind":"DriftRule","metadata":{"name":"r%d","project":"p"},"spec":{"action":"report"}}]}`, i)
				r, err := http.NewRequestWithContext(b.Context(), "POST", w.base+"/resources/apply", strings.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Authorization", "Bearer "+token)
				r.Header.Set("Prefer", "wait=0")
				res, err := client.Do(r)
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode != 201 {
					b.Errorf("status %d", res.StatusCode)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "commits/s")
}

// startBench is a world for benchmarks, with a listener.
func startBench(b *testing.B) *world {
	w := startWorld(b, false, nil)
	w.listen()
	return w
}

// SPDX-License-Identifier: Apache-2.0

//go:build bench

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/api/pb"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// goal is one line of the report.
type goal struct {
	name, figure, bar string
	ok                bool
}

// TestBench measures against real peers in the same run and prints one line a goal last.
func TestBench(t *testing.T) {
	var goals []goal
	goals = append(goals, benchCommits(t)...)
	goals = append(goals, benchChangeToPlan(t))
	goals = append(goals, benchWatch(t)...)
	for _, g := range goals {
		verdict := "short"
		if g.ok {
			verdict = "ok"
		}
		fmt.Printf("%s\t%s\t%s\t%s\n", g.name, g.figure, g.bar, verdict)
	}
}

// benchRounds alternate the two sides (ABBA), so that a noisy machine hits both.
const (
	benchRounds  = 7
	benchWindow  = 1500 * time.Millisecond
	benchSeeded  = 1000 // documents in the repository before the first measured write, on both sides
	benchWriters = 64
)

func benchCommits(t *testing.T) []goal {
	d := newDaemon(t)
	d.start()
	token := d.token("bench", "acme", "control.write devops.drift-rules.write")
	b := &restBench{base: "http://" + d.addr.HTTP, token: token, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	b.seed(t, benchSeeded)
	peer := newPushLoop(t, benchSeeded)

	var ours1, ours64, theirs, ratio1, ratio64, cpu []float64
	for round := range benchRounds {
		var one, many, push float64
		measure := []func(){
			func() { push = peer.run(t, benchWindow) },
			func() { one = b.run(t, 1, benchWindow) },
			func() {
				before, acked := cpuOf(t, d.cmd.Process.Pid), b.acked.Load()
				many = b.run(t, benchWriters, benchWindow)
				cpu = append(cpu, float64((cpuOf(t, d.cmd.Process.Pid)-before).Microseconds())/float64(b.acked.Load()-acked))
			},
		}
		if round%2 == 1 {
			slices.Reverse(measure)
		}
		for _, m := range measure {
			m()
		}
		t.Logf("round %d: push loop %.1f/s, REST x1 %.0f/s, REST x64 %.0f/s", round, push, one, many)
		theirs, ours1, ours64 = append(theirs, push), append(ours1, one), append(ours64, many)
		ratio1, ratio64 = append(ratio1, one/push), append(ratio64, many/push)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	b.check(t, filepath.Join(d.state, "control", "acme.git"))
	r64, n64 := median(ratio64), median(ours64)
	return []goal{
		{"git commit && git push loop (core.fsync=all)", fmt.Sprintf("%.1f/s", median(theirs)), "peer", true},
		{"acked durable commits, REST x1", fmt.Sprintf("%.0f/s = %.1fx push loop", median(ours1), median(ratio1)), "measured", true},
		{"acked durable commits, REST x64", fmt.Sprintf("%.0fx push loop [%.0f..%.0f]", r64, slices.Min(ratio64), slices.Max(ratio64)), ">= 100x", r64 >= 100},
		{"acked durable commits, REST x64", fmt.Sprintf("%.0f/s, %.0f us CPU each", n64, median(cpu)), ">= 1000/s", n64 >= 1000},
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// restBench writes uniquely named DriftRules through REST.
type restBench struct {
	base, token string
	client      *http.Client
	next        atomic.Int64
	acked       atomic.Int64
}

func (b *restBench) doc() string {
	name := fmt.Sprintf("r-%07d", b.next.Add(1))
	return "apiVersion: plumbline.dev/v1\nkind: DriftRule\nmetadata: {name: " + name + ", project: bench}\nspec: {action: report, reason: " + strings.Repeat("because ", 8) + "}\n"
}

func (b *restBench) post(ctx context.Context, body string) error {
	_, err := applyOnce(ctx, b.client, strings.TrimPrefix(b.base, "http://"), b.token, "", body)
	return err
}

func (b *restBench) seed(t *testing.T, n int) {
	for left := n; left > 0; left -= 50 {
		var docs []string
		for range min(50, left) {
			docs = append(docs, b.doc())
		}
		if err := b.post(t.Context(), strings.Join(docs, "---\n")); err != nil {
			t.Fatal(err)
		}
		b.acked.Add(1)
	}
}

// run lets writers loop for a window and returns acknowledged commits per second.
func (b *restBench) run(t *testing.T, writers int, window time.Duration) float64 {
	before, started := b.acked.Load(), time.Now()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for time.Since(started) < window {
				if err := b.post(t.Context(), b.doc()); err != nil {
					t.Error(err)
					return
				}
				b.acked.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(b.acked.Load()-before) / time.Since(started).Seconds()
}

// check holds the run against the repository: as many commits as acknowledgements, and git finds no fault.
func (b *restBench) check(t *testing.T, repo string) {
	out, err := exec.Command("git", "-C", repo, "rev-list", "--count", "main").Output()
	if err != nil || strings.TrimSpace(string(out)) != fmt.Sprint(b.acked.Load()) {
		t.Errorf("%d acknowledged, git counts %s (%v)", b.acked.Load(), out, err)
	}
	if out, err := exec.Command("git", "-C", repo, "fsck", "--full").CombinedOutput(); err != nil {
		t.Errorf("git fsck: %v\n%s", err, out)
	}
}

// pushLoop is the peer: a work tree, one file changed, git commit, git push to a bare repository beside it.
type pushLoop struct {
	work string
	n    int
}

func newPushLoop(t *testing.T, files int) *pushLoop {
	dir := t.TempDir()
	p := &pushLoop{work: filepath.Join(dir, "work")}
	bare := filepath.Join(dir, "bare.git")
	p.git(t, dir, "init", "-q", "--bare", "-b", "main", bare)
	p.git(t, bare, "config", "core.fsync", "all")
	p.git(t, dir, "clone", "-q", bare, p.work)
	p.git(t, p.work, "checkout", "-q", "-B", "main")
	p.git(t, p.work, "config", "core.fsync", "all")
	for i := range files {
		path := filepath.Join(p.work, "projects", "bench", "drift-rules", fmt.Sprintf("%02x", i%256), fmt.Sprintf("r-%07d.yaml", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Repeat("spec: because\n", 20)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.git(t, p.work, "add", "-A")
	p.git(t, p.work, "commit", "-q", "-m", "seed")
	p.git(t, p.work, "push", "-q", "-u", "origin", "main")
	return p
}

func (p *pushLoop) git(t *testing.T, dir string, args ...string) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Team", "GIT_AUTHOR_EMAIL=team@example.test", "GIT_COMMITTER_NAME=Team", "GIT_COMMITTER_EMAIL=team@example.test")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func (p *pushLoop) run(t *testing.T, window time.Duration) float64 {
	path := filepath.Join(p.work, "projects", "bench", "drift-rules", "00", "r-0000000.yaml")
	started, n := time.Now(), 0
	for time.Since(started) < window {
		p.n++
		n++
		if err := os.WriteFile(path, []byte(fmt.Sprintf("spec: because %d\n", p.n)), 0o644); err != nil {
			t.Fatal(err)
		}
		p.git(t, p.work, "commit", "-q", "-am", "x")
		p.git(t, p.work, "push", "-q")
	}
	return float64(n) / time.Since(started).Seconds()
}

// benchChangeToPlan times a one-file commit from its two trees to the plan of what it changed, at three sizes.
func benchChangeToPlan(t *testing.T) goal {
	sizes := []int{1_000, 10_000, 100_000}
	worlds := make([]*planWorld, len(sizes))
	for i, n := range sizes {
		worlds[i] = newPlanWorld(t, n)
	}
	times := make([][]float64, len(sizes))
	for range 15 { // all sizes in each round: what disturbs one disturbs all
		for i, w := range worlds {
			times[i] = append(times[i], w.round(t, 40).Seconds()*1e6)
		}
	}
	t1, t10, t100 := median(times[0]), median(times[1]), median(times[2])
	growth := t100 / t1
	return goal{"one-file change to plan, t(100k)/t(1k)", fmt.Sprintf("%.2fx (%.0f, %.0f, %.0f us)", growth, t1, t10, t100), "<= 1.5x", growth <= 1.5}
}

// planWorld is a repository of n Branch documents on a real store, and its snapshot.
type planWorld struct {
	store *gitstore.Store
	snap  *desired.Snapshot
	cache *desired.Cache
	tree  gitstore.Hash
	n     int
	turn  int
}

func branchDoc(i, generation int) []byte {
	return fmt.Appendf(nil, "apiVersion: plumbline.dev/v1\nkind: Branch\nmetadata:\n  name: b-%07d\n  labels: {generation: \"%d\"}\nspec:\n  repository: api\n  name: feature/b-%07d\n  fromBranch: main\n", i, generation, i)
}

func branchPath(i int) string {
	return desired.Path(desired.Ref{Tenant: "acme", Project: "bench", Kind: desired.KindBranch, Name: fmt.Sprintf("b-%07d", i)})
}

func newPlanWorld(t *testing.T, n int) *planWorld {
	store, err := gitstore.Open(filepath.Join(t.TempDir(), "r.git"), gitstore.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w := &planWorld{store: store, cache: desired.NewCache(64), n: n}
	entries := make(map[string]gitstore.TreeEntry, n)
	files := make([]desired.File, 0, n)
	b := store.NewBatch()
	for i := range n {
		data := branchDoc(i, 0)
		h := b.AddBlob(data)
		entries[branchPath(i)] = gitstore.TreeEntry{Mode: 0o100644, Hash: h}
		files = append(files, desired.File{Path: branchPath(i), Blob: h.String(), Data: data})
	}
	if w.tree, err = b.WriteTree(gitstore.Zero, entries); err != nil {
		t.Fatal(err)
	}
	if err := store.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	w.snap, _ = desired.Empty("acme").Advance(desired.Delta{Commit: "seed", Files: files}, w.cache)
	if w.snap.Len() != n {
		t.Fatalf("%d of %d documents loaded", w.snap.Len(), n)
	}
	return w
}

// round makes k one-file changes and returns the mean time from trees to plan.
func (w *planWorld) round(t *testing.T, k int) time.Duration {
	var took time.Duration
	for range k {
		w.turn++
		i := (w.turn * 7919) % w.n
		b := w.store.NewBatch()
		next, err := b.WriteTree(w.tree, map[string]gitstore.TreeEntry{branchPath(i): {Mode: 0o100644, Hash: b.AddBlob(branchDoc(i, w.turn))}})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		plans := w.plan(t, next)
		took += time.Since(started)
		if plans != 1 {
			t.Fatalf("%d plans for one changed file", plans)
		}
		w.tree = next
	}
	return took / time.Duration(k)
}

func (w *planWorld) plan(t *testing.T, next gitstore.Hash) int {
	var files []desired.File
	err := gitstore.DiffTrees(w.store, w.tree, next, func(c gitstore.FileChange) error {
		data, err := w.store.Blob(c.New.Hash)
		files = append(files, desired.File{Path: c.Path, Blob: c.New.Hash.String(), Data: data})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	snap, changes := w.snap.Advance(desired.Delta{Commit: next.String(), Files: files}, w.cache)
	w.snap = snap
	plans := 0
	for _, ref := range changes.Changed {
		e, _ := snap.Get(ref)
		p := plan.Diff(plan.Input{Now: time.Now(), Ref: ref, Want: e, Have: adapters.Observation{Presence: adapters.Absent}})
		if len(p.Changes) == 1 {
			plans++
		}
	}
	return plans
}

// The load of the watch benchmark.
const (
	watchStreams = 1000
	watchConns   = 8
	watchApplies = 60 // commits
	watchDocs    = 50 // new documents in each, so that many events on each stream
)

// benchWatch delivers every new resource of a burst to every stream, and counts what arrives.
func benchWatch(t *testing.T) []goal {
	d := newDaemon(t)
	d.start()
	b := &restBench{base: "http://" + d.addr.HTTP, client: http.DefaultClient, token: d.token("bench", "acme", "control.write devops.drift-rules.write")}
	token := d.token("watcher", "acme", "devops.gitops.read")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var listed, streams sync.WaitGroup
	counts := make([]atomic.Int64, watchStreams)
	conns := make([]pb.GitOpsSyncClient, watchConns)
	for i := range conns {
		c, err := grpc.NewClient(d.addr.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = pb.NewGitOpsSyncClient(c)
	}
	listed.Add(watchStreams)
	for i := range watchStreams {
		streams.Go(func() {
			err := watchOne(ctx, conns[i%watchConns], token, &counts[i], listed.Done)
			if err != nil && ctx.Err() == nil {
				t.Errorf("stream %d: %v", i, err)
			}
		})
	}
	listed.Wait()

	const want = watchApplies * watchDocs
	daemonBefore, clientBefore, started := cpuOf(t, d.cmd.Process.Pid), ownCPU(t), time.Now()
	b.seed(t, want)
	for i := range counts {
		for deadline := time.Now().Add(60 * time.Second); counts[i].Load() < want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("stream %d got %d of %d events in 60 s", i, counts[i].Load(), want)
			}
		}
	}
	took := time.Since(started)
	daemonCPU, clientCPU := cpuOf(t, d.cmd.Process.Pid)-daemonBefore, ownCPU(t)-clientBefore
	var delivered int64
	for i := range counts {
		if n := counts[i].Load(); n != want {
			t.Errorf("stream %d got %d events for %d changes", i, n, want)
		}
		delivered += counts[i].Load()
	}
	cancel()
	streams.Wait()
	rate := float64(delivered) / took.Seconds()
	perEvent := func(cpu time.Duration) float64 { return float64(cpu.Nanoseconds()) / float64(delivered) / 1000 }
	return []goal{{
		fmt.Sprintf("watch, %d streams", watchStreams),
		fmt.Sprintf("%.0f events/s delivered, %.2f us CPU an event in the daemon, %.2f us in the readers", rate, perEvent(daemonCPU), perEvent(clientCPU)), "measured", true,
	}}
}

// watchOne counts the events of one stream; listed is called after the first complete list.
func watchOne(ctx context.Context, c pb.GitOpsSyncClient, token string, n *atomic.Int64, listed func()) error {
	stream, err := c.WatchSyncState(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), &pb.WatchSyncStateRequest{})
	if err != nil {
		return err
	}
	initial := true
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if initial {
			if !m.More {
				initial = false
				listed()
			}
			continue
		}
		n.Add(int64(len(m.Events)))
	}
}

// cpuOf is the CPU time that a process has used, from /proc.
func cpuOf(t *testing.T, pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var user, system int64
	fmt.Sscan(fields[11], &user)
	fmt.Sscan(fields[12], &system)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

func ownCPU(t *testing.T) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

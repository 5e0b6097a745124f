// SPDX-License-Identifier: Apache-2.0

//go:build chaos && failpoint

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// failpoints are the places where the crash loop kills the daemon; a test holds the list against the source.
func failpoints() []string {
	return []string{
		"recv", "validate", "batch.seal", "batch.landed", "ack.before",
		"pack.write", "pack.fsync", "idx.fsync", "pack.rename", "dir.fsync",
		"lock.create", "ref.write", "ref.fsync", "ref.rename", "ref.dirsync", "gc.mark", "gc.sweep",
		"snapshot.load", "checkpoint.write", "checkpoint.rename", "push.before", "push.landed",
		"load.write", "horizon.write", "lease.won", "intent.write", "intent.written", "provider.before", "provider.after",
		"status.write", "status.written",
	}
}

func TestEveryFailpointIsInTheLoop(t *testing.T) {
	listed := map[string]bool{}
	for _, name := range failpoints() {
		listed[name] = true
	}
	out, err := exec.Command("grep", "-rhoE", `fp\.Hit\("[a-z.]+"\)`, "--include=*.go", "--exclude=*_test.go", "../../desired", "../../reconciler", "../../adapters", "../../api").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		found[strings.Split(line, `"`)[1]] = true
	}
	for name := range found {
		if !listed[name] {
			t.Errorf("failpoint %s is not in the crash loop", name)
		}
	}
	for name := range listed {
		if !found[name] {
			t.Errorf("failpoint %s of the crash loop is nowhere in the source", name)
		}
	}
}

// crashLoop is the load around the kills: writers of rules, a writer of branches (so that drivers are called), and a
// team member who pushes through the git door.
type crashLoop struct {
	d      *daemon
	token  string
	mu     sync.Mutex
	base   string
	pushed []string // commits that a push was told had landed
	made   []ack    // branches

	gate    sync.RWMutex // held by the member while pushing: against two thousand commits a second nobody rebases
	lastGit string       // what git said last, for the log
}

func (c *crashLoop) addr() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base
}

// restart starts the daemon until it is up; a failpoint of its start may end it again and again, once each.
func (c *crashLoop) restart(fpEnv string) (diedStarting bool) {
	if c.d.cmd != nil {
		c.d.kill()
	}
	for try := 0; ; try++ {
		if c.d.tryStart(fpEnv) {
			break
		}
		fpEnv, diedStarting = "", true // it killed the start; the next one has to get through
		if try > 5 {
			c.d.t.Fatalf("the daemon does not start:\n%s", c.d.out)
		}
	}
	c.mu.Lock()
	c.base = c.d.addr.HTTP
	c.mu.Unlock()
	return diedStarting
}

// tryStart starts the daemon with a failpoint armed and reports whether it got ready.
func (d *daemon) tryStart(fpEnv string) bool {
	addresses := filepath.Join(d.state, addressesFile)
	os.Remove(addresses)
	d.launch("PLUMBLINE_FP=" + fpEnv)
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(3 * time.Millisecond) {
		select {
		case <-d.ended:
			return false
		default:
		}
		if data, err := os.ReadFile(addresses); err == nil && json.Unmarshal(data, &d.addr) == nil && d.addr.HTTP != "" {
			return true
		}
	}
	d.kill()
	return false
}

// TestChaosCrashLoop kills the real daemon at every failpoint and at random moments under load. Every acknowledged
// write is in history exactly once afterwards, nothing is torn, and what was asked of drivers happened once.
func TestChaosCrashLoop(t *testing.T) {
	kills, wantAcks := 500, 20_000
	if v, err := strconv.Atoi(os.Getenv("CHAOS_KILLS")); err == nil {
		kills, wantAcks = v, v*20
	}
	seed := uint64(time.Now().UnixNano())
	if v, err := strconv.ParseUint(os.Getenv("CHAOS_SEED"), 10, 64); err == nil {
		seed = v
	}
	t.Logf("seed %d (CHAOS_SEED replays the choice of failpoints)", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))

	c := &crashLoop{d: newDaemon(t)}
	t.Cleanup(func() { c.d.kill() })
	c.restart("")
	c.token = c.d.token("crasher", "acme", "control.read control.write devops.drift-rules.write devops.repositories.write devops.repositories.read devops.gitops.read")
	c.provision()

	ctx, cancel := context.WithCancel(t.Context())
	acks := make([][]ack, 8)
	var wg sync.WaitGroup
	for i := range acks {
		wg.Go(func() { acks[i] = crashWriter(ctx, &c.gate, i, c.addr, c.token) })
	}
	wg.Go(func() { c.branches(ctx) })
	wg.Go(func() { c.push(ctx) })

	points, hit := failpoints(), map[string]int{}
	started := time.Now()
	for k := range kills {
		armed, n, life := aim(points[k%len(points)], rnd)
		fpEnv := fmt.Sprintf("%s:%d", armed, n)
		if k%7 == 6 {
			fpEnv = "" // a random moment
		}
		if c.restart(fpEnv) {
			hit[armed]++
			continue
		}
		select {
		case <-c.d.ended:
			hit[armed]++
		case <-time.After(life):
			if strings.HasPrefix(armed, "checkpoint.") { // saved on the way out
				if c.d.stop() < 0 {
					hit[armed]++
				}
				continue
			}
			c.d.kill()
		}
	}
	c.restart("")
	time.Sleep(500 * time.Millisecond)
	cancel()
	wg.Wait()
	took := time.Since(started)
	c.settled()
	if code := c.d.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, c.d.out)
	}
	repo := filepath.Join(c.d.state, "control", "acme.git")
	total := checkHistory(t, repo, acks, c.pushed)
	c.checkHosted()
	never := 0
	for _, p := range points {
		if hit[p] == 0 {
			never++
			t.Logf("failpoint %s never fired", p)
		}
	}
	line := func(name, figure, bar string, ok bool) {
		verdict := "ok"
		if !ok {
			verdict = "short"
		}
		fmt.Printf("%s\t%s\t%s\t%s\n", name, figure, bar, verdict)
	}
	line("crash loop: kills", fmt.Sprintf("%d in %.0f s", kills, took.Seconds()), ">= 500", kills >= 500)
	line("crash loop: failpoints that fired", fmt.Sprintf("%d of %d", len(points)-never, len(points)), ">= 25", len(points)-never >= 25)
	line("crash loop: acknowledged writes", fmt.Sprint(total), fmt.Sprintf(">= %d", wantAcks), total >= wantAcks)
	line("crash loop: lost, duplicated or torn", map[bool]string{false: "0", true: "see the log"}[t.Failed()], "0", !t.Failed())
	if total < wantAcks {
		t.Errorf("void: %d acknowledged writes", total)
	}
}

// aim says at which hit of a failpoint to die, and how long to wait for it before killing anyway.
func aim(point string, rnd *rand.Rand) (string, int, time.Duration) {
	life := time.Duration(300+rnd.IntN(500)) * time.Millisecond
	switch {
	case strings.HasPrefix(point, "push."):
		return point, 1, 3 * time.Second // seldom reached
	case strings.HasPrefix(point, "checkpoint."): // of the platform's repository, or the tenant's
		return point, 1, life
	case point == "snapshot.load": // once for the platform's repository, once for the tenant's
		return point, 1 + rnd.IntN(2), life
	case strings.HasPrefix(point, "gc."), point == "lease.won":
		return point, 1, life
	case strings.HasPrefix(point, "intent."), strings.HasPrefix(point, "provider."), strings.HasPrefix(point, "status."), strings.HasPrefix(point, "load."), strings.HasPrefix(point, "horizon."):
		return point, 1 + rnd.IntN(3), 2 * life
	}
	return point, 1 + rnd.IntN(12), life
}

func (c *crashLoop) call(ctx context.Context, method, path, key, body string) (int, string) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.addr()+path, strings.NewReader(body))
	if err != nil {
		c.d.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	if key != "provision" {
		req.Header.Set("Prefer", "wait=0")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(data)
}

func (c *crashLoop) provision() {
	code, body := c.call(c.d.t.Context(), "POST", "/repositories", "provision", `{"projectId":"shop","name":"api","provider":"local"}`)
	if code != http.StatusCreated {
		c.d.t.Fatalf("provision: %d %s", code, body)
	}
}

// branches asks for one branch after another until each is acknowledged.
func (c *crashLoop) branches(ctx context.Context) {
	repo := desired.Ref{Tenant: "acme", Project: "shop", Kind: desired.KindRepository, Name: "api"}.ID()
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("feature/f-%05d", n)
		for ctx.Err() == nil {
			c.gate.RLock()
			code, body := c.call(ctx, "POST", "/repositories/"+repo+"/branches", "b-"+name, `{"name":"`+name+`","fromBranch":"main"}`)
			c.gate.RUnlock()
			if code == http.StatusCreated || code == http.StatusAccepted || code == http.StatusOK {
				var a struct{ Commit string }
				json.Unmarshal([]byte(body), &a)
				c.made = append(c.made, ack{name: name, key: "b-" + name, commit: a.Commit})
				break
			}
			wait(ctx, 20*time.Millisecond)
		}
		wait(ctx, 30*time.Millisecond)
	}
}

// push is a team member who adds one document a push.
func (c *crashLoop) push(ctx context.Context) {
	work := filepath.Join(c.d.t.TempDir(), "work")
	url := func() string { return "http://x:" + c.token + "@" + c.addr() + "/git/control/acme.git" }
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
			"GIT_AUTHOR_NAME=Team", "GIT_AUTHOR_EMAIL=team@example.test", "GIT_COMMITTER_NAME=Team", "GIT_COMMITTER_EMAIL=team@example.test")
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	for n := 0; ctx.Err() == nil; wait(ctx, 1500*time.Millisecond) { // the writers stand still meanwhile
		n++
		if id, ok := c.pushOnce(work, fmt.Sprintf("p-%05d", n), url(), git); ok {
			c.pushed = append(c.pushed, id)
		}
	}
}

// pushOnce clones, adds one document and pushes, while the writers wait.
func (c *crashLoop) pushOnce(work, name, url string, git func(...string) (string, error)) (string, bool) {
	c.gate.Lock()
	defer c.gate.Unlock()
	os.RemoveAll(work) // a fresh shallow clone is cheaper than mending what a kill left
	var err error
	if c.lastGit, err = git("clone", "-q", "--depth", "1", url, work); err != nil {
		return "", false
	}
	path := filepath.Join(work, "projects", "shop", "team", name+".yaml")
	doc := "apiVersion: plumbline.dev/v1\nkind: DriftRule\nmetadata: {name: " + name + "}\nspec: {action: report}\n"
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil || os.WriteFile(path, []byte(doc), 0o644) != nil {
		return "", false
	}
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "-m", "team"}, {"push", "-q", url, "HEAD:main"}} {
		if c.lastGit, err = git(append([]string{"-C", work}, args...)...); err != nil {
			return "", false
		}
	}
	id, err := git("-C", work, "rev-parse", "HEAD")
	return id, err == nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// settled waits until every branch that was asked for is made true.
func (c *crashLoop) settled() {
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		code, body := c.call(c.d.t.Context(), "GET", "/sync-states?kind=Branch&phase=Pending&phase=Progressing&pageSize=1", "", "")
		var a struct{ Items []json.RawMessage }
		if code == http.StatusOK && json.Unmarshal([]byte(body), &a) == nil && len(a.Items) == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.d.t.Errorf("not converged in 60 s: %d %.300s", code, body)
			return
		}
	}
}

// checkHosted holds the hosted repository against what was acknowledged.
func (c *crashLoop) checkHosted() {
	repo := filepath.Join(c.d.state, "hosted", "acme", "shop", "api.git")
	if out, err := exec.Command("git", "-C", repo, "fsck", "--full", "--strict").CombinedOutput(); err != nil {
		c.d.t.Errorf("git fsck of the hosted repository: %v\n%s", err, out)
	}
	out, err := exec.Command("git", "-C", repo, "for-each-ref", "--format=%(refname:short)", "refs/heads/").Output()
	if err != nil {
		c.d.t.Fatal(err)
	}
	there := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		there[strings.TrimSpace(line)] = true
	}
	for _, a := range c.made {
		if !there[a.name] {
			c.d.t.Errorf("branch %s was acknowledged as %s and is not there", a.name, a.commit)
		}
	}
	c.d.t.Logf("%d branches acknowledged, %d there; %d pushes landed", len(c.made), len(there), len(c.pushed))
	if len(c.pushed) == 0 {
		c.d.t.Logf("git said: %s", strings.ReplaceAll(c.lastGit, c.token, "***"))
	}
}

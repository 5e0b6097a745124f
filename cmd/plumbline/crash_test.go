// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// daemon is a real plumbline serve process on a state directory of a test.
type daemon struct {
	t     *testing.T
	bin   string
	state string
	args  []string // further flags of serve
	cmd   *exec.Cmd
	out   *bytes.Buffer
	addr  struct{ HTTP, GRPC, Admin string }
	ended chan struct{}
}

// newDaemon prepares a daemon that runs the binary under test; it is not started yet.
func newDaemon(t *testing.T) *daemon {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "plumbline") // the test binary acts as plumbline under this name
	if err := os.Symlink(self, bin); err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, bin: bin, state: filepath.Join(dir, "state")}
	t.Cleanup(func() {
		if d.cmd != nil {
			d.kill()
		}
	})
	return d
}

// start runs the daemon and waits until it answers.
func (d *daemon) start() {
	d.t.Helper()
	addresses := filepath.Join(d.state, addressesFile)
	os.Remove(addresses)
	d.launch()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		select {
		case <-d.ended:
			d.t.Fatalf("the daemon ended while starting:\n%s", d.out)
		default:
		}
		if data, err := os.ReadFile(addresses); err == nil && json.Unmarshal(data, &d.addr) == nil && d.addr.HTTP != "" {
			return
		}
		if time.Now().After(deadline) {
			d.kill()
			d.t.Fatalf("the daemon is not up after 30 s:\n%s", d.out)
		}
	}
}

// launch starts the process with further variables in its environment.
func (d *daemon) launch(environ ...string) {
	d.t.Helper()
	d.out = &bytes.Buffer{}
	args := append([]string{"serve", "--state-dir", d.state, "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--log-level", "warn"}, d.args...)
	d.cmd = exec.Command(d.bin, args...)
	d.cmd.Env = append(os.Environ(), environ...)
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan struct{})
	d.ended = ended
	go func(cmd *exec.Cmd) { defer close(ended); cmd.Wait() }(d.cmd)
}

// kill ends the daemon with SIGKILL and waits for it.
func (d *daemon) kill() {
	d.cmd.Process.Kill()
	<-d.ended
}

// stop ends the daemon with SIGTERM and returns its exit code.
func (d *daemon) stop() int {
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.ended
	return d.cmd.ProcessState.ExitCode()
}

// token mints an access token.
func (d *daemon) token(subject, tenant, scope string) string {
	d.t.Helper()
	out, err := exec.Command(d.bin, "token", "--state-dir", d.state, "--subject", subject, "--tenant", tenant, "--scope", scope).Output()
	if err != nil {
		d.t.Fatalf("plumbline token: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// ack is an acknowledged write.
type ack struct{ name, key, commit string }

// crashWriter applies uniquely named DriftRules one after another and keeps what was acknowledged. A write without
// an answer is repeated under its key until it has one. Nothing is sent while somebody holds the gate.
func crashWriter(ctx context.Context, gate *sync.RWMutex, id int, base func() string, token string) []ack {
	var acks []ack
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("w%d-%06d", id, n)
		doc := "apiVersion: plumbline.dev/v1\nkind: DriftRule\nmetadata: {name: " + name + ", project: crash}\nspec: {action: report, reason: written by " + name + "}\n"
		for ctx.Err() == nil {
			gate.RLock()
			commit, err := applyOnce(ctx, client, base(), token, "key-"+name, doc)
			gate.RUnlock()
			if err == nil {
				acks = append(acks, ack{name, "key-" + name, commit})
				break
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
	return acks
}

func applyOnce(ctx context.Context, client *http.Client, base, token, key, doc string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+base+"/resources/apply", strings.NewReader(doc))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/yaml")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	req.Header.Set("Prefer", "wait=0")
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode/100 != 2 {
		return "", fmt.Errorf("%s: %s", resp.Status, body)
	}
	var answer struct{ Commit string }
	if err := json.Unmarshal(body, &answer); err != nil || answer.Commit == "" {
		return "", fmt.Errorf("no commit in %s", body)
	}
	return answer.Commit, nil
}

// TestNoAcknowledgedWriteIsLostByKill is the crash loop in short: the real daemon, SIGKILL at random moments under
// eight writers, and every acknowledged write must be in history exactly once.
func TestNoAcknowledgedWriteIsLostByKill(t *testing.T) {
	kills, atLeast := 32, 500
	if testing.Short() {
		kills, atLeast = 5, 40
	}
	d := newDaemon(t)
	d.start()
	token := d.token("crasher", "acme", "control.write devops.drift-rules.write")
	var addr sync.Map
	addr.Store("http", d.addr.HTTP)
	base := func() string { v, _ := addr.Load("http"); return v.(string) }

	ctx, cancel := context.WithCancel(t.Context())
	acks := make([][]ack, 8)
	var gate sync.RWMutex
	var wg sync.WaitGroup
	for i := range acks {
		wg.Go(func() { acks[i] = crashWriter(ctx, &gate, i, base, token) })
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range kills {
		time.Sleep(time.Duration(40+rnd.IntN(300)) * time.Millisecond) // load between two kills, not synchronisation
		d.kill()
		d.start()
		addr.Store("http", d.addr.HTTP)
	}
	time.Sleep(200 * time.Millisecond)
	cancel()
	wg.Wait()
	if code := d.stop(); code != 0 {
		t.Errorf("SIGTERM: exit code %d\n%s", code, d.out)
	}
	if total := checkHistory(t, filepath.Join(d.state, "control", "acme.git"), acks, nil); total < atLeast {
		t.Errorf("only %d acknowledged writes: too few to say anything", total)
	}
}

// checkHistory holds a control repository against what was acknowledged and returns how many writes that were. Where
// nobody pushed, history is linear and every commit is a write with a key.
func checkHistory(t *testing.T, repo string, acks [][]ack, pushed []string) int {
	t.Helper()
	run := func(args ...string) string {
		out, err := exec.Command("git", append([]string{"-C", repo}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("fsck", "--full", "--strict")
	byKey := map[string]int{}
	commits := map[string]bool{}
	for line := range strings.Lines(run("log", "--format=%H %P|%(trailers:key=Idempotency-Key,valueonly,separator=)", "main")) {
		ids, key, _ := strings.Cut(strings.TrimSpace(line), "|")
		fields := strings.Fields(ids)
		if len(fields) > 2 && len(pushed) == 0 {
			t.Errorf("commit %s has %d parents: history is not linear", fields[0], len(fields)-1)
		}
		commits[fields[0]] = true
		if key != "" {
			byKey[key]++
		} else if len(pushed) == 0 {
			t.Errorf("commit %s carries no key", fields[0])
		}
	}
	for key, n := range byKey {
		if n > 1 {
			t.Errorf("key %s was written %d times", key, n)
		}
	}
	files := map[string]bool{}
	for path := range strings.Lines(run("ls-tree", "-r", "--name-only", "main")) {
		files[strings.TrimSuffix(filepath.Base(strings.TrimSpace(path)), ".yaml")] = true
	}
	total := 0
	for _, list := range acks {
		for _, a := range list {
			total++
			if !commits[a.commit] {
				t.Errorf("lost: %s was acknowledged as %s", a.name, a.commit)
			}
			if !files[a.name] {
				t.Errorf("torn: the document of %s is not in the tree", a.name)
			}
		}
	}
	for _, id := range pushed {
		if !commits[id] {
			t.Errorf("lost: the push of %s was reported ok", id)
		}
	}
	t.Logf("%d acknowledged writes, %d commits", total, len(commits))
	return total
}

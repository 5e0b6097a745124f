// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

// demo is the world of the story: a daemon, a watcher, an agent and a team member.
type demo struct {
	sh      *shell
	dir     string // everything, temporary
	state   string // of the daemon
	base    string // URL of its REST listener
	rest    *rest  // as the agent
	daemon  *child
	watcher *child
	shown   sync.Mutex // keeps the watcher's lines and the story's apart

	repo     api.Repository
	pull     string // id
	head     string // what a branch was last seen at
	finding  api.Finding
	refs     map[string]desired.Ref // by id
	expected []expectation
}

// expectation is a line that the watcher must have shown.
type expectation struct {
	ref    desired.Ref
	commit string
}

func (d *demo) out(format string, args ...any) {
	d.shown.Lock()
	defer d.shown.Unlock()
	fmt.Fprintf(d.sh.stdout, format+"\n", args...)
}

// wrote prints what became of a write, with its commit in the control repository.
func (d *demo) wrote(commit, format string, args ...any) {
	d.out("    commit %s  %s", short(commit), fmt.Sprintf(format, args...))
}

// expect notes that the watcher must show refs as synced at a commit.
func (d *demo) expect(commit string, refs ...desired.Ref) {
	for _, r := range refs {
		d.expected = append(d.expected, expectation{r, commit})
	}
}

// open starts the daemon with nothing but a state directory and free ports.
func (d *demo) open(ctx context.Context) error {
	log, err := os.Create(filepath.Join(d.dir, "daemon.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	d.daemon, err = d.start(context.WithoutCancel(ctx), nil, log, "serve", "--state-dir", d.state, "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c := &connection{sh: d.sh, stateDir: d.state}
	err = d.until(ctx, "the daemon", func() (bool, error) {
		if d.daemon.ended() {
			return false, errors.New("the daemon ended while starting")
		}
		_, err := os.Stat(filepath.Join(d.state, addressesFile))
		return err == nil, nil
	})
	if err != nil {
		return err
	}
	a, err := c.readAddresses()
	if err != nil {
		return err
	}
	d.base = "http://" + a.HTTP
	if err := d.signIn(ctx); err != nil {
		return err
	}
	d.out("    REST and git on %s, gRPC on %s, health and metrics on %s", a.HTTP, a.GRPC, a.Admin)
	return nil
}

// signIn gets the agent a token, and alice one in a file of git's configuration.
func (d *demo) signIn(ctx context.Context) error {
	agent, err := d.token(ctx, demoAgent)
	if err != nil {
		return err
	}
	d.rest = &rest{base: d.base, token: agent, client: &http.Client{Timeout: time.Minute}}
	d.refs = map[string]desired.Ref{}
	alice, err := d.token(ctx, "user:alice")
	if err != nil {
		return err
	}
	config := "[user]\n\tname = Alice\n\temail = alice@example.org\n[http]\n\textraHeader = Authorization: Bearer " + alice + "\n"
	return os.WriteFile(d.gitConfig(), []byte(config), 0o600)
}

func (d *demo) token(ctx context.Context, subject string) (string, error) {
	var out bytes.Buffer
	cmd, err := d.command(ctx, "token", "--state-dir", d.state, "--subject", subject, "--tenant", demoTenant,
		"--scope", "control.read control.write devops.repositories.read devops.repositories.write devops.pull-requests.read devops.pull-requests.write devops.gitops.read devops.gitops.reconcile")
	if err != nil {
		return "", err
	}
	cmd.Stdout, cmd.Stderr = &out, d.sh.stderr
	err = cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// openWatch runs `plumbline watch` and shows its lines among those of the story.
func (d *demo) openWatch(ctx context.Context) error {
	r, w := io.Pipe()
	watcher, err := d.start(context.WithoutCancel(ctx), w, d.sh.stderr, "watch", "--state-dir", d.state, "--tenant", demoTenant)
	if err != nil {
		return err
	}
	d.watcher = watcher
	watcher.join.Go(func() {
		defer w.Close()
		<-watcher.done
	})
	watcher.join.Go(func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			watcher.mu.Lock()
			watcher.lines = append(watcher.lines, lines.Text())
			watcher.mu.Unlock()
			d.out("      watch | %s", lines.Text())
		}
	})
	d.out("    plumbline watch -n %s", demoTenant)
	return nil
}

// reviewWatch waits until the watcher's lines hold everything that happened.
func (d *demo) reviewWatch(ctx context.Context) error {
	var missing []string
	err := d.until(ctx, "the watcher's lines", func() (bool, error) {
		missing = d.unseen()
		return len(missing) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("%w; not seen: %s", err, strings.Join(missing, "; "))
	}
	d.out("    %d lines about %d resources: each on its way and in force, and the finding from its beginning to its end", len(d.watcher.seen()), len(d.resources()))
	return nil
}

// unseen lists what the watcher has not shown yet.
func (d *demo) unseen() []string {
	lines := d.watcher.seen()
	saw := func(words ...string) bool {
		return slices.ContainsFunc(lines, func(line string) bool {
			return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
		})
	}
	var missing []string
	for _, e := range d.expected {
		if !saw(" Synced ", " "+short(e.commit)+" ", " "+e.ref.String()) {
			missing = append(missing, e.ref.String()+" Synced at "+short(e.commit))
		}
	}
	for _, word := range []string{" FINDING ", " CLOSED "} {
		if !saw(word, d.finding.Ref, d.finding.Kind) {
			missing = append(missing, strings.TrimSpace(word)+" "+d.finding.Kind+" of "+d.finding.Ref)
		}
	}
	if !saw(" Pending ") && !saw(" Progressing ") {
		missing = append(missing, "anything on its way")
	}
	return missing
}

func (d *demo) resources() map[desired.Ref]bool {
	out := map[desired.Ref]bool{}
	for _, e := range d.expected {
		out[e.ref] = true
	}
	return out
}

// call makes one REST call as the agent and wants a status.
func (d *demo) call(ctx context.Context, method, path string, body, into any, status int) error {
	q := request{method: method, path: path, header: map[string]string{"Prefer": "wait=30"}}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		q.body, q.header["Content-Type"] = b, "application/json"
	}
	a, err := d.rest.do(ctx, q)
	if err != nil {
		return err
	}
	if a.status != status {
		return fmt.Errorf("%s %s: got status %d, want %d: %s", method, path, a.status, status, oneLine(string(a.body)))
	}
	return decodeAnswer(path, a.body, into)
}

// refOf asks which ref an id stands for.
func (d *demo) refOf(ctx context.Context, id string) (desired.Ref, error) {
	var r api.Resource
	if err := d.call(ctx, http.MethodGet, "/resources/"+url.PathEscape(id), nil, &r, http.StatusOK); err != nil {
		return desired.Ref{}, err
	}
	ref, err := desired.ParseRef(r.Ref)
	d.refs[id] = ref
	return ref, err
}

// until looks again and again until done says so, an error ends it, or the scene's time is over.
func (d *demo) until(ctx context.Context, what string, done func() (bool, error)) error {
	for p := newPause(); ; {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if !p.next(ctx) {
			return fmt.Errorf("%s: not seen in time", what)
		}
	}
}

// child is a process of this binary.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid after done
	join sync.WaitGroup

	mu    sync.Mutex
	lines []string
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *child) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lines)
}

// stop asks the process to end, and makes it when it does not.
func (c *child) stop(grace time.Duration) error {
	c.cmd.Process.Signal(syscall.SIGTERM)
	t := time.AfterFunc(grace, func() { c.cmd.Process.Kill() })
	defer t.Stop()
	<-c.done
	c.join.Wait()
	return c.err
}

// command is this binary with arguments. It does not see the caller's PLUMBLINE_* variables.
func (d *demo) command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	for _, kv := range d.sh.environ {
		if !strings.HasPrefix(kv, "PLUMBLINE_") && !strings.HasPrefix(kv, "STATE_DIRECTORY=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	return cmd, nil
}

// start runs a child until stop: a child outlives the scene that started it.
func (d *demo) start(ctx context.Context, stdout, stderr io.Writer, args ...string) (*child, error) {
	cmd, err := d.command(ctx, args...)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the story, which then ends its children
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	c.join.Go(func() {
		defer close(c.done)
		c.err = cmd.Wait()
	})
	return c, nil
}

// cli runs one verb to its end as the person at the keyboard.
func (d *demo) cli(ctx context.Context, args ...string) error {
	cmd, err := d.command(ctx, append(args, "--state-dir", d.state, "--tenant", demoTenant)...)
	if err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("plumbline %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (d *demo) gitConfig() string { return filepath.Join(d.dir, "gitconfig") }

// hosted is the repository at the local git host, on the disk.
func (d *demo) hosted() string {
	return filepath.Join(d.state, "hosted", demoTenant, demoProject, demoRepo+".git")
}

// controlHead is the head of the control repository, as git sees it.
func (d *demo) controlHead(ctx context.Context) (string, error) {
	out, err := d.git(ctx, d.dir, "ls-remote", d.base+"/git/control/"+demoTenant+".git", "refs/heads/main")
	head, _, _ := strings.Cut(out, "\t")
	return head, err
}

// git runs the real git as alice and returns its output, trimmed.
func (d *demo) git(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := d.gitOutput(ctx, dir, args...)
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(out))
	}
	return strings.TrimSpace(out), nil
}

func (d *demo) gitOutput(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	for _, kv := range d.sh.environ {
		if !strings.HasPrefix(kv, "GIT_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "GIT_CONFIG_GLOBAL="+d.gitConfig(), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (d *demo) stopDaemon(context.Context) error {
	// The watcher goes first: it would otherwise wait for the daemon to come back.
	d.watcher.stop(5 * time.Second)
	return d.daemon.stop(30 * time.Second)
}

// stopChildren ends what is still running.
func (d *demo) stopChildren() {
	for _, c := range []*child{d.watcher, d.daemon} {
		if c != nil && !c.ended() {
			c.stop(5 * time.Second)
		}
	}
}

// showDaemonLog prints the last lines of the daemon's log, for whoever has to find out.
func (d *demo) showDaemonLog() {
	b, err := os.ReadFile(filepath.Join(d.dir, "daemon.log"))
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	fmt.Fprintln(d.sh.stderr, "\nthe end of the daemon's log:")
	for _, l := range lines[max(0, len(lines)-40):] {
		fmt.Fprintln(d.sh.stderr, "  "+l)
	}
}

// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/adapters/adaptertest"
	"github.com/connectsoft/plumbline/desired"
)

// outside is a directory of hosted repositories in the hands of people: they have git and an editor.
type outside struct {
	t     *testing.T
	dir   string
	local *Local
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{t: t, dir: filepath.Join(t.TempDir(), "hosted")}
	o.restart()
	t.Cleanup(o.fsck)
	return o
}

// restart gives a new Local over the same directory.
func (o *outside) restart() adapters.Driver {
	o.t.Helper()
	if o.local != nil {
		if err := o.local.Close(); err != nil {
			o.t.Error(err)
		}
	}
	l, err := NewLocal(LocalConfig{Dir: o.dir, PublicURL: func() string { return "https://git.example/" }, Poll: 200 * time.Millisecond})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = l.Close() })
	o.local = l
	return l
}

// fsck lets git itself judge every repository, the removed ones too.
func (o *outside) fsck() {
	dirs, err := filepath.Glob(filepath.Join(o.dir, "*", "*", "*.git"))
	if err != nil {
		o.t.Error(err)
	}
	trash, err := filepath.Glob(filepath.Join(o.dir, ".trash", "*.git"))
	if err != nil {
		o.t.Error(err)
	}
	for _, dir := range append(dirs, trash...) {
		out, err := gitCommand(dir, "", "fsck", "--strict", "--no-dangling").CombinedOutput()
		if err != nil || strings.Contains(string(out), "error") {
			o.t.Errorf("git fsck of %s: %v\n%s", filepath.Base(dir), err, out)
		}
	}
}

func gitCommand(dir, stdin string, args ...string) *exec.Cmd {
	c := exec.Command("git", args...)
	c.Dir, c.Stdin = dir, strings.NewReader(stdin)
	c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com")
	return c
}

func git(t *testing.T, dir, stdin string, args ...string) string {
	t.Helper()
	c := gitCommand(dir, stdin, args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func (o *outside) git(repo desired.Ref, stdin string, args ...string) string {
	o.t.Helper()
	return strings.TrimSuffix(git(o.t, o.local.path(repo), stdin, args...), "\n")
}

// push adds a commit to a branch with git's plumbing, straight in the directory.
func (o *outside) push(repo desired.Ref, branch string, files map[string]string) string {
	o.t.Helper()
	dir := o.local.path(repo)
	parent := branch
	if gitCommand(dir, "", "rev-parse", "--verify", "-q", "refs/heads/"+branch).Run() != nil {
		parent = "HEAD"
	}
	o.git(repo, "", "read-tree", parent)
	lines := ""
	for path, data := range files {
		if data == "" {
			lines += "0 " + strings.Repeat("0", 40) + "\t" + path + "\n"
			continue
		}
		lines += "100644 " + o.git(repo, data, "hash-object", "-w", "--stdin") + "\t" + path + "\n"
	}
	o.git(repo, lines, "update-index", "--index-info")
	id := o.git(repo, "by hand\n", "commit-tree", o.git(repo, "", "write-tree"), "-p", o.git(repo, "", "rev-parse", parent))
	o.git(repo, "", "update-ref", "refs/heads/"+branch, id)
	if err := os.Remove(filepath.Join(dir, "index")); err != nil {
		o.t.Fatal(err)
	}
	return id
}

func (o *outside) mergeByHand(repo desired.Ref, source, target string) string {
	o.t.Helper()
	tree := o.git(repo, "", "merge-tree", "--write-tree", target, source)
	id := o.git(repo, "merge by hand\n", "commit-tree", tree, "-p", o.git(repo, "", "rev-parse", target), "-p", o.git(repo, "", "rev-parse", source))
	o.git(repo, "", "update-ref", "refs/heads/"+target, id)
	return id
}

// edit changes host.json as an editor does.
func (o *outside) edit(repo desired.Ref, fn func(*settings)) {
	o.t.Helper()
	path := settingsPath(o.local.path(repo))
	data, err := os.ReadFile(path)
	if err != nil {
		o.t.Fatal(err)
	}
	s := new(settings)
	if err := json.Unmarshal(data, s); err != nil {
		o.t.Fatal(err)
	}
	fn(s)
	if data, err = json.Marshal(s); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

func (o *outside) editRepository(repo desired.Ref, fn func(*adapters.RepositoryActual)) {
	o.t.Helper()
	a := adapters.RepositoryActual{DefaultBranch: strings.TrimPrefix(o.git(repo, "", "symbolic-ref", "HEAD"), heads)}
	o.edit(repo, func(s *settings) {
		a.Visibility, a.Description, a.Archived, a.Protection = s.Visibility, s.Description, s.Archived, s.Protection
		fn(&a)
		s.Visibility, s.Description, s.Archived, s.Protection = a.Visibility, a.Description, a.Archived, a.Protection
	})
	o.git(repo, "", "symbolic-ref", "HEAD", heads+a.DefaultBranch)
}

func (o *outside) files(repo desired.Ref, rev string) map[string]string {
	o.t.Helper()
	out := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSuffix(o.git(repo, "", "ls-tree", "-r", "-z", rev), "\x00"), "\x00") {
		if about, path, ok := strings.Cut(line, "\t"); ok {
			out[path] = git(o.t, o.local.path(repo), "", "cat-file", "blob", strings.Fields(about)[2])
		}
	}
	return out
}

func (o *outside) history(repo desired.Ref, branch string) []adaptertest.LogEntry {
	o.t.Helper()
	if gitCommand(o.local.path(repo), "", "rev-parse", "--verify", "-q", heads+branch).Run() != nil {
		return nil
	}
	var out []adaptertest.LogEntry
	for entry := range strings.SplitSeq(o.git(repo, "", "log", "--topo-order", "--format=%H%x00%P%x00%an%x00%ae%x00%B%x01", branch), "\x01") {
		if f := strings.Split(strings.TrimPrefix(entry, "\n"), "\x00"); len(f) == 5 {
			out = append(out, adaptertest.LogEntry{SHA: f[0], Parents: strings.Fields(f[1]), Author: desired.Person{Name: f[2], Email: f[3]}, Message: f[4]})
		}
	}
	return out
}

// breakAll takes the whole directory away, as a disk that was not mounted.
func (o *outside) breakAll() func() {
	o.move(o.dir, o.dir+".away")
	return func() { o.move(o.dir+".away", o.dir) }
}

func (o *outside) move(from, to string) {
	o.t.Helper()
	if err := os.Rename(from, to); err != nil {
		o.t.Fatal(err)
	}
}

// breakOne tears one file that everything in a repository needs, as a crash of a careless writer does.
func (o *outside) breakOne(repo desired.Ref) func() {
	o.t.Helper()
	path := filepath.Join(o.local.path(repo), "HEAD")
	was, err := os.ReadFile(path)
	if err != nil {
		o.t.Fatal(err)
	}
	write := func(data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			o.t.Fatal(err)
		}
	}
	write(nil)
	return func() { write(was) }
}

var errKilled = errors.New("killed")

func (o *outside) interrupt(n int) func() bool {
	l, steps := o.local, 0
	l.step = func() error {
		if steps++; steps >= n {
			return errKilled
		}
		return nil
	}
	return func() bool {
		l.step = nil
		return steps >= n
	}
}

func TestLocalPassesTheSuite(t *testing.T) {
	adaptertest.Suite(t, adaptertest.Harness{Parallel: true, Open: func(t *testing.T) adaptertest.World {
		o := newOutside(t)
		return adaptertest.World{
			Driver: o.local, Provider: adapters.Provider{Type: "local"}, Restart: o.restart,
			Push: o.push, MergeByHand: o.mergeByHand, EditRepository: o.editRepository,
			DeleteBranch: func(repo desired.Ref, branch string) { o.git(repo, "", "update-ref", "-d", heads+branch) },
			MoveBranch:   func(repo desired.Ref, branch, commit string) { o.git(repo, "", "update-ref", heads+branch, commit) },
			DropRepository: func(repo desired.Ref) {
				if err := os.RemoveAll(o.local.path(repo)); err != nil {
					t.Fatal(err)
				}
			},
			ClosePull: func(repo desired.Ref, number int64) {
				o.edit(repo, func(s *settings) { s.pull(number).State, s.pull(number).ClosedBy = stateClosed, "ada" })
			},
			Approve: func(repo desired.Ref, number int64) {
				o.edit(repo, func(s *settings) {
					p := s.pull(number)
					p.Approvals = append(p.Approvals, approval{By: "user:ada", Head: o.git(repo, "", "rev-parse", p.Source)})
				})
			},
			Files: o.files, History: o.history,
			Break: o.breakAll, BreakOne: o.breakOne, Interrupt: o.interrupt,
		}
	}})
}

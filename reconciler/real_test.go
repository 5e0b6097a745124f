// SPDX-License-Identifier: Apache-2.0

package reconciler_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/adapters/githost"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
	"github.com/connectsoft/plumbline/reconciler"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// house is the loop on real things: a control repository in git, embedded etcd, the local git host.
type house struct {
	t     *testing.T
	repo  *gitrepo.Repo
	store *state.Etcd
	host  *githost.Local
	hub   *state.Hub
	turns atomic.Int64
}

func openHouse(t *testing.T, dir string) *house {
	t.Helper()
	h := &house{t: t}
	var err error
	if h.repo, err = gitrepo.Open(t.Context(), gitrepo.Config{Dir: dir + "/control", Tenant: "acme", SealKey: []byte(strings.Repeat("k", 32)), Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	if h.store, err = state.OpenEmbedded(t.Context(), dir+"/state", nil); err != nil {
		t.Fatal(err)
	}
	if h.host, err = githost.NewLocal(githost.LocalConfig{Dir: dir + "/hosted", Poll: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if h.hub, err = state.NewHub(state.HubConfig{Store: h.store}); err != nil {
		t.Fatal(err)
	}
	return h
}

// live runs the loop during fn, and shuts everything down after it.
func (h *house) live(fn func(e *reconciler.Engine)) {
	h.t.Helper()
	e, err := reconciler.New(reconciler.Config{
		Store: h.store, Drivers: map[string]adapters.Driver{"local": h.host}, Now: time.Now,
		Events: reconciler.Events{Turn: func(reconciler.TurnEvent) { h.turns.Add(1) }, Error: func(op string, err error) { h.t.Errorf("%s: %v", op, err) }},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	e.Attach("acme", h.repo)
	ctx, stop := context.WithCancel(h.t.Context())
	done := make(chan error, 2)
	go func() { done <- e.Run(ctx) }()
	go func() { done <- h.hub.Run(ctx) }()
	fn(e)
	stop()
	for range 2 {
		if err := <-done; err != nil && ctx.Err() == nil {
			h.t.Error(err)
		}
	}
	for _, closer := range []interface{ Close() error }{h.store, h.host, h.repo} {
		if err := closer.Close(); err != nil {
			h.t.Error(err)
		}
	}
}

// put commits a document and returns its seq.
func (h *house) put(r desired.Ref, spec desired.Spec, attached ...desired.Write) uint64 {
	h.t.Helper()
	doc := &desired.Resource{APIVersion: desired.APIVersion, Kind: r.Kind, Metadata: desired.Metadata{Name: r.Name}, Spec: spec}
	rc, err := h.repo.Commit(h.t.Context(), gitrepo.Request{Edit: desired.Put(r, doc, desired.PutOptions{Attached: attached}), Subject: "user:ann", Message: "write " + r.Name})
	if err != nil {
		h.t.Fatal(err)
	}
	return rc.Seq
}

// wait blocks until a ref is Synced at a seq, and returns what it shows.
func (h *house) wait(r desired.Ref, seq uint64, done func(*state.SyncState) bool) *state.SyncState {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	s, err := h.hub.Wait(ctx, r, func(s *state.SyncState) bool {
		return s != nil && s.AppliedSeq >= seq && s.Phase == plan.Synced && (done == nil || done(s))
	})
	if err != nil {
		h.t.Fatalf("%s: %v; it is %+v", r, err, s)
	}
	return s
}

// TestTheMainJobOnRealGit: documents become true on real git, a branch that somebody deletes comes back, a merge takes
// its branch with it, and a restart finds everything as it was.
func TestTheMainJobOnRealGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	ref := func(k desired.Kind, name string) desired.Ref {
		return desired.Ref{Tenant: "acme", Project: "booking", Kind: k, Name: name}
	}
	repo, branch := ref(desired.KindRepository, "api"), ref(desired.KindBranch, "api.feature")
	commit, good, pull := ref(desired.KindCommit, "01j8"), ref(desired.KindCommit, "01j9"), ref(desired.KindPullRequest, "01k0")
	var bare, head string
	git := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("git", append([]string{"-C", bare}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	h := openHouse(t, dir)
	h.live(func(*reconciler.Engine) {
		h.put(repo, &desired.RepositorySpec{Description: "Reservations"})
		h.put(branch, &desired.BranchSpec{Repository: "api", Name: "feature/x"})
		h.put(commit, &desired.CommitSpec{
			Repository: "api", Branch: "feature/x", Message: "feat: cancel", Author: &desired.Person{Name: "Ann", Email: "ann@example.com"},
			Changes: []desired.FileChange{{Path: "a.txt", Operation: desired.OpDelete}},
		}) // wrong on purpose: nothing to delete
		sum := sha256.Sum256([]byte("hello"))
		digest := hex.EncodeToString(sum[:])
		h.put(good, &desired.CommitSpec{Repository: "api", Branch: "feature/x", Message: "feat: greet", Changes: []desired.FileChange{{Path: "b.txt", Operation: desired.OpAdd, Digest: "sha256:" + digest, Size: 5}}},
			desired.Write{Path: desired.AttachedPath(desired.Path(good), good.Name, "sha256:"+digest), Data: []byte("hello")})
		seq := h.put(pull, &desired.PullRequestSpec{Repository: "api", SourceBranch: "feature/x", Title: "Add cancellation"})
		s := h.wait(pull, seq, nil)
		var p adapters.PullRequestActual
		if err := json.Unmarshal(s.Outputs, &p); err != nil || p.Number != 1 || p.State != "open" {
			t.Errorf("pull request %s %v", s.Outputs, err)
		}
		var r adapters.RepositoryActual
		if err := json.Unmarshal(h.wait(repo, 1, nil).Outputs, &r); err != nil {
			t.Fatal(err)
		}
		bare = strings.TrimPrefix(r.RemoteURL, "file://")
		if item, ok := h.hub.State("acme", commit.ID()); !ok || item.State.Phase != plan.Failed {
			t.Errorf("an impossible commit: %+v", item)
		}
		head = git("rev-parse", "refs/heads/feature/x")
		if got := git("show", "feature/x:b.txt"); got != "hello" {
			t.Errorf("b.txt is %q", got)
		}
		git("update-ref", "-d", "refs/heads/feature/x")
		h.wait(branch, 2, func(*state.SyncState) bool {
			return exec.Command("git", "-C", bare, "rev-parse", "--verify", "-q", "refs/heads/feature/x").Run() == nil
		})
		if got := git("rev-parse", "refs/heads/feature/x"); got != head {
			t.Errorf("the branch came back at %s, want %s", got, head)
		}
	})
	h = openHouse(t, dir)
	h.live(func(*reconciler.Engine) {
		seq := h.put(pull, &desired.PullRequestSpec{Repository: "api", SourceBranch: "feature/x", Title: "Add cancellation", State: "closed"})
		if s := h.wait(pull, seq, nil); s.Reason != "Closed" {
			t.Errorf("after a restart the pull request is %s: %s", s.Reason, s.Message)
		}
		time.Sleep(time.Second) // long enough to see a loop that feeds itself
		if n := h.turns.Load(); n > 40 {
			t.Errorf("%d turns for one change", n)
		}
	})
}

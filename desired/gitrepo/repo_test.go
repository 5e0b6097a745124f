// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/connectsoft/plumbline/desired"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testKey = []byte("0123456789abcdef0123456789abcdef")

func config(dir string) Config {
	return Config{Dir: dir, Tenant: "acme", SealKey: testKey, Now: time.Now, Poll: 50 * time.Millisecond}
}

// open opens the repository of a test and closes it at the end.
func open(t *testing.T, c Config) *Repo {
	t.Helper()
	r, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func rule(name, action string) (desired.Ref, *desired.Resource) {
	ref := desired.Ref{Tenant: "acme", Project: "shop", Kind: desired.KindDriftRule, Name: name}
	return ref, &desired.Resource{
		APIVersion: desired.APIVersion, Kind: ref.Kind,
		Metadata: desired.Metadata{Name: name}, Spec: &desired.DriftRuleSpec{Action: action},
	}
}

func put(name, action string) desired.Edit {
	ref, res := rule(name, action)
	return desired.Put(ref, res, desired.PutOptions{})
}

func commit(t *testing.T, r *Repo, q Request) Receipt {
	t.Helper()
	rc, err := r.Commit(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return rc
}

// git runs the real git and returns its output.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := tryGit(dir, args...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryGit(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Team", "GIT_AUTHOR_EMAIL=team@example.test", "GIT_COMMITTER_NAME=Team", "GIT_COMMITTER_EMAIL=team@example.test")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// eventually polls a condition that other goroutines bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not seen in 10 s: %s", what)
		}
	}
}

func mustGet(t *testing.T, r *Repo, name string) *desired.Entry {
	t.Helper()
	ref, _ := rule(name, "")
	e, ok := r.Head().Snapshot.Get(ref)
	if !ok {
		t.Fatalf("%s is not in the snapshot of %s", ref, r.Head().Commit)
	}
	return e
}

func action(e *desired.Entry) string { return e.Resource.Spec.(*desired.DriftRuleSpec).Action }

func TestCommitIsOneGitCommitByTheCaller(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	r := open(t, config(dir))
	rc := commit(t, r, Request{Edit: put("calm", "report"), Subject: "user:alice", Message: "create rule calm", RequestID: "4bf9"})

	if h := r.Head(); h.Commit != rc.Commit || h.Seq != 1 || rc.Seq != 1 || rc.Base != "" {
		t.Errorf("head %s seq %d, receipt %+v", h.Commit, h.Seq, rc)
	}
	if got := git(t, dir, "rev-parse", "main"); got != rc.Commit {
		t.Errorf("git sees %s, the receipt says %s", got, rc.Commit)
	}
	got := git(t, dir, "log", "-1", "--format=%an|%cn|%s|%(trailers:key=Plumbline-Subject,valueonly,separator=)|%(trailers:key=Plumbline-Request,valueonly,separator=)")
	if want := "user:alice|Plumbline|create rule calm|user:alice|4bf9"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e := mustGet(t, r, "calm")
	if e.Changed.Commit != rc.Commit || e.Changed.Principal != "user:alice" || e.Changed.Seq != 1 {
		t.Errorf("provenance %+v", e.Changed)
	}
	git(t, dir, "fsck", "--full", "--strict")

	same := commit(t, r, Request{Edit: put("calm", "report"), Subject: "user:bob"})
	if !same.Unchanged || same.Commit != rc.Commit {
		t.Errorf("an equal document gave %+v", same)
	}
}

func TestManyWritersEachGetTheirOwnCommit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	var batches sync.Map
	c := config(dir)
	c.Events.Batch = func(n int, _ time.Duration) { batches.Store(n, true) }
	r := open(t, c)
	const writers, each = 32, 8
	receipts := make([]Receipt, writers*each)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				rc, err := r.Commit(t.Context(), Request{Edit: put(fmt.Sprintf("r-%d-%d", w, i), "report"), Subject: fmt.Sprintf("user:u%d", w)})
				if err != nil {
					t.Error(err)
				}
				receipts[w*each+i] = rc
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, rc := range receipts {
		if seen[rc.Commit] {
			t.Fatalf("commit %s was handed out twice", rc.Commit)
		}
		seen[rc.Commit] = true
	}
	if got := git(t, dir, "rev-list", "--count", "--first-parent", "main"); got != fmt.Sprint(writers*each) {
		t.Errorf("%s commits in history, want %d", got, writers*each)
	}
	if n := r.Head().Snapshot.Len(); n != writers*each {
		t.Errorf("%d resources, want %d", n, writers*each)
	}
	grouped := false
	batches.Range(func(n, _ any) bool { grouped = grouped || n.(int) > 1; return true })
	if !grouped {
		t.Error("no batch had more than one member: group commit is not at work")
	}
	git(t, dir, "fsck", "--full", "--strict")
}

func TestAMemberThatFailsFailsAlone(t *testing.T) {
	r := open(t, config(filepath.Join(t.TempDir(), "acme.git")))
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			ref, res := rule(fmt.Sprintf("r%d", i), "report")
			if i%4 == 0 {
				res.Spec.(*desired.DriftRuleSpec).Action = "explode"
			}
			_, err := r.Commit(t.Context(), Request{Edit: desired.Put(ref, res, desired.PutOptions{}), Subject: "user:u"})
			if bad := i%4 == 0; bad != (desired.ClassOf(err) == desired.Invalid) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := r.Head().Snapshot.Len(); n != 30 {
		t.Errorf("%d resources, want 30", n)
	}
}

func TestDisjointWritersNeverConflictAndRivalsDo(t *testing.T) {
	r := open(t, config(filepath.Join(t.TempDir(), "acme.git")))
	commit(t, r, Request{Edit: put("shared", "report"), Subject: "user:u"})
	digest := mustGet(t, r, "shared").Digest
	var won, lost int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			ref, res := rule("shared", "report")
			res.Spec.(*desired.DriftRuleSpec).Reason = fmt.Sprint("by ", i)
			_, err := r.Commit(t.Context(), Request{Edit: desired.Put(ref, res, desired.PutOptions{IfMatch: digest}), Subject: "user:u"})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case desired.ClassOf(err) == desired.Conflict:
				lost++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 || lost != 15 {
		t.Errorf("won %d, lost %d: exactly one If-Match may win", won, lost)
	}
}

func TestIdempotencyKeyReplaysAcrossRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	r, err := Open(t.Context(), config(dir))
	if err != nil {
		t.Fatal(err)
	}
	q := Request{Edit: put("calm", "report"), Subject: "user:alice", Key: "ab12", Fingerprint: "ff01"}
	first := commit(t, r, q)
	again := commit(t, r, q)
	if !again.Replayed || again.Commit != first.Commit {
		t.Errorf("replay gave %+v", again)
	}
	other := q
	other.Fingerprint = "ff02"
	if _, err := r.Commit(t.Context(), other); !errors.Is(err, ErrKeyReused) || desired.ClassOf(err) != desired.Invalid {
		t.Errorf("another body under the same key: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, lose := range []bool{false, true} {
		if lose {
			if err := os.Remove(filepath.Join(dir, "plumbline", checkpointFile)); err != nil {
				t.Fatal(err)
			}
		}
		r, err = Open(t.Context(), config(dir))
		if err != nil {
			t.Fatal(err)
		}
		if rc := commit(t, r, q); !rc.Replayed || rc.Commit != first.Commit || rc.Seq != first.Seq {
			t.Errorf("after restart (checkpoint lost: %v): %+v", lose, rc)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// serve puts the door of r behind HTTP and returns the clone URL.
func serve(t *testing.T, r *Repo) string {
	t.Helper()
	s := httptest.NewServer(http.StripPrefix("/c.git", r.Door(func(*http.Request) string { return "user:pusher" })))
	t.Cleanup(s.Close)
	return s.URL + "/c.git"
}

func write(t *testing.T, dir, path, data string) {
	t.Helper()
	full := filepath.Join(dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func yaml(name, action string) string {
	return "apiVersion: plumbline.dev/v1\nkind: DriftRule\nmetadata: {name: " + name + "}\nspec:\n  action: " + action + "\n"
}

// clone makes a work tree of the door with one branch main.
func clone(t *testing.T, url string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "work")
	git(t, "", "clone", "-q", url, dir)
	git(t, dir, "checkout", "-q", "-B", "main")
	return dir
}

func commitAll(t *testing.T, work, msg string) {
	t.Helper()
	git(t, work, "add", "-A")
	git(t, work, "commit", "-q", "-m", msg)
}

func TestPushThroughTheDoor(t *testing.T) {
	r := open(t, config(filepath.Join(t.TempDir(), "acme.git")))
	commit(t, r, Request{Edit: put("calm", "report"), Subject: "user:alice", RequestID: "1"})
	url := serve(t, r)
	work := clone(t, url)

	write(t, work, "projects/shop/mine.yaml", yaml("mine", "revert"))
	write(t, work, "README.md", "free text\n")
	commitAll(t, work, "add mine")
	git(t, work, "push", "-q", "origin", "main")
	e := mustGet(t, r, "mine")
	if e.Changed.Principal != "user:pusher" || e.Changed.Author != "Team <team@example.test>" || e.Changed.Seq != 2 {
		t.Errorf("provenance %+v", e.Changed)
	}

	refusals := []struct {
		name string
		do   func()
		want string
	}{
		{"a bad file", func() {
			write(t, work, "projects/shop/bad.yaml", "apiVersion: plumbline.dev/v1\nkind: DriftRule\nmetadata: {name: bad}\nspec:\n  acton: report\n")
			commitAll(t, work, "bad")
		}, "remote: projects/shop/bad.yaml:5:3:"},
		{"a forged trailer", func() {
			git(t, work, "commit", "-q", "--allow-empty", "-m", "x\n\nPlumbline-Subject: user:root")
		}, "only Plumbline writes"},
		{"an executable document", func() {
			write(t, work, "projects/shop/x.yaml", yaml("x", "report"))
			git(t, work, "add", "-A")
			git(t, work, "update-index", "--chmod=+x", "projects/shop/x.yaml")
			git(t, work, "commit", "-q", "-m", "x")
		}, "mode 100755"},
		{"a tag", func() { git(t, work, "tag", "v1"); git(t, work, "commit", "-q", "--allow-empty", "-m", "t") }, ""},
	}
	for _, c := range refusals {
		before := r.Head()
		git(t, work, "reset", "-q", "--hard", "origin/main")
		c.do()
		if c.name == "a tag" {
			if out, err := tryGit(work, "push", "origin", "v1"); err == nil {
				t.Errorf("a tag was taken:\n%s", out)
			}
			continue
		}
		out, err := tryGit(work, "push", "origin", "main")
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v, want %q in\n%s", c.name, err, c.want, out)
		}
		if r.Head().Commit != before.Commit {
			t.Errorf("%s changed the head", c.name)
		}
	}

	// Another writer was faster: the push is refused, and lands after a rebase.
	git(t, work, "reset", "-q", "--hard", "origin/main")
	write(t, work, "projects/shop/late.yaml", yaml("late", "report"))
	commitAll(t, work, "late")
	commit(t, r, Request{Edit: put("faster", "report"), Subject: "user:alice"})
	if out, err := tryGit(work, "push", "origin", "main"); err == nil {
		t.Errorf("a push that loses a commit was taken:\n%s", out)
	}
	git(t, work, "pull", "-q", "--rebase", "origin", "main")
	git(t, work, "push", "-q", "origin", "main")
	mustGet(t, r, "late")
	mustGet(t, r, "faster")
	if out, err := tryGit(work, "push", "-f", "origin", "HEAD~1:main"); err == nil {
		t.Errorf("a forced push was taken:\n%s", out)
	}
}

func TestDirectWriteIsNoticedAndABadFileIsQuarantined(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	c := config(dir)
	c.Poll = time.Hour // only fsnotify may tell
	r := open(t, c)
	commit(t, r, Request{Edit: put("calm", "report"), Subject: "user:alice"})
	work := clone(t, dir)
	path := "projects/shop/hand.yaml"
	write(t, work, path, yaml("hand", "report"))
	commitAll(t, work, "by hand")
	git(t, work, "push", "-q", "origin", "main")
	ref, _ := rule("hand", "")
	eventually(t, "the direct push", func() bool { _, ok := r.Head().Snapshot.Get(ref); return ok })
	if p := mustGet(t, r, "hand").Changed.Principal; p != "unknown" {
		t.Errorf("principal %q: nobody vouched for a direct write", p)
	}

	write(t, work, path, yaml("hand", "explode"))
	write(t, work, "projects/shop/good.yaml", yaml("good", "ignore"))
	commitAll(t, work, "break it")
	git(t, work, "push", "-q", "origin", "main")
	eventually(t, "the quarantine", func() bool { return len(r.Head().Snapshot.Quarantined()) == 1 })
	if got := action(mustGet(t, r, "hand")); got != "report" {
		t.Errorf("the last good version is not in force: %s", got)
	}
	mustGet(t, r, "good") // the others go on
	if q := r.Head().Snapshot.Quarantined()[0]; q.Path != path || q.Err == nil || len(q.Err.Fields) == 0 || q.Err.Fields[0].Line != 5 {
		t.Errorf("quarantine %+v", q)
	}

	for _, lose := range []bool{false, true} { // restart with the checkpoint, and without
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if lose {
			os.Remove(filepath.Join(dir, "plumbline", checkpointFile))
		}
		r = open(t, c)
		if got := action(mustGet(t, r, "hand")); got != "report" || len(r.Head().Snapshot.Quarantined()) != 1 {
			t.Errorf("after restart (checkpoint lost: %v): action %s, quarantined %d", lose, got, len(r.Head().Snapshot.Quarantined()))
		}
	}
	write(t, work, path, yaml("hand", "ignore"))
	commitAll(t, work, "mend it")
	git(t, work, "push", "-q", "origin", "main")
	eventually(t, "the release", func() bool { return len(r.Head().Snapshot.Quarantined()) == 0 })
	if got := action(mustGet(t, r, "hand")); got != "ignore" {
		t.Errorf("got %s", got)
	}
}

func TestHistoryThatMovesBackwardsFreezes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	r := open(t, config(dir))
	first := commit(t, r, Request{Edit: put("one", "report"), Subject: "user:a"})
	second := commit(t, r, Request{Edit: put("two", "report"), Subject: "user:a"})
	git(t, dir, "update-ref", "refs/heads/main", first.Commit)
	eventually(t, "the freeze", func() bool { return r.Head().Frozen != "" })
	if h := r.Head(); h.Commit != second.Commit {
		t.Errorf("the accepted head went back to %s", h.Commit)
	}
	if _, err := r.Commit(t.Context(), Request{Edit: put("three", "report"), Subject: "user:a"}); !errors.Is(err, ErrFrozen) {
		t.Errorf("a write on a frozen repository: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, config(dir))
	if r.Head().Frozen == "" || r.Head().Commit != second.Commit {
		t.Errorf("a restart thawed it: %+v", r.Head())
	}
	git(t, dir, "update-ref", "refs/heads/main", second.Commit)
	eventually(t, "the thaw", func() bool { return r.Head().Frozen == "" })
	commit(t, r, Request{Edit: put("three", "report"), Subject: "user:a"})
	git(t, dir, "update-ref", "-d", "refs/heads/main")
	eventually(t, "the freeze after a deletion", func() bool { return r.Head().Frozen != "" })
}

func TestWritersAndDirectPushersLoseNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	r := open(t, config(dir))
	commit(t, r, Request{Edit: put("root", "report"), Subject: "user:a"})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	acked := make([][]string, 4)
	for w := range acked {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil && i < 250; i++ {
				rc, err := r.Commit(t.Context(), Request{Edit: put(fmt.Sprintf("api-%d-%d", w, i), "report"), Subject: "user:a"})
				if err == nil {
					acked[w] = append(acked[w], rc.Commit)
				} else if desired.ClassOf(err) != desired.Transient {
					t.Error(err)
				}
			}
		})
	}
	work := clone(t, "file://"+dir) // by git upload-pack: copying the files of a busy directory is not atomic
	pushed := 0
	for i := 0; pushed < 3 && i < 200; i++ {
		write(t, work, fmt.Sprintf("projects/shop/p%d.yaml", i), yaml(fmt.Sprintf("p%d", i), "report"))
		commitAll(t, work, "p")
		for range 20 { // the API is faster than a rebase: try again
			git(t, work, "pull", "-q", "--rebase", "origin", "main")
			if _, err := tryGit(work, "push", "-q", "origin", "main"); err == nil {
				pushed++
				break
			}
		}
	}
	stop()
	wg.Wait()
	if pushed == 0 {
		t.Error("no direct push got through: the lock is never free")
	}
	eventually(t, "the last push", func() bool { return git(t, dir, "rev-parse", "main") == r.Head().Commit })
	all := map[string]bool{}
	for _, c := range strings.Fields(git(t, dir, "rev-list", "main")) {
		all[c] = true
	}
	n := 0
	for _, cs := range acked {
		for _, c := range cs {
			n++
			if !all[c] {
				t.Errorf("acknowledged commit %s is not in history", c)
			}
		}
	}
	t.Logf("%d acknowledged writes beside %d direct pushes", n, pushed)
	git(t, dir, "fsck", "--full", "--strict")
}

func TestARestartShowsWhatWasThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	r := open(t, config(dir))
	for i := range 20 {
		commit(t, r, Request{Edit: put(fmt.Sprintf("r%d", i%7), []string{"report", "revert", "ignore"}[i%3]), Subject: fmt.Sprintf("user:u%d", i)})
	}
	ref, _ := rule("r3", "")
	commit(t, r, Request{Edit: desired.Remove(ref, ""), Subject: "user:x"})
	want := r.Head()
	for _, lose := range []bool{false, true} {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if lose {
			os.Remove(filepath.Join(dir, "plumbline", checkpointFile))
		}
		r = open(t, config(dir))
		got := r.Head()
		if got.Seq != want.Seq || got.Commit != want.Commit {
			t.Errorf("head %s seq %d, want %s seq %d", got.Commit, got.Seq, want.Commit, want.Seq)
		}
		if d := cmp.Diff(entries(want), entries(got), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("checkpoint lost: %v (-want +got):\n%s", lose, d)
		}
	}
}

// shown is what a reader of a snapshot sees of an entry.
type shown struct {
	Ref, Path, Blob, Digest string
	Line, Index             int
	Changed                 desired.Provenance
}

func entries(h *desired.Head) []shown {
	var out []shown
	for e := range h.Snapshot.All() {
		out = append(out, shown{e.Ref.String(), e.Path, e.Blob, e.Digest, e.Line, e.Index, e.Changed})
	}
	return out
}

func TestChangesMergesWhatHappenedSince(t *testing.T) {
	r := open(t, config(filepath.Join(t.TempDir(), "acme.git")))
	commit(t, r, Request{Edit: put("a", "report"), Subject: "user:u"})
	commit(t, r, Request{Edit: put("b", "report"), Subject: "user:u"})
	commit(t, r, Request{Edit: put("a", "revert"), Subject: "user:u"})
	refB, _ := rule("b", "")
	commit(t, r, Request{Edit: desired.Remove(refB, ""), Subject: "user:u"})
	commit(t, r, Request{Edit: put("c", "report"), Subject: "user:u"})
	refA, _ := rule("a", "")
	refC, _ := rule("c", "")
	got, ok := r.Changes(1)
	want := desired.Changes{Added: []desired.Ref{refC}, Changed: []desired.Ref{refA}}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); !ok || d != "" {
		t.Errorf("since 1 (-want +got):\n%s", d)
	}
	if got, ok := r.Changes(5); !ok || len(got.Added)+len(got.Changed)+len(got.Removed) != 0 {
		t.Errorf("since the head: %+v", got)
	}
	if _, ok := r.Changes(99); ok {
		t.Error("changes since a seq that never was")
	}
}

func TestContentLiesBesideItsDocument(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme.git")
	r := open(t, config(dir))
	ref, res := rule("calm", "report")
	hexDigest := strings.Repeat("ab", 32)
	at := strings.TrimSuffix(desired.Path(ref), ".yaml") + ".d/" + hexDigest
	commit(t, r, Request{Subject: "user:u", Edit: desired.Put(ref, res, desired.PutOptions{Attached: []desired.Write{{Path: at, Data: []byte("payload")}}})})
	got, err := r.Content(t.Context(), mustGet(t, r, "calm"), "sha256:"+hexDigest)
	if err != nil || string(got) != "payload" {
		t.Errorf("content %q, %v", got, err)
	}
	if _, err := r.Content(t.Context(), mustGet(t, r, "calm"), "sha256:"+strings.Repeat("cd", 32)); desired.ClassOf(err) != desired.NotFound {
		t.Errorf("missing content: %v", err)
	}
	if n := r.Head().Snapshot.Len(); n != 1 {
		t.Errorf("%d resources: content must not be loaded", n)
	}
}

func TestASealedCommitIsKnownByItsBytes(t *testing.T) {
	raw := []byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nx\n\nPlumbline-Subject: user:a\n")
	good := seal(testKey, raw)
	if !sealed(testKey, good) {
		t.Fatal("a fresh seal does not verify")
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if sealed(testKey, bad) {
			t.Errorf("byte %d may be changed under the seal", i)
		}
	}
	if sealed(append([]byte("x"), testKey...), good) || sealed(testKey, raw) || sealed(testKey, append(good, '\n')) {
		t.Error("a wrong key, a missing seal or bytes after it pass")
	}
}

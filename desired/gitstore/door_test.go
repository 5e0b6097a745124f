// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// serve puts a door on a real server and returns the address of its repository.
func serve(t testing.TB, d Door) string {
	t.Helper()
	url, _ := serveChanging(t, d)
	return url
}

// serveChanging also returns a function that changes the door between requests.
func serveChanging(t testing.TB, d Door) (url string, set func(func(*Door))) {
	t.Helper()
	if d.OnError == nil {
		d.OnError = func(err error) { t.Errorf("door: %v", err) }
	}
	var mu sync.Mutex
	srv := httptest.NewServer(http.StripPrefix("/git/r.git", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now := d
		mu.Unlock()
		now.ServeHTTP(w, r)
	})))
	t.Cleanup(srv.Close)
	return srv.URL + "/git/r.git", func(change func(*Door)) {
		mu.Lock()
		defer mu.Unlock()
		change(&d)
	}
}

// cloneOf clones an address with the real git.
func cloneOf(t testing.TB, url string, args ...string) string {
	t.Helper()
	work := filepath.Join(t.TempDir(), "work")
	git(t, ".", append(append([]string{"clone", "-q"}, args...), url, work)...)
	return work
}

// commitFile commits one file in a work tree.
func commitFile(t testing.TB, work, name, content string) Hash {
	t.Helper()
	write(t, filepath.Join(work, name), content)
	git(t, work, "add", "-A")
	git(t, work, "commit", "-qm", "change "+name)
	h, err := ParseHash(git(t, work, "rev-parse", "HEAD"))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// state is everything in a store that a refused push must leave alone.
func state(t testing.TB, s *Store) string {
	t.Helper()
	refs, err := s.Refs("refs/")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, dir := range []string{"objects/pack", "plumbline/incoming", "plumbline/locks"} {
		entries, err := os.ReadDir(filepath.Join(s.Dir(), dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			files = append(files, e.Name())
		}
	}
	return fmt.Sprint(refs, files)
}

func TestCloneAndFetchOverHTTP(t *testing.T) {
	s := newStore(t)
	head := Zero
	var parents []Hash
	for i := range 20 {
		head = put(t, s, "main", map[string]string{fmt.Sprintf("d%d/f", i): strings.Repeat("x", i)}, parents...)
		parents = []Hash{head}
	}
	if err := move(t, s, RefUpdate{"refs/plumbline/keep/1", Zero, head}); err != nil {
		t.Fatal(err)
	}
	url := serve(t, Door{Store: s, HiddenRefs: []string{"refs/plumbline"}})
	for _, version := range []string{"0", "1", "2"} {
		proto := []string{"-c", "protocol.version=" + version}
		work := cloneOf(t, url, proto...)
		if got := git(t, work, "rev-parse", "HEAD"); got != head.String() {
			t.Errorf("version %s: cloned %s, want %s", version, got, head)
		}
		git(t, work, "fsck", "--strict")
		shallow := cloneOf(t, url, append(proto, "--depth=2")...)
		if got := git(t, shallow, "rev-list", "--count", "HEAD"); got != "2" {
			t.Errorf("version %s: shallow clone has %s commits, want 2", version, got)
		}
		if out := git(t, ".", "-c", "protocol.version="+version, "ls-remote", url); strings.Contains(out, "plumbline") {
			t.Errorf("version %s: hidden refs are shown: %s", version, out)
		}
		next := put(t, s, "main", map[string]string{"new": version}, head)
		git(t, work, append(proto, "fetch", "-q")...)
		if got := git(t, work, "rev-parse", "origin/main"); got != next.String() {
			t.Errorf("version %s: fetched %s, want %s", version, got, next)
		}
		git(t, shallow, append(proto, "fetch", "-q", "--unshallow")...)
		head = next
	}
	partial := cloneOf(t, url, "--filter=blob:none", "--no-checkout")
	if got := git(t, partial, "rev-parse", "HEAD"); got != head.String() {
		t.Errorf("partial clone: got %s, want %s", got, head)
	}
}

func TestCloneOfAnEmptyRepository(t *testing.T) {
	s := newStore(t)
	url := serve(t, Door{Store: s})
	work := cloneOf(t, url)
	h := commitFile(t, work, "a", "1")
	git(t, work, "push", "-q", "origin", "HEAD:main")
	if got, err := s.Resolve("refs/heads/main"); err != nil || got != h {
		t.Errorf("main: got %s, %v, want %s", got, err, h)
	}
	fsck(t, s)
}

func TestRequestsThatAreNoGit(t *testing.T) {
	url := serve(t, Door{Store: newStore(t)})
	rows := []struct {
		method, path, contentType, body string
		want                            int
	}{
		{"GET", "/info/refs", "", "", 403},
		{"GET", "/info/refs?service=git-upload-archive", "", "", 403},
		{"POST", "/info/refs?service=git-upload-pack", "", "", 405},
		{"GET", "/git-receive-pack", "", "", 405},
		{"GET", "/HEAD", "", "", 404},
		{"GET", "/objects/info/packs", "", "", 404},
		{"GET", "/config", "", "", 404},
		{"GET", "/../../etc/passwd", "", "", 404},
		{"POST", "/git-upload-pack", "text/plain", "", 415},
		{"POST", "/git-receive-pack", "text/plain", "", 415},
		{"POST", "/git-receive-pack", "application/x-git-receive-pack-request", "0000", 200},
		{"POST", "/git-receive-pack", "application/x-git-receive-pack-request", "", 200},
		{"POST", "/git-receive-pack", "application/x-git-receive-pack-request", "zzzz", 400},
		{"POST", "/git-receive-pack", "application/x-git-receive-pack-request", "0003", 400},
		{"POST", "/git-receive-pack", "application/x-git-receive-pack-request", "fff9" + strings.Repeat("x", 70000), 400},
		{"POST", "/git-receive-pack", "application/x-git-receive-pack-request", "0008abcd0000", 400},
	}
	for _, row := range rows {
		req, err := http.NewRequestWithContext(t.Context(), row.method, url+row.path, strings.NewReader(row.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", row.contentType)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != row.want {
			t.Errorf("%s %s %.20q: got %d, want %d", row.method, row.path, row.body, resp.StatusCode, row.want)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestPushOverHTTP(t *testing.T) {
	s := newStore(t)
	var pushes []*Push
	d := Door{Store: s}
	d.Accept = func(ctx context.Context, p *Push) error {
		pushes = append(pushes, p)
		fmt.Fprintln(p.Remote, "judging", len(p.Updates), "refs \x1b[31m")
		for _, u := range p.Updates {
			c, err := p.Commit(u.New)
			if err != nil {
				return err
			}
			if e, ok, err := Lookup(p, c.Tree, "bad.yaml"); err != nil || ok {
				if _, err := p.Blob(e.Hash); err != nil {
					return err
				}
				return &desired.Error{Class: desired.Invalid, Op: "accept", Fields: []desired.FieldError{
					{File: "bad.yaml", Line: 3, Column: 7, Detail: "unknown key"}, {File: "bad.yaml", Line: 9, Detail: "twice"},
				}}
			}
		}
		return p.Land(ctx)
	}
	url, set := serveChanging(t, d)
	work := cloneOf(t, url)
	commitFile(t, work, "a", "1")
	for i := range 30 {
		write(t, filepath.Join(work, fmt.Sprintf("dir/%d", i)), strings.Repeat("line\n", 100+i))
	}
	h := commitFile(t, work, "b", "2")
	out, err := tryGit(t, work, "", "push", "-o", "reason=x", "origin", "HEAD:main")
	if err != nil || !strings.Contains(out, "remote: judging 1 refs ?[31m") {
		t.Fatalf("push: %v\n%s", err, out)
	}
	if got := pushes[0].Options; !slices.Equal(got, []string{"reason=x"}) {
		t.Errorf("options: got %q", got)
	}
	if got, err := s.Resolve("refs/heads/main"); err != nil || got != h {
		t.Errorf("main: got %s, %v, want %s", got, err, h)
	}
	fsck(t, s)
	before := state(t, s)
	commitFile(t, work, "bad.yaml", "x")
	out, err = tryGit(t, work, "", "push", "origin", "HEAD:main", "HEAD:other")
	for _, want := range []string{"remote: bad.yaml:3:7: unknown key", "remote: bad.yaml:9: twice", "[remote rejected] HEAD -> main", "[remote rejected] HEAD -> other"} {
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("refused push lacks %q: %v\n%s", want, err, out)
		}
	}
	if after := state(t, s); after != before {
		t.Errorf("the refused push changed something:\n%s\n%s", before, after)
	}
	set(func(d *Door) { d.Accept = nil })
	git(t, work, "tag", "-a", "-m", "one", "v1")
	git(t, work, "push", "-q", "--atomic", "origin", "HEAD:main", "HEAD:side", "v1")
	if refs := git(t, s.Dir(), "for-each-ref", "--format=%(refname)"); refs != "refs/heads/main\nrefs/heads/side\nrefs/tags/v1" {
		t.Errorf("refs after the push: %q", refs)
	}
	git(t, work, "push", "-q", "origin", "HEAD~1:refs/heads/old") // nothing but a ref: an empty pack
	fsck(t, s)
}

func TestPushesThatAreRefused(t *testing.T) {
	s := newStore(t)
	url, set := serveChanging(t, Door{Store: s, HiddenRefs: []string{"refs/heads/secret"}})
	work := cloneOf(t, url)
	commitFile(t, work, "a", "1")
	git(t, work, "branch", "-M", "main")
	first := git(t, work, "rev-parse", "HEAD")
	commitFile(t, work, "a", "2")
	git(t, work, "tag", "v1")
	git(t, work, "push", "-q", "origin", "main", "main:side", "v1")
	git(t, work, "reset", "-q", "--hard", first)
	commitFile(t, work, "a", "3")
	git(t, work, "tag", "-f", "v1")
	rows := []struct {
		args []string
		want string
	}{
		{[]string{"-f", "origin", "main"}, "non-fast-forward"},
		{[]string{"-f", "origin", "v1"}, "exists already"},
		{[]string{"origin", ":side"}, "deletion prohibited"},
		{[]string{"origin", ":main"}, "default branch cannot be deleted"},
		{[]string{"origin", "main:refs/heads/secret"}, "hidden ref"},
		{[]string{"origin", "main:refs/plumbline/x"}, "only refs/heads/ and refs/tags/"},
		{[]string{"origin", "main^{tree}:refs/heads/tree"}, ""}, // refused by git itself or by us
		{[]string{"origin", "main:side/below"}, "part of its name is itself a ref"},
		{[]string{"origin", "main:fine", "+main:main"}, "another ref of this push"},
		{[]string{"origin", "main:refs/heads/--upload-pack=x"}, "must not begin with '-'"},
		{[]string{"origin", "main:refs/heads/HEAD"}, "must not be named HEAD"},
		{[]string{"origin", "main:refs/heads/@"}, "must not be named HEAD or @"},
	}
	before := state(t, s)
	for _, row := range rows {
		out, err := tryGit(t, work, "", append([]string{"push"}, row.args...)...)
		if err == nil || !strings.Contains(out, row.want) {
			t.Errorf("push %v: %v, want %q in\n%s", row.args, err, row.want, out)
		}
		if after := state(t, s); after != before {
			t.Fatalf("push %v changed something:\n%s\n%s", row.args, before, after)
		}
	}
	set(func(d *Door) { d.ReadOnly = func() string { return "frozen: ask an operator" } })
	if out, err := tryGit(t, work, "", "push", "origin", "main:fine"); err == nil || !strings.Contains(out, "frozen: ask an operator") {
		t.Errorf("read-only: %v\n%s", err, out)
	}
	set(func(d *Door) {
		d.ReadOnly = nil
		d.AllowForce = func(ref string) bool { return ref != "refs/tags/v1" }
	})
	git(t, work, "push", "-q", "-f", "origin", "main", ":side")
	if refs := git(t, s.Dir(), "for-each-ref", "--format=%(refname)"); refs != "refs/heads/main\nrefs/tags/v1" {
		t.Errorf("refs after the forced push: %q", refs)
	}
	fsck(t, s)
}

// A client that goes away must not leave a git process behind, nor its children.
func TestProgramEndsWithItsRequest(t *testing.T) {
	s := newStore(t)
	bin, pids := t.TempDir(), filepath.Join(t.TempDir(), "pids")
	script := "#!/bin/sh\nenv > " + pids + ".env\nsleep 600 &\necho $! $$ > " + pids + ".new\nmv " + pids + ".new " + pids + "\nwait\n"
	write(t, filepath.Join(bin, "git"), script)
	if err := os.Chmod(filepath.Join(bin, "git"), 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("PLUMBLINE_SECRET", "hunter2")
	t.Setenv("GIT_DIR", "/elsewhere")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		waitFor(t, func() bool { _, err := os.Stat(pids); return err == nil })
		cancel()
	}()
	if _, _, err := s.run(ctx, program{args: []string{"upload-pack"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want cancelled", err)
	}
	data, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for pid := range strings.FieldsSeq(string(data)) {
		waitFor(t, func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		})
	}
	env, err := os.ReadFile(pids + ".env")
	if err != nil || strings.Contains(string(env), "hunter2") || strings.Contains(string(env), "GIT_DIR") {
		t.Errorf("git sees our environment (%v):\n%s", err, env)
	}
}

// waitFor polls until something is so.
func waitFor(t testing.TB, ok func() bool) {
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("waited in vain")
}

// A client learns why a push of very many refs is refused.
func TestPushOfTooManyRefs(t *testing.T) {
	s := newStore(t)
	url := serve(t, Door{Store: s})
	work := cloneOf(t, url)
	commitFile(t, work, "a", "1")
	var refs strings.Builder
	head := git(t, work, "rev-parse", "HEAD")
	for i := range maxCommands + 1 {
		fmt.Fprintf(&refs, "create refs/heads/m/%d %s\n", i, head)
	}
	if out, err := tryGit(t, work, refs.String(), "update-ref", "--stdin"); err != nil {
		t.Fatalf("update-ref: %v\n%s", err, out)
	}
	before := state(t, s)
	out, err := tryGit(t, work, "", "push", "origin", "refs/heads/m/*:refs/heads/m/*")
	if want := "remote: a push may move 2000 refs at a time: push in smaller steps"; err == nil || !strings.Contains(out, want) {
		t.Errorf("push: %v, want %q in\n%.600s", err, want, out)
	}
	if after := state(t, s); after != before {
		t.Errorf("the push changed something:\n%s\n%s", before, after)
	}
}

// A push of several MiB comes in chunks, after a probe; deltas in it are several levels deep.
func TestLargePush(t *testing.T) {
	s := newStore(t)
	url := serve(t, Door{Store: s})
	work := cloneOf(t, url)
	rnd := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 3<<20)
	rnd.Read(noise)
	write(t, filepath.Join(work, "noise"), string(noise))
	h := Zero
	for i := range 25 {
		lines := make([]string, 400)
		for j := range lines {
			lines[j] = fmt.Sprint(j*(1+i/5), " some text in a long file")
		}
		lines[i*7] = fmt.Sprint("changed ", i)
		h = commitFile(t, work, "text", strings.Join(lines, "\n"))
	}
	git(t, work, "repack", "-qadf", "--depth=20")
	git(t, work, "push", "-q", "origin", "HEAD:main")
	if got, err := s.Resolve("refs/heads/main"); err != nil || got != h {
		t.Errorf("main: got %s, %v, want %s", got, err, h)
	}
	if deltas := git(t, s.Dir(), "verify-pack", "-v", (*s.packs.Load())[0].idxPath()); !strings.Contains(deltas, "chain length = 2") {
		t.Error("the push brought no deep deltas: the test proves too little")
	}
	fsck(t, s)
}

func TestPushMeetsAMovedRef(t *testing.T) {
	s := newStore(t)
	base := put(t, s, "main", map[string]string{"a": "1"})
	url := serve(t, Door{Store: s, Accept: func(ctx context.Context, p *Push) error {
		put(t, s, "main", map[string]string{"c": "3"}, base) // somebody is faster
		return p.Land(ctx)
	}})
	work := cloneOf(t, url)
	commitFile(t, work, "b", "2")
	out, err := tryGit(t, work, "", "push", "origin", "HEAD:main", "HEAD:side")
	if err == nil || !strings.Contains(out, "moved meanwhile: fetch first") || !strings.Contains(out, "another ref of this push") {
		t.Errorf("got %v\n%s", err, out)
	}
	if got := git(t, s.Dir(), "for-each-ref", "--format=%(refname)"); got != "refs/heads/main" {
		t.Errorf("refs: %s", got)
	}
}

func TestAcceptThatFails(t *testing.T) {
	s := newStore(t)
	var told []error
	url, set := serveChanging(t, Door{Store: s, OnError: func(err error) { told = append(told, err) }})
	work := cloneOf(t, url)
	commitFile(t, work, "a", "1")
	for what, accept := range map[string]func(context.Context, *Push) error{
		"a panic":        func(context.Context, *Push) error { panic("boom") },
		"a secret cause": func(context.Context, *Push) error { return errors.New("disk /dev/sda9 boom") },
		"no landing":     func(context.Context, *Push) error { return nil },
	} {
		set(func(d *Door) { d.Accept, told = accept, nil })
		out, err := tryGit(t, work, "", "push", "origin", "HEAD:main")
		if err == nil || !strings.Contains(out, "internal error") || strings.Contains(out, "sda9") {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
		if len(told) != 1 {
			t.Errorf("%s: OnError was told %v", what, told)
		}
	}
	if got := state(t, s); !strings.HasPrefix(got, "[] []") {
		t.Errorf("something was left: %s", got)
	}
}

// packOf builds a pack from raw entries, with a right checksum.
func packOf(s *Store, t testing.TB, build func(w *packWriter)) []byte {
	t.Helper()
	w, err := s.newPackWriter(0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.abandon()
	build(w)
	binaryCount(w.buf, len(w.entries))
	return sealPack(w.buf)
}

func TestHostilePacksChangeNothing(t *testing.T) {
	s := newStore(t)
	put(t, s, "main", map[string]string{"a": "1"})
	url := serve(t, Door{Store: s, MaxPack: 4 << 20})
	good, tip := goodPack(t, s)
	rows := map[string]hostile{}
	rows["truncated"] = hostile{good[:len(good)-30], tip, "checksum"}
	rows["bad checksum"] = hostile{flip(good, len(good)-1), tip, "checksum"}
	rows["no pack"] = hostile{sealPack([]byte("KCAP\x00\x00\x00\x02\x00\x00\x00\x00")), tip, "no pack of version 2"}
	rows["nothing"] = hostile{nil, tip, "ends early"}
	rows["too large"] = hostile{sealPack(append([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01"), make([]byte, 5<<20)...)), tip, "larger than"}
	rows["trailing bytes"] = hostile{sealPack(append(slices.Clone(good[:len(good)-20]), "more"...)), tip, "more than its"}
	rows["tip is absent"] = hostile{good, Hash{1, 2, 3}, "lacks objects"}
	for i, e := range hostileTrees {
		body, tip := commitOn(t, s, e.raw(t, s))
		rows[fmt.Sprintf("tree %d", i)] = hostile{body, tip, e.want}
	}
	for name, h := range hostileEntries(t, s) {
		rows[name] = h
	}
	before := state(t, s)
	for name, h := range maps.All(rows) {
		out := rawPush(t, url, RefUpdate{"refs/heads/evil", Zero, h.tip}, h.pack)
		if !strings.Contains(out, "ng refs/heads/evil") || !strings.Contains(out, h.want) || strings.Contains(out, internalFault) {
			t.Errorf("%s: want %q in\n%q", name, h.want, out)
		}
		if after := state(t, s); after != before {
			t.Fatalf("%s changed something:\n%s\n%s", name, before, after)
		}
	}
	if out := rawPush(t, url, RefUpdate{"refs/heads/fine", Zero, tip}, good); !strings.Contains(out, "ok refs/heads/fine") {
		t.Errorf("the good pack is refused: %q", out)
	}
	fsck(t, s)
}

// rawPush sends a push as a client without manners would, and returns the whole answer.
func rawPush(t testing.TB, url string, u RefUpdate, pack []byte) string {
	t.Helper()
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	z.Write(appendPkt(nil, fmt.Sprintf("%s %s %s\x00 report-status side-band-64k\n", u.Old, u.New, u.Name)))
	io.WriteString(z, flushPkt)
	z.Write(pack)
	z.Close()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url+"/git-receive-pack", &body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-git-receive-pack-request")
	req.Header.Set("Content-Encoding", "gzip")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/connectsoft/plumbline/desired"
)

func TestEmbeddedKeepsItsDataAndEpoch(t *testing.T) {
	dir := t.TempDir()
	s := openEmbedded(t, dir)
	rev := commit(t, s, put(key(t, "k"), "1"))
	epoch, birth := s.Epoch(), s.Birth()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openEmbedded(t, dir)
	if kvs, err := s.Get(t.Context(), key(t, "k")); err != nil || len(kvs) != 1 || kvs[0].Rev != rev {
		t.Errorf("after reopening: %s, %v", text(kvs), err)
	}
	if s.Epoch() != epoch || !s.Birth().Equal(birth) {
		t.Errorf("epoch %s born %v became %s born %v", epoch, birth, s.Epoch(), s.Birth())
	}
	if other := openEmbedded(t, t.TempDir()); other.Epoch() == epoch {
		t.Error("two installations have one epoch")
	}
}

func TestSecondProcessIsRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	openEmbedded(t, dir)
	began := time.Now()
	_, err := OpenEmbedded(t.Context(), dir, nil)
	if desired.ClassOf(err) != desired.Stalled || !strings.Contains(err.Error(), "another process uses the state directory") {
		t.Errorf("got %v", err)
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestUnusableDirectoryIsNamed(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenEmbedded(t.Context(), file, nil); desired.ClassOf(err) != desired.Stalled || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}

// TestKilledProcessLosesNothing kills a process that writes, and opens its directory at once: every acknowledged
// record is there, and the unit that the process owned is free.
func TestKilledProcessLosesNothing(t *testing.T) {
	if dir := os.Getenv("PLUMBLINE_STATE_CHILD"); dir != "" {
		writeUntilKilled(t, dir)
		return
	}
	dir := t.TempDir()
	total := 0
	for life := range 3 {
		acked := killAfter(t, dir, life, 200)
		total += acked
		s := openEmbedded(t, dir)
		kvs, _, err := s.List(t.Context(), fmt.Sprint("life", life), States)
		if err != nil || len(kvs) < acked {
			t.Fatalf("life %d acknowledged %d records, %d are there, %v", life, acked, len(kvs), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		f, _, _, err := s.Claim(ctx, "unit")
		cancel()
		if err != nil || f.Revision == 0 {
			t.Errorf("claim after the owner was killed: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if total < 600 {
		t.Errorf("only %d acknowledged writes: the run proves nothing", total)
	}
}

// killAfter runs a child until it has acknowledged n writes and returns how many it had when it died.
func killAfter(t *testing.T, dir string, life, n int) (acked int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), exe, "-test.run=^TestKilledProcessLosesNothing$")
	child.Env = append(os.Environ(), "PLUMBLINE_STATE_CHILD="+dir, "PLUMBLINE_STATE_LIFE="+strconv.Itoa(life))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "ack ") {
			t.Errorf("child: %s", lines.Text())
			continue
		}
		if acked++; acked == n {
			child.Process.Kill()
		}
	}
	child.Wait()
	return acked
}

func writeUntilKilled(t *testing.T, dir string) {
	s := openEmbedded(t, dir)
	f, _, _, err := s.Claim(t.Context(), "unit")
	if err != nil {
		t.Fatal(err)
	}
	acks := make(chan string)
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d", w, i)
				k := Key{"life" + os.Getenv("PLUMBLINE_STATE_LIFE"), States, id}
				if _, err := s.Commit(t.Context(), f, put(k, "v")); err != nil {
					return
				}
				acks <- id
			}
		}()
	}
	for id := range acks {
		fmt.Println("ack", id)
	}
}

func TestLostLeaseEndsOwnership(t *testing.T) {
	s := openEmbedded(t, t.TempDir())
	f1, lost1, release1, err1 := s.Claim(t.Context(), "one")
	_, lost2, _, err2 := s.Claim(t.Context(), "two")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Revoke(t.Context(), s.sessions.current.Lease()); err != nil {
		t.Fatal(err)
	}
	waitClosed(t, lost1)
	waitClosed(t, lost2)
	if _, err := s.Commit(t.Context(), f1, put(key(t, "k"), "1")); !errors.Is(err, ErrFenced) {
		t.Errorf("write after the lease was lost: %v", err)
	}
	eventually(t, func() bool { // the session notices on its own that the lease is gone
		_, _, release, err := s.Claim(t.Context(), "one")
		if err == nil {
			release()
		}
		return err == nil
	})
	release1()
}

func TestRemovedUnitKeyEndsOwnership(t *testing.T) {
	s := openEmbedded(t, t.TempDir())
	f, lost, _, err := s.Claim(t.Context(), "unit")
	if err != nil {
		t.Fatal(err)
	}
	// History is compacted away under the watch of the key meanwhile.
	rev := commit(t, s, put(key(t, "k"), "1"))
	if err := s.Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
		t.Fatal("lost by compaction")
	default:
	}
	if _, err := s.client.Delete(t.Context(), f.Key); err != nil {
		t.Fatal(err)
	}
	waitClosed(t, lost)
}

func TestUnitsMoveWhenTheirOwnerCloses(t *testing.T) {
	server := startExternal(t)
	a, b := connect(t, server), connect(t, server)
	if a.Epoch() != b.Epoch() {
		t.Errorf("epochs %s and %s of one cluster", a.Epoch(), b.Epoch())
	}
	fa, lost, _, err := a.Claim(t.Context(), "unit")
	if err != nil {
		t.Fatal(err)
	}
	won := make(chan Fence, 1)
	go func() {
		f, _, _, err := b.Claim(t.Context(), "unit")
		if err != nil {
			t.Error(err)
		}
		won <- f
	}()
	began := time.Now()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	waitClosed(t, lost)
	select {
	case fb := <-won:
		if fb.Revision <= fa.Revision {
			t.Errorf("fence %d after %d", fb.Revision, fa.Revision)
		}
	case <-time.After(leaseTTL * time.Second):
		t.Fatalf("the unit did not move in %v", time.Since(began))
	}
	if _, err := b.Commit(t.Context(), fa, put(key(t, "k"), "1")); !errors.Is(err, ErrFenced) {
		t.Errorf("write under the last owner's fence: %v", err)
	}
}

// TestClaimWhoseAnswerWasLost: the key of an attempt without an answer is taken as one's own by the next attempt,
// and removed when there is none.
func TestClaimWhoseAnswerWasLost(t *testing.T) {
	s := openEmbedded(t, t.TempDir())
	session, err := s.sessions.get(t.Context(), s.client)
	if err != nil {
		t.Fatal(err)
	}
	write := func(c *claim) int64 {
		r, err := s.client.Put(t.Context(), c.key, c.value, clientv3.WithLease(session.Lease()))
		if err != nil {
			t.Fatal(err)
		}
		return r.Header.Revision
	}
	c := &claim{store: s, key: unitRoot + "adopted", value: "mine", lost: make(chan struct{})}
	rev := write(c)
	if err := c.attempt(t.Context()); err != nil || c.rev != rev {
		t.Errorf("adopted at %d, %v; want %d", c.rev, err, rev)
	}
	c = &claim{store: s, key: unitRoot + "abandoned", value: "mine", session: session, unsure: true}
	write(c)
	c.abandon()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, _, _, err := s.Claim(ctx, "abandoned"); err != nil {
		t.Errorf("the unit stays taken: %v", err)
	}
}

// TestOutageOfTheCluster: while the cluster is away calls fail in bounded time with class Transient; a hub that was
// following goes on where it was, without a gap and without a reset.
func TestOutageOfTheCluster(t *testing.T) {
	server := startExternal(t)
	p := newProxy(t, server.Clients[0].Addr().String())
	s := connectTo(t, p.Addr().String())
	s.limit = time.Second
	other := connect(t, server)
	h := runHub(t, HubConfig{Store: s})
	c, err := h.Subscribe(Filter{Tenant: repo.Tenant}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if u, err := c.Next(t.Context()); err != nil || !u.Reset {
		t.Fatalf("%+v, %v", u, err)
	}
	write := func(s *Etcd, seq uint64) error {
		_, err := s.Commit(t.Context(), Fence{}, mustPut(t, SyncState{Ref: repo, DesiredSeq: seq}))
		return err
	}
	p.set(true)
	if err := write(other, 1); err != nil { // while nobody sees it
		t.Fatal(err)
	}
	began := time.Now()
	if err := write(s, 1); desired.ClassOf(err) != desired.Transient || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("write while the cluster is away: %v", err)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("took %v", d)
	}
	p.set(false)
	eventually(t, func() bool { return write(s, 2) == nil })
	var seen []uint64
	for !slices.Contains(seen, 2) {
		u, err := c.Next(t.Context())
		if err != nil || u.Reset {
			t.Fatalf("%+v, %v", u, err)
		}
		for _, i := range u.Items {
			seen = append(seen, i.State.DesiredSeq)
		}
	}
	if !slices.Contains(seen, 1) {
		t.Errorf("the reader saw %v: the change during the outage is missing", seen)
	}
}

// TestClosingDuringAnOutage returns soon, and what was held is lost.
func TestClosingDuringAnOutage(t *testing.T) {
	server := startExternal(t)
	p := newProxy(t, server.Clients[0].Addr().String())
	s := connectTo(t, p.Addr().String())
	s.limit = 200 * time.Millisecond
	_, lost, release, err := s.Claim(t.Context(), "unit")
	if err != nil {
		t.Fatal(err)
	}
	p.set(true)
	began := time.Now()
	release()
	waitClosed(t, lost)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > 8*time.Second {
		t.Errorf("took %v", d)
	}
}

// proxy is a network path to a server that can be cut.
type proxy struct {
	net.Listener
	to    string
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
	wg    sync.WaitGroup
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, to: to}
	p.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			p.serve(in)
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.set(true)
		p.wg.Wait()
	})
	return p
}

func (p *proxy) serve(in net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		in.Close()
		return
	}
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		in.Close()
		return
	}
	p.conns = append(p.conns, in, out)
	for _, c := range [][2]net.Conn{{in, out}, {out, in}} {
		p.wg.Go(func() {
			io.Copy(c[0], c[1])
			c[0].Close()
		})
	}
}

func (p *proxy) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func TestRestoredClusterBeginsAnEpoch(t *testing.T) {
	dir := t.TempDir()
	s := openEmbedded(t, dir)
	old := s.Epoch()
	// As a restore leaves it: the record of another cluster.
	restored := s.epoch
	restored.Cluster, restored.Birth = "0123456789abcdef", time.Now().Add(-time.Hour)
	b, err := json.Marshal(restored)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Put(t.Context(), epochKey, string(b)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openEmbedded(t, dir)
	if s.Epoch() == old || time.Since(s.Birth()) > time.Minute {
		t.Errorf("epoch %s born %v is that of the restored data", s.Epoch(), s.Birth())
	}
	// Another cluster at the same endpoints, under a running process: nothing of it is believed.
	s.cluster++
	_, err1 := s.Get(t.Context(), key(t, "k"))
	_, err2 := s.Commit(t.Context(), Fence{}, put(key(t, "k"), "1"))
	_, err3 := s.Revision(t.Context())
	for _, err := range []error{err1, err2, err3} {
		if desired.ClassOf(err) != desired.Stalled {
			t.Errorf("got %v", err)
		}
	}
	// A record that cannot be read stops the start.
	for value, say := range map[string]string{"{": "does not parse", `{"v":99}`: "format 99"} {
		if _, err := s.client.Put(t.Context(), epochKey, value); err != nil {
			t.Fatal(err)
		}
		if err := s.loadEpoch(t.Context()); desired.ClassOf(err) != desired.Stalled || !strings.Contains(err.Error(), say) {
			t.Errorf("epoch record %s: %v", value, err)
		}
	}
}

func TestOpeningWhatDoesNotAnswer(t *testing.T) {
	if _, err := OpenEtcd(t.Context(), EtcdConfig{}); desired.ClassOf(err) != desired.Invalid {
		t.Errorf("no endpoints: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := OpenEtcd(ctx, EtcdConfig{Endpoints: []string{"127.0.0.1:1"}}); desired.ClassOf(err) != desired.Transient {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestErrorsOfEtcdHaveClasses(t *testing.T) {
	for _, c := range []struct {
		err   error
		class desired.Class
		say   string
	}{
		{rpctypes.ErrNoSpace, desired.Stalled, "defragment"},
		{rpctypes.ErrCorrupt, desired.Stalled, "restore"},
		{rpctypes.ErrRequestTooLarge, desired.Invalid, ""},
		{rpctypes.ErrTooManyOps, desired.Invalid, ""},
		{rpctypes.ErrTooManyRequests, desired.Throttled, ""},
		{rpctypes.ErrPermissionDenied, desired.Denied, "role"},
		{rpctypes.ErrAuthFailed, desired.Denied, "user"},
		{rpctypes.ErrInvalidAuthToken, desired.Denied, ""},
		{rpctypes.ErrTimeout, desired.Transient, "unknown"},
		{rpctypes.ErrNoLeader, desired.Transient, "unknown"},
		{context.DeadlineExceeded, desired.Transient, "unknown"},
		{errors.New("anything else"), desired.Transient, ""},
	} {
		err := etcdError("op", c.err)
		if desired.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.say) || !errors.Is(err, c.err) {
			t.Errorf("%v: got %v of class %s, want %s", c.err, err, desired.ClassOf(err), c.class)
		}
	}
}

func TestWarningsOfEtcdReachTheLog(t *testing.T) {
	var b strings.Builder
	log := zapLogger(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	log.Info("not this")
	log.With(zap.String("member", "m")).Warn("slow", zap.Duration("took", time.Second), zap.Error(errors.New("disk")))
	log.Error("broken", zap.Int("n", 1))
	want := "level=WARN msg=slow component=etcd member=m error=disk took=1s\nlevel=ERROR msg=broken component=etcd n=1\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	zapLogger(nil).Error("nowhere")
}

// TestQuietStart: a normal start and stop warns of nothing.
func TestQuietStart(t *testing.T) {
	var b strings.Builder
	s, err := OpenEmbedded(t.Context(), t.TempDir(), slog.New(slog.NewTextHandler(&b, nil)))
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, put(key(t, "k"), "1"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if !strings.Contains(line, "took") { // a slow disk may be told
			t.Error(line)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/api/pb"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// reader follows a gRPC watch as a careful client does: it applies every message to what it holds.
type reader struct {
	w      *world
	stream grpc.ServerStreamingClient[pb.WatchSyncStateResponse]
	stop   context.CancelFunc
	have   map[string]string // sync state id -> phase
	found  map[string]bool   // open finding ids
	token  string
	resets []string
	last   *pb.WatchSyncStateResponse
}

func (w *world) watch(conn *grpc.ClientConn, req *pb.WatchSyncStateRequest, token string) *reader {
	w.t.Helper()
	ctx, stop := context.WithTimeout(w.t.Context(), 20*time.Second)
	w.t.Cleanup(stop)
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	s, err := pb.NewGitOpsSyncClient(conn).WatchSyncState(ctx, req)
	w.ok(err)
	return &reader{w: w, stream: s, stop: stop, have: map[string]string{}, found: map[string]bool{}}
}

// next takes one message in.
func (r *reader) next() error {
	m, err := r.stream.Recv()
	if err != nil {
		return err
	}
	r.last = m
	if m.GetReset_() != nil {
		r.resets = append(r.resets, m.GetReset_().GetReason())
		clear(r.have)
		clear(r.found)
	}
	for _, e := range m.GetEvents() {
		switch {
		case e.GetSyncState() != nil && e.GetDeleted():
			delete(r.have, e.GetSyncState().GetId())
		case e.GetSyncState() != nil:
			r.have[e.GetSyncState().GetId()] = e.GetSyncState().GetPhase()
		case e.GetFinding() != nil:
			r.found[e.GetFinding().GetId()] = !e.GetDeleted()
		}
	}
	if m.GetResumeToken() != "" {
		r.token = m.GetResumeToken()
	}
	return nil
}

// until reads until what is held fits.
func (r *reader) until(what string, fits func() bool) {
	r.w.t.Helper()
	for !fits() {
		if err := r.next(); err != nil {
			r.w.t.Fatalf("%s: the stream ended: %v; held %v", what, err, r.have)
		}
	}
}

func TestWatchListsThenFollows(t *testing.T) {
	w := newWorld(t)
	first := w.provision("first")
	r := w.watch(w.dial(), &pb.WatchSyncStateRequest{}, w.token(tenantA, "alice"))
	r.until("list", func() bool { return r.have[first] == "Synced" && r.token != "" })
	if len(r.resets) != 1 || r.resets[0] != "initial" {
		t.Errorf("resets %v, want one initial list", r.resets)
	}
	second := w.provision("second")
	r.until("change", func() bool { return r.have[second] == "Synced" })
	head := w.repos[tenantA].Head()
	r.until("horizon", func() bool { return r.last.GetHorizon().GetCommit() == head.Commit })
	if got := r.last.GetHorizon().GetSeq(); got != head.Seq {
		t.Errorf("horizon seq %d, want %d", got, head.Seq)
	}
	w.want(w.do("DELETE", "/resources/"+first, nil), 202, "delete")
	r.until("deletion", func() bool { _, there := r.have[first]; return !there })
	if len(r.resets) != 1 {
		t.Errorf("resets %v, want only the first", r.resets)
	}
}

func TestWatchResumes(t *testing.T) {
	w := newWorld(t)
	conn, token := w.dial(), w.token(tenantA, "alice")
	first := w.provision("first")
	r := w.watch(conn, &pb.WatchSyncStateRequest{}, token)
	r.until("list", func() bool { return r.have[first] == "Synced" && r.token != "" })
	resume := r.token
	r.stop()
	second := w.provision("second")
	r = w.watch(conn, &pb.WatchSyncStateRequest{ResumeAfter: resume}, token)
	r.until("resumed", func() bool { return r.have[second] == "Synced" })
	if len(r.resets) != 0 || r.have[first] != "" {
		t.Errorf("resumed with resets %v and %v, want only what came after the token", r.resets, r.have)
	}
	r = w.watch(conn, &pb.WatchSyncStateRequest{ResumeAfter: state.Token{Epoch: "another", Rev: 1}.String()}, token)
	r.until("another installation's token", func() bool { return r.have[first] != "" && r.have[second] != "" })
	if len(r.resets) != 1 || r.resets[0] != "epoch" {
		t.Errorf("resets %v, want epoch", r.resets)
	}
}

func TestWatchFilters(t *testing.T) {
	w := newWorld(t)
	conn, token := w.dial(), w.token(tenantA, "alice")
	repo := w.provision("r")
	branch := w.want(w.do("POST", "/repositories/"+repo+"/branches", map[string]any{"name": "b"}), 201, "branch").text("branchId")
	other := w.want(w.do("POST", "/repositories", map[string]any{"projectId": "other", "name": "r"}), 201, "other project").text("repositoryId")
	w.want(w.do("POST", "/repositories", map[string]any{"projectId": "proj", "name": "r"}, bearer(w.token(tenantB, "bob"))...), 201, "other tenant")
	ref := desired.Ref{Tenant: tenantA, Project: "proj", Kind: desired.KindRepository, Name: "r"}
	for _, c := range []struct {
		name string
		req  *pb.WatchSyncStateRequest
		want []string
	}{
		{"all", &pb.WatchSyncStateRequest{}, []string{repo, branch, other}},
		{"project", &pb.WatchSyncStateRequest{Project: "proj"}, []string{repo, branch}},
		{"kind", &pb.WatchSyncStateRequest{Kinds: []string{"Repository"}}, []string{repo, other}},
		{"id", &pb.WatchSyncStateRequest{Resources: []string{branch}}, []string{branch}},
		{"ref", &pb.WatchSyncStateRequest{Resources: []string{ref.String()}}, []string{repo}},
		{"min commit", &pb.WatchSyncStateRequest{MinCommit: w.repos[tenantA].Head().Commit}, []string{repo, branch, other}},
		{"nothing there", &pb.WatchSyncStateRequest{Project: "nowhere"}, nil},
	} {
		r := w.watch(conn, c.req, token)
		r.until(c.name, func() bool { return r.token != "" })
		if len(r.have) != len(c.want) {
			t.Errorf("%s: got %v, want %v", c.name, r.have, c.want)
		}
		for _, id := range c.want {
			if r.have[id] == "" {
				t.Errorf("%s: %s is missing", c.name, id)
			}
		}
		r.stop()
	}
	foreign := desired.Ref{Tenant: tenantB, Project: "proj", Kind: desired.KindRepository, Name: "r"}
	for _, c := range []struct {
		name string
		req  *pb.WatchSyncStateRequest
		want codes.Code
	}{
		{"unknown kind", &pb.WatchSyncStateRequest{Kinds: []string{"Nothing"}}, codes.InvalidArgument},
		{"no id", &pb.WatchSyncStateRequest{Resources: []string{"x y"}}, codes.InvalidArgument},
		{"another tenant's ref", &pb.WatchSyncStateRequest{Resources: []string{foreign.String()}}, codes.NotFound},
		{"no token", &pb.WatchSyncStateRequest{ResumeAfter: "hello"}, codes.InvalidArgument},
		{"no commit", &pb.WatchSyncStateRequest{MinCommit: "main"}, codes.InvalidArgument},
	} {
		if err := w.watch(conn, c.req, token).next(); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func TestWatchCarriesFindings(t *testing.T) {
	w := newWorld(t)
	repo := w.provision("r")
	ref := desired.Ref{Tenant: tenantA, Project: "proj", Kind: desired.KindRepository, Name: "r"}
	f := plan.Finding{V: 1, ID: desired.DeriveID("drift", ref.String(), "x"), Ref: ref, ResourceID: repo, Kind: "VisibilityMismatch", Severity: plan.High, Cause: plan.CauseDrift, FirstSeen: time.Now(), Occurrences: 1}
	put, err := state.PutFinding(f)
	w.ok(err)
	_, err = w.store.Commit(t.Context(), state.Fence{}, put)
	w.ok(err)
	conn := w.dial()
	r := w.watch(conn, &pb.WatchSyncStateRequest{Findings: true}, w.token(tenantA, "alice"))
	r.until("finding", func() bool { return r.found[f.ID] })
	without := w.watch(conn, &pb.WatchSyncStateRequest{}, w.token(tenantA, "alice"))
	without.until("list", func() bool { return without.token != "" })
	if len(without.found) > 0 {
		t.Errorf("findings %v that were not asked for", without.found)
	}
}

func TestStreamsAreCountedByTenant(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxStreams = 1 })
	conn := w.dial()
	w.listen()
	r := w.watch(conn, &pb.WatchSyncStateRequest{}, w.token(tenantA, "alice"))
	r.until("first stream", func() bool { return r.token != "" })
	if err := w.watch(conn, &pb.WatchSyncStateRequest{}, w.token(tenantA, "bob")).next(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("second stream of the tenant: %v", err)
	}
	e := w.do("GET", "/sync-states/watch", nil)
	if e.status != http.StatusTooManyRequests || e.header.Get("Retry-After") == "" || e.text("code") != "throttled" {
		t.Errorf("third stream, over SSE: %d %s", e.status, e.raw)
	}
	other := w.watch(conn, &pb.WatchSyncStateRequest{}, w.token(tenantB, "eve"))
	other.until("another tenant", func() bool { return other.token != "" })
	r.stop()
	for { // the place is free again once the server has noticed
		again := w.watch(conn, &pb.WatchSyncStateRequest{}, w.token(tenantA, "alice"))
		err := again.next()
		if err == nil {
			return
		}
		if status.Code(err) != codes.ResourceExhausted {
			t.Fatal(err)
		}
	}
}

func TestStreamsEndWithTheirToken(t *testing.T) {
	w := newWorld(t)
	short := w.mintAt(time.Now().Add(-auth.Leeway), tenantA, 2*time.Second, allScopes())
	w.listen()
	events := w.events("/sync-states/watch", short, "")
	r := w.watch(w.dial(), &pb.WatchSyncStateRequest{}, short)
	r.until("list", func() bool { return r.token != "" })
	err := readAll(r)
	if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "expired") {
		t.Errorf("the stream ended with %v, want the expired token", err)
	}
	if got := r.stream.Trailer().Get(resumeTrailer); len(got) != 1 || got[0] != r.token {
		t.Errorf("trailer %v, want the last token %s", got, r.token)
	}
	end := events.until("end")
	if end["code"] != "unauthenticated" || end["resumeToken"] == "" {
		t.Errorf("the event stream ended with %v", end)
	}
}

func readAll(r *reader) error {
	for {
		if err := r.next(); err != nil {
			return err
		}
	}
}

func TestShutdownEndsStreamsWithResumeTokens(t *testing.T) {
	w := newWorld(t)
	w.listen()
	id := w.provision("r")
	r := w.watch(w.dial(), &pb.WatchSyncStateRequest{}, w.token(tenantA, "alice"))
	r.until("list", func() bool { return r.have[id] != "" && r.token != "" })
	events := w.events("/sync-states/watch", w.token(tenantA, "alice"), "")
	events.until("bookmark")
	w.script.set(func() { w.script.hold[desired.KindRepository] = true })
	waiting := make(chan exchange, 1)
	go func() {
		waiting <- w.do("POST", "/repositories", map[string]any{"projectId": "proj", "name": "slow"}, "Prefer", "wait=60")
	}()
	slow := desired.Ref{Tenant: tenantA, Project: "proj", Kind: desired.KindRepository, Name: "slow"}.ID()
	r.until("the slow write", func() bool { return r.have[slow] == "Pending" })
	if err := w.server.Ready(t.Context()); err != nil {
		t.Errorf("before: %v", err)
	}
	w.ok(w.server.Shutdown(t.Context()))
	if err := readAll(r); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v, want unavailable", err)
	}
	if got := r.stream.Trailer().Get(resumeTrailer); len(got) != 1 || got[0] != r.token {
		t.Errorf("trailer %v, want %s", got, r.token)
	}
	if end := events.until("end"); end["code"] != "transient" || end["resumeToken"] == "" {
		t.Errorf("the event stream ended with %v", end)
	}
	if e := <-waiting; e.status != http.StatusAccepted || e.text("status") != "Provisioning" {
		t.Errorf("the waiting write: %d %s, want 202", e.status, e.raw)
	}
	if err := w.server.Ready(t.Context()); err == nil {
		t.Error("ready after the shutdown began")
	}
}

// sse reads server-sent events.
type sse struct {
	w     *world
	lines *bufio.Scanner
	id    string
	name  string
}

// events opens an event stream on the listener.
func (w *world) events(path, token, last string) *sse {
	w.t.Helper()
	ctx, stop := context.WithTimeout(w.t.Context(), 20*time.Second)
	w.t.Cleanup(stop)
	r, err := http.NewRequestWithContext(ctx, "GET", w.base+path, nil)
	w.ok(err)
	r.Header.Set("Authorization", "Bearer "+token)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	w.ok(err)
	w.t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != streamType {
		body, _ := io.ReadAll(res.Body)
		w.t.Fatalf("%s: %d %s", path, res.StatusCode, body)
	}
	return &sse{w: w, lines: bufio.NewScanner(res.Body)}
}

// next reads one event.
func (s *sse) next() (data map[string]any) {
	s.w.t.Helper()
	s.name = ""
	for s.lines.Scan() {
		field, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch field {
		case "id":
			s.id = value
		case "event":
			s.name = value
		case "data":
			s.w.ok(json.Unmarshal([]byte(value), &data))
		case "":
			return data
		}
	}
	s.w.t.Fatalf("the event stream ended: %v", s.lines.Err())
	return nil
}

func (s *sse) until(name string) map[string]any {
	s.w.t.Helper()
	for {
		if data := s.next(); s.name == name {
			return data
		}
	}
}

func TestEventStreamListsFollowsAndResumes(t *testing.T) {
	w := newWorld(t)
	w.listen()
	token := w.token(tenantA, "alice")
	first := w.provision("first")
	s := w.events("/sync-states/watch?kind=Repository", token, "")
	if data := s.next(); s.name != "reset" || data["reason"] != "initial" {
		t.Fatalf("first event %s %v, want a reset", s.name, data)
	}
	at := s.until("sync-state")["syncState"].(map[string]any)
	if at["id"] != first || at["kind"] != "Repository" || at["phase"] != "Synced" {
		t.Errorf("listed %v", at)
	}
	mark := s.until("bookmark")
	if mark["resumeToken"] != s.id || s.id == "" {
		t.Errorf("bookmark %v has id %q", mark, s.id)
	}
	resume := s.id
	second := w.provision("second")
	for at["id"] != second {
		at = s.until("sync-state")["syncState"].(map[string]any)
	}
	s = w.events("/sync-states/watch?kind=Repository", token, resume)
	if data := s.next(); s.name != "sync-state" || data["syncState"].(map[string]any)["id"] != second {
		t.Errorf("resumed with %s %v", s.name, data)
	}
}

func TestEventStreamRefusesBeforeItBegins(t *testing.T) {
	w := newWorld(t)
	for path, want := range map[string]int{
		"/sync-states/watch?kind=Nothing":  422,
		"/sync-states/watch?id=x%20y":      422,
		"/findings/watch?minCommit=main":   422,
		"/sync-states/watch?project=x&x=y": 0,
	} {
		if want == 0 {
			continue
		}
		e := w.do("GET", path, nil)
		if e.status != want || e.header.Get("Content-Type") != problemType {
			t.Errorf("%s: %d %s %s", path, e.status, e.header.Get("Content-Type"), e.raw)
		}
	}
	if e := w.do("GET", "/sync-states/watch", nil, "Last-Event-ID", "hello"); e.status != 422 {
		t.Errorf("bad Last-Event-ID: %d %s", e.status, e.raw)
	}
	if e := w.do("GET", "/sync-states/watch", nil, "Accept", "application/json"); e.status != 406 {
		t.Errorf("not acceptable: %d %s", e.status, e.raw)
	}
}

// TestPackedMessagesSayWhatWasPacked decodes what sendUpdate writes by hand with the generated code.
func TestPackedMessagesSayWhatWasPacked(t *testing.T) {
	for _, n := range []int{0, 1, 7, 2000} {
		u := state.Update{Reset: true, Why: "gap", Token: state.Token{Epoch: "e", Rev: 9}, Horizon: state.Horizon{Seq: 3, Commit: "c", At: time.Now()}}
		for i := range n {
			ref := desired.Ref{Tenant: "t", Project: "p", Kind: desired.KindBranch, Name: fmt.Sprint("b", i)}
			u.Items = append(u.Items, &state.Item{Tenant: "t", ID: ref.ID(), State: &state.SyncState{Ref: ref, Phase: plan.Synced, Message: strings.Repeat("m", i%300)}, Deleted: i%5 == 0})
		}
		var all []*pb.Event
		messages := 0
		err := sendUpdate(u, func(b mem.Buffer) error {
			defer b.Free()
			messages++
			if b.Len() > maxMessage+4096 {
				t.Errorf("a message of %d bytes", b.Len())
			}
			var m pb.WatchSyncStateResponse
			if err := proto.Unmarshal(b.ReadOnlyData(), &m); err != nil {
				return err
			}
			all = append(all, m.GetEvents()...)
			last := len(all) == n
			if (m.GetReset_().GetReason() == "gap") != (messages == 1) || m.GetMore() == last || (m.GetResumeToken() != "") != last || (m.GetHorizon() != nil) != last {
				t.Errorf("message %d of %d events: %v", messages, n, &m)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != n || n == 2000 && messages < 3 {
			t.Errorf("%d events in %d messages, want %d", len(all), messages, n)
		}
		for i, e := range all {
			if want := eventOf(u.Items[i]); !proto.Equal(e, want) {
				t.Fatalf("event %d: got %v, want %v", i, e, want)
			}
			if first, second := eventChunk(u.Items[i]), eventChunk(u.Items[i]); &first[0] != &second[0] {
				t.Fatal("an event is encoded twice")
			}
		}
	}
}

// BenchmarkFanOut delivers updates of 64 events of about 200 bytes to a stream's encoder.
func BenchmarkFanOut(b *testing.B) {
	u := state.Update{Token: state.Token{Epoch: "e", Rev: 9}, Horizon: state.Horizon{Seq: 3, Commit: strings.Repeat("c", 40), At: time.Now()}}
	for i := range 64 {
		ref := desired.Ref{Tenant: "t", Project: "p", Kind: desired.KindBranch, Name: fmt.Sprint("b", i)}
		u.Items = append(u.Items, &state.Item{Tenant: "t", ID: ref.ID(), State: &state.SyncState{Ref: ref, Phase: plan.Synced, Message: strings.Repeat("m", 100)}})
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := sendUpdate(u, func(m mem.Buffer) error { m.Free(); return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*64/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkWatch delivers changes of 128 states at a time through the store, the hub and real connections.
func BenchmarkWatch(b *testing.B) {
	for _, streams := range []int{100, 1000} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) { benchWatch(b, streams) })
	}
}

func benchWatch(b *testing.B, streams int) {
	const batch = 128
	w := startWorld(b, false, nil)
	token := w.token(tenantA, "alice")
	var got, ready atomic.Int64
	var readers sync.WaitGroup
	ctx, stop := context.WithCancel(metadata.AppendToOutgoingContext(b.Context(), "authorization", "Bearer "+token))
	defer readers.Wait()
	defer stop()
	conns := []*grpc.ClientConn{}
	addr := w.serveGRPC()
	for i := range streams {
		if i%200 == 0 {
			conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(counting{})))
			w.ok(err)
			defer conn.Close()
			conns = append(conns, conn)
		}
		s, err := pb.NewGitOpsSyncClient(conns[len(conns)-1]).WatchSyncState(ctx, &pb.WatchSyncStateRequest{})
		w.ok(err)
		readers.Go(func() {
			for first := true; ; first = false {
				var n int64
				if err := s.RecvMsg(&n); err != nil {
					return
				}
				if got.Add(n); first {
					ready.Add(1)
				}
			}
		})
	}
	for ready.Load() < int64(streams) {
		time.Sleep(time.Millisecond)
	}
	b.ResetTimer()
	for i := range b.N {
		puts := make([]state.Put, batch)
		for j := range puts {
			ref := desired.Ref{Tenant: tenantA, Project: "p", Kind: desired.KindBranch, Name: fmt.Sprint("b", j)}
			puts[j], _ = state.PutState(state.SyncState{V: 1, Ref: ref, Phase: plan.Synced, DesiredSeq: uint64(i), Message: "as it is"})
		}
		_, err := w.store.Commit(ctx, state.Fence{}, puts...)
		w.ok(err)
		for got.Load() < int64(i+1)*batch*int64(streams) {
			time.Sleep(50 * time.Microsecond)
		}
	}
	b.ReportMetric(float64(b.N*batch*streams)/b.Elapsed().Seconds(), "events/s")
}

// counting is a codec that counts events instead of decoding them.
type counting struct{}

func (counting) Name() string { return "proto" }

func (counting) Marshal(v any) (mem.BufferSlice, error) {
	raw, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(raw)}, err
}

func (counting) Unmarshal(data mem.BufferSlice, v any) error {
	raw := data.Materialize()
	for len(raw) > 0 {
		num, kind, n := protowire.ConsumeTag(raw)
		m := protowire.ConsumeFieldValue(num, kind, raw[n:])
		if m < 0 {
			return protowire.ParseError(m)
		}
		if raw = raw[n+m:]; num == 1 {
			*v.(*int64)++
		}
	}
	return nil
}

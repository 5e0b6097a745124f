// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/connectsoft/plumbline/api/pb"
)

// scripted plays one script per connection and notes how each was asked for.
type scripted struct {
	pb.UnimplementedGitOpsSyncServer
	scripts []func(grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error

	mu    sync.Mutex
	asked []*pb.WatchSyncStateRequest
	auth  []string
}

func (s *scripted) WatchSyncState(q *pb.WatchSyncStateRequest, out grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error {
	md, _ := metadata.FromIncomingContext(out.Context())
	s.mu.Lock()
	n := len(s.asked)
	s.asked = append(s.asked, q)
	s.auth = append(s.auth, strings.Join(md.Get("authorization"), ","))
	s.mu.Unlock()
	if n >= len(s.scripts) {
		<-out.Context().Done()
		return nil
	}
	return s.scripts[n](out)
}

// watchScripted runs `plumbline watch` against the scripts until it ends, or its lines hold last.
func watchScripted(t *testing.T, s *scripted, last string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterGitOpsSyncServer(server, s)
	go server.Serve(l)
	defer server.Stop()
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "abc")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out := &lastLine{want: last, found: cancel}
	var errs bytes.Buffer
	sh := &shell{stdin: os.Stdin, stdout: out, stderr: &errs, environ: []string{"HOME=" + t.TempDir()}}
	args = append([]string{"watch", "--server", "127.0.0.1:1", "--grpc-server", l.Addr().String(), "--token-file", token}, args...)
	code = run(ctx, args, sh)
	return code, out.String(), errs.String()
}

// lastLine ends the watch once a text was written.
type lastLine struct {
	bytes.Buffer
	want  string
	found func()
}

func (l *lastLine) Write(p []byte) (int, error) {
	n, err := l.Buffer.Write(p)
	if l.want != "" && strings.Contains(l.String(), l.want) {
		l.found()
	}
	return n, err
}

func stateEvent(name, phase, commit string) *pb.Event {
	return &pb.Event{Object: &pb.Event_SyncState{SyncState: &pb.SyncState{
		Id: "branch-1", Ref: &pb.Ref{Tenant: "acme", Project: "shop", Kind: "Branch", Name: name}, Phase: phase, DesiredCommit: commit, Message: "text\x1b of " + phase,
	}}}
}

func TestWatchResumesWhereItWasAndSaysWhenItCannot(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	s := &scripted{scripts: []func(grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error{
		func(out grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error {
			out.Send(&pb.WatchSyncStateResponse{Reset_: &pb.Reset{Reason: "initial"}, Events: []*pb.Event{stateEvent("a", "Pending", commit)}, More: true})
			out.Send(&pb.WatchSyncStateResponse{Events: []*pb.Event{stateEvent("b", "Synced", commit)}, ResumeToken: "t1"})
			out.SetTrailer(metadata.Pairs(resumeTrailer, "t2"))
			return status.Error(codes.Unavailable, "shutting down")
		},
		func(out grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error {
			out.Send(&pb.WatchSyncStateResponse{Events: []*pb.Event{{Object: &pb.Event_Finding{Finding: &pb.Finding{
				Id: "drift-1", Ref: &pb.Ref{Tenant: "acme", Project: "shop", Kind: "Branch", Name: "a"}, Kind: "BranchMissing", Severity: "High", Cause: "drift",
				Message: "it is gone", SourceCommit: commit, FirstSeen: timestamppb.Now(),
			}}}}, ResumeToken: "t3"})
			return status.Error(codes.OutOfRange, "compacted")
		},
		func(out grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error {
			out.Send(&pb.WatchSyncStateResponse{Reset_: &pb.Reset{Reason: "compacted"}, Events: []*pb.Event{stateEvent("a", "Synced", commit)}, ResumeToken: "t4"})
			out.Send(&pb.WatchSyncStateResponse{ResumeToken: "t5", Horizon: &pb.Horizon{Commit: commit}})
			e := stateEvent("b", "Synced", commit)
			e.Deleted = true
			out.Send(&pb.WatchSyncStateResponse{Events: []*pb.Event{e}, ResumeToken: "t6"})
			<-out.Context().Done()
			return nil
		},
	}}
	code, stdout, stderr := watchScripted(t, s, "Gone", "--project", "shop", "--kind", "branches", "--bookmarks")
	if code != exitInterrupted {
		t.Errorf("exit code: got %d, want %d; stderr: %s", code, exitInterrupted, stderr)
	}
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(stdout), "\n") {
		_, rest, _ := strings.Cut(line, "  ") // without the time
		got = append(got, strings.Join(strings.Fields(rest), " "))
	}
	want := []string{
		"Pending 0123456789ab acme/shop/Branch/a text of Pending",
		"Synced 0123456789ab acme/shop/Branch/b",
		"FINDING 0123456789ab acme/shop/Branch/a BranchMissing (High, drift): it is gone",
		"RESET - compacted: forget everything shown before; a complete list follows",
		"Synced 0123456789ab acme/shop/Branch/a",
		"BOOKMARK 0123456789ab t5",
		"Gone 0123456789ab acme/shop/Branch/b text of Synced",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var tokens []string
	for _, q := range s.asked {
		tokens = append(tokens, q.ResumeAfter)
		if q.Project != "shop" || strings.Join(q.Kinds, ",") != "Branch" || !q.Findings {
			t.Errorf("asked for %v", q)
		}
	}
	if got := strings.Join(tokens, ","); got != ",t2,t3" {
		t.Errorf("resumed after %q, want the trailer's token, then the last message's", got)
	}
	for _, a := range s.auth {
		if a != "Bearer abc" {
			t.Errorf("authorization: got %q", a)
		}
	}
	if !strings.Contains(stderr, "connection lost (shutting down): resuming") {
		t.Errorf("stderr says nothing of the lost connection: %q", stderr)
	}
}

func TestWatchEndsWhereTryingAgainIsVain(t *testing.T) {
	rows := []struct {
		code codes.Code
		want int
	}{
		{codes.PermissionDenied, 77},
		{codes.Unauthenticated, 77},
		{codes.InvalidArgument, 1},
		{codes.Unavailable, 69}, // never connected
	}
	for _, r := range rows {
		s := &scripted{scripts: []func(grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error{
			func(grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error { return status.Error(r.code, "no") },
		}}
		if code, _, stderr := watchScripted(t, s, ""); code != r.want || !strings.Contains(stderr, "watch: no") {
			t.Errorf("%s: got %d, %q, want %d", r.code, code, stderr, r.want)
		}
	}
}

func TestWatchEndsWellAtItsTimeout(t *testing.T) {
	if code, _, stderr := watchScripted(t, &scripted{}, "", "--timeout", "50ms"); code != 0 {
		t.Errorf("got %d, %q, want 0", code, stderr)
	}
}

func TestWatchAsJSON(t *testing.T) {
	s := &scripted{scripts: []func(grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error{
		func(out grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error {
			out.Send(&pb.WatchSyncStateResponse{Reset_: &pb.Reset{Reason: "initial"}, Events: []*pb.Event{stateEvent("a", "Synced", "c")}, ResumeToken: "t1"})
			<-out.Context().Done()
			return nil
		},
	}}
	_, stdout, _ := watchScripted(t, s, "sync-state", "-o", "json")
	if want := `{"event":"sync-state","syncState":{"desiredCommit":"c","id":"branch-1","kind":"Branch"`; !strings.HasPrefix(stdout, want) {
		t.Errorf("got %s, want it to begin with %s", stdout, want)
	}
	_, stdout, _ = watchScripted(t, &scripted{scripts: s.scripts}, "acme", "-o", "jsonpath={.syncState.ref} {.syncState.phase}")
	if want := "acme/shop/Branch/a Synced\n"; stdout != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
}

func TestColoursAreForTerminals(t *testing.T) {
	for _, r := range []struct {
		terminal bool
		environ  []string
		want     bool
	}{{true, nil, true}, {true, []string{"NO_COLOR=1"}, false}, {false, nil, false}} {
		var out bytes.Buffer
		p := newEventPrinter(&shell{stdout: &out, terminal: r.terminal, environ: r.environ}, "table")
		if err := p.event(stateEvent("a", "Synced", "c")); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "\x1b[32m"); got != r.want {
			t.Errorf("terminal %v, environment %v: coloured %v, want %v", r.terminal, r.environ, got, r.want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

func TestAddressesOfADaemon(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, addressesFile), `{"http":"127.0.0.1:1","grpc":"127.0.0.1:2","admin":"127.0.0.1:3"}`)
	rows := []struct {
		story              string
		c                  connection
		wantHTTP, wantGRPC string
	}{
		{"the state directory", connection{stateDir: dir}, "http://127.0.0.1:1", "127.0.0.1:2"},
		{"a named gRPC listener beside it", connection{stateDir: dir, grpcServer: "127.0.0.1:7"}, "http://127.0.0.1:1", "127.0.0.1:7"},
		{"a server on this machine", connection{server: "localhost:8080"}, "http://localhost:8080", "http://localhost:9090"},
		{"a server elsewhere", connection{server: "plumbline.example.org"}, "https://plumbline.example.org", "https://plumbline.example.org:9090"},
		{"a server by URL", connection{server: "http://p:80/", grpcServer: "p:9"}, "http://p:80", "p:9"},
	}
	for _, r := range rows {
		t.Run(r.story, func(t *testing.T) {
			r.c.sh = &shell{environ: []string{"HOME=" + t.TempDir()}}
			gotHTTP, gotGRPC, err := r.c.addresses()
			if err != nil || gotHTTP != r.wantHTTP || gotGRPC != r.wantGRPC {
				t.Errorf("got %q, %q, %v, want %q, %q", gotHTTP, gotGRPC, err, r.wantHTTP, r.wantGRPC)
			}
		})
	}
}

func TestWhatPeopleTypeForAResource(t *testing.T) {
	branch := desired.Ref{Tenant: "acme", Project: "shop", Kind: desired.KindBranch, Name: "cart.next"}
	rows := []struct{ word, project, want string }{
		{"shop/Branch/cart.next", "", branch.ID()},
		{"shop/branches/cart.next", "", branch.ID()},
		{"acme/shop/Branch/cart.next", "", branch.ID()},
		{"Branch/cart.next", "shop", branch.ID()},
		{branch.ID(), "", branch.ID()},
		{"-/Provider/local", "", desired.Ref{Tenant: "acme", Kind: desired.KindProvider, Name: "local"}.ID()},
	}
	for _, r := range rows {
		if got, _, err := resolve(r.word, "acme", r.project); err != nil || got != r.want {
			t.Errorf("%s: got %q, %v, want %q", r.word, got, err, r.want)
		}
	}
	for _, bad := range []string{"cart", "a/b", "a/Rocket/b", "a/b/c/d/e", "shop//x", "shop/Branch/"} {
		if got, _, err := resolve(bad, "acme", ""); err == nil {
			t.Errorf("%s: got %q, want an error", bad, got)
		} else if code := exitCode(t.Context(), err); code != exitUsage {
			t.Errorf("%s: exit code %d, want %d", bad, code, exitUsage)
		}
	}
}

func TestARefWithoutATenantIsRefused(t *testing.T) {
	if got, _, err := resolve("shop/Branch/cart.next", "", ""); err == nil || !strings.Contains(err.Error(), "give -n TENANT") {
		t.Errorf("got %q, %v", got, err)
	}
	if _, _, err := resolve("-/Tenant/acme", "", ""); err != nil {
		t.Errorf("a platform document: %v", err)
	}
}

func TestProblemsBecomeErrorsOfTheirClass(t *testing.T) {
	status, body := 0, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	defer server.Close()
	r := &rest{base: server.URL, token: "t", client: server.Client()}
	rows := []struct {
		status int
		body   string
		class  desired.Class
		exit   int
		want   string
	}{
		{404, `{"title":"Not found","detail":"there is no repository of that id","code":"not-found"}`, desired.NotFound, 1, "there is no repository of that id"},
		{403, `{"detail":"the token lacks devops.repositories.read"}`, desired.Denied, 77, "the token lacks"},
		{401, ``, desired.Denied, 77, "the server answered 401 Unauthorized"},
		{429, `{"detail":"slow down"}`, desired.Throttled, 75, "slow down"},
		{503, `<html>`, desired.Transient, 69, "the server answered 503"},
		{500, `{"detail":"internal error","traceId":"abc"}`, desired.Internal, 1, "internal error (trace abc)"},
		{422, `{"detail":"two faults","errors":[{"line":3,"column":5,"detail":"unknown key"}]}`, desired.Invalid, 1, "two faults"},
	}
	for _, row := range rows {
		status, body = row.status, row.body
		err := r.get(t.Context(), "/x", nil, new(any))
		var e *desired.Error
		if !errors.As(err, &e) || e.Class != row.class || e.After != 7*time.Second || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%d: got %v, want class %s with %q", row.status, err, row.class, row.want)
		}
		if got := exitCode(t.Context(), err); got != row.exit {
			t.Errorf("%d: exit code %d, want %d", row.status, got, row.exit)
		}
	}
	var out bytes.Buffer
	status, body = 422, rows[len(rows)-1].body
	report(&out, namePlaces(r.get(t.Context(), "/x", nil, new(any)), []string{"a.yaml"}))
	if want := "a.yaml:3:5: unknown key\nplumbline: GET /x: two faults\n"; out.String() != want {
		t.Errorf("report: got %q, want %q", out.String(), want)
	}
}

func TestPagesAreReadToTheEnd(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("pageToken") {
		case "":
			io.WriteString(w, `{"items":[{"id":"a"},{"id":"b"}],"nextPageToken":"p2"}`)
		case "p2":
			io.WriteString(w, `{"items":[{"id":"c"}]}`)
		}
	}))
	defer server.Close()
	r := &rest{base: server.URL, token: "t", client: server.Client()}
	items, err := listAll[api.Resource](t.Context(), r, "/resources", map[string][]string{})
	if err != nil || len(items) != 3 || items[2].ID != "c" {
		t.Errorf("got %v, %v, want three items", items, err)
	}
}

func TestWhenWaitingIsOver(t *testing.T) {
	notFound := desired.Errorf("x", desired.Ref{}, desired.NotFound, "no")
	rows := []struct {
		story string
		want  string
		seq   uint64
		state api.SyncState
		err   error
		done  bool
		class desired.Class
	}{
		{"synced for what is wanted", "Synced", 0, api.SyncState{Phase: "Synced", DesiredSeq: 4, AppliedSeq: 4}, nil, true, ""},
		{"synced for what was wanted", "Synced", 0, api.SyncState{Phase: "Synced", DesiredSeq: 5, AppliedSeq: 4}, nil, false, ""},
		{"on its way", "Synced", 0, api.SyncState{Phase: "Progressing", DesiredSeq: 5}, nil, false, ""},
		{"not there yet", "Synced", 0, api.SyncState{}, notFound, false, ""},
		{"the commit did not touch it", "Synced", 9, api.SyncState{Phase: "Synced", DesiredSeq: 4, AppliedSeq: 4}, nil, true, ""},
		{"a later commit is in force", "Synced", 4, api.SyncState{Phase: "Synced", DesiredSeq: 5, AppliedSeq: 5}, nil, true, ""},
		{"superseded", "Synced", 4, api.SyncState{Phase: "Progressing", DesiredSeq: 5, AppliedSeq: 3}, nil, false, desired.Conflict},
		{"stuck", "Synced", 0, api.SyncState{Phase: "Stalled", Message: "m"}, nil, false, desired.Stalled},
		{"stuck as wanted", "Stalled", 0, api.SyncState{Phase: "Stalled"}, nil, true, ""},
		{"an approval is asked for", "Synced", 0, api.SyncState{Phase: "AwaitingApproval"}, nil, false, desired.Stalled},
		{"deleted", "deleted", 0, api.SyncState{}, notFound, true, ""},
		{"not deleted yet", "deleted", 0, api.SyncState{Phase: "Deleting"}, nil, false, ""},
		{"the server is away", "Synced", 0, api.SyncState{}, desired.Errorf("x", desired.Ref{}, desired.Transient, "no"), false, ""},
		{"not permitted", "Synced", 0, api.SyncState{}, desired.Errorf("x", desired.Ref{}, desired.Denied, "no"), false, desired.Denied},
	}
	for _, r := range rows {
		done, err := judgeWait(waitOptions{phase: r.want}, r.seq, r.state, r.err)
		if done != r.done || desired.ClassOf(err) != r.class {
			t.Errorf("%s: got %v, %v, want %v, %q", r.story, done, err, r.done, r.class)
		}
	}
}

func TestATokenComesFromAFileOrIsSignedHere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	write(t, file, " abc.def \n")
	c := connection{sh: &shell{stdin: strings.NewReader("from.stdin\n"), environ: []string{"HOME=" + dir}}, tokenFile: file}
	if got, err := c.token(); got != "abc.def" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	c.tokenFile = "-"
	if got, err := c.token(); got != "from.stdin" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	c.tokenFile = ""
	if _, err := c.token(); exitCode(t.Context(), err) != 77 {
		t.Errorf("no token and no key: got %v, want exit code 77", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// A damaged addresses.json is named, with what to do about it.
func TestDamagedAddresses(t *testing.T) {
	dir := t.TempDir()
	for _, content := range []string{"", "{gar", "[]", `{"http":5}`, `{"admin":"127.0.0.1:3"}`} {
		write(t, filepath.Join(dir, addressesFile), content)
		_, err := (&connection{stateDir: dir}).readAddresses()
		if err == nil || !strings.Contains(err.Error(), addressesFile+" is damaged: start") {
			t.Errorf("%q: got %v, want the file and the remedy", content, err)
		}
	}
}

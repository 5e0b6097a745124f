// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

func TestBodyCaps(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxArtifactBytes = 1 << 10 })
	repo := w.provision("r")
	before := w.repos[tenantA].Head().Commit
	mib := strings.Repeat("a", 1<<20)
	commit := func(changes ...any) map[string]any {
		return map[string]any{"branch": "main", "message": "m", "changes": changes}
	}
	add := func(path, content string) map[string]any {
		return map[string]any{"path": path, "operation": "add", "content": content}
	}
	many := []any{}
	for _, p := range strings.Split("abcdefghi", "") {
		many = append(many, add(p, mib[:1<<20-1]))
	}
	for _, c := range []struct {
		name, path string
		body       any
		want       int
	}{
		{"more than 1 MiB", "/repositories", `{"projectId":"` + mib + `"}`, 413},
		{"more than 12 MiB", "/repositories/" + repo + "/commits", commit(add("a", strings.Repeat(mib, 13))), 413},
		{"a file of more than 1 MiB", "/repositories/" + repo + "/commits", commit(add("a", mib+"a")), 413},
		{"files of more than 8 MiB", "/repositories/" + repo + "/commits", commit(many...), 413},
		{"deep", "/repositories", strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65), 400},
		{"very deep", "/repositories", strings.Repeat(`[`, 200000), 400},
		{"deep and valid", "/repositories", `{"x":` + strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000) + `}`, 400},
		{"not UTF-8", "/repositories", "{\"name\":\"\xff\"}", 400},
		{"two documents", "/repositories", `{}{}`, 400},
		{"nothing", "/repositories", "", 400},
		{"null", "/repositories", "null", 400},
		{"many faults", "/repositories/" + repo + "/commits", `{"branch":"b","message":"m","changes":[` + strings.Repeat(`{},`, 999) + `{}]}`, 422},
	} {
		e := w.do("POST", c.path, c.body)
		if e.status != c.want || e.header.Get("Content-Type") != problemType {
			t.Errorf("%s: %d, want %d: %.300s", c.name, e.status, c.want, e.raw)
		}
		if len(e.raw) > 8<<10 {
			t.Errorf("%s: an answer of %d bytes", c.name, len(e.raw))
		}
	}
	if e := w.do("PUT", "/artifacts/a", strings.Repeat("a", 2<<10), "Content-Type", "text/plain"); e.status != 413 {
		t.Errorf("artifact: %d %s", e.status, e.raw)
	}
	unsized := httptest.NewRequestWithContext(t.Context(), "PUT", "/artifacts/a", io.MultiReader(strings.NewReader(strings.Repeat("a", 2<<10))))
	unsized.ContentLength = -1
	unsized.Header.Set("Authorization", "Bearer "+w.token(tenantA, "alice"))
	if e := w.serve(unsized); e.status != 413 {
		t.Errorf("artifact of unknown length: %d %s", e.status, e.raw)
	}
	if after := w.repos[tenantA].Head().Commit; after != before {
		t.Error("something was committed")
	}
	e := w.do("POST", "/repositories/"+repo+"/commits", commit(add("a", mib), add("b", mib)))
	w.want(e, 201, "two files of 1 MiB")
}

// TestNothingOfTheInputIsEchoed sends secrets in every place where a request can be wrong.
func TestNothingOfTheInputIsEchoed(t *testing.T) {
	w := newWorld(t)
	const secret = "hunter2-s3cr3t"
	for _, c := range []struct{ method, path, body, header, value string }{
		{"POST", "/repositories", `{"projectId":"` + secret + `!","name":"` + secret + `/"}`, "", ""},
		{"POST", "/repositories", `{"projectId":"p","name":"n","visibility":"` + secret + `"}`, "", ""},
		{"POST", "/repositories", `{"projectId":"p","name":"n","provider":"` + secret + `"}`, "", ""},
		{"POST", "/repositories", `{"projectId":{"x":"` + secret + `"},"name":"n"}`, "", ""},
		{"POST", "/repositories", `{"projectId":"p","name":` + secret, "", ""},
		{"POST", "/resources/apply", `{"documents":[{"apiVersion":"plumbline.dev/v1","kind":"DriftRule","metadata":{"name":"a"},"spec":{"action":"` + secret + `"}}]}`, "", ""},
		{"GET", "/repositories?pageToken=" + secret, "", "", ""},
		{"GET", "/repositories?pageSize=" + secret, "", "", ""},
		{"GET", "/resources?kind=" + secret, "", "", ""},
		{"GET", "/repositories", "", "Authorization", "Bearer " + secret},
		{"GET", "/repositories", "", "Accept", secret + "/x"},
		{"DELETE", "/resources/rule-aaaaaaaaaaaaaaaa", "", "Idempotency-Key", secret + "\x80"},
		{"GET", "/sync-states/watch", "", "Last-Event-ID", secret},
		{"POST", "/pull-requests/pr-a/checks", `{"name":"n","status":"Pending","url":"https://u:` + secret + `@x/"}`, "", ""},
	} {
		var body any
		if c.body != "" {
			body = c.body
		}
		e := w.do(c.method, c.path, body, c.header, c.value)
		if e.status < 400 || e.status == 500 {
			t.Errorf("%s %s: %d %s", c.method, c.path, e.status, e.raw)
		}
		if bytes.Contains(e.raw, []byte(secret)) {
			t.Errorf("%s %s echoes: %s", c.method, c.path, e.raw)
		}
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t)
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		w.provision(n)
	}
	names := func(e exchange) (out []string) {
		for _, it := range e.body["items"].([]any) {
			out = append(out, it.(map[string]any)["name"].(string))
		}
		return out
	}
	first := w.want(w.do("GET", "/repositories?pageSize=2", nil), 200, "first page")
	if got := strings.Join(names(first), ""); got != "ab" {
		t.Fatalf("first page %s", got)
	}
	// What happens now is not part of the list any more.
	w.provision("aa")
	w.want(w.do("DELETE", "/resources/"+desired.Ref{Tenant: tenantA, Project: "proj", Kind: desired.KindRepository, Name: "d"}.ID(), nil), 202, "delete")
	all, commit, next := "ab", first.text("commit"), first.text("nextPageToken")
	for next != "" {
		e := w.want(w.do("GET", "/repositories?pageSize=2&pageToken="+next, nil), 200, "next page")
		all += strings.Join(names(e), "")
		if e.text("commit") != commit {
			t.Errorf("a page of commit %s in a list of %s", e.text("commit"), commit)
		}
		next = e.text("nextPageToken")
	}
	if all != "abcde" {
		t.Errorf("all pages: %s, want abcde", all)
	}
	token := first.text("nextPageToken")
	for what, c := range map[string]struct {
		path string
		want int
	}{
		"other filters":        {"/repositories?pageSize=2&project=x&pageToken=" + token, 422},
		"another operation":    {"/branches?pageToken=" + token, 422},
		"garbage":              {"/repositories?pageToken=%00", 422},
		"no number":            {"/repositories?pageSize=many", 422},
		"no page":              {"/repositories?pageSize=0", 422},
		"more than the server": {"/repositories?pageSize=100000", 200},
		"another page size":    {"/repositories?pageSize=1&pageToken=" + token, 200},
		"every kind":           {"/resources?pageSize=1", 200},
	} {
		if e := w.do("GET", c.path, nil); e.status != c.want {
			t.Errorf("%s: %d, want %d: %s", what, e.status, c.want, e.raw)
		}
	}
	if e := w.do("GET", "/repositories?pageToken="+token, nil, bearer(w.token(tenantB, "eve"))...); e.status != 422 && e.status != 410 {
		t.Errorf("another tenant's token: %d %s", e.status, e.raw)
	}
	w.server.pages.now = func() time.Time { return time.Now().Add(2 * pinTime) }
	if e := w.do("GET", "/repositories?pageSize=2&pageToken="+token, nil); e.status != http.StatusGone || e.text("code") != "token-expired" {
		t.Errorf("a list that paused too long: %d %s", e.status, e.raw)
	}
}

func TestPinsAreBounded(t *testing.T) {
	p := newPins(time.Now)
	for i := range 3 * maxPins {
		p.keep("t", &desired.Head{Commit: strings.Repeat("a", i+1)})
	}
	if len(p.heads) > maxPins {
		t.Errorf("%d heads are kept, want at most %d", len(p.heads), maxPins)
	}
}

// TestStatusWords runs every phase through every operation's table.
func TestStatusWords(t *testing.T) {
	want := map[plan.Phase][2]string{ // Repository, closed PullRequest
		plan.Pending: {"Provisioning", "Closing"}, plan.Progressing: {"Provisioning", "Closing"}, plan.Synced: {"Provisioned", "Closed"},
		plan.Stalled: {"Failed", "Failed"}, plan.Failed: {"Failed", "Failed"}, plan.OutOfSync: {"OutOfSync", "OutOfSync"},
		plan.AwaitingApproval: {"AwaitingApproval", "AwaitingApproval"}, plan.Suspended: {"Suspended", "Suspended"},
		plan.Deleting: {"Deleting", "Deleting"}, plan.Unknown: {"Unknown", "Unknown"},
	}
	for p, w := range want {
		if got := [2]string{word("Repository", p), word(desired.PullRequestClosed, p)}; got != w {
			t.Errorf("%s: got %v, want %v", p, got, w)
		}
		if got := word("DriftRule", p); got != string(p) {
			t.Errorf("%s of a kind without words: %s", p, got)
		}
		done := p == plan.Synced || p == plan.Stalled || p == plan.Failed
		if got := written(p, 201); (got == 201) != done {
			t.Errorf("%s: status %d", p, got)
		}
	}
}

func TestOutcomesOfAWrite(t *testing.T) {
	w := newWorld(t)
	body := func(name string) map[string]any { return map[string]any{"projectId": "proj", "name": name} }
	w.script.set(func() { w.script.phases[desired.Ref{Kind: desired.KindRepository}] = plan.Stalled })
	e := w.want(w.do("POST", "/repositories", body("stuck")), 201, "stalled")
	if e.text("status") != "Failed" || e.text("problem.code") != "Scripted" || e.text("problem.detail") == "" {
		t.Errorf("stalled: %s", e.raw)
	}
	w.script.set(func() { w.script.phases[desired.Ref{Kind: desired.KindRepository}] = plan.Suspended })
	e = w.want(w.do("POST", "/repositories", body("suspended")), 202, "suspended")
	if e.text("status") != "Suspended" || e.header.Get("Retry-After") == "" || e.header.Get("Location") != "/repositories/"+e.text("repositoryId") {
		t.Errorf("suspended: %v %s", e.header, e.raw)
	}
	w.script.set(func() { w.script.hold[desired.KindRepository] = true })
	for i, c := range []struct{ prefer, applied string }{
		{"wait=0", "wait=0"}, {"respond-async, wait=0", "wait=0"}, {`wait="0"`, "wait=0"}, {"wait=1", "wait=1"},
	} {
		e = w.want(w.do("POST", "/repositories", body("held"+strconv.Itoa(i)), "Prefer", c.prefer), 202, c.prefer)
		if e.text("status") != "Provisioning" || e.header.Get("Preference-Applied") != c.applied {
			t.Errorf("%s: %v %s", c.prefer, e.header.Get("Preference-Applied"), e.raw)
		}
	}
	w.script.set(func() { w.script.hold[desired.KindRepository] = false; w.script.ended = desired.PullRequestClosed })
	delete(w.script.phases, desired.Ref{Kind: desired.KindRepository})
	repo := w.provision("r")
	pr := w.want(w.do("POST", "/pull-requests", map[string]any{"repositoryId": repo, "sourceBranch": "x", "title": "t"}), 201, "open")
	if pr.text("status") != "Closed" {
		t.Errorf("ended at the host: %s", pr.raw)
	}
	before := w.repos[tenantA].Head().Seq
	w.want(w.do("POST", "/pull-requests/"+pr.text("pullRequestId")+"/merge", nil), 409, "merge what the host closed")
	w.want(w.do("POST", "/pull-requests/"+pr.text("pullRequestId")+"/close", nil), 200, "close what the host closed")
	if after := w.repos[tenantA].Head().Seq; after != before {
		t.Error("a pull request that ended at the host was committed again")
	}
}

func TestHostErrorsKeepTheirClass(t *testing.T) {
	w := newWorld(t)
	repo := w.provision("r")
	pr := w.want(w.do("POST", "/pull-requests", map[string]any{"repositoryId": repo, "sourceBranch": "x", "title": "t"}), 201, "open").text("pullRequestId")
	for class, want := range map[desired.Class]int{
		desired.Throttled: 429, desired.Transient: 503, desired.Conflict: 409, desired.Denied: 403, desired.Internal: 500, desired.Stalled: 424,
	} {
		w.script.set(func() {
			w.script.failPR = &desired.Error{Class: class, Op: "post check", After: 1500 * time.Millisecond, Err: errors.New("why it failed")}
		})
		e := w.do("POST", "/pull-requests/"+pr+"/checks", map[string]any{"name": "n", "status": "Pending"})
		if e.status != want || e.text("code") != string(class) {
			t.Errorf("%s: %d %s", class, e.status, e.raw)
		}
		if class == desired.Throttled && e.header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q, want 2", e.header.Get("Retry-After"))
		}
		if shown := strings.Contains(e.text("detail"), "why it failed"); shown == (class == desired.Internal) {
			t.Errorf("%s: detail %q", class, e.text("detail"))
		}
	}
}

func TestTraceIDs(t *testing.T) {
	w := newWorld(t)
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	for parent, kept := range map[string]bool{
		"00-" + id + "-00f067aa0ba902b7-01": true, "00-" + id + "-00f067aa0ba902b7-01-more": true,
		"": false, "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01": false, "ff-" + id + "-00f067aa0ba902b7-01": false,
		"00-" + strings.ToUpper(id) + "-00f067aa0ba902b7-01": false, "hello": false,
	} {
		e := w.do("GET", "/repositories", nil, "Traceparent", parent)
		got := e.text("traceId")
		if (got == id) != kept || len(got) != 32 || e.header.Get("Trace-Id") != got {
			t.Errorf("traceparent %q: trace id %q", parent, got)
		}
	}
	e := w.want(w.do("POST", "/repositories", map[string]any{"projectId": "p", "name": "n"}, "Traceparent", "00-"+id+"-00f067aa0ba902b7-01"), 201, "write")
	if e.text("traceId") != id {
		t.Errorf("trace id %s", e.text("traceId"))
	}
}

func TestPanicsAreContained(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Engine = panicking{c.Engine} })
	e := w.do("POST", "/gitops/reconcile", nil)
	if e.status != 500 || e.text("code") != "internal" || bytes.Contains(e.raw, []byte("boom")) {
		t.Errorf("%d %s", e.status, e.raw)
	}
	if len(w.panics) != 1 {
		t.Errorf("%d panics were told", len(w.panics))
	}
	w.panics = nil
	w.want(w.do("GET", "/repositories", nil), 200, "afterwards")
}

type panicking struct{ Engine }

func (panicking) Reconcile(string, func(*desired.Entry) bool) []desired.Ref { panic("boom") }

func TestHeadersOfEveryAnswer(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/repositories", "/nowhere", "/openapi.json", "/git/control/x.git/info/refs"} {
		h := w.do("GET", path, nil).header
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}

func TestIssuerIsServedToThisMachineOnly(t *testing.T) {
	w := newWorld(t)
	for host, want := range map[string]int{"127.0.0.1:8080": 200, "evil.example": 404} {
		for _, path := range []string{"/.well-known/openid-configuration", "/oauth/keys"} {
			r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
			r.Host = host
			if e := w.serve(r); e.status != want {
				t.Errorf("%s%s: %d, want %d", host, path, e.status, want)
			}
		}
	}
}

// TestRawClients speaks to the socket what no client library would.
func TestRawClients(t *testing.T) {
	w := newWorld(t)
	w.listen()
	addr := strings.TrimPrefix(w.base, "http://")
	token := w.token(tenantA, "alice")
	for _, c := range []struct{ name, send, want string }{
		{"large header", "GET /repositories HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 32<<10) + "\r\n\r\n", "HTTP/1.1 431"},
		{"two lengths", "POST /repositories HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "HTTP/1.1 400"},
		{"path that climbs", "GET /repositories/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
		{"encoded slash", "GET /repositories/a%2f..%2fb HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
		{"door that climbs", "GET /git/control/connectsoft.git/../x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
		{"dumb git", "GET /git/control/connectsoft.git/HEAD HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
		{"two tokens", "GET /repositories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\nAuthorization: Bearer " + token + "\r\nConnection: close\r\n\r\n", "HTTP/1.1 401"},
		{"invented method", "BREW /repositories HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"},
		{"short body", "POST /repositories HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + token + "\r\nContent-Length: 50\r\nConnection: close\r\n\r\n{\"a\":1}", "HTTP/1.1 400"},
	} {
		conn, err := net.Dial("tcp", addr)
		w.ok(err)
		w.ok(conn.SetDeadline(time.Now().Add(5 * time.Second)))
		_, err = io.WriteString(conn, c.send)
		w.ok(err)
		w.ok(conn.(*net.TCPConn).CloseWrite())
		got := make([]byte, len(c.want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != c.want {
			t.Errorf("%s: %q %v, want %s", c.name, got, err, c.want)
		}
		conn.Close()
	}
}

func TestMetricsAreWellNamed(t *testing.T) {
	w := newWorld(t)
	w.provision("r")
	w.do("GET", "/nowhere/"+strings.Repeat("x", 50), nil)
	families, err := w.registry.Gather()
	w.ok(err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	w.ok(err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	routes := map[string]bool{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if strings.Contains(l.GetValue(), tenantA) || strings.Contains(l.GetValue(), "xxx") {
					t.Errorf("%s has the label %s=%s", f.GetName(), l.GetName(), l.GetValue())
				}
				if l.GetName() == "http_route" {
					routes[l.GetValue()] = true
				}
			}
		}
	}
	if !routes["/repositories"] || !routes["none"] {
		t.Errorf("routes %v", routes)
	}
	if find(families, "plumbline_watch_streams") == nil {
		t.Error("plumbline_watch_streams is not there before the first stream")
	}
}

func find(families []*dto.MetricFamily, name string) *dto.MetricFamily {
	for _, f := range families {
		if f.GetName() == name {
			return f
		}
	}
	return nil
}

func TestRequestsAreTold(t *testing.T) {
	w := newWorld(t)
	w.provision("r")
	w.do("GET", "/repositories", nil, "Authorization", "")
	if len(w.request) != 2 {
		t.Fatalf("%d requests were told, want 2", len(w.request))
	}
	if e := w.request[0]; e.Operation != "provisionRepository" || e.Code != "201" || e.Tenant != tenantA || e.Subject != "agent:PullRequestCreator" || e.TraceID == "" {
		t.Errorf("first: %+v", e)
	}
	if e := w.request[1]; e.Operation != "listRepositories" || e.Code != "401" || e.Tenant != "" {
		t.Errorf("second: %+v", e)
	}
}

// FuzzBody shows that the walk over a body never crashes, and that a body it lets pass has each name once: the
// decoded value, written and read again, is the same for a second reader.
func FuzzBody(f *testing.F) {
	for _, s := range []string{`{}`, `{"name":"a","x":[1,{"y":null}]}`, `{"a":1,"a":2}`, `{"\u006eame":"x","name":"y"}`, `{"name":"\\","x":"\""}`, `[`, "{\"a\":\"\x00\"}"} {
		f.Add([]byte(s))
	}
	shapes := requestShapes()
	s := &Server{shapes: shapes}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequestWithContext(context.WithoutCancel(t.Context()), "POST", "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		c := &call{w: httptest.NewRecorder(), r: r, who: &auth.Principal{Tenant: tenantA}}
		var in ProvisionRepositoryRequest
		if s.decode(c, maxBody, false, &in, &in.TenantID) != nil {
			return
		}
		var strict map[string]json.RawMessage
		if err := json.Unmarshal(body, &strict); err != nil {
			t.Fatalf("let pass what is no object: %v", err)
		}
		for name, raw := range map[string]string{"name": in.Name, "projectId": in.ProjectID, "tenantId": in.TenantID} {
			var second string
			if v, ok := strict[name]; ok && json.Unmarshal(v, &second) == nil && second != raw {
				t.Fatalf("%s: this reader sees %q, another one %q", name, raw, second)
			}
		}
		if len(c.warnings) > maxWarnings {
			t.Fatalf("%d warnings", len(c.warnings))
		}
	})
}

func TestContentByBase64(t *testing.T) {
	w := newRealWorld(t)
	repo := w.provision("r")
	raw := []byte{0, 1, 2, 0xff, '\n'}
	e := w.want(w.do("POST", "/repositories/"+repo+"/commits", map[string]any{"branch": "main", "message": "m", "changes": []any{
		map[string]any{"path": "bin/data", "operation": "add", "content": base64.StdEncoding.EncodeToString(raw), "encoding": "base64", "mode": "100755"},
		map[string]any{"path": "empty", "operation": "add", "content": ""},
	}}), 201, "commit")
	if e.text("status") != "Committed" || len(e.text("sha")) != 40 {
		t.Errorf("got %s", e.raw)
	}
	spec := w.want(w.do("GET", "/resources/"+e.text("commitId"), nil), 200, "document")
	if spec.text("spec.changes.0.mode") != "100755" || spec.text("spec.changes.1.size") != "" || spec.text("spec.changes.0.size") != "5" {
		t.Errorf("document: %s", spec.raw)
	}
}

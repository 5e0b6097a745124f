// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/api/pb"
	"github.com/connectsoft/plumbline/desired"
)

// The matrix asks every operation, on every face, with every kind of token, and compares the verdict with an oracle
// that knows the rules of the contract in a second form.

// bearerCase is a token that a caller may present.
type bearerCase struct {
	name   string
	header []string // values of the Authorization header
	known  bool     // the caller is known
	scopes []string
	tenant string // the tenant claim
}

// tokenCases are all token states with all scopes, and all scope sets and tenants with a good token.
func (w *world) tokenCases() []bearerCase {
	good := w.token(tenantA, "alice")
	parts := strings.Split(good, ".")
	forged := parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64))
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + "."
	out := []bearerCase{
		{name: "no token"},
		{name: "empty", header: []string{""}},
		{name: "only the scheme", header: []string{"Bearer "}},
		{name: "garbage", header: []string{"Bearer hello"}},
		{name: "two headers", header: []string{"Bearer " + good, "Bearer " + good}},
		{name: "basic", header: []string{"Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+good))}},
		{name: "expired", header: []string{"Bearer " + w.mint(tenantA, -2*time.Minute, allScopes())}},
		{name: "not yet", header: []string{"Bearer " + w.mintAt(time.Now().Add(time.Hour), tenantA, time.Hour, allScopes())}},
		{name: "forged signature", header: []string{"Bearer " + forged}},
		{name: "algorithm none", header: []string{"Bearer " + none}},
		{name: "too long", header: []string{"Bearer " + good + strings.Repeat("A", 64<<10)}},
		{name: "all scopes", header: []string{"Bearer " + good}, known: true, scopes: allScopes(), tenant: tenantA},
		{name: "no tenant", header: []string{"Bearer " + w.mint("", time.Hour, allScopes())}, known: true, scopes: allScopes()},
		{name: "platform", header: []string{"Bearer " + w.mint(tenantP, time.Hour, allScopes())}, known: true, scopes: allScopes(), tenant: tenantP},
		{name: "other tenant", header: []string{"Bearer " + w.mint(tenantB, time.Hour, allScopes())}, known: true, scopes: allScopes(), tenant: tenantB},
	}
	with := func(tenant, name string, scopes ...string) {
		out = append(out, bearerCase{
			name: name + " in " + tenant, header: []string{"Bearer " + w.mint(tenant, time.Hour, scopes)}, known: true, scopes: scopes, tenant: tenant,
		})
	}
	for _, tenant := range []string{tenantA, tenantB, tenantP, ""} {
		with(tenant, "no scope", "none")
		for i, s := range allScopes() {
			with(tenant, "only "+s, s)
			with(tenant, "all but "+s, slices.Delete(slices.Clone(allScopes()), i, i+1)...)
			with(tenant, "capitals of "+s, strings.ToUpper(s))
			with(tenant, "more than "+s, s+".all")
			with(tenant, "stem of "+s, s[:strings.LastIndexByte(s, '.')], s[:strings.LastIndexByte(s, '.')]+".*")
		}
	}
	return out
}

func (w *world) mint(tenant string, ttl time.Duration, scopes []string) string {
	if ttl < 0 {
		return w.mintAt(time.Now().Add(ttl-time.Hour), tenant, time.Hour, scopes)
	}
	return w.mintAt(time.Now(), tenant, ttl, scopes)
}

func (w *world) mintAt(now time.Time, tenant string, ttl time.Duration, scopes []string) string {
	w.t.Helper()
	token, err := w.dev.Mint(auth.MintRequest{Subject: "alice", Tenant: tenant, Scopes: scopes, TTL: ttl}, now)
	w.ok(err)
	return token
}

// needs is the oracle's own list of what the contract demands; it repeats CONTRACT.md, not the operation table.
func needs() map[string]string {
	return map[string]string{
		"POST /repositories":                          "devops.repositories.write",
		"POST /repositories/{repoId}/branches":        "devops.repositories.write",
		"POST /repositories/{repoId}/commits":         "devops.repositories.write",
		"POST /pull-requests":                         "devops.pull-requests.write",
		"POST /pull-requests/{pullRequestId}/merge":   "devops.pull-requests.write",
		"POST /pull-requests/{pullRequestId}/close":   "devops.pull-requests.write",
		"POST /pull-requests/{pullRequestId}/checks":  "devops.pull-requests.write",
		"GET /pull-requests/{pullRequestId}":          "devops.pull-requests.read",
		"GET /pull-requests":                          "devops.pull-requests.read",
		"GET /repositories":                           "devops.repositories.read",
		"GET /repositories/{repoId}":                  "devops.repositories.read",
		"GET /branches":                               "devops.repositories.read",
		"GET /branches/{branchId}":                    "devops.repositories.read",
		"GET /commits":                                "devops.repositories.read",
		"GET /commits/{commitId}":                     "devops.repositories.read",
		"POST /gitops/reconcile":                      "devops.gitops.reconcile",
		"POST /resources/apply":                       "control.write devops.drift-rules.write",
		"DELETE /resources/{id}":                      "devops.repositories.write",
		"GET /resources":                              "control.read",
		"GET /resources/{id}":                         "control.read",
		"GET /resources/{id}/history":                 "control.read",
		"GET /receipts/{id}":                          "devops.gitops.read",
		"PUT /artifacts/{id}":                         "devops.artifacts.write",
		"GET /artifacts/{id}":                         "devops.artifacts.read",
		"GET /sync-states":                            "devops.gitops.read",
		"GET /sync-states/{id}":                       "devops.gitops.read",
		"GET /sync-states/watch":                      "devops.gitops.read",
		"GET /findings":                               "devops.gitops.read",
		"GET /findings/{id}":                          "devops.gitops.read",
		"GET /findings/watch":                         "devops.gitops.read",
		"GET /providers":                              "devops.providers.read",
		"GET /providers/{id}":                         "devops.providers.read",
		"GET /drift-rules":                            "devops.drift-rules.read",
		"GET /drift-rules/{id}":                       "devops.drift-rules.read",
		"GET /suspensions":                            "devops.suspensions.read",
		"GET /suspensions/{id}":                       "devops.suspensions.read",
		"GET /tenants":                                "platform platform.tenants.read",
		"GET /tenants/{id}":                           "platform platform.tenants.read",
		"GET /openapi.json":                           "public",
		"GET /schemas/v1/{kind}.json":                 "public",
		"GET /.well-known/openid-configuration":       "public",
		"GET /oauth/keys":                             "public",
		"/plumbline.v1.GitOpsSync/WatchSyncState":     "devops.gitops.read",
		"/grpc.health.v1.Health/Check":                "public",
		"/grpc.health.v1.Health/List":                 "public",
		"/grpc.health.v1.Health/Watch":                "public",
		"clone /git/control/{tenant}.git":             "own control.read",
		"push /git/control/{tenant}.git":              "own control.write",
		"clone /git/platform.git":                     "platform platform.read",
		"push /git/platform.git":                      "platform platform.write",
		"clone /git/hosted/{tenant}/proj/hosted.git":  "own devops.repositories.read",
		"push /git/hosted/{tenant}/proj/hosted.git":   "own devops.repositories.write",
		"clone /git/hosted/{tenant}/proj/missing.git": "own devops.repositories.read",
	}
}

// verdict of the oracle: 401, 403, 404 (doors only), or 0 = let in.
func oracle(need string, c bearerCase, door, exists bool) int {
	if need == "public" {
		return 0
	}
	known := c.known || door && c.name == "basic"
	scopes, tenant := c.scopes, c.tenant
	if door && c.name == "basic" {
		scopes, tenant = allScopes(), tenantA
	}
	if !known {
		return http.StatusUnauthorized
	}
	words := strings.Fields(need)
	if words[0] == "platform" {
		words = words[1:]
		if tenant != tenantP {
			if door {
				return http.StatusNotFound
			}
			return http.StatusForbidden
		}
	}
	if words[0] == "own" {
		words = words[1:]
		if tenant != tenantA || !exists {
			return http.StatusNotFound
		}
	}
	if tenant == "" {
		return http.StatusForbidden
	}
	for _, s := range words {
		if !slices.Contains(scopes, s) {
			return http.StatusForbidden
		}
	}
	return 0
}

// asked turns a status into a verdict: everything but a refusal means that the caller was let in.
func asked(status int, door bool) int {
	if status == http.StatusUnauthorized || status == http.StatusForbidden || door && status == http.StatusNotFound {
		return status
	}
	return 0
}

func TestAuthorizationMatrix(t *testing.T) {
	w := newRealWorld(t, func(c *Config) { c.Events = Events{} })
	repoID := w.provision("hosted")
	w.listen()
	cases := w.tokenCases()
	oracleOf := needs()
	cells, covered := 0, map[string]bool{}
	for _, op := range auth.Operations() {
		if op.Path == "" {
			continue
		}
		key := op.Method + " " + op.Path
		need, ok := oracleOf[key]
		if !ok {
			t.Errorf("the oracle does not know %s", key)
			continue
		}
		covered[key] = true
		for _, c := range cases {
			got := w.ask(op, repoID, c)
			if want := oracle(need, c, false, true); asked(got, false) != want {
				t.Errorf("%s with %q: status %d, want verdict %d", key, c.name, got, want)
			}
			cells++
		}
	}
	cells += w.askDoors(oracleOf, cases, covered)
	cells += w.askRPCs(oracleOf, cases, covered)
	for key := range oracleOf {
		if !covered[key] {
			t.Errorf("%s is in the oracle and was not asked", key)
		}
	}
	t.Logf("%d cells", cells)
}

// ask sends a request that comes as far as authorization lets it; streams are cut at once.
func (w *world) ask(op auth.Operation, repoID string, c bearerCase) int {
	path := op.Path
	for _, p := range []string{"{repoId}", "{id}", "{branchId}", "{commitId}", "{pullRequestId}"} {
		path = strings.ReplaceAll(path, p, repoID)
	}
	path = strings.ReplaceAll(path, "{kind}", "Repository")
	body := ""
	if op.ID == "applyResources" {
		body = `{"documents":[{"apiVersion":"plumbline.dev/v1","kind":"DriftRule","metadata":{"name":"r"},"spec":{"action":"report"}}]}`
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	if strings.HasSuffix(path, "/watch") {
		ctx, cancel = context.WithTimeout(ctx, 0) // over before it begins: only the verdict counts
		defer cancel()
	}
	r := httptest.NewRequestWithContext(ctx, op.Method, path, strings.NewReader(body))
	r.Host = "127.0.0.1"
	r.Header.Set("Content-Type", "application/json")
	if op.Method == http.MethodDelete {
		r.Header.Set("If-Match", `"never"`) // let in, and still there for the next one
	}
	for _, v := range c.header {
		r.Header.Add("Authorization", v)
	}
	rec := httptest.NewRecorder()
	w.server.ServeHTTP(rec, r)
	if rec.Code == http.StatusUnauthorized && rec.Header().Get("WWW-Authenticate") == "" {
		w.t.Errorf("%s with %q: 401 without a challenge", op.ID, c.name)
	}
	for _, v := range c.header {
		if token := strings.TrimPrefix(v, "Bearer "); len(token) > 16 && strings.Contains(rec.Body.String(), token[:16]) {
			w.t.Errorf("%s with %q: the token is echoed", op.ID, c.name)
		}
	}
	return rec.Code
}

func (w *world) askDoors(oracleOf map[string]string, cases []bearerCase, covered map[string]bool) (cells int) {
	for key, need := range oracleOf {
		verb, path, ok := strings.Cut(key, " ")
		if !ok || verb != "clone" && verb != "push" {
			continue
		}
		covered[key] = true
		target := strings.ReplaceAll(path, "{tenant}", tenantA)
		requests := [][2]string{{"GET", target + "/info/refs?service=git-upload-pack"}, {"POST", target + "/git-upload-pack"}}
		if verb == "push" {
			requests = [][2]string{{"GET", target + "/info/refs?service=git-receive-pack"}, {"POST", target + "/git-receive-pack"}}
		}
		for _, q := range requests {
			for _, c := range cases {
				r := httptest.NewRequestWithContext(w.t.Context(), q[0], q[1], strings.NewReader("0000"))
				for _, v := range c.header {
					r.Header.Add("Authorization", v)
				}
				rec := httptest.NewRecorder()
				w.server.ServeHTTP(rec, r)
				if want := oracle(need, c, true, !strings.Contains(path, "missing")); asked(rec.Code, true) != want {
					w.t.Errorf("%s %s with %q: status %d, want verdict %d", q[0], q[1], c.name, rec.Code, want)
				}
				cells++
			}
		}
	}
	return cells
}

func (w *world) askRPCs(oracleOf map[string]string, cases []bearerCase, covered map[string]bool) (cells int) {
	conn := w.dial()
	for key, need := range oracleOf {
		if !strings.HasPrefix(key, "/") {
			continue
		}
		covered[key] = true
		for _, c := range cases {
			if c.name == "too long" {
				continue // the transport refuses it before there is a call
			}
			got := verdictOf(w.call(conn, key, c))
			if want := oracle(need, c, false, true); got != want {
				w.t.Errorf("%s with %q: verdict %d, want %d", key, c.name, got, want)
			}
			cells++
		}
	}
	return cells
}

// call makes one RPC and returns its error; streams are read once.
func (w *world) call(conn *grpc.ClientConn, full string, c bearerCase) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	for _, v := range c.header {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", v)
	}
	switch full {
	case "/plumbline.v1.GitOpsSync/WatchSyncState":
		s, err := pb.NewGitOpsSyncClient(conn).WatchSyncState(ctx, &pb.WatchSyncStateRequest{})
		if err != nil {
			return err
		}
		_, err = s.Recv()
		return err
	case "/grpc.health.v1.Health/Watch":
		s, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			return err
		}
		_, err = s.Recv()
		return err
	case "/grpc.health.v1.Health/List":
		_, err := healthpb.NewHealthClient(conn).List(ctx, &healthpb.HealthListRequest{})
		return err
	}
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

func verdictOf(err error) int {
	switch status.Code(err) {
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	}
	return 0
}

// dial serves gRPC on a loopback socket and connects to it.
func (w *world) dial() *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient(w.serveGRPC(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.ok(err)
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

// serveGRPC serves gRPC on a loopback socket and returns its address.
func (w *world) serveGRPC() string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.ok(err)
	done := make(chan error, 1)
	go func() { done <- w.server.GRPC(l) }()
	w.t.Cleanup(func() {
		w.server.Shutdown(context.WithoutCancel(w.t.Context()))
		w.ok(<-done)
	})
	return l.Addr().String()
}

// TestUnknownMethodsAreDenied shows that a method without a row is refused before anything else looks at it.
func TestUnknownMethodsAreDenied(t *testing.T) {
	w := newWorld(t)
	conn := w.dial()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+w.token(tenantA, "alice"))
	for _, m := range []string{"/plumbline.v1.GitOpsSync/DropEverything", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/x/y"} {
		err := conn.Invoke(ctx, m, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{})
		if c := status.Code(err); c != codes.Unimplemented && c != codes.PermissionDenied {
			t.Errorf("%s: %v", m, err)
		}
	}
}

// TestOtherTenantsIDsAnswerLikeUnknownOnes compares the whole answers, but for what names the request itself.
func TestOtherTenantsIDsAnswerLikeUnknownOnes(t *testing.T) {
	w := newWorld(t)
	repo := w.provision("secret")
	branch := w.want(w.do("POST", "/repositories/"+repo+"/branches", map[string]any{"name": "x"}), 201, "branch").text("branchId")
	pr := w.want(w.do("POST", "/pull-requests", map[string]any{"repositoryId": repo, "sourceBranch": "x", "title": "t"}), 201, "pull request").text("pullRequestId")
	commit := w.want(w.do("POST", "/repositories/"+repo+"/commits", map[string]any{
		"branch": "x", "message": "m", "changes": []any{map[string]any{"path": "a", "operation": "add", "content": "b"}},
	}), 201, "commit").text("commitId")
	receipt := w.do("GET", "/repositories/"+repo, nil).text("commit")
	w.want(w.do("PUT", "/artifacts/art-1", "x", "Content-Type", "text/plain"), 201, "artifact")
	stranger := bearer(w.token(tenantB, "mallory"))
	w.want(w.do("GET", "/repositories", nil, stranger...), 200, "the other tenant")
	for _, c := range []struct{ method, path, known, unknown, body string }{
		{"GET", "/repositories/%s", repo, "repo-aaaaaaaaaaaaaaaa", ""},
		{"GET", "/branches/%s", branch, "branch-aaaaaaaaaaaaaaaa", ""},
		{"GET", "/commits/%s", commit, "commit-aaaaaaaaaaaaaaaa", ""},
		{"GET", "/pull-requests/%s", pr, "pr-aaaaaaaaaaaaaaaa", ""},
		{"GET", "/resources/%s", repo, "repo-aaaaaaaaaaaaaaaa", ""},
		{"GET", "/sync-states/%s", repo, "repo-aaaaaaaaaaaaaaaa", ""},
		{"GET", "/receipts/%s", receipt, strings.Repeat("a", 40), ""},
		{"GET", "/artifacts/%s", "art-1", "art-2", ""},
		{"DELETE", "/resources/%s", repo, "repo-aaaaaaaaaaaaaaaa", ""},
		{"POST", "/repositories/%s/branches", repo, "repo-aaaaaaaaaaaaaaaa", `{"name":"y"}`},
		{"POST", "/repositories/%s/commits", repo, "repo-aaaaaaaaaaaaaaaa", `{"branch":"x","message":"m","changes":[{"path":"a","operation":"delete"}]}`},
		{"POST", "/pull-requests/%s/merge", pr, "pr-aaaaaaaaaaaaaaaa", `{}`},
		{"POST", "/pull-requests/%s/checks", pr, "pr-aaaaaaaaaaaaaaaa", `{"name":"n","status":"Pending"}`},
		{"POST", "/pull-requests", repo, "repo-aaaaaaaaaaaaaaaa", `{"repositoryId":"%s","sourceBranch":"x","title":"t"}`},
		{"POST", "/gitops/reconcile", repo, "repo-aaaaaaaaaaaaaaaa", `{"ids":["%s"]}`},
		{"GET", "/git/control/%s.git/info/refs?service=git-upload-pack", tenantA, "nobody", ""},
		{"GET", "/git/hosted/%s/proj/secret.git/info/refs?service=git-upload-pack", tenantA, "nobody", ""},
	} {
		var answers [2]string
		for i, id := range []string{c.known, c.unknown} {
			target, body := strings.ReplaceAll(c.path, "%s", id), any(nil)
			if c.body != "" {
				body = strings.ReplaceAll(c.body, "%s", id)
			}
			e := w.do(c.method, target, body, stranger...)
			for _, k := range []string{"traceId", "instance"} {
				delete(e.body, k)
			}
			raw, _ := json.Marshal(e.body)
			answers[i] = fmt.Sprintf("%d %v %s", e.status, e.header["Www-Authenticate"], raw)
		}
		if answers[0] != answers[1] || !strings.HasPrefix(answers[0], "404 ") {
			t.Errorf("%s %s:\n known %s\n unknown %s", c.method, c.path, answers[0], answers[1])
		}
	}
	if n := w.repos[tenantB].Head().Seq; n != 0 {
		t.Errorf("the other tenant's repository has %d commits, want none", n)
	}
}

func TestTenantInBodyMustBeTheCallers(t *testing.T) {
	w := newWorld(t)
	repo := w.provision("r")
	before := w.repos[tenantA].Head().Commit
	for _, c := range []struct{ path, body string }{
		{"/repositories", `{"tenantId":"%s","projectId":"proj","name":"x"}`},
		{"/repositories/" + repo + "/branches", `{"tenantId":"%s","name":"x"}`},
		{"/repositories/" + repo + "/commits", `{"tenantId":"%s","branch":"x","message":"m","changes":[{"path":"a","operation":"delete"}]}`},
		{"/pull-requests", `{"tenantId":"%s","repositoryId":"` + repo + `","sourceBranch":"x","title":"t"}`},
		{"/resources/apply", `{"tenantId":"%s","documents":[{"apiVersion":"plumbline.dev/v1","kind":"DriftRule","metadata":{"name":"r"},"spec":{"action":"report"}}]}`},
		{"/gitops/reconcile", `{"tenantId":"%s"}`},
	} {
		for _, tenant := range []string{tenantB, "CONNECTSOFT", "connectsoft ", "сonnectsoft"} {
			e := w.do("POST", c.path, strings.ReplaceAll(c.body, "%s", tenant))
			if e.status != http.StatusForbidden {
				t.Errorf("%s with tenant %q: %d %s", c.path, tenant, e.status, e.raw)
			}
		}
	}
	doc := "apiVersion: plumbline.dev/v1\nkind: DriftRule\nmetadata: {name: r, tenant: umbrella}\nspec: {action: report}\n"
	if e := w.do("POST", "/resources/apply", doc, "Content-Type", "application/yaml"); e.status != http.StatusUnprocessableEntity {
		t.Errorf("a document of another tenant: %d %s", e.status, e.raw)
	}
	if after := w.repos[tenantA].Head().Commit; after != before {
		t.Error("something was committed")
	}
}

// TestApplyNeedsEachKindsScope shows that control.write alone writes nothing.
func TestApplyNeedsEachKindsScope(t *testing.T) {
	w := newWorld(t)
	const doc = "apiVersion: plumbline.dev/v1\nkind: %s\nmetadata: {name: x}\nspec: %s\n---\n"
	rule, prov := fmt.Sprintf(doc, "DriftRule", "{action: report}"), fmt.Sprintf(doc, "Provider", "{type: local}")
	for _, c := range []struct {
		body   string
		scopes []string
		want   int
	}{
		{rule, []string{"control.write"}, 403},
		{rule, []string{"devops.drift-rules.write"}, 403},
		{rule, []string{"control.write", "devops.drift-rules.write"}, 201},
		{rule + prov, []string{"control.write", "devops.drift-rules.write"}, 403},
		{prov, []string{"control.write", "devops.drift-rules.write"}, 403},
		{prov, []string{"control.write", "devops.providers.write"}, 201},
	} {
		e := w.do("POST", "/resources/apply", c.body, "Content-Type", "application/yaml", "Authorization", "Bearer "+w.token(tenantA, "alice", c.scopes...))
		if e.status != c.want {
			t.Errorf("%v: %d, want %d: %s", c.scopes, e.status, c.want, e.raw)
		}
	}
	for _, k := range desired.Kinds() {
		id := k.IDPrefix + "-aaaaaaaaaaaaaaaa"
		if e := w.do("DELETE", "/resources/"+id, nil, bearer(w.token(tenantA, "alice", "control.write"))...); e.status != 403 {
			t.Errorf("delete %s without its scope: %d", k.Kind, e.status)
		}
	}
}

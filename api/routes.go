// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
)

// call is one REST request on its way through an operation.
type call struct {
	w        http.ResponseWriter
	r        *http.Request
	op       *auth.Operation
	info     *requestInfo
	who      *auth.Principal // nil for public operations
	repo     *gitrepo.Repo   // of the caller's tenant (or the platform's); nil for public operations
	body     []byte          // as read
	warnings []string

	key, fingerprint string // of the idempotency key, once asked for
}

func (c *call) trace() string              { return c.info.trace }
func (c *call) param(name string) string   { return mux.Vars(c.r)[name] }
func (c *call) warn(f string, args ...any) { c.warnings = append(c.warnings, fmt.Sprintf(f, args...)) }

// answer is what an operation wants said. Status 0 means that the handler has written everything itself.
type answer struct {
	status     int
	body       any
	location   string
	etag       string
	retryAfter int // seconds
	preference string
}

// handler is one operation.
type handler func(ctx context.Context, c *call) (answer, error)

// handlers is the implementation of every row of the operation table that has a REST face.
func (s *Server) handlers() map[string]handler {
	return map[string]handler{
		"provisionRepository": s.provisionRepository, "listRepositories": repositories().list(s), "getRepository": repositories().get(s),
		"createBranch": s.createBranch, "listBranches": branches().list(s), "getBranch": branches().get(s),
		"authorCommit": s.authorCommit, "listCommits": commits().list(s), "getCommit": commits().get(s),
		"openPullRequest": s.openPullRequest, "listPullRequests": pullRequests().list(s), "getPullRequest": pullRequests().get(s),
		"mergePullRequest": s.mergePullRequest, "closePullRequest": s.closePullRequest, "postCheck": s.postCheck,

		"applyResources": s.applyResources, "deleteResource": s.deleteResource, "getReceipt": s.getReceipt,
		"listResources": documents(controlKinds()...).list(s), "getResource": s.getResource, "getResourceHistory": s.getResourceHistory,
		"listProviders": documents(desired.KindProvider).list(s), "getProvider": documents(desired.KindProvider).get(s),
		"listDriftRules": documents(desired.KindDriftRule).list(s), "getDriftRule": documents(desired.KindDriftRule).get(s),
		"listSuspensions": documents(desired.KindSuspension).list(s), "getSuspension": documents(desired.KindSuspension).get(s),
		"listTenants": documents(desired.KindTenant).list(s), "getTenant": documents(desired.KindTenant).get(s),

		"putArtifact": s.putArtifact, "getArtifact": s.getArtifact,
		"reconcile":      s.reconcile,
		"listSyncStates": s.listSyncStates, "getSyncState": s.getSyncState, "watchSyncStates": s.watchSyncStates,
		"listFindings": s.listFindings, "getFinding": s.getFinding, "watchFindings": s.watchFindings,

		"getOpenAPI": s.getOpenAPI, "getSchema": s.getSchema,
		"getIssuerConfiguration": s.getIssuerConfiguration, "getIssuerKeys": s.getIssuerKeys,
	}
}

// routes builds the router from the operation table.
func (s *Server) routes() (http.Handler, error) {
	handlers := s.handlers()
	r := mux.NewRouter().SkipClean(true)
	ops := s.cfg.Auth.Operations()
	for i := range ops {
		op := &ops[i]
		if op.Path == "" {
			continue
		}
		h, ok := handlers[op.ID]
		if !ok {
			return nil, fmt.Errorf("operation %s has no handler", op.ID)
		}
		delete(handlers, op.ID)
		r.Handle(op.Path, s.operation(op, h)).Methods(op.Method).Name(op.ID)
	}
	for id := range handlers {
		return nil, fmt.Errorf("handler %s has no row in the operation table", id)
	}
	r.PathPrefix("/git/").HandlerFunc(s.door).Name("git")
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, r, desired.Errorf("find route", desired.Ref{}, desired.NotFound, "there is nothing at this path: /openapi.json lists what there is"))
	})
	r.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		allowed := allowedMethods(r, req)
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.problem(w, req, faultf(CodeMethod, "find route", "this path takes %s", strings.Join(allowed, " and ")))
	})
	return r, nil
}

func allowedMethods(r *mux.Router, req *http.Request) []string {
	var out []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		try := *req
		try.Method = m
		var match mux.RouteMatch
		if r.Match(&try, &match) && match.MatchErr == nil {
			out = append(out, m)
		}
	}
	slices.Sort(out)
	return out
}

// operation serves one row: authenticate, authorize, check the version, find the tenant's repository, do it, answer.
func (s *Server) operation(op *auth.Operation, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := infoOf(r)
		info.operation = op.ID
		c := &call{w: w, r: r, op: op, info: info}
		a, err := s.run(c, h)
		if err != nil {
			s.problem(w, r, err, c.warnings...)
			return
		}
		if a.status != 0 {
			s.write(c, a)
		}
	})
}

func (s *Server) run(c *call, h handler) (answer, error) {
	ctx := c.r.Context()
	if c.op.Public {
		return h(ctx, c)
	}
	who, err := s.cfg.Auth.Bearer(ctx, c.r.Header.Values("Authorization"))
	if err != nil {
		return answer{}, err
	}
	c.info.who, c.who = who, who
	if err := s.cfg.Auth.Allow(who, c.op); err != nil {
		return answer{}, err
	}
	if err := acceptable(c.op, c.r.Header.Values("Accept")); err != nil {
		return answer{}, err
	}
	tenant := who.Tenant
	if c.op.Tenant == auth.PlatformClaim {
		tenant = ""
	}
	if c.repo, err = s.cfg.Repo(ctx, tenant); err != nil {
		return answer{}, err
	}
	ctx = auth.With(ctx, who)
	a, err := h(ctx, c)
	return s.planned(ctx, c, a, err)
}

// write sends an answer as JSON.
func (s *Server) write(c *call, a answer) {
	h := c.w.Header()
	for name, value := range map[string]string{"Location": a.location, "Preference-Applied": a.preference} {
		if value != "" {
			h.Set(name, value)
		}
	}
	if a.etag != "" {
		h.Set("ETag", `"`+a.etag+`"`)
	}
	if a.retryAfter > 0 {
		h.Set("Retry-After", fmt.Sprint(a.retryAfter))
	}
	s.writeJSON(c.w, a.status, contentType(c.op), a.body)
}

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/gorilla/mux"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
)

// contractDoc is openapi.yaml, checked by a second implementation.
type contractDoc struct {
	doc    *openapi3.T
	router routers.Router
}

func loadContract(t *testing.T) *contractDoc {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(contract)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatalf("openapi.yaml is not valid: %v", err)
	}
	r, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &contractDoc{doc, r}
}

// request judges a request by the contract; nil = it keeps to it.
func (c *contractDoc) request(r *http.Request, body []byte) (*openapi3filter.RequestValidationInput, error) {
	route, params, err := c.router.FindRoute(r)
	if err != nil {
		return nil, err
	}
	own := r.Clone(r.Context())
	own.Body = io.NopCloser(bytes.NewReader(body))
	in := &openapi3filter.RequestValidationInput{
		Request: own, Route: route, PathParams: params,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, MultiError: true},
	}
	return in, openapi3filter.ValidateRequest(r.Context(), in)
}

// response judges an answer by the contract.
func (c *contractDoc) response(ctx context.Context, in *openapi3filter.RequestValidationInput, e exchange) error {
	h := e.header.Clone()
	if t, _, ok := strings.Cut(h.Get("Content-Type"), ";"); ok {
		h.Set("Content-Type", t)
	}
	if !strings.HasSuffix(h.Get("Content-Type"), "json") {
		return nil
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: e.status, Header: h, Options: &openapi3filter.Options{MultiError: true, IncludeResponseStatus: true}}
	out.SetBodyBytes(e.raw)
	return openapi3filter.ValidateResponse(ctx, out)
}

func TestContractAgreesWithOperationTable(t *testing.T) {
	c := loadContract(t)
	type face struct{ method, path string }
	spec := map[face]*openapi3.Operation{}
	for path, item := range c.doc.Paths.Map() {
		for m, op := range item.Operations() {
			spec[face{m, path}] = op
		}
	}
	for _, op := range auth.Operations() {
		if op.Path == "" {
			continue
		}
		o := spec[face{op.Method, op.Path}]
		if o == nil {
			t.Errorf("%s: %s %s is not in openapi.yaml", op.ID, op.Method, op.Path)
			continue
		}
		delete(spec, face{op.Method, op.Path})
		if o.OperationID != op.ID {
			t.Errorf("%s %s: operationId %q, want %q", op.Method, op.Path, o.OperationID, op.ID)
		}
		if got, want := securityOf(o), wantedSecurity(op); got != want {
			t.Errorf("%s: security %s, want %s", op.ID, got, want)
		}
		if _, derived := o.Extensions["x-derived-scope"]; derived != op.Derived {
			t.Errorf("%s: x-derived-scope present %v, want %v", op.ID, derived, op.Derived)
		}
		if o.Responses.Default() == nil {
			t.Errorf("%s: no default answer", op.ID)
		}
		if !op.Public && (o.Responses.Status(401) == nil || o.Responses.Status(403) == nil) {
			t.Errorf("%s: 401 and 403 are not described", op.ID)
		}
		if op.Commits && !hasHeader(o, "Idempotency-Key") {
			t.Errorf("%s commits and takes no Idempotency-Key", op.ID)
		}
	}
	for f, o := range spec {
		t.Errorf("%s %s (%s) has no row in the operation table", f.method, f.path, o.OperationID)
	}
}

func securityOf(o *openapi3.Operation) string {
	if o.Security == nil {
		return "inherited"
	}
	var all []string
	for _, req := range *o.Security {
		all = append(all, "oidc:"+strings.Join(req["oidc"], " "))
	}
	return strings.Join(all, "|")
}

func wantedSecurity(op auth.Operation) string {
	if op.Public {
		return ""
	}
	return "oidc:" + op.Scope
}

func hasHeader(o *openapi3.Operation, name string) bool {
	return slices.ContainsFunc(o.Parameters, func(p *openapi3.ParameterRef) bool { return p.Value.In == "header" && p.Value.Name == name })
}

func TestServedRoutesAreTheContracts(t *testing.T) {
	w := newWorld(t)
	c := loadContract(t)
	router, err := w.server.routes()
	w.ok(err)
	served := map[string]bool{}
	w.ok(router.(*mux.Router).Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := r.GetPathTemplate()
		if err != nil {
			return err
		}
		if r.GetName() == "git" {
			if path != "/git/" {
				t.Errorf("git is served at %s", path)
			}
			return nil
		}
		methods, err := r.GetMethods()
		if err != nil || len(methods) != 1 {
			t.Errorf("%s: methods %v %v", path, methods, err)
			return nil
		}
		served[methods[0]+" "+path] = true
		return nil
	}))
	for path, item := range c.doc.Paths.Map() {
		for m := range item.Operations() {
			if !served[m+" "+path] {
				t.Errorf("%s %s is in the contract and not served", m, path)
			}
			delete(served, m+" "+path)
		}
	}
	for route := range served {
		t.Errorf("%s is served and not in the contract", route)
	}
}

func TestServedRPCsHaveRows(t *testing.T) {
	w := newWorld(t)
	rows := map[string]bool{}
	for _, op := range auth.Operations() {
		if op.RPC != "" {
			rows[op.RPC] = true
		}
	}
	for name, s := range w.server.rpc.GetServiceInfo() {
		for _, m := range s.Methods {
			full := "/" + name + "/" + m.Name
			if !rows[full] {
				t.Errorf("%s is served and has no row", full)
			}
			delete(rows, full)
		}
	}
	for full := range rows {
		t.Errorf("%s has a row and is not served", full)
	}
}

func TestContractIsServed(t *testing.T) {
	w := newWorld(t)
	e := w.want(w.do("GET", "/openapi.json", nil, "Authorization", ""), http.StatusOK, "contract")
	if e.text("openapi") != "3.1.0" || e.text("info.title") != "Plumbline" {
		t.Errorf("served %s %s", e.text("openapi"), e.text("info.title"))
	}
	for _, k := range desired.Kinds() {
		w.want(w.do("GET", "/schemas/v1/"+string(k.Kind)+".json", nil, "Authorization", ""), http.StatusOK, "schema of "+string(k.Kind))
	}
	w.want(w.do("GET", "/schemas/v1/Nothing.json", nil, "Authorization", ""), http.StatusNotFound, "schema of an unknown kind")
}

// TestEmptyRowsAreRefused shows that a server cannot be built with a row or a handler too many.
func TestEmptyRowsAreRefused(t *testing.T) {
	w := newWorld(t)
	h := w.server.handlers()
	for _, op := range auth.Operations() {
		if op.Path != "" && h[op.ID] == nil {
			t.Errorf("%s has no handler", op.ID)
		}
		delete(h, op.ID)
	}
	if len(h) > 0 {
		t.Errorf("%d handlers without a row", len(h))
	}
}

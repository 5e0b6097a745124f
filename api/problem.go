// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
)

const problemType = "application/problem+json"

// place gives errors of the packages below the code that this face has for them.
func place(err error) error {
	var e *desired.Error
	switch {
	case !errors.As(err, &e):
	case auth.Unauthenticated(err):
		return &Fault{CodeUnauthenticated, e}
	case errors.Is(err, gitrepo.ErrKeyReused):
		return &Fault{CodeKeyReused, e}
	case errors.Is(err, gitrepo.ErrInFlight):
		return &Fault{CodeInFlight, e}
	}
	return err
}

// statusHungUp is what metrics and log show for a caller that did not wait for its answer; nobody reads it.
const statusHungUp = 499

// problem writes the problem document of an error. It is the only place that does.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, err error, warnings ...string) {
	info := infoOf(r)
	v := judge(place(err))
	if v.err.Class == desired.Internal {
		if r.Context().Err() != nil {
			w.WriteHeader(statusHungUp)
			return
		}
		info.err = err
	}
	h := w.Header()
	if c := auth.Challenge(err, strings.HasPrefix(r.URL.Path, "/git/")); c != "" && (v.status == http.StatusUnauthorized || v.status == http.StatusForbidden) {
		h.Set("WWW-Authenticate", c)
	}
	if after := retryAfter(v); after > 0 {
		h.Set("Retry-After", strconv.Itoa(after))
	}
	p := Problem{
		Type: "/problems/" + string(v.code), Title: v.title, Status: v.status, Detail: detail(v),
		Instance: instance(r), Code: string(v.code), TraceID: info.trace, Warnings: warnings,
	}
	for _, f := range v.err.Fields {
		p.Errors = append(p.Errors, FieldProblem{Pointer: f.Pointer, File: f.File, Line: f.Line, Column: f.Column, Detail: f.Detail})
	}
	s.writeJSON(w, v.status, problemType, p)
}

// instance is the path of the request, without the query and of bounded length.
func instance(r *http.Request) string {
	p := r.URL.EscapedPath()
	if len(p) > 256 {
		p = p[:256]
	}
	return p
}

// detail is the sentence for the caller. What is internal stays inside: the trace id leads to it.
func detail(v verdict) string {
	if v.err.Class == desired.Internal {
		return "the request failed for a reason on our side; the trace id leads to it in the log"
	}
	if n := len(v.err.Fields); v.err.Err == nil && n > 1 {
		return "the request has " + strconv.Itoa(n) + " faults; errors lists them"
	}
	if v.err.Err == nil && len(v.err.Fields) == 1 {
		return v.err.Fields[0].String()
	}
	return v.err.Detail()
}

// retryAfter is in seconds, at least 1 where coming back helps, 0 where it does not.
func retryAfter(v verdict) int {
	switch v.err.Class {
	case desired.Throttled, desired.Transient, desired.Waiting:
		return max(1, int(math.Ceil(v.err.After.Seconds())))
	}
	if v.code == CodeInFlight {
		return 1
	}
	return int(math.Ceil(float64(v.err.After) / float64(time.Second)))
}

// invalid builds the refusal of a request with the given faults.
func invalid(op string, faults ...desired.FieldError) error {
	return &desired.Error{Class: desired.Invalid, Op: op, Fields: faults}
}

// notFound is the one answer for what does not exist and for what is another tenant's.
func notFound(what string) error {
	return desired.Errorf("find "+what, desired.Ref{}, desired.NotFound, "there is no %s with this id in your tenant", what)
}

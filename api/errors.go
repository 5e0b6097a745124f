// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc/codes"

	"github.com/connectsoft/plumbline/desired"
)

// ErrorRow is one line of the table that every face shares: what a class of error is on HTTP, on gRPC and as the
// exit code of the command line.
type ErrorRow struct {
	Class  desired.Class
	Status int        // HTTP
	RPC    codes.Code // gRPC
	Exit   int        // command line
	Title  string     // title of the problem document
}

// ErrorTable is the one table. Each class has one row, and each row's status and gRPC code lead back to its class.
func ErrorTable() []ErrorRow {
	return []ErrorRow{
		{desired.Invalid, http.StatusUnprocessableEntity, codes.InvalidArgument, 1, "The request is not valid"},
		{desired.NotFound, http.StatusNotFound, codes.NotFound, 1, "Not found"},
		{desired.Conflict, http.StatusConflict, codes.Aborted, 1, "Conflict"},
		{desired.Denied, http.StatusForbidden, codes.PermissionDenied, 77, "Not permitted"},
		{desired.Throttled, http.StatusTooManyRequests, codes.ResourceExhausted, 75, "Too many requests"},
		{desired.Transient, http.StatusServiceUnavailable, codes.Unavailable, 69, "Unavailable for now"},
		{desired.Waiting, http.StatusGatewayTimeout, codes.DeadlineExceeded, 75, "Not there yet"},
		{desired.Stalled, http.StatusFailedDependency, codes.FailedPrecondition, 1, "A person has to act"},
		{desired.Internal, http.StatusInternalServerError, codes.Internal, 1, "Internal error"},
	}
}

// Code is the stable word in the code member of a problem document. The name of a class is a code too; the others
// say more than their class does.
type Code string

// The codes that refine a class.
const (
	CodeMalformed       Code = "malformed-request"
	CodeUnauthenticated Code = "unauthenticated"
	CodeMethod          Code = "method-not-allowed"
	CodeNotAcceptable   Code = "not-acceptable"
	CodeStaleToken      Code = "token-expired" // a page or resume token that this server can no longer honour
	CodePrecondition    Code = "precondition-failed"
	CodeTooLarge        Code = "body-too-large"
	CodeMediaType       Code = "unsupported-media-type"
	CodeHeaderTooLarge  Code = "header-too-large"
	CodeKeyReused       Code = "idempotency-key-reused"
	CodeInFlight        Code = "request-in-flight"
	CodeNotOffered      Code = "not-offered"
)

type codeRow struct {
	code   Code
	class  desired.Class
	status int
	rpc    codes.Code
}

func codeTable() []codeRow {
	return []codeRow{
		{CodeMalformed, desired.Invalid, http.StatusBadRequest, codes.InvalidArgument},
		{CodeUnauthenticated, desired.Denied, http.StatusUnauthorized, codes.Unauthenticated},
		{CodeMethod, desired.Invalid, http.StatusMethodNotAllowed, codes.Unimplemented},
		{CodeNotAcceptable, desired.Invalid, http.StatusNotAcceptable, codes.InvalidArgument},
		{CodeStaleToken, desired.Conflict, http.StatusGone, codes.OutOfRange},
		{CodePrecondition, desired.Conflict, http.StatusPreconditionFailed, codes.Aborted},
		{CodeTooLarge, desired.Invalid, http.StatusRequestEntityTooLarge, codes.InvalidArgument},
		{CodeMediaType, desired.Invalid, http.StatusUnsupportedMediaType, codes.InvalidArgument},
		{CodeHeaderTooLarge, desired.Invalid, http.StatusRequestHeaderFieldsTooLarge, codes.InvalidArgument},
		{CodeKeyReused, desired.Invalid, http.StatusUnprocessableEntity, codes.InvalidArgument},
		{CodeInFlight, desired.Conflict, http.StatusConflict, codes.Aborted},
		{CodeNotOffered, desired.Invalid, http.StatusUnprocessableEntity, codes.InvalidArgument},
	}
}

// row finds the row of a class; an unknown class is treated as internal.
func row(c desired.Class) ErrorRow {
	t := ErrorTable()
	for _, r := range t {
		if r.Class == c {
			return r
		}
	}
	return t[len(t)-1]
}

// ExitCode is the exit code of the command line for a class; 0 for the empty class.
func ExitCode(c desired.Class) int {
	if c == "" {
		return 0
	}
	return row(c).Exit
}

// ClassOfStatus is the class that an HTTP status stands for, "" for one that is no error.
func ClassOfStatus(status int) desired.Class {
	for _, r := range ErrorTable() {
		if r.Status == status {
			return r.Class
		}
	}
	for _, r := range codeTable() {
		if r.status == status {
			return r.class
		}
	}
	switch {
	case status < 400:
		return ""
	case status == http.StatusRequestTimeout, status == http.StatusBadGateway:
		return desired.Transient
	case status == http.StatusInsufficientStorage:
		return desired.Stalled
	case status < 500:
		return desired.Invalid
	}
	return desired.Internal
}

// ClassOfRPC is the class that a gRPC code stands for, "" for OK.
func ClassOfRPC(c codes.Code) desired.Class {
	for _, r := range ErrorTable() {
		if r.RPC == c {
			return r.Class
		}
	}
	switch c {
	case codes.OK:
		return ""
	case codes.Unauthenticated:
		return desired.Denied
	case codes.AlreadyExists, codes.OutOfRange:
		return desired.Conflict
	case codes.Canceled:
		return desired.Transient
	case codes.Unimplemented:
		return desired.Invalid
	}
	return desired.Internal
}

// Fault is an error with a code that says more than its class.
type Fault struct {
	Code Code
	Err  *desired.Error
}

func (f *Fault) Error() string { return f.Err.Error() }
func (f *Fault) Unwrap() error { return f.Err }

// faultf builds a Fault; its class is that of the code.
func faultf(code Code, op, format string, args ...any) *Fault {
	class := desired.Internal
	for _, r := range codeTable() {
		if r.code == code {
			class = r.class
		}
	}
	return &Fault{Code: code, Err: &desired.Error{Class: class, Op: op, Err: fmt.Errorf(format, args...)}}
}

// verdict is everything the faces need to answer with an error.
type verdict struct {
	err    *desired.Error
	code   Code
	status int
	rpc    codes.Code
	title  string
}

// judge places any error in the table. What is no *desired.Error is internal, and its text stays inside.
func judge(err error) verdict {
	var e *desired.Error
	if !errors.As(err, &e) {
		e = &desired.Error{Class: desired.Internal, Op: "serve request", Err: err}
	}
	r := row(e.Class)
	v := verdict{err: e, code: Code(r.Class), status: r.Status, rpc: r.RPC, title: r.Title}
	var f *Fault
	if errors.As(err, &f) {
		for _, c := range codeTable() {
			if c.code == f.Code {
				v.code, v.status, v.rpc = c.code, c.status, c.rpc
				if c.status != r.Status {
					v.title = http.StatusText(c.status)
				}
			}
		}
	}
	return v
}

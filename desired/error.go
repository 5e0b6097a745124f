// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"errors"
	"fmt"
	"time"
)

// Class says what happens next after an error. It is the only thing about an error that code may decide by.
// Classes cross the wire and are append-only.
type Class string

// The classes. One table in package api maps them to HTTP, gRPC and CLI exit codes.
const (
	Invalid   Class = "invalid"   // the input is wrong; the same input will never work
	NotFound  Class = "not-found" // what was named does not exist (or is another tenant's)
	Conflict  Class = "conflict"  // the world moved, or another document says otherwise
	Denied    Class = "denied"    // the caller, credential or policy may not do this
	Throttled Class = "throttled" // come back after Error.After
	Transient Class = "transient" // retry with backoff
	Waiting   Class = "waiting"   // something else has to happen first; look again later
	Stalled   Class = "stalled"   // a person has to act
	Internal  Class = "internal"  // a defect or a broken disk; never shown in detail to callers
)

// Error is the one error type that crosses package borders: what happens next (Class), what was being done (Op),
// to what (Ref), and why (Err). Field errors point into the input document.
type Error struct {
	Class  Class
	Op     string        // "verb noun", lower case: "decode document", "create branch"
	Ref    Ref           // zero when no resource is concerned
	After  time.Duration // for Throttled and Waiting: not before; 0 = caller's own backoff
	Fields []FieldError  // for Invalid: where in the input
	Err    error
}

// FieldError is one fault in an input document.
type FieldError struct {
	Pointer string `json:"pointer,omitempty"` // RFC 6901 pointer into the document
	File    string `json:"file,omitempty"`    // path in the control repository
	Line    int    `json:"line,omitempty"`    // 1-based; 0 unknown
	Column  int    `json:"column,omitempty"`  // 1-based, in characters; 0 unknown
	Detail  string `json:"detail"`            // what is wrong and what to do; never the offending value
}

// String renders file:line:column: detail, leaving out what is unknown.
func (f FieldError) String() string {
	s := f.File
	if f.Line > 0 {
		if s == "" {
			s = "line " + fmt.Sprint(f.Line)
		} else {
			s += fmt.Sprintf(":%d", f.Line)
		}
		if f.Column > 0 {
			s += fmt.Sprintf(":%d", f.Column)
		}
	}
	if f.Pointer != "" {
		if s != "" {
			s += ": "
		}
		s += f.Pointer
	}
	if s != "" {
		s += ": "
	}
	return s + f.Detail
}

// E builds an Error. A nil err gives a nil *Error only if class is also empty; otherwise the class text stands in.
func E(op string, ref Ref, class Class, err error) *Error {
	return &Error{Class: class, Op: op, Ref: ref, Err: err}
}

// Errorf is E with a formatted cause.
func Errorf(op string, ref Ref, class Class, format string, args ...any) *Error {
	return &Error{Class: class, Op: op, Ref: ref, Err: fmt.Errorf(format, args...)}
}

func (e *Error) Error() string {
	s := e.Op
	if !e.Ref.IsZero() {
		s += " " + e.Ref.String()
	}
	switch {
	case e.Err != nil:
		s += ": " + e.Err.Error()
	case len(e.Fields) > 0:
		s += ": " + e.Fields[0].String()
	default:
		s += ": " + string(e.Class)
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Detail is the sentence for people: the cause without operation and ref.
func (e *Error) Detail() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case len(e.Fields) > 0:
		return e.Fields[0].String()
	}
	return string(e.Class)
}

// ClassOf returns the class of the outermost *Error in err's chain, Internal when there is none, "" for nil.
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return Internal
}

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
)

// requestInfo is what the outer layers learn about a request while the inner ones serve it.
type requestInfo struct {
	trace     string // 32 hex digits
	operation string
	who       *auth.Principal
	err       error // an internal error, for the log
}

type infoKey struct{}

func infoOf(r *http.Request) *requestInfo {
	if i, ok := r.Context().Value(infoKey{}).(*requestInfo); ok {
		return i
	}
	return &requestInfo{trace: newTrace()}
}

// recorder remembers the status that was sent. It passes Flush on, and the rest by Unwrap.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

func (w *recorder) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ServeHTTP is every REST request, event stream and git door: trace, headers, panic barrier, metrics, router.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	began := s.cfg.Now()
	info := &requestInfo{trace: traceOf(r.Header.Get("Traceparent"))}
	r = r.WithContext(context.WithValue(r.Context(), infoKey{}, info))
	w := &recorder{ResponseWriter: rw}
	h := w.Header()
	h.Set("Trace-Id", info.trace)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	s.metrics.httpActive.Inc()
	defer func() {
		v := recover()
		if v != nil && v != http.ErrAbortHandler {
			if s.cfg.Events.Panic != nil {
				s.cfg.Events.Panic(info.operation, v, debug.Stack())
			}
			info.err = errors.New("panic in handler")
			if w.status == 0 {
				s.problem(w, r, desired.E("serve request", desired.Ref{}, desired.Internal, info.err))
			} else {
				v = http.ErrAbortHandler // half an answer must not look like a whole one
			}
		}
		s.observe(r, info, w.status, s.cfg.Now().Sub(began))
		if v == http.ErrAbortHandler {
			panic(v) // cuts the connection
		}
	}()
	s.router.ServeHTTP(w, r)
}

func (s *Server) observe(r *http.Request, info *requestInfo, status int, took time.Duration) {
	s.metrics.httpActive.Dec()
	if status == 0 {
		status = http.StatusOK
	}
	code := strconv.Itoa(status)
	s.metrics.http(info.operation, methodLabel(r.Method), code, took)
	if s.cfg.Events.Request == nil {
		return
	}
	e := RequestEvent{Operation: info.operation, Method: r.Method, Code: code, TraceID: info.trace, Took: took, Err: info.err}
	if info.who != nil {
		e.Tenant, e.Subject = info.who.Tenant, info.who.Subject
	}
	s.cfg.Events.Request(e)
}

// methodLabel keeps invented methods out of the metrics.
func methodLabel(m string) string {
	switch m {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodHead, http.MethodOptions, http.MethodPatch:
		return m
	}
	return "other"
}

// traceOf takes the trace id of a W3C traceparent header over, or makes a new one.
func traceOf(parent string) string {
	if len(parent) >= 55 && parent[2] == '-' && parent[35] == '-' && parent[52] == '-' && parent[:2] != "ff" {
		id := parent[3:35]
		if strings.Trim(id, "0123456789abcdef") == "" && strings.Trim(id, "0") != "" {
			return id
		}
	}
	return newTrace()
}

func newTrace() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// writeJSON sends a body through a pooled buffer, so that a body that cannot be encoded never leaves half of itself.
func (s *Server) writeJSON(w http.ResponseWriter, status int, mediaType string, body any) {
	buf := s.buffers.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= 1<<20 {
			buf.Reset()
			s.buffers.Put(buf)
		}
	}()
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		buf.Reset()
		status, mediaType = http.StatusInternalServerError, problemType
		buf.WriteString(`{"type":"/problems/internal","title":"Internal error","status":500,"code":"internal","detail":"the answer could not be written"}`)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // the server lifts it after the answer
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(buf.Len()))
	w.WriteHeader(status)
	w.Write(buf.Bytes())
}

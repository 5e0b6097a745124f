// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
)

// Caps of request bodies.
const (
	maxBody       = 1 << 20
	maxCommitBody = 12 << 20 // 8 MiB of content, as base64, with the rest
	maxDepth      = 64       // of JSON
	maxWarnings   = 20

	bodyTime   = 30 * time.Second // to send a body
	uploadTime = 10 * time.Minute // to send an artifact
	answerTime = 30 * time.Second // to take an answer
)

// shape is what the walk over a request body needs to know of its Go type.
type shape struct {
	fields map[string]*shape // of an object; nil: anything goes, the type reads it by itself
	elem   *shape            // of an array
}

// requestShapes derives the shapes of all request bodies once.
func requestShapes() map[reflect.Type]*shape {
	out := map[reflect.Type]*shape{}
	for _, t := range []reflect.Type{
		reflect.TypeFor[ProvisionRepositoryRequest](), reflect.TypeFor[CreateBranchRequest](), reflect.TypeFor[AuthorCommitRequest](),
		reflect.TypeFor[OpenPullRequestRequest](), reflect.TypeFor[MergePullRequestRequest](), reflect.TypeFor[ClosePullRequestRequest](),
		reflect.TypeFor[PostCheckRequest](), reflect.TypeFor[ApplyRequest](), reflect.TypeFor[ReconcileRequest](),
	} {
		out[t] = shapeOf(t)
	}
	return out
}

func shapeOf(t reflect.Type) *shape {
	switch {
	case t == reflect.TypeFor[json.RawMessage]():
		return &shape{}
	case t.Kind() == reflect.Pointer:
		return shapeOf(t.Elem())
	case t.Kind() == reflect.Slice:
		return &shape{elem: shapeOf(t.Elem())}
	case t.Kind() != reflect.Struct:
		return &shape{}
	}
	s := &shape{fields: map[string]*shape{}}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		s.fields[name] = shapeOf(t.Field(i).Type)
	}
	return s
}

// decode reads a JSON body into v, whose member tenant must be empty or the caller's. Unknown fields are tolerated and
// become warnings; duplicate names and names that differ from a known one only in case are refused, because two
// readers could see two requests. Without a body, optional leaves v as it is.
func (s *Server) decode(c *call, limit int64, optional bool, v any, tenant *string) error {
	if err := c.read(limit); err != nil {
		return err
	}
	if len(c.body) == 0 && optional {
		return nil
	}
	if err := wantMedia(c.r, "application/json"); err != nil {
		return err
	}
	w := walker{data: c.body, call: c}
	if err := w.check(s.shapes[reflect.TypeOf(v).Elem()]); err != nil {
		return err
	}
	if err := json.Unmarshal(c.body, v); err != nil {
		return typeFault(err)
	}
	return auth.NeedTenant(c.who, *tenant)
}

// read reads the whole body, at most limit bytes.
func (c *call) read(limit int64) error {
	if enc := c.r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return faultf(CodeMediaType, "read body", "send the body without Content-Encoding")
	}
	if c.r.ContentLength > limit {
		return tooLarge(limit)
	}
	control := http.NewResponseController(c.w) // transports without deadlines have their own
	_ = control.SetReadDeadline(time.Now().Add(bodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, limit))
	_ = control.SetReadDeadline(time.Time{}) // or the connection would count as lost while the operation waits
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return tooLarge(limit)
	case err != nil:
		return faultf(CodeMalformed, "read body", "the body ended early or could not be read: send it again")
	}
	c.body = body
	return nil
}

func tooLarge(limit int64) error {
	return faultf(CodeTooLarge, "read body", "the body is larger than %d MiB: send less, or in several requests", limit>>20)
}

// wantMedia checks the Content-Type of a request that has a body.
func wantMedia(r *http.Request, types ...string) error {
	got, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil && (params["charset"] == "" || strings.EqualFold(params["charset"], "utf-8")) {
		for _, t := range types {
			if got == t {
				return nil
			}
		}
	}
	return faultf(CodeMediaType, "read body", "the Content-Type must be %s (UTF-8)", strings.Join(types, " or "))
}

// typeFault says which member of a body has the wrong type, without its value.
func typeFault(err error) error {
	var t *json.UnmarshalTypeError
	if !errors.As(err, &t) {
		return faultf(CodeMalformed, "decode body", "the body cannot be read as JSON")
	}
	pointer := ""
	if t.Field != "" {
		pointer = "/" + strings.ReplaceAll(t.Field, ".", "/")
	}
	return invalid("decode body", desired.FieldError{Pointer: pointer, Detail: "must be " + wanted(t.Type)})
}

func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	return "a number"
}

// walker looks at every name of a JSON document once, before it is decoded. The document was found valid, so the
// walk may trust its syntax.
type walker struct {
	data []byte
	pos  int
	call *call
	path []string
}

func (w *walker) check(s *shape) error {
	if !utf8.Valid(w.data) {
		return faultf(CodeMalformed, "decode body", "the body is not UTF-8")
	}
	if err := w.syntax(); err != nil {
		return err
	}
	if w.space(); w.data[w.pos] != '{' {
		return faultf(CodeMalformed, "decode body", "the body must be a JSON object")
	}
	return w.value(s)
}

// syntax says where a body stops being JSON, without quoting what is there.
func (w *walker) syntax() error {
	var raw json.RawMessage
	err := json.Unmarshal(w.data, &raw)
	if err == nil {
		return nil
	}
	var at *json.SyntaxError
	switch {
	case len(bytes.TrimSpace(w.data)) == 0:
		return faultf(CodeMalformed, "decode body", "the body is empty: send a JSON object")
	case !errors.As(err, &at):
		return faultf(CodeMalformed, "decode body", "the body is not valid JSON")
	case at.Offset >= int64(len(w.data)):
		return faultf(CodeMalformed, "decode body", "the body is not valid JSON: it ends too early, at %s", w.place(len(w.data)))
	}
	return faultf(CodeMalformed, "decode body", "the body is not valid JSON at %s", w.place(int(at.Offset)-1))
}

// place is a position in the body as people count.
func (w *walker) place(pos int) string {
	before := w.data[:max(pos, 0)]
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("line %d, column %d", line, column)
}

func (w *walker) space() {
	for w.pos < len(w.data) && (w.data[w.pos] == ' ' || w.data[w.pos] == '\n' || w.data[w.pos] == '\t' || w.data[w.pos] == '\r') {
		w.pos++
	}
}

// value walks over one value; s says what is known of it.
func (w *walker) value(s *shape) error {
	w.space()
	switch w.data[w.pos] {
	case '{':
		return w.object(s)
	case '[':
		return w.array(s)
	case '"':
		w.text()
		return nil
	}
	for w.pos < len(w.data) && !strings.ContainsRune(",]} \t\r\n", rune(w.data[w.pos])) {
		w.pos++
	}
	return nil
}

// text walks over a string and returns it with its quotes.
func (w *walker) text() []byte {
	from := w.pos
	for w.pos++; w.data[w.pos] != '"'; w.pos++ {
		if w.data[w.pos] == '\\' {
			w.pos++
		}
	}
	w.pos++
	return w.data[from:w.pos]
}

func (w *walker) enter(name string) error {
	if len(w.path) >= maxDepth {
		return faultf(CodeMalformed, "decode body", "the body is nested deeper than %d levels", maxDepth)
	}
	w.path = append(w.path, name)
	return nil
}

func (w *walker) leave() { w.path = w.path[:len(w.path)-1] }

func (w *walker) array(s *shape) error {
	var elem *shape
	if s != nil {
		elem = s.elem
	}
	if err := w.enter("-"); err != nil {
		return err
	}
	defer w.leave()
	for w.pos++; ; {
		if w.space(); w.data[w.pos] == ']' {
			w.pos++
			return nil
		}
		if w.data[w.pos] == ',' {
			w.pos++
			continue
		}
		if err := w.value(elem); err != nil {
			return err
		}
	}
}

func (w *walker) object(s *shape) error {
	if err := w.enter(""); err != nil {
		return err
	}
	defer w.leave()
	seen := make(map[string]struct{}, 8)
	for w.pos++; ; {
		switch w.space(); w.data[w.pos] {
		case '}':
			w.pos++
			return nil
		case ',':
			w.pos++
			continue
		}
		var name string
		at := w.pos
		if err := json.Unmarshal(w.text(), &name); err != nil {
			return faultf(CodeMalformed, "decode body", "the body is not valid JSON")
		}
		if _, dup := seen[name]; dup {
			return faultf(CodeMalformed, "decode body", "a name appears twice in one object of the body: remove the second, at %s", w.place(at))
		}
		seen[name] = struct{}{}
		w.path[len(w.path)-1] = name
		known, err := w.member(s, name)
		if err != nil {
			return err
		}
		w.space()
		w.pos++ // the colon
		if err := w.value(known); err != nil {
			return err
		}
	}
}

// member judges one name of an object.
func (w *walker) member(s *shape, name string) (*shape, error) {
	if s == nil || s.fields == nil {
		return nil, nil
	}
	if f, ok := s.fields[name]; ok {
		return f, nil
	}
	for known := range s.fields {
		if strings.EqualFold(known, name) {
			return nil, invalid("decode body", desired.FieldError{Pointer: w.pointer(), Detail: "names are case-sensitive: did you mean " + known + "?"})
		}
	}
	if len(w.call.warnings) < maxWarnings {
		w.call.warn("unknown field %s was ignored", w.pointer())
	}
	return nil, nil
}

func (w *walker) pointer() string {
	var b strings.Builder
	for _, p := range w.path {
		b.WriteByte('/')
		b.WriteString(pointerEscape(shorten(p, 64)))
	}
	return b.String()
}

func pointerEscape(s string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
}

// shorten cuts a caller's text to n runes and takes control characters out.
func shorten(s string, n int) string {
	out := []rune{}
	for _, r := range s {
		if len(out) == n {
			return string(out) + "…"
		}
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}

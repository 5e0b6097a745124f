// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// Redact keeps a provider's credential out of everything that comes back from its driver: errors, reasons,
// messages, observed values, handles, and the run log. It looks for the value itself and for the forms that it
// takes on its way through HTTP.
func Redact(d adapters.Driver) adapters.Driver {
	l := inside(d)
	in := *l
	l.observe = func(ctx context.Context, s []adapters.Subject) ([]adapters.Observation, error) {
		var providers []adapters.Provider
		for i := range s {
			providers = append(providers, s[i].Provider)
		}
		m := maskOf(providers...)
		out, err := in.observe(ctx, s)
		for i := range out {
			out[i].Reason, out[i].Err = m.text(out[i].Reason), m.err(out[i].Err)
			out[i].Actual, out[i].Handle = m.actual(out[i].Actual), m.json(out[i].Handle)
		}
		return out, m.err(err)
	}
	l.apply = func(ctx context.Context, c adapters.Change) (adapters.Outcome, error) {
		m := maskOf(c.Provider)
		if c.Log != nil && len(m) > 0 {
			w := &maskWriter{to: c.Log, m: m}
			defer w.flush()
			c.Log = w
		}
		out, err := in.apply(ctx, c)
		out.Message, out.Actual, out.Handle = m.text(out.Message), m.actual(out.Actual), m.json(out.Handle)
		return out, m.err(err)
	}
	l.list = func(ctx context.Context, k desired.Kind, p adapters.Provider, parent *adapters.Subject) ([]adapters.Listed, error) {
		m := maskOf(p)
		out, err := in.list(ctx, k, p, parent)
		for i := range out {
			out[i].Name, out[i].Handle = m.text(out[i].Name), m.json(out[i].Handle)
		}
		return out, m.err(err)
	}
	l.check = func(ctx context.Context, pr adapters.Subject, c adapters.Check) error {
		return maskOf(pr.Provider).err(in.check(ctx, pr, c))
	}
	return l.driver()
}

const stars = "***"

// mask is what must not be shown, the longest first.
type mask []string

func maskOf(providers ...adapters.Provider) mask {
	var m mask
	for _, p := range providers {
		v := p.Credential.Reveal()
		if v == "" || slices.Contains(m, v) {
			continue
		}
		quoted, _ := json.Marshal(v) // a string always has a JSON form
		m = append(m, v, url.QueryEscape(v), url.PathEscape(v), strings.Trim(string(quoted), `"`))
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			m = append(m, e.EncodeToString([]byte(v)), e.EncodeToString([]byte(":"+v)))
		}
	}
	slices.SortFunc(m, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(m)
}

func (m mask) text(s string) string {
	for _, secret := range m {
		s = strings.ReplaceAll(s, secret, stars)
	}
	return s
}

func (m mask) json(data json.RawMessage) json.RawMessage {
	if clean := m.text(string(data)); clean != string(data) {
		return json.RawMessage(clean)
	}
	return data
}

// actual is a by way of JSON when it shows a secret; every Actual survives that.
func (m mask) actual(a adapters.Actual) adapters.Actual {
	if a == nil || len(m) == 0 {
		return a
	}
	data, err := json.Marshal(a)
	clean := m.text(string(data))
	if err == nil && clean == string(data) {
		return a
	}
	fresh, ok := reflect.New(reflect.TypeOf(a).Elem()).Interface().(adapters.Actual)
	if err != nil || !ok || json.Unmarshal([]byte(clean), fresh) != nil {
		return nil // it cannot be shown without the secret, so it is not shown
	}
	return fresh
}

// err keeps class, operation, ref, time and fields of an error whose text shows a secret; its chain is cut.
func (m mask) err(err error) error {
	if err == nil || !m.shown(err) {
		return err
	}
	text := errors.New(m.text(err.Error()))
	e, ok := asError(err)
	if !ok {
		return text
	}
	clean := *e
	clean.Err, clean.Fields = nil, slices.Clone(e.Fields)
	for i := range clean.Fields {
		clean.Fields[i].Detail = m.text(clean.Fields[i].Detail)
	}
	if e.Err != nil {
		clean.Err = errors.New(m.text(e.Err.Error()))
	}
	return &clean
}

// shown reports whether an error, or any that it wraps, shows a secret.
func (m mask) shown(err error) bool {
	if err == nil {
		return false
	}
	if s := err.Error(); m.text(s) != s {
		return true
	}
	if e, ok := err.(*desired.Error); ok {
		for _, f := range e.Fields {
			if m.text(f.Detail) != f.Detail {
				return true
			}
		}
	}
	switch x := err.(type) {
	case interface{ Unwrap() error }:
		return m.shown(x.Unwrap())
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(x.Unwrap(), m.shown)
	}
	return false
}

func asError(err error) (*desired.Error, bool) {
	var e *desired.Error
	return e, errors.As(err, &e)
}

// maskWriter redacts a run log line by line, for a secret may come in two writes. It has one user at a time.
type maskWriter struct {
	to   io.Writer
	m    mask
	line []byte
}

const longestLine = 64 << 10

func (w *maskWriter) Write(p []byte) (int, error) {
	w.line = append(w.line, p...)
	end := bytes.LastIndexByte(w.line, '\n') + 1
	if end == 0 && len(w.line) < longestLine {
		return len(p), nil
	}
	if end == 0 { // too long to keep: hold back only what may be the beginning of a secret
		w.line = []byte(w.m.text(string(w.line)))
		end = max(0, len(w.line)-len(w.m[0]))
	}
	_, err := io.WriteString(w.to, w.m.text(string(w.line[:end])))
	w.line = append([]byte(nil), w.line[end:]...)
	return len(p), err
}

func (w *maskWriter) flush() {
	if len(w.line) > 0 {
		_, _ = io.WriteString(w.to, w.m.text(string(w.line))) // the log is best effort, as it is for the driver
		w.line = nil
	}
}

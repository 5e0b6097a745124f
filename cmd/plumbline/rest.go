// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

// maxAnswer bounds what is read of one answer; lists are paged far below it.
const maxAnswer = 64 << 20

// rest speaks to the REST listener.
type rest struct {
	base   string
	token  string
	client *http.Client
	log    io.Writer // nil unless verbose
}

func (c *connection) rest() (*rest, error) {
	base, _, err := c.addresses()
	if err != nil {
		return nil, err
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	r := &rest{base: base, token: token, client: &http.Client{Timeout: 2 * time.Minute}}
	if c.verbose {
		r.log = c.sh.stderr
	}
	return r, nil
}

// request is one REST call.
type request struct {
	method, path string
	query        url.Values
	header       map[string]string
	body         []byte
}

// answer is what came back with a status below 400.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do makes one call. Errors are *desired.Error: of the class that the server's status stands for, Transient when it
// cannot be reached.
func (r *rest) do(ctx context.Context, q request) (*answer, error) {
	target := r.base + q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, target, bytes.NewReader(q.body))
	if err != nil {
		return nil, usage("--server: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	req.Header.Set("Accept", "application/json; version=1, application/problem+json")
	for k, v := range q.header {
		req.Header.Set(k, v)
	}
	start := time.Now()
	res, err := r.client.Do(req)
	if err != nil {
		return nil, unreachable(ctx, q, r.base, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, unreachable(ctx, q, r.base, err)
	}
	if r.log != nil {
		fmt.Fprintf(r.log, "%s %s: %d in %d ms\n", q.method, q.path, res.StatusCode, time.Since(start).Milliseconds())
	}
	if res.StatusCode >= 400 {
		return nil, problem(q, res, body)
	}
	return &answer{res.StatusCode, res.Header, body}, nil
}

func unreachable(ctx context.Context, q request, base string, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the method and URL, which stand in front already
	}
	return desired.Errorf(q.method+" "+q.path, desired.Ref{}, desired.Transient, "no answer from %s: %w; is the daemon running?", base, err)
}

// problem turns a problem document into an error of its class.
func problem(q request, res *http.Response, body []byte) error {
	var p struct {
		Detail  string
		Title   string
		TraceID string `json:"traceId"`
		Errors  []desired.FieldError
	}
	if json.Unmarshal(body, &p) != nil || (p.Detail == "" && p.Title == "") {
		p.Detail = "the server answered " + res.Status
	}
	e := &desired.Error{Class: api.ClassOfStatus(res.StatusCode), Op: q.method + " " + q.path, Fields: p.Errors}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil {
		e.After = time.Duration(s) * time.Second
	}
	text := firstOf(p.Detail, p.Title)
	if e.Class == desired.Internal && p.TraceID != "" {
		text += " (trace " + p.TraceID + ")"
	}
	e.Err = errors.New(oneLine(text))
	return e
}

// get reads one JSON object.
func (r *rest) get(ctx context.Context, path string, query url.Values, into any) error {
	a, err := r.do(ctx, request{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return err
	}
	return decodeAnswer(path, a.body, into)
}

func decodeAnswer(path string, body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		return desired.Errorf("read answer of "+path, desired.Ref{}, desired.Internal, "the server's answer is not the expected JSON: %w", err)
	}
	return nil
}

// listAll reads every page of a collection. All pages show the same commit.
func listAll[T any](ctx context.Context, r *rest, path string, query url.Values) ([]T, error) {
	items := []T{}
	for {
		var page struct {
			Items         []T    `json:"items"`
			NextPageToken string `json:"nextPageToken"`
		}
		if err := r.get(ctx, path, query, &page); err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if page.NextPageToken == "" {
			return items, nil
		}
		query.Set("pageToken", page.NextPageToken)
	}
}

// resolve turns what people type for a resource into its ref or id: an id (branch-…), tenant/project/Kind/name,
// project/Kind/name, or Kind/name with a project from --project.
func resolve(word, tenant, project string) (id string, ref desired.Ref, err error) {
	if !strings.Contains(word, "/") {
		for _, k := range desired.Kinds() {
			if strings.HasPrefix(word, k.IDPrefix+"-") {
				return word, desired.Ref{}, nil
			}
		}
		return "", desired.Ref{}, usage("%q is neither an id nor a ref: write project/Kind/name, Kind/name with --project, or an id such as repo-…", word)
	}
	parts := strings.Split(word, "/")
	switch len(parts) {
	case 2:
		parts = append([]string{orDash(tenant), orDash(project)}, parts...)
	case 3:
		parts = append([]string{orDash(tenant)}, parts...)
	case 4:
	default:
		return "", desired.Ref{}, usage("%q is no ref: write project/Kind/name, or tenant/project/Kind/name", word)
	}
	kind, err := findKind(parts[2])
	if err != nil {
		return "", desired.Ref{}, err
	}
	if parts[0] == "-" && !kind.Platform {
		return "", desired.Ref{}, usage("%q does not say whose it is: give -n TENANT or PLUMBLINE_TENANT", word)
	}
	parts[2] = string(kind.Kind)
	ref, err = desired.ParseRef(strings.Join(parts, "/"))
	if err != nil {
		return "", desired.Ref{}, usage("%q is no ref: %w", word, err)
	}
	return ref.ID(), ref, nil
}

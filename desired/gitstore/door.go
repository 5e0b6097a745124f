// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Door serves one repository over git smart HTTP: info/refs, git-upload-pack, git-receive-pack below its mount
// point (the caller strips the prefix). Authorization is the caller's business.
type Door struct {
	Store *Store
	// ReadOnly refuses pushes with this sentence when not empty.
	ReadOnly func() string
	// HiddenRefs leaves refs out of what clones and pushes see; pushes to them are refused. An entry names a ref or
	// all refs below it: "refs/plumbline".
	HiddenRefs []string
	// Namespaces are where pushes may write; nil = refs/heads/ and refs/tags/.
	Namespaces []string
	// Accept judges a push and calls Land. The error text of a *desired.Error reaches the pusher on remote: lines,
	// field errors one a line; nil after Land reports ok. Nil Accept lands every push that passes the built-in
	// checks (ref names, complete objects, no non-fast-forward unless AllowForce).
	Accept func(ctx context.Context, p *Push) error
	// AllowForce permits non-fast-forward updates and deletions per ref name; nil = never.
	AllowForce func(ref string) bool
	// OnError sees what clients are not told: I/O errors, panics, what upload-pack says. May be nil.
	OnError func(error)
	MaxPack int64         // bytes of one push; 0 = 512 MiB
	Timeout time.Duration // of one upload-pack process; 0 = 1 h
}

// Limits on requests.
const (
	defaultMaxPack = 512 << 20
	maxWants       = 16 << 20 // bytes of a fetch request, inflated
)

// ServeHTTP serves a clone, fetch or push. Everything else is 404; the dumb protocol is refused.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer d.recover(w)
	switch path := strings.TrimPrefix(r.URL.Path, "/"); {
	case path == "info/refs" && r.Method == http.MethodGet:
		d.advertise(w, r)
	case path == "git-upload-pack" && r.Method == http.MethodPost:
		d.serveFetch(w, r)
	case path == "git-receive-pack" && r.Method == http.MethodPost:
		d.servePush(w, r)
	case path == "info/refs" || path == "git-upload-pack" || path == "git-receive-pack":
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	default:
		http.NotFound(w, r)
	}
}

// recover turns a panic into a 500, or a cut answer when it has begun.
func (d *Door) recover(w http.ResponseWriter) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	d.report(fmt.Errorf("git door: panic: %v\n%s", p, debug.Stack()))
	http.Error(w, "internal error", http.StatusInternalServerError)
}

func (d *Door) report(err error) {
	if d.OnError != nil && err != nil {
		d.OnError(err)
	}
}

func (d *Door) advertise(w http.ResponseWriter, r *http.Request) {
	service := r.URL.Query().Get("service")
	switch service {
	case "git-upload-pack":
		d.advertiseFetch(w, r)
	case "git-receive-pack":
		d.advertisePush(w)
	case "":
		http.Error(w, "the dumb protocol is not served: use a git of this century", http.StatusForbidden)
	default:
		http.Error(w, "unknown service", http.StatusForbidden)
	}
}

func noCache(w http.ResponseWriter, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
	h.Set("Expires", "Fri, 01 Jan 1980 00:00:00 GMT")
	h.Set("Pragma", "no-cache")
}

// protocol reads the version that a client asks for; what else the header holds is not passed on.
func protocol(r *http.Request) int {
	version := 0
	header := r.Header.Get("Git-Protocol")
	if len(header) > 256 {
		return 0
	}
	for item := range strings.SplitSeq(header, ":") {
		switch item {
		case "version=1":
			version = max(version, 1)
		case "version=2":
			version = 2
		}
	}
	return version
}

func (d *Door) advertiseFetch(w http.ResponseWriter, r *http.Request) {
	var out bytes.Buffer
	if protocol(r) < 2 {
		out.Write(appendPkt(nil, "# service=git-upload-pack\n"))
		out.WriteString(flushPkt)
	}
	if !d.uploadPack(w, r, nil, &out, "--http-backend-info-refs") {
		return
	}
	noCache(w, "application/x-git-upload-pack-advertisement")
	_, _ = w.Write(out.Bytes()) // the client is gone: nothing to do
}

func (d *Door) serveFetch(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") != "application/x-git-upload-pack-request" {
		http.Error(w, "unexpected content type", http.StatusUnsupportedMediaType)
		return
	}
	// The request is small and read in full before git starts: a slow client holds no process.
	body, err := inflated(w, r, maxWants)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	wants, err := io.ReadAll(io.LimitReader(body, maxWants+1))
	if err != nil || len(wants) > maxWants {
		http.Error(w, "the request cannot be read or is too large", http.StatusBadRequest)
		return
	}
	noCache(w, "application/x-git-upload-pack-result")
	d.uploadPack(w, r, bytes.NewReader(wants), &flushWriter{w: w})
}

// uploadPack runs git upload-pack. It answers the client and returns false when that fails before any output.
func (d *Door) uploadPack(w http.ResponseWriter, r *http.Request, in io.Reader, out io.Writer, args ...string) bool {
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = time.Hour
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	p := program{stdin: in, stdout: out, config: [][2]string{{"uploadpack.allowFilter", "true"}}}
	p.args = append([]string{"upload-pack", "--stateless-rpc", "--strict"}, args...)
	p.args = append(p.args, d.Store.dir)
	for _, h := range d.HiddenRefs {
		p.config = append(p.config, [2]string{"transfer.hideRefs", h})
	}
	if v := protocol(r); v > 0 {
		p.env = append(p.env, fmt.Sprintf("GIT_PROTOCOL=version=%d", v))
	}
	code, says, err := d.Store.run(ctx, p)
	if err == nil && code == 0 {
		return true
	}
	if r.Context().Err() != nil {
		return false // the client went away
	}
	d.report(fmt.Errorf("git upload-pack: exit code %d, %w: %s", code, err, says))
	if f, ok := out.(*flushWriter); !ok || !f.wrote {
		http.Error(w, "the repository cannot be served", http.StatusInternalServerError)
	}
	return false
}

// flushWriter sends each piece at once: progress is for people who wait.
type flushWriter struct {
	w     http.ResponseWriter
	wrote bool
}

func (f *flushWriter) Write(p []byte) (int, error) {
	f.wrote = true
	n, err := f.w.Write(p)
	if fl, ok := f.w.(http.Flusher); ok && err == nil {
		fl.Flush()
	}
	return n, err
}

// inflated returns the body of a request, unpacked. limit bounds what is read from the network.
func inflated(w http.ResponseWriter, r *http.Request, limit int64) (io.Reader, error) {
	body := http.MaxBytesReader(w, r.Body, limit)
	switch r.Header.Get("Content-Encoding") {
	case "", "identity":
		return body, nil
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, errors.New("the body is not gzip data")
		}
		return z, nil
	}
	return nil, errors.New("unsupported content encoding")
}

// hidden reports whether a ref is none of the outside's business.
func (d *Door) hidden(name string) bool {
	return slices.ContainsFunc(d.HiddenRefs, func(h string) bool {
		h = strings.TrimSuffix(h, "/")
		return name == h || strings.HasPrefix(name, h+"/")
	})
}

// pushCapabilities are what receive-pack offers. Without thin packs each pack is complete in itself.
const pushCapabilities = "report-status delete-refs side-band-64k quiet atomic ofs-delta no-thin push-options object-format=sha1 agent=plumbline"

func (d *Door) advertisePush(w http.ResponseWriter) {
	out := append(appendPkt(nil, "# service=git-receive-pack\n"), flushPkt...)
	noCache(w, "application/x-git-receive-pack-advertisement")
	if why := d.readOnly(); why != "" {
		out = appendPkt(out, "ERR "+printable(why)+"\n")
		_, _ = w.Write(out) // the client is gone: nothing to do
		return
	}
	refs, err := d.Store.Refs("refs/")
	if err != nil {
		d.report(err)
		w.Header().Del("Cache-Control")
		http.Error(w, "the repository cannot be served", http.StatusInternalServerError)
		return
	}
	caps := "\x00" + pushCapabilities
	for _, ref := range refs {
		if d.hidden(ref.Name) {
			continue
		}
		out = appendPkt(out, ref.Hash.String()+" "+ref.Name+caps+"\n")
		caps = ""
	}
	if caps != "" {
		out = appendPkt(out, Zero.String()+" capabilities^{}"+caps+"\n")
	}
	out = append(out, flushPkt...)
	_, _ = w.Write(out) // the client is gone: nothing to do
}

func (d *Door) readOnly() string {
	if d.ReadOnly == nil {
		return ""
	}
	return d.ReadOnly()
}

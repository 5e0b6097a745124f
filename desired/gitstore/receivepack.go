// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/desired"
)

// Limits on the commands of a push.
const (
	maxCommands    = 2000
	maxPushOptions = 64
	maxOptionBytes = 4096
)

// pushRequest is what a client sends before its pack.
type pushRequest struct {
	updates []RefUpdate
	options []string
	caps    map[string]string
	excess  bool // there were more commands than a push may have; updates are the first ones
	shallow int
}

// errProtocol is a request that no git client sends.
func errProtocol(format string, args ...any) error {
	return desired.Errorf("read push", desired.Ref{}, desired.Invalid, format, args...)
}

// readPushRequest reads commands and push options. It leaves r where the pack begins.
func readPushRequest(r io.Reader) (*pushRequest, error) {
	q := &pushRequest{caps: make(map[string]string)}
	for {
		line, flush, err := readPkt(r)
		if errors.Is(err, io.EOF) && len(q.updates) == 0 {
			return q, nil
		}
		if err != nil {
			return nil, errProtocol("the commands are cut short or malformed")
		}
		if flush {
			break
		}
		if err := q.command(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return nil, err
		}
	}
	if _, ok := q.caps["push-options"]; !ok || len(q.updates) == 0 {
		return q, nil
	}
	for {
		line, flush, err := readPkt(r)
		if err != nil {
			return nil, errProtocol("the push options are cut short or malformed")
		}
		if flush {
			return q, nil
		}
		if len(q.options) >= maxPushOptions || len(line) > maxOptionBytes {
			return nil, errProtocol("there are too many push options, or one is too long")
		}
		q.options = append(q.options, string(bytes.TrimSuffix(line, []byte("\n"))))
	}
}

// command reads "old new ref", on the first line followed by NUL and capabilities.
func (q *pushRequest) command(line []byte) error {
	if bytes.HasPrefix(line, []byte("shallow ")) && len(q.updates) == 0 {
		// What the pusher's clone lacks does not matter: completeness is judged against the store.
		if q.shallow++; q.shallow > maxCommands {
			return errProtocol("there are too many shallow lines")
		}
		return nil
	}
	line, caps, hasCaps := bytes.Cut(line, []byte{0})
	if hasCaps && len(q.updates) == 0 {
		for c := range strings.FieldsSeq(string(caps)) {
			key, value, _ := strings.Cut(c, "=")
			q.caps[key] = value
		}
	}
	if len(q.updates) >= maxCommands {
		q.excess = true // read to their end, so that the client gets to know why
		return nil
	}
	if len(line) < 83 || line[40] != ' ' || line[81] != ' ' {
		return errProtocol("a command is malformed")
	}
	from, err := ParseHash(string(line[:40]))
	if err != nil {
		return err
	}
	to, err := ParseHash(string(line[41:81]))
	if err != nil {
		return err
	}
	q.updates = append(q.updates, RefUpdate{Name: string(line[82:]), Old: from, New: to})
	return nil
}

// needsPack: clients send a pack unless all they do is delete.
func (q *pushRequest) needsPack() bool {
	return slices.ContainsFunc(q.updates, func(u RefUpdate) bool { return !u.New.IsZero() })
}

func (d *Door) servePush(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") != "application/x-git-receive-pack-request" {
		http.Error(w, "unexpected content type", http.StatusUnsupportedMediaType)
		return
	}
	limit := d.MaxPack
	if limit <= 0 {
		limit = defaultMaxPack
	}
	// Twice the limit is read: the end of a pack that is too large is thrown away, so that the client listens.
	body, err := inflated(w, r, 2*limit+maxWants)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q, err := readPushRequest(body)
	if err == nil {
		err = q.supported()
	}
	if err != nil {
		http.Error(w, explain(err), http.StatusBadRequest)
		return
	}
	noCache(w, "application/x-git-receive-pack-result")
	if len(q.updates) == 0 {
		return // a probe for authentication
	}
	_, band := q.caps["side-band-64k"]
	out := &sideband{w: w, enabled: band}
	verdict := d.judge(r.Context(), q, body, limit, out)
	_, _ = io.Copy(io.Discard, io.LimitReader(body, 2*limit)) // so that the client listens
	if _, ok := q.caps["report-status"]; ok {
		out.send(1, verdict.encode(q.updates, band))
	}
	out.close()
}

func (q *pushRequest) supported() error {
	if f, ok := q.caps["object-format"]; ok && f != "sha1" {
		return errProtocol("only the object format sha1 is supported")
	}
	if _, ok := q.caps["push-cert"]; ok {
		return errProtocol("signed pushes are not supported")
	}
	return nil
}

// verdict is what becomes of a push: all of its commands succeed or none does.
type verdict struct {
	unpack  string            // "" = the pack was sound
	refused map[string]string // reason by ref, when a command alone is at fault
	all     string            // reason for every other command, "" = ok
}

// encode renders report-status.
func (v *verdict) encode(updates []RefUpdate, band bool) []byte {
	var out []byte
	if v.unpack == "" {
		out = appendPkt(out, "unpack ok\n")
	} else {
		out = appendPkt(out, "unpack "+oneLine(v.unpack)+"\n")
	}
	for _, u := range updates {
		why, refused := v.refused[u.Name]
		if !refused {
			why = v.all
		}
		if why == "" {
			out = appendPkt(out, "ok "+u.Name+"\n")
			continue
		}
		out = appendPkt(out, "ng "+u.Name+" "+oneLine(why)+"\n")
	}
	return append(out, flushPkt...)
}

// oneLine fits a reason into a report.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(printable(s)), " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

// judge checks and lands a push. A panic on the way refuses it.
func (d *Door) judge(ctx context.Context, q *pushRequest, pack io.Reader, limit int64, out *sideband) (v *verdict) {
	defer func() {
		if p := recover(); p != nil {
			d.report(fmt.Errorf("judge push: panic: %v\n%s", p, debug.Stack()))
			v = &verdict{all: "internal error"}
		}
	}()
	if why := d.readOnly(); why != "" {
		fmt.Fprintln(remote{out}, why)
		return &verdict{all: why}
	}
	if q.excess {
		why := fmt.Sprintf("a push may move %d refs at a time: push in smaller steps", maxCommands)
		fmt.Fprintln(remote{out}, why)
		return &verdict{all: why}
	}
	if v := d.checkCommands(q.updates); v != nil {
		return v
	}
	p := &Push{Updates: q.updates, Options: q.options, Remote: remote{out}, store: d.Store}
	if q.needsPack() {
		in, err := d.Store.receive(ctx, pack, limit)
		if err != nil {
			return &verdict{unpack: d.tell(out, err), all: "unpacker error"}
		}
		defer in.discard()
		p.in = in
	}
	if err := p.verify(ctx); err != nil {
		return &verdict{unpack: "", all: d.tell(out, err)}
	}
	if v := d.checkForce(ctx, p, out); v != nil {
		return v
	}
	return d.accept(ctx, p, out)
}

func (d *Door) accept(ctx context.Context, p *Push, out *sideband) *verdict {
	judge := d.Accept
	if judge == nil {
		judge = func(ctx context.Context, p *Push) error { return p.Land(ctx) }
	}
	err := judge(ctx, p)
	if err == nil && !p.landed {
		err = desired.Errorf("push", desired.Ref{}, desired.Internal, "accepted without being landed")
	}
	if err == nil {
		return &verdict{}
	}
	v := &verdict{all: d.tell(out, err)}
	if p.landed {
		return &verdict{} // the refs have moved, whatever failed afterwards: the pusher must not try again
	}
	var moved *RefError
	if errors.As(err, &moved) && len(p.Updates) > 1 {
		v.refused = map[string]string{moved.Name: v.all}
		v.all = "not moved, because another ref of this push was refused"
	}
	return v
}

// tell writes an error on the pusher's remote: lines and returns it in one line for the report. What is not meant
// for people outside goes to OnError instead.
func (d *Door) tell(out *sideband, err error) string {
	text := explain(err)
	if text == internalFault {
		d.report(err)
	}
	var known *desired.Error
	if errors.As(err, &known) && len(known.Fields) > 0 {
		for _, f := range known.Fields {
			fmt.Fprintln(remote{out}, f.String())
		}
		return text
	}
	fmt.Fprintln(remote{out}, text)
	return text
}

const internalFault = "internal error"

// explain is the sentence for people about an error, or that it is internal.
func explain(err error) string {
	var moved *RefError
	if errors.As(err, &moved) {
		if moved.Locked {
			return moved.Error()
		}
		return moved.Name + " moved meanwhile: fetch first"
	}
	var known *desired.Error
	if errors.As(err, &known) && known.Class != desired.Internal {
		return known.Detail()
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return "cancelled"
	}
	return internalFault
}

// checkCommands refuses commands that need no look at the pack.
func (d *Door) checkCommands(updates []RefUpdate) *verdict {
	v := &verdict{refused: make(map[string]string), all: "not moved, because another ref of this push was refused"}
	seen := make(map[string]bool)
	for _, u := range updates {
		if why := d.checkCommand(u, seen[u.Name]); why != "" {
			v.refused[u.Name] = why
		}
		seen[u.Name] = true
	}
	if len(v.refused) == 0 {
		return nil
	}
	return v
}

func (d *Door) checkCommand(u RefUpdate, twice bool) string {
	if err := CheckRefName(u.Name); err != nil {
		return explain(err)
	}
	if branch, ok := strings.CutPrefix(u.Name, "refs/heads/"); ok && u.Old.IsZero() {
		// What git would take for an option or for another name. Those that are there already can still be deleted.
		if err := desired.ValidRefName(branch); err != nil {
			return err.Error()
		}
	}
	spaces := d.Namespaces
	if spaces == nil {
		spaces = []string{"refs/heads/", "refs/tags/"}
	}
	switch {
	case twice:
		return "the ref is named twice"
	case d.hidden(u.Name):
		return "deny updating a hidden ref"
	case !slices.ContainsFunc(spaces, func(s string) bool { return strings.HasPrefix(u.Name, s) }):
		return "only " + strings.Join(spaces, " and ") + " may be written"
	case u.Old.IsZero() && u.New.IsZero():
		return "there is nothing to delete"
	}
	now, err := d.Store.Resolve(u.Name)
	if err != nil && !errors.Is(err, ErrNoRef) {
		d.report(err)
		return internalFault
	}
	if now != u.Old {
		return "the ref moved meanwhile: fetch first"
	}
	return ""
}

// checkForce refuses what loses history, where that is not allowed.
func (d *Door) checkForce(ctx context.Context, p *Push, out *sideband) *verdict {
	v := &verdict{refused: make(map[string]string), all: "not moved, because another ref of this push was refused"}
	for _, u := range p.Updates {
		why, err := d.losesHistory(ctx, p, u)
		if err != nil {
			return &verdict{all: d.tell(out, err)}
		}
		if why != "" {
			v.refused[u.Name] = why
			fmt.Fprintf(p.Remote, "%s: %s\n", u.Name, why)
		}
	}
	if len(v.refused) == 0 {
		return nil
	}
	return v
}

func (d *Door) losesHistory(ctx context.Context, p *Push, u RefUpdate) (string, error) {
	if u.New.IsZero() {
		if head, err := d.Store.Head(); err == nil && head == u.Name {
			return "the default branch cannot be deleted", nil
		}
	}
	if u.Old.IsZero() || d.AllowForce != nil && d.AllowForce(u.Name) {
		return "", nil
	}
	switch {
	case u.New.IsZero():
		return "deletion prohibited", nil
	case u.Old == u.New:
		return "", nil
	case !strings.HasPrefix(u.Name, "refs/heads/"):
		return "only branches move; this ref exists already", nil
	}
	ok, err := IsAncestor(ctx, p, u.Old, u.New)
	if err != nil || ok {
		return "", err
	}
	return "non-fast-forward: fetch and merge first", nil
}

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/connectsoft/plumbline/reconciler/state"
)

// writeLimit is how long a reader of a stream may leave what was sent to it unread.
const writeLimit = 10 * time.Second

func (s *Server) watchSyncStates(ctx context.Context, c *call) (answer, error) {
	return s.watchEvents(ctx, c, state.States)
}

func (s *Server) watchFindings(ctx context.Context, c *call) (answer, error) {
	return s.watchEvents(ctx, c, state.Findings)
}

// eventStream writes server-sent events. The first one commits the answer to 200.
type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	buf     bytes.Buffer
	began   bool
}

// watchEvents serves a watch as server-sent events. What goes wrong before the first event is a problem document;
// what ends the stream later is an event `end` with the token to resume with.
func (s *Server) watchEvents(ctx context.Context, c *call, table state.Table) (answer, error) {
	q := c.r.URL.Query()
	kinds, err := kindSet(slices.Collect(maps.Keys(list(q, "kind"))))
	if err != nil {
		return answer{}, err
	}
	ids, err := refIDs(c.who.Tenant, slices.Collect(maps.Keys(list(q, "id"))))
	if err != nil {
		return answer{}, err
	}
	out := &eventStream{w: c.w, control: http.NewResponseController(c.w)}
	resume, err := s.watch(ctx, watch{
		who: c.who, repo: c.repo, transport: sseTransport, tables: []state.Table{table},
		project: q.Get("project"), kinds: kinds, ids: ids, after: c.r.Header.Get("Last-Event-ID"), minCommit: q.Get("minCommit"),
		deliver: out.deliver,
	})
	if !out.began {
		return answer{}, err
	}
	out.end(resume, err)
	return answer{}, nil
}

// deliver writes one update: a reset if it is one, its items, and a bookmark with its token and horizon. Only the
// bookmark has an id, so a reader that is cut off in between resumes before the update and misses nothing.
func (o *eventStream) deliver(u state.Update) error {
	if !o.began {
		o.began = true
		o.w.Header().Set("Content-Type", streamType)
		o.w.Header().Set("X-Accel-Buffering", "no")
		o.w.WriteHeader(http.StatusOK)
	}
	if u.Reset {
		o.event("", "reset", map[string]string{"reason": u.Why})
	}
	for _, i := range u.Items {
		chunk, _ := i.Memo(sseTransport, func() any { return encodeSSE(i) }).([]byte)
		o.buf.Write(chunk)
		if o.buf.Len() > 64<<10 {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	o.event(u.Token.String(), "bookmark", map[string]any{"resumeToken": u.Token.String(), "seq": u.Horizon.Seq, "commit": u.Horizon.Commit})
	return o.flush()
}

func (o *eventStream) event(id, name string, data any) {
	if id != "" {
		o.buf.WriteString("id: " + id + "\n")
	}
	o.buf.WriteString("event: " + name + "\ndata: ")
	raw, _ := json.Marshal(data) // plain maps always encode
	o.buf.Write(raw)
	o.buf.WriteString("\n\n")
}

// flush sends what is buffered. A reader that takes nothing for writeLimit is cut off.
func (o *eventStream) flush() error {
	_ = o.control.SetWriteDeadline(time.Now().Add(writeLimit)) // transports without deadlines have their own
	if _, err := o.w.Write(o.buf.Bytes()); err != nil {
		return err
	}
	o.buf.Reset()
	return o.control.Flush()
}

// end says why the stream ends and how to go on. The reader may be gone; then nobody hears it.
func (o *eventStream) end(resume string, err error) {
	v := judge(place(err))
	o.buf.Reset()
	o.event("", "end", map[string]string{"code": string(v.code), "detail": detail(v), "resumeToken": resume})
	_ = o.flush()
}

// encodeSSE encodes an item once for all streams.
func encodeSSE(i *state.Item) []byte {
	e := struct {
		Deleted   bool       `json:"deleted,omitempty"`
		SyncState *SyncState `json:"syncState,omitempty"`
		Finding   *Finding   `json:"finding,omitempty"`
	}{Deleted: i.Deleted}
	name := "sync-state"
	switch {
	case i.State != nil:
		v := stateView(i.State)
		e.SyncState = &v
	case i.Finding != nil:
		v := findingView(i.Finding)
		e.Finding, name = &v, "finding"
	default:
		return nil // horizons travel in bookmarks
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return nil
	}
	return append(append(append([]byte("event: "+name+"\ndata: "), raw...), '\n'), '\n')
}

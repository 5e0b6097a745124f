// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/api/pb"
	"github.com/connectsoft/plumbline/desired"
)

// resumeTrailer carries the last resume token of a stream that the server had to end.
const resumeTrailer = "plumbline-resume-token"

// watchFilter says what a watch shows and how.
type watchFilter struct {
	project     string
	kinds       []string
	ids         []string
	minCommit   string
	resumeAfter string
	findings    bool
	bookmarks   bool
	output      string
	timeout     time.Duration
}

func newWatchCommand(c *connection) *cobra.Command {
	var f watchFilter
	cmd := &cobra.Command{
		Use: "watch [REF|ID...]", Short: "Show every transition as it happens", Args: between(0, -1),
		Long: `Show where everything stands, then every transition and finding as it happens, a line each. After a lost connection
it resumes where it was. Where changes can no longer be told one by one, a line RESET says so and a complete list
follows.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, a := range args {
				id, _, err := resolve(a, c.tenant, f.project)
				if err != nil {
					return err
				}
				f.ids = append(f.ids, id)
			}
			if len(f.ids) > 0 {
				f.project = "" // it only completed the refs
			}
			for i, word := range f.kinds {
				info, err := findKind(word)
				if err != nil {
					return err
				}
				f.kinds[i] = string(info.Kind)
			}
			return runWatch(cmd.Context(), c, f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.project, "project", "", "only this project; or the project of refs that name none")
	flags.StringSliceVar(&f.kinds, "kind", nil, "only these kinds")
	flags.StringVar(&f.minCommit, "min-commit", "", "begin at this commit of the control repository or a later one")
	flags.StringVar(&f.resumeAfter, "resume-after", "", "go on after this resume token instead of beginning with a list")
	flags.BoolVar(&f.findings, "findings", true, "show findings too")
	flags.BoolVar(&f.bookmarks, "bookmarks", false, "show heartbeats, with horizon and resume token")
	flags.StringVarP(&f.output, "output", "o", "table", "a line an event: table, json, name, jsonpath=TEMPLATE")
	flags.DurationVar(&f.timeout, "timeout", 0, "end after this time, with exit code 0 (default: never)")
	return cmd
}

// watcher is one watch over any number of connections.
type watcher struct {
	c      *connection
	f      watchFilter
	print  *eventPrinter
	token  string // resume here
	begun  bool   // something was received on some connection
	resets int
}

func runWatch(ctx context.Context, c *connection, f watchFilter) error {
	if f.output == "yaml" {
		return usage("a watch prints a line an event: -o yaml does not go with it, json does")
	}
	if err := checkOutput(f.output); err != nil {
		return err
	}
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.timeout > 0 {
		// Not a deadline: gRPC would tell the server, which may then end the stream before we know why.
		defer time.AfterFunc(f.timeout, cancel).Stop()
	}
	w := &watcher{c: c, f: f, token: f.resumeAfter, print: newEventPrinter(c.sh, f.output)}
	err := w.run(bounded)
	if bounded.Err() != nil {
		return ctx.Err() // the timeout is a good end, an interruption is not
	}
	return err
}

// run connects until the watch is over. The first connection must succeed; afterwards a lost one is resumed.
func (w *watcher) run(ctx context.Context) error {
	for pause := newPause(); ; {
		before := w.token
		err := w.stream(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !w.resumable(err) {
			return fromRPC("watch", err)
		}
		if w.token != before {
			pause = newPause()
		}
		fmt.Fprintf(w.c.sh.stderr, "connection lost (%s): resuming\n", oneLine(status.Convert(err).Message()))
		if !pause.next(ctx) {
			return ctx.Err()
		}
	}
}

// resumable reports whether another connection can go on. A refused token is worth one more try: a new one is read
// or signed for each connection.
func (w *watcher) resumable(err error) bool {
	if !w.begun {
		return false
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.OutOfRange, codes.Aborted, codes.ResourceExhausted, codes.Unknown, codes.OK:
		return true
	case codes.Unauthenticated:
		w.begun = false
		return true
	}
	return errors.Is(err, io.EOF)
}

// stream follows one connection to its end.
func (w *watcher) stream(ctx context.Context) error {
	conn, err := w.c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	s, err := pb.NewGitOpsSyncClient(conn).WatchSyncState(ctx, &pb.WatchSyncStateRequest{
		Project: w.f.project, Kinds: w.f.kinds, Resources: w.f.ids, MinCommit: w.f.minCommit,
		ResumeAfter: w.token, Findings: w.f.findings,
	})
	if err != nil {
		return err
	}
	for err == nil {
		var m *pb.WatchSyncStateResponse
		if m, err = s.Recv(); err == nil {
			err = w.message(m)
		}
	}
	if t := s.Trailer().Get(resumeTrailer); len(t) > 0 && t[0] != "" {
		w.token = t[0]
	}
	return err
}

func (w *watcher) message(m *pb.WatchSyncStateResponse) error {
	w.begun = true
	if m.ResumeToken != "" {
		w.token = m.ResumeToken
	}
	if m.Reset_ != nil {
		if w.resets++; w.resets > 1 || m.Reset_.Reason != "initial" {
			if err := w.print.reset(m.Reset_.Reason); err != nil {
				return err
			}
		}
	}
	for _, e := range m.Events {
		if err := w.print.event(e); err != nil {
			return err
		}
	}
	if len(m.Events) == 0 && m.Reset_ == nil && w.f.bookmarks {
		return w.print.bookmark(m)
	}
	return nil
}

// fromRPC turns a gRPC error into one of its class.
func fromRPC(op string, err error) error {
	s, ok := status.FromError(err)
	if !ok || s.Code() == codes.OK {
		return err
	}
	return desired.Errorf(op, desired.Ref{}, api.ClassOfRPC(s.Code()), "%s", oneLine(s.Message()))
}

// eventPrinter writes a line an event.
type eventPrinter struct {
	w      io.Writer
	output string
	colour bool
	now    func() time.Time
}

func newEventPrinter(sh *shell, output string) *eventPrinter {
	return &eventPrinter{w: sh.stdout, output: output, now: time.Now, colour: sh.terminal && sh.getenv("NO_COLOR") == ""}
}

// streamEvent is the JSON form of a line.
type streamEvent struct {
	Event     string         `json:"event"` // sync-state, finding, reset, bookmark
	Deleted   bool           `json:"deleted,omitempty"`
	Reason    string         `json:"reason,omitempty"`
	SyncState *api.SyncState `json:"syncState,omitempty"`
	Finding   *api.Finding   `json:"finding,omitempty"`
	Commit    string         `json:"commit,omitempty"`
	Token     string         `json:"resumeToken,omitempty"`
}

func (p *eventPrinter) reset(reason string) error {
	return p.line(streamEvent{Event: "reset", Reason: reason}, "RESET", "", reason+": forget everything shown before; a complete list follows", "")
}

func (p *eventPrinter) bookmark(m *pb.WatchSyncStateResponse) error {
	e := streamEvent{Event: "bookmark", Commit: m.Horizon.GetCommit(), Token: m.ResumeToken}
	return p.line(e, "BOOKMARK", "", m.ResumeToken, m.Horizon.GetCommit())
}

func (p *eventPrinter) event(e *pb.Event) error {
	switch o := e.Object.(type) {
	case *pb.Event_SyncState:
		s := syncState(o.SyncState)
		phase := s.Phase
		if e.Deleted {
			phase = "Gone"
		}
		return p.line(streamEvent{Event: "sync-state", Deleted: e.Deleted, SyncState: s}, phase, s.Ref, message(phase, s.Message), s.DesiredCommit)
	case *pb.Event_Finding:
		f := finding(o.Finding)
		word := "FINDING"
		if e.Deleted || f.Status == "Closed" {
			word = "CLOSED"
		}
		text := f.Kind + " (" + f.Severity + ", " + f.Cause + "): " + f.Message
		if f.ResolvedBy != "" {
			text = f.Kind + " (resolved by " + f.ResolvedBy + ")"
		}
		return p.line(streamEvent{Event: "finding", Deleted: e.Deleted, Finding: f}, word, f.Ref, text, f.Source.Commit)
	}
	return nil // an object of a later version
}

func (p *eventPrinter) line(e streamEvent, word, ref, text, commit string) error {
	switch p.output {
	case "json":
		return json.NewEncoder(p.w).Encode(e)
	case "name":
		if ref == "" {
			return nil
		}
		_, err := fmt.Fprintln(p.w, ref)
		return err
	case "table":
		_, err := fmt.Fprintf(p.w, "%s  %s  %-12s  %s%s\n", p.now().Format("15:04:05.000"), p.paint(word), orDash(short(commit)), ref, after(ref, oneLine(text)))
		return err
	}
	return writeObject(p.w, p.output, e)
}

func after(ref, text string) string {
	if ref == "" || text == "" {
		return text
	}
	return "  " + text
}

// paint pads a word to the width of its column, and colours it on a terminal.
func (p *eventPrinter) paint(word string) string {
	padded := fmt.Sprintf("%-16s", word)
	if !p.colour {
		return padded
	}
	code := "33" // on its way: yellow
	switch word {
	case "Synced", "CLOSED":
		code = "32"
	case "OutOfSync", "Stalled", "Failed", "Unknown", "FINDING", "RESET":
		code = "31"
	case "BOOKMARK", "Gone", "Suspended":
		code = "90"
	}
	return "\x1b[" + code + "m" + padded + "\x1b[0m"
}

func refText(r *pb.Ref) string {
	return desired.Ref{Tenant: r.GetTenant(), Project: r.GetProject(), Kind: desired.Kind(r.GetKind()), Name: r.GetName()}.String()
}

// syncState is a message as the REST face shows it.
func syncState(s *pb.SyncState) *api.SyncState {
	out := &api.SyncState{
		ID: s.Id, Ref: refText(s.Ref), Kind: s.Ref.GetKind(), Project: s.Ref.GetProject(), Name: s.Ref.GetName(),
		Phase: s.Phase, Health: s.Health, Reason: s.Reason, Message: s.Message, DesiredSeq: s.DesiredSeq, DesiredCommit: s.DesiredCommit,
		AppliedSeq: s.AppliedSeq, AppliedCommit: s.AppliedCommit, Findings: int(s.Findings),
	}
	if s.Since != nil {
		out.Since = s.Since.AsTime()
	}
	if json.Valid(s.Outputs) {
		out.Outputs = s.Outputs
	}
	return out
}

func finding(f *pb.Finding) *api.Finding {
	out := &api.Finding{
		FindingID: f.Id, ResourceID: f.ResourceId, Ref: refText(f.Ref), ResourceKind: f.Ref.GetKind(), Project: f.Ref.GetProject(), Name: f.Ref.GetName(),
		Kind: f.Kind, Subject: f.Subject, Field: f.Field, Desired: f.Desired, Actual: f.Actual, Severity: f.Severity, Cause: f.Cause, Message: f.Message,
		Status: "Open", DetectedAt: f.FirstSeen.AsTime(), ResolvedBy: f.ResolvedBy, Occurrences: int(f.Occurrences), Contested: f.Contested,
		Source: api.Source{Commit: f.SourceCommit, Path: f.SourcePath, Line: int(f.SourceLine), Author: f.SourceAuthor},
	}
	if f.ClosedAt != nil {
		out.Status, out.ClosedAt = "Closed", f.ClosedAt.AsTime()
	}
	return out
}

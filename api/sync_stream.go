// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"time"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// watch is one stream, whatever carries it.
type watch struct {
	who       *auth.Principal
	repo      *gitrepo.Repo
	transport string
	tables    []state.Table
	project   string
	kinds     map[string]bool // nil = all
	ids       map[string]bool // nil = all
	after     string          // resume token, "" = begin with a list
	minCommit string
	// deliver sends one update; an error ends the stream.
	deliver func(state.Update) error
}

// minCommitWait is how long a stream waits for its min_commit.
const minCommitWait = 60 * time.Second

// errTokenExpired ends a stream whose access token is no longer good.
var errTokenExpired = &Fault{CodeUnauthenticated, &desired.Error{
	Class: desired.Denied, Op: "watch", Err: errors.New("the access token has expired: get a new one and resume"),
}}

// watch serves a stream until its reader goes, its token expires or the server shuts down. It returns the token to
// resume with, which is good also when the error says that the stream was cut.
func (s *Server) watch(ctx context.Context, w watch) (resume string, err error) {
	if !s.streams.take(w.who.Tenant) {
		return w.after, &desired.Error{
			Class: desired.Throttled, Op: "watch", After: 5 * time.Second,
			Err: errors.New("this tenant has all its watch streams open: close some, or share one"),
		}
	}
	defer s.streams.give(w.who.Tenant)
	var after *state.Token
	if w.after != "" {
		t, err := state.ParseToken(w.after)
		if err != nil {
			return "", err
		}
		after = &t
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	release := s.draining.onClose(func() { cancel(errDraining) })
	defer release()
	ctx, stop := context.WithDeadlineCause(ctx, time.Now().Add(w.who.Expires.Sub(s.cfg.Now())), errTokenExpired)
	defer stop()
	open := s.metrics.streams.WithLabelValues(w.transport)
	open.Inc()
	defer open.Dec()
	if err := s.reachHorizon(ctx, w); err != nil {
		return w.after, ended(ctx, err)
	}
	cursor, err := s.cfg.Hub.Subscribe(state.Filter{Tenant: w.who.Tenant, Tables: w.tables, Match: w.match()}, after)
	if err != nil {
		return w.after, err
	}
	defer cursor.Close()
	sent := s.metrics.events.WithLabelValues(w.transport)
	for resume = w.after; ; {
		u, err := cursor.Next(ctx)
		if err != nil {
			return resume, ended(ctx, err)
		}
		if u.Reset {
			s.metrics.resets.WithLabelValues(u.Why).Inc()
		}
		if err := w.deliver(u); err != nil {
			return resume, ended(ctx, err)
		}
		sent.Add(float64(len(u.Items)))
		resume = u.Token.String()
	}
}

// ended is why a stream ended: the cause of its context where that is over.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// match is the filter of a stream; nil lets everything through.
func (w watch) match() func(*state.Item) bool {
	if w.project == "" && w.kinds == nil && w.ids == nil {
		return nil
	}
	return func(i *state.Item) bool {
		var ref desired.Ref
		var id string
		switch {
		case i.State != nil:
			ref, id = i.State.Ref, i.ID
		case i.Finding != nil:
			ref, id = i.Finding.Ref, i.Finding.ResourceID
		}
		return (w.project == "" || ref.Project == w.project) && (w.kinds == nil || w.kinds[string(ref.Kind)]) && (w.ids == nil || w.ids[id])
	}
}

// reachHorizon waits until everything that min_commit changed is at least Pending with its seq, so that the first
// list cannot show what was before it.
func (s *Server) reachHorizon(ctx context.Context, w watch) error {
	if w.minCommit == "" {
		return nil
	}
	if !fullCommit(w.minCommit) {
		return invalid("watch", desired.FieldError{Pointer: "minCommit", Detail: "must be a commit of the control repository: 40 hexadecimal digits"})
	}
	seq, err := s.reach(ctx, w.repo, w.minCommit, minCommitWait)
	if err != nil {
		return err
	}
	cursor, err := s.cfg.Hub.Subscribe(state.Filter{Tenant: w.who.Tenant, Tables: []state.Table{state.Horizons}}, nil)
	if err != nil {
		return err
	}
	defer cursor.Close()
	limited, stop := context.WithTimeoutCause(ctx, minCommitWait, errWaited)
	defer stop()
	for {
		if h, ok := s.cfg.Hub.Horizon(w.who.Tenant); ok && h.Seq >= seq {
			return nil
		}
		if _, err := cursor.Next(limited); err != nil {
			if ctx.Err() == nil && errors.Is(context.Cause(limited), errWaited) {
				return desired.Errorf("watch", desired.Ref{}, desired.Waiting, "the reconciler has not reached minCommit yet: try again")
			}
			return err
		}
	}
}

// refIDs reads the resources that a stream is about: ids, or refs of the caller's tenant.
func refIDs(tenant string, names []string) (map[string]bool, error) {
	var out map[string]bool
	for _, n := range names {
		id := n
		if ref, err := desired.ParseRef(n); err == nil {
			if ref.Tenant != tenant {
				return nil, notFound("resource")
			}
			id = ref.ID()
		} else if _, ok := kindOfID(n); !ok {
			return nil, invalid("watch", desired.FieldError{Pointer: "resources", Detail: "must be ids, or refs written tenant/project/Kind/name"})
		}
		if out == nil {
			out = map[string]bool{}
		}
		out[id] = true
	}
	return out, nil
}

// kindSet checks the kinds that a stream is about.
func kindSet(names []string) (map[string]bool, error) {
	var out map[string]bool
	for _, n := range names {
		if _, ok := desired.Kind(n).Info(); !ok {
			return nil, invalid("watch", desired.FieldError{Pointer: "kinds", Detail: "names no known kind; known: " + joinKinds(allKinds())})
		}
		if out == nil {
			out = map[string]bool{}
		}
		out[n] = true
	}
	return out, nil
}

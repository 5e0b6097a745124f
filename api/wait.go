// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// defaultWaits are the waits of operations without Prefer: wait. Operations that are not listed do not wait.
func defaultWaits() map[string]time.Duration {
	return map[string]time.Duration{
		"provisionRepository": 10 * time.Second, "createBranch": 10 * time.Second, "authorCommit": 10 * time.Second,
		"openPullRequest": 10 * time.Second, "mergePullRequest": 10 * time.Second, "closePullRequest": 10 * time.Second,
	}
}

// readWait is how long a read waits for minCommit without Prefer: wait.
const readWait = 5 * time.Second

// prefer reads Prefer: wait=N. What cannot be read is ignored, as RFC 7240 asks; more than the longest wait is cut.
func (s *Server) prefer(c *call, fallback time.Duration) (wait time.Duration, applied string) {
	for _, h := range c.r.Header.Values("Prefer") {
		for _, p := range strings.Split(h, ",") {
			p, _, _ = strings.Cut(p, ";")
			name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 32)
			if err != nil {
				continue
			}
			wait = min(time.Duration(n)*time.Second, s.cfg.MaxWait)
			return wait, fmt.Sprintf("wait=%d", int(wait.Seconds()))
		}
	}
	return fallback, ""
}

// errDraining ends waits and streams when the server shuts down.
var errDraining = desired.Errorf("serve request", desired.Ref{}, desired.Transient, "the server is shutting down: connect again")

// errWaited ends a wait whose time is over.
var errWaited = errors.New("the wait is over")

// limit bounds ctx by a wait and by the shutdown of the server.
func (s *Server) limit(ctx context.Context, wait time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ctx, stop := context.WithTimeoutCause(ctx, wait, errWaited)
	release := s.draining.onClose(func() { cancel(errDraining) })
	return ctx, func() { release(); stop(); cancel(nil) }
}

// settle waits until the refs are applied at seq or have come to a terminal phase for it, at most wait. It returns
// their last states; a wait that ends early is no error.
func (s *Server) settle(ctx context.Context, refs []desired.Ref, seq uint64, wait time.Duration) {
	if wait <= 0 {
		return
	}
	ctx, done := s.limit(ctx, wait)
	defer done()
	for _, ref := range refs {
		if !managed(ref.Kind) {
			continue
		}
		if _, err := s.cfg.Hub.Wait(ctx, ref, func(st *state.SyncState) bool { return settled(st, seq) }); err != nil {
			return
		}
	}
}

// settled reports whether a state says how the document of a seq (or a newer one) ended.
func settled(st *state.SyncState, seq uint64) bool {
	return st != nil && st.DesiredSeq >= seq && (st.AppliedSeq >= seq && st.Phase == plan.Synced || st.Phase.Terminal())
}

// managed reports whether a kind has a driver; the others are in force once they are loaded.
func managed(k desired.Kind) bool {
	info, _ := k.Info()
	return info.Managed
}

// head is the head that a read is answered from: the latest, or with minCommit the latest once it contains that.
func (s *Server) head(ctx context.Context, c *call) (*desired.Head, error) {
	min := c.r.URL.Query().Get("minCommit")
	if min == "" {
		return c.repo.Head(), nil
	}
	if !fullCommit(min) {
		return nil, invalid("read minCommit", desired.FieldError{Pointer: "minCommit", Detail: "must be a commit of the control repository: 40 hexadecimal digits"})
	}
	wait, _ := s.prefer(c, readWait)
	if _, err := s.reach(ctx, c.repo, min, wait); err != nil {
		return nil, err
	}
	return c.repo.Head(), nil
}

// reach waits until the repository's head contains a commit, and tells its seq.
func (s *Server) reach(ctx context.Context, repo *gitrepo.Repo, commit string, wait time.Duration) (uint64, error) {
	moved, release := repo.Watch()
	defer release()
	ctx, done := s.limit(ctx, wait)
	defer done()
	for {
		seq, ok, err := repo.Seq(ctx, commit)
		if ok || err != nil && ctx.Err() == nil {
			return seq, err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, errWaited) {
				return 0, cause
			}
			return 0, &desired.Error{
				Class: desired.Waiting, Op: "wait for commit", After: time.Second,
				Err: errors.New("the control repository has not reached minCommit: check the commit, or wait longer with Prefer: wait=60"),
			}
		}
	}
}

func fullCommit(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// vanished reports whether nothing is known any more of a resource whose document was removed; it waits for that.
func (s *Server) vanished(ctx context.Context, c *call, info desired.KindInfo, id string, ref desired.Ref, wait time.Duration) bool {
	if !info.Managed {
		return true
	}
	if wait > 0 && !ref.IsZero() {
		ctx, done := s.limit(ctx, wait)
		defer done()
		_, err := s.cfg.Hub.Wait(ctx, ref, func(st *state.SyncState) bool { return st == nil })
		return err == nil
	}
	_, there := s.cfg.Hub.State(c.repo.Tenant(), id)
	return !there
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// waitOptions are the flags of wait.
type waitOptions struct {
	phase   string // one of the phases, or "deleted"
	commit  string // "" = whatever is wanted now
	timeout time.Duration
	quiet   bool
}

const deleted = "deleted"

// settle is how long a resource has to be stuck before waiting for it is given up: drift that is being reverted, or a
// look that was asked for a moment ago, shows a stuck phase in passing.
const settle = 2 * time.Second

func newWaitCommand(c *connection) *cobra.Command {
	var o waitOptions
	var project, want string
	cmd := &cobra.Command{
		Use: "wait REF|ID...", Short: "Wait until resources stand where they should", Args: between(1, -1),
		Long: `Wait until every named resource is in a phase for what is wanted of it now or, with --commit, for a commit of the
control repository or a later one. It ends early, with exit code 1, when a person has to act first, when the work
failed, or when a later commit superseded the one that was asked for; and with 75 at the timeout.`,
		Example: `  plumbline wait shop/Branch/cart.next --for=synced
  plumbline wait shop/Repository/cart --commit "$(git rev-parse HEAD)" --timeout 2m`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.phase, err = findPhase(want); err != nil {
				return err
			}
			if o.commit != "" && !regexp.MustCompile(`^[0-9a-f]{40}$`).MatchString(o.commit) {
				return usage("--commit must be a full commit id of the control repository, 40 hex digits")
			}
			var ids []string
			for _, a := range args {
				id, _, err := resolve(a, c.tenant, project)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			r, err := c.rest()
			if err != nil {
				return err
			}
			return waitFor(cmd.Context(), c, r, o, ids)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&want, "for", "synced", "phase to wait for, or deleted")
	flags.StringVar(&o.commit, "commit", "", "for this commit of the control repository, or a later one")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "give up after this time")
	flags.StringVar(&project, "project", "", "project of refs that name none")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing when all went well")
	return cmd
}

// findPhase accepts a phase in any case, and "deleted".
func findPhase(word string) (string, error) {
	all := []plan.Phase{
		plan.Pending, plan.Progressing, plan.Synced, plan.OutOfSync, plan.AwaitingApproval,
		plan.Suspended, plan.Stalled, plan.Failed, plan.Deleting, plan.Unknown,
	}
	names := []string{deleted}
	for _, p := range all {
		if strings.EqualFold(word, string(p)) {
			return string(p), nil
		}
		names = append(names, string(p))
	}
	if strings.EqualFold(word, deleted) {
		return deleted, nil
	}
	return "", usage("--for=%s: unknown phase%s", word, desired.Suggest(word, names))
}

// waitFor looks at each resource until it stands as wanted. The waiting between looks is short at first, because
// most work takes milliseconds.
func waitFor(ctx context.Context, c *connection, r *rest, o waitOptions, ids []string) error {
	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	seq, err := seqOf(limited, r, o.commit)
	for _, id := range ids {
		if err == nil {
			err = waitForOne(limited, c, r, o, id, seq)
		}
	}
	if err != nil && limited.Err() != nil && ctx.Err() == nil && desired.ClassOf(err) != desired.Waiting {
		err = desired.Errorf("wait", desired.Ref{}, desired.Waiting, "not there after %s; where it stands: plumbline get all", o.timeout)
	}
	return err
}

// seqOf waits until the server knows a commit and returns its position; 0 for no commit.
func seqOf(ctx context.Context, r *rest, commit string) (uint64, error) {
	if commit == "" {
		return 0, nil
	}
	var receipt api.Receipt
	for pause := newPause(); ; {
		err := r.get(ctx, "/receipts/"+commit, nil, &receipt)
		if desired.ClassOf(err) != desired.NotFound {
			return receipt.Seq, err
		}
		if !pause.next(ctx) {
			return 0, err
		}
	}
}

func waitForOne(ctx context.Context, c *connection, r *rest, o waitOptions, id string, seq uint64) error {
	query := url.Values{}
	setIf(query, "minCommit", o.commit)
	var last api.SyncState
	var stuck patience
	for pause := newPause(); ; {
		var s api.SyncState
		err := r.get(ctx, "/sync-states/"+url.PathEscape(id), query, &s)
		done, err := judgeWait(o, seq, s, err)
		switch {
		case done:
			if !o.quiet {
				fmt.Fprintf(c.sh.stderr, "%s %s\n", firstOf(s.Ref, id), strings.ToLower(o.phase))
			}
			return nil
		case stuck.over(err, time.Now()) && ctx.Err() == nil:
			return err
		case s.Ref != "":
			last = s
		}
		if !pause.next(ctx) {
			return stillWaiting(ctx, o, id, last)
		}
	}
}

// patience tells an error that ends the waiting from one that may pass.
type patience struct{ since time.Time }

func (p *patience) over(err error, now time.Time) bool {
	switch {
	case err == nil:
		p.since = time.Time{}
		return false
	case desired.ClassOf(err) != desired.Stalled:
		return true
	case p.since.IsZero():
		p.since = now
	}
	return now.Sub(p.since) >= settle
}

func stillWaiting(ctx context.Context, o waitOptions, id string, last api.SyncState) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	where := "nothing is known of it: is the ref right, and is its document in the control repository?"
	if last.Phase != "" {
		where = "it is " + last.Phase
		if last.Message != "" {
			where += ": " + oneLine(last.Message)
		}
	}
	return desired.Errorf("wait for "+firstOf(last.Ref, id), desired.Ref{}, desired.Waiting, "not %s after %s: %s", strings.ToLower(o.phase), o.timeout, where)
}

// judgeWait decides whether the waiting is over. No error and not done means: look again.
func judgeWait(o waitOptions, seq uint64, s api.SyncState, err error) (done bool, _ error) {
	switch class := desired.ClassOf(err); {
	case class == desired.NotFound:
		return o.phase == deleted, nil // not there yet, or not there any more
	case class == desired.Transient, class == desired.Throttled, class == desired.Waiting:
		return false, nil
	case err != nil:
		return false, err
	}
	current := s.AppliedSeq >= s.DesiredSeq
	if s.Phase == o.phase && (current || o.phase != string(plan.Synced)) {
		return true, nil
	}
	op := "wait for " + s.Ref
	if seq > 0 && s.DesiredSeq > seq {
		return false, desired.Errorf(op, desired.Ref{}, desired.Conflict, "superseded by %s: wait for that commit instead", s.DesiredCommit)
	}
	if p := plan.Phase(s.Phase); p.Terminal() && p != plan.Synced {
		return false, desired.Errorf(op, desired.Ref{}, desired.Stalled, "it is %s and will not become %s by waiting: %s", s.Phase, strings.ToLower(o.phase), firstOf(oneLine(s.Message), s.Reason, "see plumbline trace"))
	}
	return false, nil
}

// pause is the time between two looks: 50 ms at first, at most a second.
type pause struct{ d time.Duration }

func newPause() *pause { return &pause{25 * time.Millisecond} }

// next waits; false when ctx ended.
func (p *pause) next(ctx context.Context) bool {
	p.d = min(2*p.d, time.Second)
	t := time.NewTimer(p.d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

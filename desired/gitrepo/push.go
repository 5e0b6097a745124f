// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
	"github.com/connectsoft/plumbline/internal/fp"
)

// pushRecord says who pushed a range of commits through the door. Records are kept in the push journal, written
// before the push lands: one for a push that then failed names a head that never was, and does no harm.
type pushRecord struct {
	From    string    `json:"from"` // the head the push started from, "" for the first
	To      string    `json:"to"`
	Subject string    `json:"subject"`
	At      time.Time `json:"at"`
}

const pushJournal = "pushes.jsonl"

// Door serves clone, fetch and push of this repository. subject is the authenticated pusher.
func (r *Repo) Door(subject func(*http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		who := subject(req)
		d := gitstore.Door{
			Store:      r.store,
			HiddenRefs: []string{"refs/plumbline/"},
			ReadOnly:   r.refusal,
			MaxPack:    r.cfg.MaxPush,
			Accept:     func(ctx context.Context, p *gitstore.Push) error { return r.push(ctx, p, who) },
		}
		d.ServeHTTP(w, req)
	})
}

// refusal is what a pusher reads when nothing may be written.
func (r *Repo) refusal() string {
	if why := r.readOnly(); why != "" {
		return frozenError(why).Error()
	}
	return ""
}

// push judges a push in the writer goroutine and lands it: the same checks, the same owner of the head as the API.
func (r *Repo) push(ctx context.Context, p *gitstore.Push, subject string) error {
	return r.inWriter(ctx, func(wctx context.Context) error {
		if err := r.follow(wctx); err != nil {
			return desired.E("push", desired.Ref{}, desired.Transient, err)
		}
		if why := r.readOnly(); why != "" {
			return frozenError(why)
		}
		var update *gitstore.RefUpdate
		for i := range p.Updates {
			switch u := &p.Updates[i]; {
			case u.Name == r.ref:
				update = u
			case !strings.HasPrefix(u.Name, "refs/heads/"):
				return desired.Errorf("push", desired.Ref{}, desired.Denied, "%s: only branches can be pushed to a control repository", u.Name)
			}
		}
		if update == nil {
			return pushError(p.Land(ctx))
		}
		return r.pushHead(ctx, p, update, subject)
	})
}

func (r *Repo) pushHead(ctx context.Context, p *gitstore.Push, u *gitstore.RefUpdate, subject string) error {
	if u.New.IsZero() {
		return desired.Errorf("push", desired.Ref{}, desired.Denied, "%s is the truth of this control repository and cannot be deleted", r.cfg.Branch)
	}
	if u.Old != r.w.commit {
		return desired.Errorf("push", desired.Ref{}, desired.Conflict, "%s moved to %s meanwhile: git pull --rebase, then push again", r.cfg.Branch, r.w.commit)
	}
	if err := r.refuseForged(ctx, p, u.New); err != nil {
		return err
	}
	if err := refuseModes(p, r.cfg.Tenant, r.w.tree, u.New); err != nil {
		return err
	}
	record := pushRecord{From: r.Head().Commit, To: u.New.String(), Subject: subject, At: r.cfg.Now().UTC()}
	r.w.pushers = map[string]pushRecord{record.From: record}
	defer func() { r.w.pushers = nil }()
	var steps []step
	tree, err := r.walk(ctx, p, r.Head(), r.w.commit, r.w.tree, u.New, func(s step) { steps = append(steps, s) })
	if err != nil {
		return desired.E("push", desired.Ref{}, desired.Internal, err)
	}
	if err := r.refuseBad(steps); err != nil {
		return err
	}
	fp.Hit("push.before")
	if err := r.journalPush(record); err != nil {
		return desired.E("push", desired.Ref{}, desired.Internal, err)
	}
	if err := p.Land(ctx); err != nil {
		return pushError(err)
	}
	fp.Hit("push.landed")
	r.w.commit, r.w.tree = u.New, tree
	r.accept(steps)
	return nil
}

func pushError(err error) error {
	var moved *gitstore.RefError
	if errors.As(err, &moved) {
		return desired.Errorf("push", desired.Ref{}, desired.Conflict, "%s moved meanwhile: git pull --rebase, then push again", moved.Name)
	}
	return err
}

// refuseForged refuses new commits that carry trailers only Plumbline may write: a forged one, or a sealed one that
// was replayed from elsewhere.
func (r *Repo) refuseForged(ctx context.Context, p *gitstore.Push, tip gitstore.Hash) error {
	var not []gitstore.Hash
	if !r.w.commit.IsZero() {
		not = append(not, r.w.commit)
	}
	return gitstore.NewCommits(ctx, p, tip, not, func(c *gitstore.Commit) error {
		for _, t := range c.Trailers() {
			if reserved(t.Key) {
				return desired.Errorf("push", desired.Ref{}, desired.Denied, "commit %s carries the trailer %s, which only Plumbline writes: remove it with git commit --amend or git rebase", c.Hash.String()[:12], t.Key)
			}
		}
		return nil
	})
}

// refuseModes refuses documents that the loader would not read for their mode, so that nobody waits for them.
func refuseModes(p *gitstore.Push, tenant string, old, tip gitstore.Hash) error {
	c, err := p.Commit(tip)
	if err != nil {
		return desired.E("push", desired.Ref{}, desired.Internal, err)
	}
	e := &desired.Error{Class: desired.Invalid, Op: "push"}
	err = gitstore.DiffTrees(p, old, c.Tree, func(f gitstore.FileChange) error {
		if f.New.Mode != 0 && f.New.Mode != 0o100644 && (desired.Place{Tenant: tenant, Path: f.Path}).Managed() {
			e.Fields = append(e.Fields, desired.FieldError{File: f.Path, Detail: fmt.Sprintf("mode %06o: a document is a plain file of mode 100644 (git update-index --chmod=-x)", f.New.Mode)})
		}
		return nil
	})
	if err != nil {
		return desired.E("push", desired.Ref{}, desired.Internal, err)
	}
	if len(e.Fields) > 0 {
		return e
	}
	return nil
}

// refuseBad refuses a push whose tip holds files that were not already in quarantine with the same bytes, or more
// documents than the tenant may hold.
func (r *Repo) refuseBad(steps []step) error {
	if len(steps) == 0 {
		return nil
	}
	before := map[string]string{}
	for _, q := range r.Head().Snapshot.Quarantined() {
		before[q.Path] = q.Blob
	}
	next := steps[len(steps)-1].head.Snapshot
	var bad []desired.Quarantine
	for _, q := range next.Quarantined() {
		if before[q.Path] != q.Blob {
			bad = append(bad, q)
		}
	}
	if err := refuse(desired.Changes{Quarantined: bad}); err != nil {
		return err
	}
	if next.Len() > r.cfg.Resources && next.Len() > r.Head().Snapshot.Len() {
		return desired.Errorf("push", desired.Ref{}, desired.Denied, "%s may hold %d documents: remove some, or ask the operator for a larger quota", name(r.cfg.Tenant), r.cfg.Resources)
	}
	return nil
}

// journalPush records who pushes, durably, before the push lands.
func (r *Repo) journalPush(p pushRecord) error {
	line, err := json.Marshal(p)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(r.privatePath(pushJournal), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}

// loadPushes reads the push journal. A torn last line is that of a push that never landed.
func (r *Repo) loadPushes() error {
	f, err := os.Open(r.privatePath(pushJournal))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var p pushRecord
		if json.Unmarshal(lines.Bytes(), &p) == nil && p.To != "" {
			r.w.pushers[p.From] = p
		}
	}
	return lines.Err()
}

// privatePath is a file of ours inside the bare repository's directory.
func (r *Repo) privatePath(file string) string {
	return filepath.Join(r.cfg.Dir, "plumbline", file)
}

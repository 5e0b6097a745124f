// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// Trial is what a write would come to on one head.
type Trial struct {
	Base    *desired.Head // the head that it was judged against
	Next    *desired.Head // the head that it would make; Base when it would change nothing. Its Commit is Base's
	Files   []TrialFile   // in the order of the edit
	Changes desired.Changes
}

// TrialFile is one file that a write would write or delete.
type TrialFile struct {
	desired.Write
	Before   []byte
	Existed  bool
	Attached bool // content beside a document, which is never loaded
}

// Try judges a write against the current head exactly as Commit does and says what it would make of it. Nothing is
// stored, and the idempotency key is neither looked at nor remembered. Errors are those of Commit for a write that is
// refused.
func (r *Repo) Try(ctx context.Context, q Request) (Trial, error) {
	if err := ctx.Err(); err != nil {
		return Trial{}, context.Cause(ctx)
	}
	if r.closed.Load() {
		return Trial{}, errClosing(r.cfg.Tenant)
	}
	if why := r.readOnly(); why != "" {
		return Trial{}, frozenError(why)
	}
	head := r.Head()
	v, err := r.viewOf(head)
	if err != nil {
		return Trial{}, err
	}
	writes, err := q.Edit(v)
	if err != nil {
		return Trial{}, err
	}
	t := Trial{Base: head, Next: head}
	if len(writes) == 0 {
		return t, nil
	}
	if _, err := message(&q); err != nil {
		return Trial{}, desired.E("write", desired.Ref{}, desired.Invalid, err)
	}
	files := make([]desired.File, 0, len(writes))
	for _, w := range writes {
		f := TrialFile{Write: w, Attached: attached(w.Path)}
		if place := (desired.Place{Tenant: r.cfg.Tenant, Path: w.Path}); !place.Managed() && !f.Attached {
			return Trial{}, desired.Errorf("write", desired.Ref{}, desired.Internal, "an edit wrote %q, which no document may live at", w.Path)
		}
		if f.Before, f.Existed, err = v.Read(w.Path); err != nil {
			return Trial{}, desired.E("write", desired.Ref{}, desired.Internal, err)
		}
		t.Files = append(t.Files, f)
		files = append(files, fileOf(w))
	}
	return t, r.advanceTrial(&t, q.Subject, files)
}

func fileOf(w desired.Write) desired.File {
	if w.Delete {
		return desired.File{Path: w.Path, Deleted: true}
	}
	return desired.File{Path: w.Path, Blob: gitstore.HashBlob(w.Data).String(), Data: w.Data}
}

// advanceTrial judges the files of a trial as the writer would.
func (r *Repo) advanceTrial(t *Trial, subject string, files []desired.File) error {
	at := r.cfg.Now().UTC().Truncate(time.Second)
	seq := t.Base.Seq + 1
	change := desired.Provenance{Seq: seq, Author: person(author(subject, at)), Principal: subject, At: at}
	next, changes := t.Base.Snapshot.Advance(desired.Delta{Commit: t.Base.Commit, Change: change, Files: files}, nil)
	if err := refuse(changes); err != nil {
		return err
	}
	if err := r.withinQuota(t.Base.Snapshot, next); err != nil {
		return err
	}
	t.Next = &desired.Head{Seq: seq, Commit: t.Base.Commit, Snapshot: next, At: at}
	t.Changes = changes
	return nil
}

// withinQuota refuses a write that brings a tenant over its number of documents.
func (r *Repo) withinQuota(now, next *desired.Snapshot) error {
	if next.Len() <= r.cfg.Resources || next.Len() <= now.Len() {
		return nil
	}
	return desired.Errorf("write", desired.Ref{}, desired.Denied, "%s already holds its %d documents: remove some, or ask the operator for a larger quota", name(r.cfg.Tenant), r.cfg.Resources)
}

// viewOf is the tree of a head, for an edit to look at.
func (r *Repo) viewOf(h *desired.Head) (view, error) {
	v := view{snapshot: h.Snapshot, objects: r.store}
	if h.Commit == "" {
		return v, nil
	}
	hash, err := gitstore.ParseHash(h.Commit)
	if err != nil {
		return view{}, desired.E("write", desired.Ref{}, desired.Internal, err)
	}
	c, err := r.store.Commit(hash)
	if err != nil {
		return view{}, desired.E("write", desired.Ref{}, desired.Internal, err)
	}
	v.tree = c.Tree
	return v, nil
}

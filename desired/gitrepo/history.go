// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// What a commit did to a document.
const (
	DocumentCreated = "created"
	DocumentChanged = "changed"
	DocumentMoved   = "moved" // to another file, changed or not
	DocumentRemoved = "removed"
)

// Version is one commit of the first-parent line that changed a document.
type Version struct {
	Commit    string
	Operation string
	Path      string // of the file; where the document was before, when it was removed
	From      string // the file before, when it was moved
	Digest    string // of the document, "" when it was removed
	Author    string // free text of git
	Principal string // the sealed subject, else "unknown"
	Message   string // first line
	At        time.Time
}

// HistoryAt is where a history goes on: at a commit, with the file that holds the document there.
type HistoryAt struct{ Commit, Path string }

// historyFiles is how many files a commit may have changed for a document to be looked for in all of them.
const historyFiles = 1000

// History lists the commits that changed a document, newest first, from a place on: at most n versions, found on at
// most walk commits. more is where it goes on, the zero value at the end. A file that could not be read as documents
// then counts as if the document were not in it.
func (r *Repo) History(ctx context.Context, ref desired.Ref, at HistoryAt, n, walk int) (found []Version, more HistoryAt, err error) {
	const op = "read history"
	place := desired.Place{Tenant: r.cfg.Tenant, Path: at.Path}
	h, err := gitstore.ParseHash(at.Commit)
	if err != nil || !place.Managed() || !r.store.Has(h) {
		return nil, HistoryAt{}, desired.Errorf(op, ref, desired.Invalid, "there is no such place in the control repository: begin again without it")
	}
	child, err := r.store.Commit(h)
	if err != nil {
		return nil, HistoryAt{}, desired.E(op, ref, desired.Internal, err)
	}
	for ; ; walk-- {
		if err := ctx.Err(); err != nil {
			return nil, HistoryAt{}, context.Cause(ctx)
		}
		if walk == 0 || len(found) == n {
			return found, HistoryAt{child.Hash.String(), at.Path}, nil
		}
		parent := &gitstore.Commit{}
		if len(child.Parents) > 0 {
			if parent, err = r.store.Commit(child.Parents[0]); err != nil {
				return nil, HistoryAt{}, desired.E(op, ref, desired.Internal, err)
			}
		}
		v, err := r.versionAt(ref, at.Path, parent.Tree, child)
		if err != nil {
			return nil, HistoryAt{}, desired.E(op, ref, desired.Internal, err)
		}
		if v.Operation != "" {
			found = append(found, v)
		}
		if v.From != "" {
			at.Path = v.From
		}
		if len(child.Parents) == 0 {
			return found, HistoryAt{}, nil
		}
		child = parent
	}
}

// versionAt tells what a commit did to a document that is, or was, in a file; the zero value when nothing.
func (r *Repo) versionAt(ref desired.Ref, path string, before gitstore.Hash, c *gitstore.Commit) (Version, error) {
	old, err := r.fileAt(before, path)
	if err != nil {
		return Version{}, err
	}
	now, err := r.fileAt(c.Tree, path)
	if err != nil || old == now {
		return Version{}, err
	}
	oldDigest, err := r.digestIn(ref, path, old)
	if err != nil {
		return Version{}, err
	}
	newDigest, err := r.digestIn(ref, path, now)
	if err != nil || oldDigest == newDigest {
		return Version{}, err
	}
	v := Version{Commit: c.Hash.String(), Operation: DocumentChanged, Path: path, Digest: newDigest, Author: person(c.Author), Principal: "unknown", At: c.Committer.When.UTC()}
	v.Message, _, _ = strings.Cut(c.Message, "\n")
	if f := facts(r.cfg.SealKey, c); f.ok {
		v.Principal = f.subject
	}
	switch {
	case newDigest == "":
		v.Operation = DocumentRemoved
	case oldDigest == "":
		v.Operation = DocumentCreated
		if v.From, err = r.movedFrom(ref, path, before, c.Tree); v.From != "" {
			v.Operation = DocumentMoved
		}
	}
	return v, err
}

// fileAt is the blob at a path of a tree, zero when there is no file.
func (r *Repo) fileAt(tree gitstore.Hash, path string) (gitstore.Hash, error) {
	if tree.IsZero() {
		return gitstore.Zero, nil
	}
	e, ok, err := gitstore.Lookup(r.store, tree, path)
	if err != nil || !ok || e.Mode != 0o100644 {
		return gitstore.Zero, err
	}
	return e.Hash, nil
}

// digestIn is the digest of a document in a file, "" when it is not there or the file is bad.
func (r *Repo) digestIn(ref desired.Ref, path string, blob gitstore.Hash) (string, error) {
	if blob.IsZero() {
		return "", nil
	}
	data, err := r.store.Blob(blob)
	if err != nil {
		return "", err
	}
	docs, err := desired.ParseFile(desired.Place{Tenant: r.cfg.Tenant, Path: path}, data)
	if err != nil {
		return "", nil // a bad file holds no document in force
	}
	for _, d := range docs {
		if d.Ref == ref {
			return d.Digest, nil
		}
	}
	return "", nil
}

// movedFrom finds the file that a document was in before a commit, "" when it is new.
func (r *Repo) movedFrom(ref desired.Ref, to string, before, after gitstore.Hash) (from string, err error) {
	if before.IsZero() {
		return "", nil
	}
	left := historyFiles
	err = gitstore.DiffTrees(r.store, before, after, func(c gitstore.FileChange) error {
		place := desired.Place{Tenant: r.cfg.Tenant, Path: c.Path}
		if from != "" || left == 0 || c.Path == to || c.Old.Mode != 0o100644 || !place.Managed() {
			return nil
		}
		left--
		digest, err := r.digestIn(ref, c.Path, c.Old.Hash)
		if digest != "" {
			from = c.Path
		}
		return err
	})
	return from, err
}

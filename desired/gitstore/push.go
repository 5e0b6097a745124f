// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/connectsoft/plumbline/desired"
)

// Push is a push being judged: its commands and its objects, in quarantine. It is a Reader over store + quarantine.
// Every object it brings was checked as git fsck --strict does, and everything that its tips need is there.
type Push struct {
	Updates []RefUpdate
	Options []string  // push options
	Remote  io.Writer // lines for the pusher ("remote: …")

	store  *Store
	in     *quarantine // nil when the push brings no objects
	landed bool
}

// Object returns an object that the push brings or that the store has.
func (p *Push) Object(h Hash) (Type, []byte, error) {
	if p.in != nil && p.in.types[h] != 0 {
		return p.in.object(h)
	}
	return p.store.Object(h)
}

// Blob returns the bytes of a blob.
func (p *Push) Blob(h Hash) ([]byte, error) { return readBlob(p, h) }

// Tree returns the entries of a tree in the order in which they are stored.
func (p *Push) Tree(h Hash) ([]TreeEntry, error) { return readTree(p, h) }

// Commit returns a commit.
func (p *Push) Commit(h Hash) (*Commit, error) { return readCommit(p, h) }

// Has reports whether the push brings an object or the store has it.
func (p *Push) Has(h Hash) bool {
	return p.in != nil && p.in.types[h] != 0 || p.store.Has(h)
}

// Land moves the quarantined pack into the store and the refs to their new values, durably; *RefError when a ref
// moved meanwhile. It must be called at most once, inside Door.Accept.
func (p *Push) Land(ctx context.Context) error {
	if p.landed {
		return desired.Errorf("land push", desired.Ref{}, desired.Internal, "the push was landed already")
	}
	c := change{store: p.store, updates: p.Updates}
	if p.in != nil && len(p.in.entries) > 0 {
		c.stage = func() (*staged, error) {
			return p.store.stage(p.in.file, p.in.size, p.in.entries, p.in.sum)
		}
	}
	if err := c.write(ctx); err != nil {
		return err
	}
	p.landed = true
	return nil
}

// verify applies the checks that every push must pass, beside those on its objects: complete histories, branches
// that hold commits. It costs what is new, not what is there.
func (p *Push) verify(ctx context.Context) error {
	v := verifier{p: p, done: make(map[Hash]bool)}
	var tips []Hash
	for _, u := range p.Updates {
		if u.New.IsZero() {
			continue
		}
		first, last, at, err := peel(p, u.New)
		if err == nil && last == TreeObject {
			err = v.tree(ctx, at, nil, 0)
		}
		if err != nil {
			return incomplete(u.Name, err)
		}
		if first != CommitObject && strings.HasPrefix(u.Name, "refs/heads/") {
			return desired.Errorf("push", desired.Ref{}, desired.Invalid, "%s: a branch must hold a commit, not a %s", u.Name, first)
		}
		if last == CommitObject {
			tips = append(tips, at)
		}
	}
	known, err := p.store.known()
	if err != nil {
		return err
	}
	err = newCommits(ctx, p, tips, known, func(c *Commit) error { return v.commit(ctx, c) })
	return incomplete("the push", err)
}

// incomplete words a missing object for the pusher.
func incomplete(what string, err error) error {
	if errors.Is(err, ErrNotFound) {
		return desired.Errorf("push", desired.Ref{}, desired.Invalid, "%s lacks objects that it needs: %v", what, err)
	}
	return err
}

// peel follows tags to what they tag, which must be there.
func peel(r Reader, h Hash) (first, last Type, at Hash, err error) {
	for range 64 {
		t, data, err := r.Object(h)
		if err != nil {
			return 0, 0, Zero, err
		}
		if first == 0 {
			first = t
		}
		if t != TagObject {
			return first, t, h, nil
		}
		target, _, ok := idLine(data, "object ")
		if !ok {
			return 0, 0, Zero, fmt.Errorf("tag %s: %w", h, ErrCorrupt)
		}
		h = target
	}
	return 0, 0, Zero, desired.Errorf("push", desired.Ref{}, desired.Invalid, "there are too many tags of tags")
}

// known lists the commits that refs of the store hold: what they need is there.
func (s *Store) known() ([]Hash, error) {
	refs, err := s.Refs("refs/")
	if err != nil {
		return nil, err
	}
	seen := make(map[Hash]bool)
	var out []Hash
	for _, r := range refs {
		if seen[r.Hash] {
			continue
		}
		seen[r.Hash] = true
		_, t, h, err := peel(s, r.Hash)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		if t == CommitObject {
			out = append(out, h)
		}
	}
	return out, nil
}

// verifier demands that everything a commit's tree needs is there. Subtrees that a parent has in the same place are
// complete because the parent is.
type verifier struct {
	p    *Push
	done map[Hash]bool
}

func (v *verifier) commit(ctx context.Context, c *Commit) error {
	var parents []Hash
	for _, h := range c.Parents {
		parent, err := v.p.Commit(h)
		if err != nil {
			return err
		}
		parents = append(parents, parent.Tree)
	}
	if err := v.tree(ctx, c.Tree, parents, 0); err != nil {
		return fmt.Errorf("commit %s: %w", c.Hash, err)
	}
	return nil
}

func (v *verifier) tree(ctx context.Context, h Hash, parents []Hash, depth int) error {
	for _, q := range parents {
		if q == h {
			return nil
		}
	}
	if v.done[h] {
		return nil
	}
	if depth > maxTreeDepth {
		return desired.Errorf("push", desired.Ref{}, desired.Invalid, "directories are nested deeper than %d", maxTreeDepth)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	raw, err := rawTree(v.p, h)
	if err != nil {
		return err
	}
	at, err := newCursor(raw)
	if err != nil {
		return err
	}
	olds, err := v.cursors(parents)
	if err != nil {
		return err
	}
	for at.more {
		if err := v.entry(ctx, &at.at, olds, depth); err != nil {
			return err
		}
		if err := at.next(); err != nil {
			return err
		}
	}
	v.done[h] = true
	return nil
}

func (v *verifier) cursors(trees []Hash) ([]*cursor, error) {
	var out []*cursor
	for _, h := range trees {
		raw, err := rawTree(v.p, h)
		if err != nil {
			return nil, err
		}
		c, err := newCursor(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// entry checks one entry; olds are the parents' trees in the same place, which move along.
func (v *verifier) entry(ctx context.Context, e *rawEntry, olds []*cursor, depth int) error {
	if e.mode == modeLink {
		return nil // a commit of another repository
	}
	var below []Hash
	for _, c := range olds {
		for c.more && compareEntries(c.at.name, c.at.isTree(), e.name, e.isTree()) < 0 {
			if err := c.next(); err != nil {
				return err
			}
		}
		if c.more && bytes.Equal(c.at.name, e.name) && c.at.isTree() == e.isTree() {
			if c.at.hash == e.hash {
				return nil
			}
			below = append(below, c.at.hash)
		}
	}
	if e.isTree() {
		return v.tree(ctx, e.hash, below, depth+1)
	}
	if v.p.in != nil {
		if t := v.p.in.types[e.hash]; t == BlobObject {
			return nil
		} else if t != 0 {
			return desired.Errorf("push", desired.Ref{}, desired.Invalid, "%q is a file and its object %s is a %s", e.name, e.hash, t)
		}
	}
	if !v.p.store.Has(e.hash) {
		return fmt.Errorf("%q: %s: %w", e.name, e.hash, ErrNotFound)
	}
	return nil
}

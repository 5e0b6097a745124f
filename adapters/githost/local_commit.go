// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"context"
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// changeTrailer marks a commit with the change that it is, so that the change is never made twice.
const changeTrailer = "Plumbline-Change"

const (
	plainFile      = 0o100644
	executableFile = 0o100755
	directory      = 0o40000
)

type commitHandle struct {
	SHA string `json:"sha"`
}

// commitActual is what is known of an authored commit: its handle says which it became. Without one it is absent,
// and running its change again finds it.
func (v *view) commitActual(s *desired.CommitSpec, handle json.RawMessage) (adapters.Actual, json.RawMessage) {
	id, err := gitstore.ParseHash(readHandle[commitHandle](handle).SHA)
	if err != nil || !v.h.store.Has(id) {
		return nil, nil
	}
	return &adapters.CommitActual{SHA: id.String(), Branch: s.Branch}, handle
}

func (l *Local) applyCommit(ctx context.Context, h *hosted, c adapters.Change, s *desired.CommitSpec) (adapters.Outcome, error) {
	switch c.Op {
	case adapters.Rename:
		return adapters.Outcome{Done: true}, nil
	case adapters.Remove:
		return adapters.Outcome{Done: true, Message: "history is not rewritten: the commit stays"}, nil
	case adapters.Run:
	default:
		return adapters.Outcome{}, refuse(c, desired.Invalid, "a commit knows no %s", c.Op)
	}
	if err := checkCommit(c, s); err != nil {
		return adapters.Outcome{}, err
	}
	id, err := l.made(ctx, h, c.Tag)
	if err != nil {
		return adapters.Outcome{}, err
	}
	message := "made before, found by its trailer"
	if id.IsZero() {
		var files map[string][]byte
		if files, err = readFiles(ctx, c, s); err == nil {
			id, message, err = l.author(ctx, h, c, s, files)
		}
	}
	if err != nil {
		return adapters.Outcome{}, err
	}
	return adapters.Outcome{
		Done: true, Actual: &adapters.CommitActual{SHA: id.String(), Branch: s.Branch},
		Handle: writeHandle(commitHandle{SHA: id.String()}), Message: message,
	}, nil
}

// made finds the commit that a change has become in any branch, or in what is pinned of branches that are gone.
func (l *Local) made(ctx context.Context, h *hosted, tag string) (gitstore.Hash, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.look()
	if err != nil {
		return gitstore.Zero, err
	}
	return v.find(ctx, tag)
}

// readFiles opens everything that a commit needs, so that it fails before anything was changed.
func readFiles(ctx context.Context, c adapters.Change, s *desired.CommitSpec) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, ch := range s.Changes {
		if ch.Operation == "delete" || ch.Operation == "rename" && ch.Digest == "" {
			continue
		}
		if c.Content == nil {
			return nil, refuse(c, desired.Invalid, "the content of %s was not given", ch.Path)
		}
		data, err := c.Content(ctx, ch.Path, ch.Digest)
		if err != nil {
			return nil, err
		}
		files[contentKey(ch)] = data
	}
	return files, nil
}

// contentKey tells two contents of one path in one commit apart.
func contentKey(ch desired.FileChange) string { return ch.Digest + " " + ch.Path }

// author adds the commit to its branch.
func (l *Local) author(ctx context.Context, h *hosted, c adapters.Change, s *desired.CommitSpec, files map[string][]byte) (gitstore.Hash, string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.look()
	if err != nil {
		return gitstore.Zero, "", err
	}
	if id, err := v.find(ctx, c.Tag); err != nil || !id.IsZero() {
		return id, "made before, found by its trailer", err
	}
	if err := v.fit(c); err != nil {
		return gitstore.Zero, "", err
	}
	head := v.branch(s.Branch)
	if head.IsZero() {
		return head, "", refuse(c, desired.Waiting, "branch %q does not exist yet", s.Branch)
	}
	if rule, protected := v.set.rule(s.Branch); protected && rule.RequirePull {
		return head, "", refuse(c, desired.Denied, "branch %q takes changes by pull request only: commit to another branch and open a pull request", s.Branch)
	}
	base, err := h.store.Commit(head)
	if err != nil {
		return head, "", err
	}
	b := h.store.NewBatch()
	e := &edits{c: c, b: b, root: base.Tree, files: files, changed: map[string]gitstore.TreeEntry{}}
	tree, err := e.apply(s.Changes)
	if err != nil {
		return head, "", err
	}
	if tree == base.Tree {
		return head, "nothing to change: the files are so already", nil
	}
	who := c.Author
	if s.Author != nil {
		who = *s.Author
	}
	if who.Name == "" {
		who = l.cfg.Committer
	}
	id := b.AddCommit(&gitstore.Commit{
		Tree: tree, Parents: []gitstore.Hash{head}, Author: l.sign(who), Committer: l.sign(l.cfg.Committer),
		Message: withTrailer(s.Message, c.Tag),
	}, nil)
	b.Set(gitstore.RefUpdate{Name: heads + s.Branch, Old: head, New: id})
	b.Set(gitstore.RefUpdate{Name: keepRef(s.Branch), Old: v.ref(keepRef(s.Branch)), New: id})
	return id, "committed", l.write(ctx, h, b)
}

// edits collects what the changes of a commit do to a tree, each seeing those before it.
type edits struct {
	c       adapters.Change
	b       *gitstore.Batch
	root    gitstore.Hash
	files   map[string][]byte
	changed map[string]gitstore.TreeEntry
}

func (e *edits) apply(changes []desired.FileChange) (gitstore.Hash, error) {
	for _, ch := range changes {
		if err := e.one(ch); err != nil {
			return gitstore.Zero, err
		}
	}
	tree, err := e.b.WriteTree(e.root, e.changed)
	if desired.ClassOf(err) == desired.Conflict { // a file below a file
		return tree, refuse(e.c, desired.Invalid, "%w", err)
	}
	return tree, err
}

// at is the file at a path as the changes so far left it. A directory there is refused.
func (e *edits) at(p string) (gitstore.TreeEntry, bool, error) {
	if x, ok := e.changed[p]; ok {
		return x, x.Mode != 0, nil
	}
	x, ok, err := gitstore.Lookup(e.b, e.root, p)
	if err == nil && ok && x.Mode == directory {
		err = refuse(e.c, desired.Invalid, "%s is a directory: name the files in it", p)
	}
	return x, ok, err
}

func (e *edits) one(ch desired.FileChange) error {
	old, exists, err := e.at(ch.Path)
	if err != nil {
		return err
	}
	data, given := e.files[contentKey(ch)]
	entry := gitstore.TreeEntry{Name: path.Base(ch.Path), Mode: plainFile}
	if exists && (old.Mode == plainFile || old.Mode == executableFile) {
		entry.Mode = old.Mode
	}
	switch ch.Operation {
	case "add":
		entry.Hash = e.b.AddBlob(data)
		if exists && old.Hash != entry.Hash {
			return refuse(e.c, desired.Invalid, "%s exists with other content, so it cannot be added: use modify", ch.Path)
		}
	case "modify":
		entry.Hash = e.b.AddBlob(data)
	case "delete":
		if !exists {
			return refuse(e.c, desired.Invalid, "%s is not there, so it cannot be deleted", ch.Path)
		}
		e.changed[ch.Path] = gitstore.TreeEntry{}
		return nil
	case "rename":
		from, there, err := e.at(ch.From)
		if err != nil {
			return err
		}
		if !there {
			return refuse(e.c, desired.Invalid, "%s is not there, so it cannot be renamed", ch.From)
		}
		if exists {
			return refuse(e.c, desired.Invalid, "%s exists already, so %s cannot be renamed to it", ch.Path, ch.From)
		}
		e.changed[ch.From] = gitstore.TreeEntry{}
		entry.Mode, entry.Hash = from.Mode, from.Hash
		if given && ch.Digest != "" {
			entry.Hash = e.b.AddBlob(data)
		}
	default:
		return refuse(e.c, desired.Invalid, "operation on %s must be add, modify, delete or rename", ch.Path)
	}
	switch ch.Mode {
	case "":
	case "100644":
		entry.Mode = plainFile
	case "100755":
		entry.Mode = executableFile
	default:
		return refuse(e.c, desired.Invalid, "mode of %s must be 100644 or 100755", ch.Path)
	}
	e.changed[ch.Path] = entry
	return nil
}

// checkCommit refuses what must not reach a tree or a message, whoever let it through.
func checkCommit(c adapters.Change, s *desired.CommitSpec) error {
	if err := checkTag(c); err != nil {
		return err
	}
	if err := desired.ValidRefName(s.Branch); err != nil {
		return refuse(c, desired.Invalid, "%w", err)
	}
	for _, t := range (&gitstore.Commit{Message: s.Message}).Trailers() {
		if strings.EqualFold(t.Key, changeTrailer) {
			return refuse(c, desired.Invalid, "the message must not carry a %s trailer of its own", changeTrailer)
		}
	}
	return nil
}

func checkTag(c adapters.Change) error {
	if c.Tag == "" || strings.ContainsFunc(c.Tag, unicode.IsControl) || strings.TrimSpace(c.Tag) != c.Tag {
		return refuse(c, desired.Internal, "a change needs a tag that fits on one line")
	}
	return nil
}

// withTrailer adds the change's trailer to a message, in its last paragraph when that holds trailers already.
func withTrailer(message, tag string) string {
	message = strings.TrimRight(message, " \t\r\n")
	if message == "" {
		message = "Change"
	}
	gap := "\n\n"
	if len((&gitstore.Commit{Message: message}).Trailers()) > 0 {
		gap = "\n"
	}
	return message + gap + changeTrailer + ": " + tag + "\n"
}

// sign is a person at the host's clock, fit for a commit header.
func (l *Local) sign(p desired.Person) gitstore.Signature {
	clean := strings.NewReplacer("<", "", ">", "", "\n", " ", "\r", " ", "\x00", "")
	return gitstore.Signature{Name: strings.TrimSpace(clean.Replace(p.Name)), Email: strings.TrimSpace(clean.Replace(p.Email)), When: l.cfg.Now()}
}

// changes is an index of the commits that carry a change's trailer, kept for as long as the repository is open. It
// is derived: each commit that some branch or pin reaches is read once.
type changes struct {
	tips  map[string]gitstore.Hash // by reference, as far as its history was read
	byTag map[string]gitstore.Hash
}

// find looks a change up in everything that branches and pins reach, Zero when it was never made. h.mu is held.
func (v *view) find(ctx context.Context, tag string) (gitstore.Hash, error) {
	x := &v.h.changes
	if x.tips == nil {
		x.tips, x.byTag = map[string]gitstore.Hash{}, map[string]gitstore.Hash{}
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(v.refs)), func(name string) bool {
		return !strings.HasPrefix(name, heads) && !strings.HasPrefix(name, "refs/plumbline/")
	})
	read := map[gitstore.Hash]bool{} // tips whose history is in the index
	for _, tip := range x.tips {
		read[tip] = true
	}
	main := heads + v.head
	for _, name := range append([]string{main}, names...) { // most of all history lies below the default branch
		tip := v.refs[name]
		if !tip.IsZero() && !read[tip] {
			if err := x.add(ctx, v.h.store, tip, x.tips[name], x.tips[main]); err != nil {
				return gitstore.Zero, err
			}
			read[tip] = true
		}
		x.tips[name] = tip
	}
	return x.byTag[tag], nil
}

// add reads the history of a tip down to what was read before.
func (x *changes) add(ctx context.Context, r gitstore.Reader, tip gitstore.Hash, known ...gitstore.Hash) error {
	return gitstore.NewCommits(ctx, r, tip, known, func(c *gitstore.Commit) error {
		for _, t := range c.Trailers() {
			if _, made := x.byTag[t.Value]; strings.EqualFold(t.Key, changeTrailer) && !made {
				x.byTag[t.Value] = c.Hash
			}
		}
		return nil
	})
}

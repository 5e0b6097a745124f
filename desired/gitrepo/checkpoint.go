// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
	"github.com/connectsoft/plumbline/internal/fp"
)

// checkpoint is what a restart needs besides the objects: the accepted head, which files are in quarantine with
// which good blob in force, which commit last changed each resource, and the idempotency index. All of it can be
// rebuilt from history; the accepted head is also the mark below which the branch may never fall.
type checkpoint struct {
	V          int                           `json:"v"`
	Commit     string                        `json:"commit"`
	Seq        uint64                        `json:"seq"`
	At         time.Time                     `json:"at"`
	Quarantine map[string]quarantined        `json:"quarantine,omitempty"`
	Last       map[string]desired.Provenance `json:"last,omitempty"` // by ref
	Keys       map[string]keyRecord          `json:"keys,omitempty"`
}

type quarantined struct {
	Good  string             `json:"good,omitempty"` // blob in force
	Since desired.Provenance `json:"since,omitzero"`
}

const (
	checkpointFile  = "checkpoint.json"
	checkpointEvery = 1000             // accepted commits
	checkpointAfter = 30 * time.Second // of change
)

// maintain packs in the background and saves checkpoints, until ctx ends.
func (r *Repo) maintain(ctx context.Context) {
	tick := time.NewTicker(checkpointAfter)
	defer tick.Stop()
	saved := r.Head().Seq
	for {
		due := false
		select {
		case <-ctx.Done():
			return
		case <-r.tidy:
		case <-tick.C:
			due = true
		}
		if _, err := r.store.Maintain(ctx); err != nil && ctx.Err() == nil {
			r.report("pack the control repository", err)
		}
		if seq := r.Head().Seq; seq >= saved+checkpointEvery || (due && seq > saved) {
			if err := r.saveCheckpoint(); err != nil {
				r.report("save the checkpoint", err)
			}
			saved = seq
		}
	}
}

func (r *Repo) report(op string, err error) {
	if r.cfg.Events.Error != nil {
		r.cfg.Events.Error(op, err)
	}
}

// saveCheckpoint writes the checkpoint of the current head: aside, synced, renamed.
func (r *Repo) saveCheckpoint() error {
	h := r.Head()
	if h.Commit == "" {
		return nil
	}
	c := checkpoint{
		V: 1, Commit: h.Commit, Seq: h.Seq, At: h.At,
		Quarantine: map[string]quarantined{}, Last: make(map[string]desired.Provenance, h.Snapshot.Len()),
	}
	for _, q := range h.Snapshot.Quarantined() {
		c.Quarantine[q.Path] = quarantined{Good: q.LastGood, Since: q.Since}
	}
	for e := range h.Snapshot.All() {
		c.Last[e.Ref.String()] = e.Changed
	}
	c.Keys = r.youngKeys()
	return writeFile(r.privatePath(checkpointFile), c)
}

// youngKeys copies the idempotency index and drops what has outlived its time.
func (r *Repo) youngKeys() map[string]keyRecord {
	oldest := r.cfg.Now().Add(-r.cfg.KeepKeys)
	r.keyMu.Lock()
	defer r.keyMu.Unlock()
	out := make(map[string]keyRecord, len(r.keys))
	for k, rec := range r.keys {
		if rec.At.Before(oldest) {
			delete(r.keys, k)
			continue
		}
		out[k] = rec
	}
	return out
}

func writeFile(path string, v any) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	fp.Hit("checkpoint.write")
	w := bufio.NewWriterSize(f, 1<<16)
	err = json.NewEncoder(w).Encode(v)
	if err = errors.Join(err, w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	fp.Hit("checkpoint.rename")
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// load brings the repository to its accepted head: the checkpoint's snapshot, then every commit since, as if live.
// Without a usable checkpoint the whole history is walked.
func (r *Repo) load(ctx context.Context) error {
	fp.Hit("snapshot.load")
	if err := r.loadPushes(); err != nil {
		return err
	}
	c, err := r.readCheckpoint()
	if err != nil {
		return err
	}
	h := &desired.Head{Snapshot: desired.Empty(r.cfg.Tenant)}
	if c != nil {
		if h, err = r.restore(c); err != nil {
			return err
		}
	}
	r.publish(h)
	r.ring = ring{current: h.Seq}
	err = r.catchUp(ctx)
	r.w.pushers = nil // told all they knew
	return err
}

// catchUp follows the branch from the checkpoint without keeping the steps between.
func (r *Repo) catchUp(ctx context.Context) error {
	tip, err := r.store.Resolve(r.ref)
	if err != nil || tip == r.w.commit {
		return r.follow(ctx) // says what is wrong, or that nothing moved
	}
	if !r.w.commit.IsZero() {
		ok, err := gitstore.IsAncestor(ctx, r.store, r.w.commit, tip)
		if err != nil || !ok {
			return r.follow(ctx)
		}
	}
	h := r.Head()
	tree, err := r.walk(ctx, r.store, h, r.w.commit, r.w.tree, tip, func(s step) { h = s.head })
	if err != nil {
		return fmt.Errorf("load control repository of %s: %w", name(r.cfg.Tenant), err)
	}
	r.w.commit, r.w.tree = tip, tree
	r.ring = ring{current: h.Seq}
	r.publish(h)
	return nil
}

// readCheckpoint returns nil when there is none or it cannot be used; what it held is then found again in history.
func (r *Repo) readCheckpoint() (*checkpoint, error) {
	data, err := os.ReadFile(r.privatePath(checkpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c checkpoint
	if err := json.Unmarshal(data, &c); err != nil || c.V != 1 {
		r.report("read the checkpoint", fmt.Errorf("it is damaged or of another version, the history is walked instead (%v)", err))
		return nil, nil
	}
	return &c, nil
}

// restore builds the snapshot of a checkpoint.
func (r *Repo) restore(c *checkpoint) (*desired.Head, error) {
	id, err := gitstore.ParseHash(c.Commit)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	commit, err := r.store.Commit(id)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: the accepted head %s cannot be read: %w", c.Commit, err)
	}
	files, err := changedFiles(r.store, r.cfg.Tenant, gitstore.Zero, commit.Tree)
	if err != nil {
		return nil, err
	}
	byPath := map[string]desired.Provenance{}
	for i := range files {
		q, ok := c.Quarantine[files[i].Path]
		if !ok {
			continue
		}
		byPath[files[i].Path], files[i].Held = q.Since, true
		if q.Good == "" {
			continue
		}
		good, err := gitstore.ParseHash(q.Good)
		if err != nil {
			return nil, fmt.Errorf("checkpoint: %w", err)
		}
		if files[i].Good, err = r.store.Blob(good); err != nil {
			return nil, fmt.Errorf("checkpoint: last good version of %s: %w", files[i].Path, err)
		}
		files[i].GoodBlob = q.Good
	}
	snap, _ := desired.Empty(r.cfg.Tenant).Advance(desired.Delta{Commit: c.Commit, ByPath: byPath, ByRef: c.Last, Files: files}, r.w.cache)
	r.keys = c.Keys
	if r.keys == nil {
		r.keys = map[string]keyRecord{}
	}
	r.w.commit, r.w.tree = id, commit.Tree
	return &desired.Head{Seq: c.Seq, Commit: c.Commit, Snapshot: snap, At: c.At}, nil
}

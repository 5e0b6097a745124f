// SPDX-License-Identifier: Apache-2.0

package githost

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// settings is plumbline/host.json: what a host knows of a repository beside git. People may edit the file; it is
// read anew for each look, strictly, so that a slip is reported and not dropped by the next write.
type settings struct {
	V           int                        `json:"v"`
	Visibility  string                     `json:"visibility"`
	Description string                     `json:"description"`
	Archived    bool                       `json:"archived"`
	Protection  []desired.BranchProtection `json:"protection,omitempty"`
	Branches    map[string]branchRecord    `json:"branches,omitempty"`
	Pulls       []*pullRecord              `json:"pulls,omitempty"`
}

// branchRecord is what is known of a branch that the driver made.
type branchRecord struct {
	From string `json:"from"` // the commit where it was created
}

// pullRecord is a pull request. Numbers count up and are never used again: nothing is ever taken out of the list.
type pullRecord struct {
	Number      int64         `json:"number"`
	Document    string        `json:"document"` // name of the PullRequest document
	Tag         string        `json:"tag"`      // of the change that opened it
	State       string        `json:"state"`
	Title       string        `json:"title"`
	Description string        `json:"description,omitempty"`
	Source      string        `json:"source"`
	Target      string        `json:"target"`
	Head        string        `json:"head,omitempty"` // when it ended; before that, refs/plumbline/pull/<number>
	MergeCommit string        `json:"mergeCommit,omitempty"`
	ClosedBy    string        `json:"closedBy,omitempty"`
	Reviewers   []string      `json:"reviewers,omitempty"`
	Checks      []checkRecord `json:"checks,omitempty"`
	Approvals   []approval    `json:"approvals,omitempty"`
}

const (
	stateOpen   = "open"
	stateMerged = "merged"
	stateClosed = "closed"
)

// checkRecord is a check with the head commit that it was posted for.
type checkRecord struct {
	Name    string `json:"name"`
	Status  string `json:"status"`
	URL     string `json:"url,omitempty"`
	Summary string `json:"summary,omitempty"`
	Head    string `json:"head"`
}

// approval is one person's approval of one head commit: it does not stand for what is pushed later.
type approval struct {
	By   string `json:"by"`
	Head string `json:"head"`
}

func (s *settings) pull(number int64) *pullRecord {
	for _, p := range s.Pulls {
		if p.Number == number {
			return p
		}
	}
	return nil
}

// rule combines the protections of a branch, the strictest of each; false when none applies.
func (s *settings) rule(branch string) (desired.BranchProtection, bool) {
	all := desired.BranchProtection{AllowForcePush: true, AllowDeletion: true}
	found := false
	for _, p := range s.Protection {
		prefix, glob := strings.CutSuffix(p.Pattern, "*")
		if p.Pattern != branch && !(glob && strings.HasPrefix(branch, prefix)) {
			continue
		}
		found = true
		all.RequirePull = all.RequirePull || p.RequirePull
		all.RequiredChecks = append(all.RequiredChecks, p.RequiredChecks...)
		all.RequiredApprovals = max(all.RequiredApprovals, p.RequiredApprovals)
		all.AllowForcePush = all.AllowForcePush && p.AllowForcePush
		all.AllowDeletion = all.AllowDeletion && p.AllowDeletion
	}
	slices.Sort(all.RequiredChecks)
	all.RequiredChecks = slices.Compact(all.RequiredChecks)
	return all, found
}

func byPattern(p []desired.BranchProtection) []desired.BranchProtection {
	if len(p) == 0 {
		return nil
	}
	p = slices.Clone(p)
	slices.SortStableFunc(p, func(a, b desired.BranchProtection) int { return cmp.Compare(a.Pattern, b.Pattern) })
	return p
}

func settingsPath(dir string) string { return filepath.Join(dir, "plumbline", "host.json") }

// cachedSettings is the last host.json that was read. Its value is shared: nobody modifies it.
type cachedSettings struct {
	info fs.FileInfo
	set  *settings
}

// settings reads host.json. It is never absent while its repository is there: without it pull requests would be
// opened twice.
func (h *hosted) settings() (*settings, error) {
	path := settingsPath(h.dir)
	info, err := os.Stat(path)
	if err != nil {
		return nil, settingsFault(path, err)
	}
	if c := h.cached.Load(); c != nil && os.SameFile(c.info, info) && c.info.Size() == info.Size() && c.info.ModTime().Equal(info.ModTime()) {
		return c.set, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, settingsFault(path, err)
	}
	s, err := parseSettings(data)
	if err != nil {
		return nil, settingsFault(path, err)
	}
	// A file that was written just now may be written again within the same tick of its clock.
	if time.Since(info.ModTime()) > time.Second {
		h.cached.Store(&cachedSettings{info: info, set: s})
	}
	return s, nil
}

func settingsFault(path string, err error) error {
	what := "cannot be read"
	if errors.Is(err, fs.ErrNotExist) {
		what = "is missing"
	}
	return desired.Errorf("read settings", desired.Ref{}, desired.Stalled, "the settings file plumbline/%s of the repository %s (%w): repair or restore it", filepath.Base(path), what, err)
}

func parseSettings(data []byte) (*settings, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	s := new(settings)
	if err := d.Decode(s); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("there is more than one JSON value in it")
	}
	if s.V != 1 {
		return nil, fmt.Errorf("version %d is not known here", s.V)
	}
	seen := map[int64]bool{}
	for _, p := range s.Pulls {
		if p == nil || p.Number < 1 || seen[p.Number] {
			return nil, errors.New("pull requests must have numbers of their own, from 1")
		}
		if p.State != stateOpen && p.State != stateMerged && p.State != stateClosed {
			return nil, fmt.Errorf("pull request %d must be open, merged or closed", p.Number)
		}
		seen[p.Number] = true
	}
	return s, nil
}

// modify changes host.json durably, based on what is in the file now. h.mu is held.
func (l *Local) modify(h *hosted, fn func(*settings) error) error {
	data, err := os.ReadFile(settingsPath(h.dir))
	if err != nil {
		return settingsFault(settingsPath(h.dir), err)
	}
	s, err := parseSettings(data)
	if err != nil {
		return settingsFault(settingsPath(h.dir), err)
	}
	if err := fn(s); err != nil {
		return err
	}
	return l.save(h.dir, s, data)
}

// save writes host.json unless it says the same already.
func (l *Local) save(dir string, s *settings, old []byte) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if bytes.Equal(data, old) {
		return nil
	}
	if err := l.touch(); err != nil {
		return err
	}
	return replaceFile(settingsPath(dir), data)
}

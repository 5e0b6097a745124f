// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// The methods of this file act on the outside behind the driver's back, as a person or another program would.
// They panic on a repository, branch or commit that does not exist: that is a mistake in the test.

// World offers the fake to Suite, also wrapped in decorators: set Driver and Restart then.
func (f *Fake) World() World {
	away := desired.Errorf("observe", desired.Ref{}, desired.Transient, "the host is away")
	return World{
		Driver: f, Restart: func() adapters.Driver { return f },
		Provider: adapters.Provider{Type: "fake", Credential: adapters.NewSecret("canary-4f9a1c")},
		Wait:     func(time.Duration) {},
		Push:     f.Push, DeleteBranch: f.DeleteBranch, MoveBranch: f.MoveBranch, MergeByHand: f.MergeByHand,
		EditRepository: f.EditRepository, DropRepository: f.DropRepository, ClosePull: f.ClosePull, Approve: f.Approve,
		Files: f.Files, History: f.History,
		Break: func() func() {
			f.Script(Fault{Method: Observe, Times: -1, Err: away}, Fault{Method: List, Times: -1, Err: away})
			return f.Heal
		},
		BreakOne: func(repo desired.Ref) func() {
			f.BreakRepository(repo, away)
			return func() { f.BreakRepository(repo, nil) }
		},
		LoseReply: func() { f.Script(Fault{Method: Apply, LoseReply: true}) },
		Interrupt: func(n int) func() bool {
			switch n {
			case 1:
				f.Script(Fault{Method: Apply, Err: away})
			case 2:
				f.Script(Fault{Method: Apply, LoseReply: true})
			}
			return func() bool { return n <= 2 }
		},
	}
}

// LogEntry is one commit as History shows it.
type LogEntry struct {
	SHA     string
	Parents []string
	Author  desired.Person
	Message string
}

// Push adds a commit of a person to a branch, which is made at the default branch's head when it is missing. An
// empty content deletes the path.
func (f *Fake) Push(repo desired.Ref, branch string, files map[string]string) (id string) {
	f.edit(repo, func() {
		r := f.repos[repo]
		head, ok := r.branches[branch]
		if !ok {
			head = r.branches[r.DefaultBranch]
		}
		tree := maps.Clone(f.commits[head].files)
		for path, data := range files {
			if tree[path] = data; data == "" {
				delete(tree, path)
			}
		}
		id = f.newCommit([]string{head}, tree, desired.Person{Name: "Ada", Email: "ada@example.com"}, "by hand")
		r.branches[branch] = id
	})
	return id
}

// DeleteBranch deletes a branch.
func (f *Fake) DeleteBranch(repo desired.Ref, branch string) {
	f.edit(repo, func() { delete(f.repos[repo].branches, branch) })
}

// MoveBranch points a branch at a commit, by force where needed.
func (f *Fake) MoveBranch(repo desired.Ref, branch, commit string) {
	f.edit(repo, func() {
		if f.commits[commit] == nil {
			panic("no commit " + commit)
		}
		f.repos[repo].branches[branch] = commit
	})
}

// MergeByHand merges source into target with a merge commit of a person.
func (f *Fake) MergeByHand(repo desired.Ref, source, target string) (id string) {
	f.edit(repo, func() {
		r := f.repos[repo]
		files, conflicts := f.merge(r.branches[target], r.branches[source])
		if len(conflicts) > 0 {
			panic("conflicts in " + strings.Join(conflicts, ", "))
		}
		id = f.newCommit([]string{r.branches[target], r.branches[source]}, files, desired.Person{Name: "Ada"}, "merge by hand")
		r.branches[target] = id
	})
	return id
}

// EditRepository changes settings of a repository at the outside.
func (f *Fake) EditRepository(repo desired.Ref, fn func(*adapters.RepositoryActual)) {
	f.edit(repo, func() {
		r := f.repos[repo]
		fn(&r.RepositoryActual)
		r.Protection = byPattern(r.Protection)
	})
}

// DropRepository makes a repository vanish for good.
func (f *Fake) DropRepository(repo desired.Ref) {
	f.edit(repo, func() { delete(f.repos, repo) })
}

// BreakRepository makes every read of one repository fail with err; nil repairs it.
func (f *Fake) BreakRepository(repo desired.Ref, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken[repo] = err; err == nil {
		delete(f.broken, repo)
	}
}

// ClosePull closes a pull request as a person.
func (f *Fake) ClosePull(repo desired.Ref, number int64) {
	f.edit(repo, func() {
		p := f.repos[repo].pulls[number-1]
		p.State, p.ClosedBy = "closed", "ada"
	})
}

// Approve adds an approval of a person to a pull request.
func (f *Fake) Approve(repo desired.Ref, number int64) {
	f.edit(repo, func() { f.repos[repo].approved[number]++ })
}

// Files is the tree of a commit or branch by path, nil when there is none.
func (f *Fake) Files(repo desired.Ref, rev string) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.repos[repo]; r != nil && r.branches[rev] != "" {
		rev = r.branches[rev]
	}
	if c := f.commits[rev]; c != nil {
		return maps.Clone(c.files)
	}
	return nil
}

// History lists every commit that a branch reaches, newest first along first parents; nil when there is no branch.
func (f *Fake) History(repo desired.Ref, branch string) []LogEntry {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.repos[repo]
	if r == nil || r.branches[branch] == "" {
		return nil
	}
	var out []LogEntry
	seen := map[string]bool{}
	for todo := []string{r.branches[branch]}; len(todo) > 0; todo = todo[1:] {
		c := f.commits[todo[0]]
		if c == nil || seen[c.id] {
			continue
		}
		seen[c.id] = true
		out = append(out, LogEntry{SHA: c.id, Parents: slices.Clone(c.parents), Author: c.author, Message: c.message})
		todo = append(todo, c.parents...)
	}
	return out
}

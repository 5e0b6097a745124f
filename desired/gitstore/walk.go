// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
)

// walkNode is a commit as walks see it.
type walkNode struct {
	hash    Hash
	parents []Hash
	date    int64
	old     bool // reachable from what the walk leaves out
	queued  bool
}

// walker visits commits, latest first by their dates, each once.
type walker struct {
	r     Reader
	seen  map[Hash]*walkNode
	queue nodeQueue
	fresh int // nodes in the queue that are not old
}

// nodeQueue is a heap of nodes, the latest on top.
type nodeQueue []*walkNode

func (q nodeQueue) Len() int           { return len(q) }
func (q nodeQueue) Less(i, j int) bool { return q[i].date > q[j].date }
func (q nodeQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *nodeQueue) Push(x any) {
	n := x.(*walkNode)
	n.queued = true
	*q = append(*q, n)
}

func (q *nodeQueue) Pop() any {
	last := len(*q) - 1
	n := (*q)[last]
	n.queued = false
	(*q)[last] = nil
	*q = (*q)[:last]
	return n
}

// load reads the commit of a node.
func load(r Reader, h Hash) (*walkNode, error) {
	raw, err := readAs(r, h, CommitObject)
	if err != nil {
		return nil, err
	}
	var c Commit
	if _, err := parseCommitIDs(&c, raw); err != nil {
		return nil, fmt.Errorf("commit %s: %w", h, err)
	}
	return &walkNode{hash: h, parents: c.Parents, date: commitDate(raw)}, nil
}

// push queues a commit that was not seen yet, and paints it old when asked.
func (w *walker) push(ctx context.Context, h Hash, old bool) error {
	n := w.seen[h]
	if n == nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if n, err = load(w.r, h); err != nil {
			return err
		}
		n.old = old
		w.seen[h] = n
		heap.Push(&w.queue, n)
		if !old {
			w.fresh++
		}
		return nil
	}
	if old && !n.old {
		w.paint(n)
	}
	return nil
}

// paint marks a commit and all its ancestors that were seen as old.
func (w *walker) paint(n *walkNode) {
	todo := []*walkNode{n}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n.old {
			continue
		}
		n.old = true
		if n.queued {
			w.fresh--
		}
		for _, p := range n.parents {
			if m := w.seen[p]; m != nil && !m.old {
				todo = append(todo, m)
			}
		}
	}
}

// IsAncestor reports whether a is b or an ancestor of b. The answer is exact: dates only decide where the walk
// looks first.
func IsAncestor(ctx context.Context, r Reader, a, b Hash) (bool, error) {
	if a == b {
		return true, nil
	}
	if _, err := load(r, a); err != nil {
		return false, err
	}
	w := walker{r: r, seen: make(map[Hash]*walkNode)}
	if err := w.push(ctx, b, false); err != nil {
		return false, err
	}
	for len(w.queue) > 0 {
		n := heap.Pop(&w.queue).(*walkNode)
		for _, p := range n.parents {
			if p == a {
				return true, nil
			}
			if err := w.push(ctx, p, false); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// FirstParents walks from h along first parents, newest first, until fn returns false.
func FirstParents(ctx context.Context, r Reader, h Hash, fn func(*Commit) (bool, error)) error {
	for !h.IsZero() {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := r.Commit(h)
		if err != nil {
			return err
		}
		more, err := fn(c)
		if err != nil || !more || len(c.Parents) == 0 {
			return err
		}
		h = c.Parents[0]
	}
	return nil
}

// dateSlop is by how many seconds commit dates may be wrong before NewCommits reports a commit as new that is not.
const dateSlop = 24 * 60 * 60

// NewCommits walks every commit reachable from h and not from any of not, in topological order, parents first. A
// commit date that lies more than a day after that of its descendants may make it report a commit that is
// reachable from not; it never leaves one out. Zero ids in not are ignored.
func NewCommits(ctx context.Context, r Reader, h Hash, not []Hash, fn func(*Commit) error) error {
	return newCommits(ctx, r, []Hash{h}, not, fn)
}

func newCommits(ctx context.Context, r Reader, tips, not []Hash, fn func(*Commit) error) error {
	fresh, err := findNew(ctx, r, tips, not)
	if err != nil {
		return err
	}
	for _, n := range parentsFirst(fresh) {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := r.Commit(n.hash)
		if err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
	}
	return nil
}

// findNew returns the commits reachable from tips and not from not.
func findNew(ctx context.Context, r Reader, tips, not []Hash) (map[Hash]*walkNode, error) {
	w := walker{r: r, seen: make(map[Hash]*walkNode)}
	for _, h := range not {
		if h.IsZero() {
			continue
		}
		if err := w.push(ctx, h, true); err != nil {
			return nil, err
		}
	}
	for _, h := range tips {
		if err := w.push(ctx, h, false); err != nil {
			return nil, err
		}
	}
	out := make(map[Hash]*walkNode)
	earliest := int64(1<<63 - 1)
	for len(w.queue) > 0 {
		// Only old commits are left, and they are older than all that is new: nothing more can be painted.
		if w.fresh == 0 && w.queue[0].date < earliest-dateSlop {
			break
		}
		n := heap.Pop(&w.queue).(*walkNode)
		if !n.old {
			w.fresh--
			out[n.hash] = n
			earliest = min(earliest, n.date)
		}
		for _, p := range n.parents {
			if err := w.push(ctx, p, n.old); err != nil {
				return nil, err
			}
		}
	}
	for h, n := range out {
		if n.old {
			delete(out, h)
		}
	}
	return out, nil
}

// parentsFirst orders commits topologically; where that leaves a choice, by date and then by id.
func parentsFirst(nodes map[Hash]*walkNode) []*walkNode {
	waits := make(map[Hash]int, len(nodes))
	children := make(map[Hash][]*walkNode)
	var ready nodeQueue
	for h, n := range nodes {
		for _, p := range n.parents {
			if nodes[p] != nil {
				waits[h]++
				children[p] = append(children[p], n)
			}
		}
		if waits[h] == 0 {
			ready = append(ready, n)
		}
	}
	earliest := func(a, b *walkNode) int {
		if a.date != b.date {
			return int(max(-1, min(1, a.date-b.date)))
		}
		return slices.Compare(a.hash[:], b.hash[:])
	}
	out := make([]*walkNode, 0, len(nodes))
	for len(ready) > 0 {
		slices.SortFunc(ready, earliest)
		level := ready
		ready = nil
		for _, n := range level {
			out = append(out, n)
			for _, c := range children[n.hash] {
				if waits[c.hash]--; waits[c.hash] == 0 {
					ready = append(ready, c)
				}
			}
		}
	}
	return out
}

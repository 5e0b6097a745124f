// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

const (
	atOnce     = 500           // refs that are looked at immediately when everything is; the others spread out
	spreadRate = 200           // refs a second that the others spread out to
	sweepEvery = time.Second   // how often changed rules are matched against what they govern
	pruneEvery = 6 * time.Hour // how often what is too old is dropped
	keepEnded  = 30 * 24 * time.Hour
	restFactor = 10 // what has ended is looked at this much more rarely
)

// jitter moves d by up to 20 % either way, so that refs loaded together do not stay together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// enqueue queues what a load changed.
func (l *loader) enqueue(head *desired.Head, d delta) {
	t := l.t
	if d.all {
		l.enqueueAll()
	}
	for _, e := range d.upserts {
		if managed(e.Ref.Kind) {
			t.add(e.Ref)
		}
	}
	for _, ref := range d.removed {
		if managed(ref.Kind) {
			t.add(ref)
		}
	}
	t.add(d.bad...)
}

// enqueueAll queues every managed ref, the many of a large tenant over some time: a start is no herd.
func (l *loader) enqueueAll() {
	t := l.t
	t.mu.RLock()
	var refs []desired.Ref
	for ref := range t.book.refs {
		if managed(ref.Kind) {
			refs = append(refs, ref)
		}
	}
	for ref := range t.bad {
		if !managed(ref.Kind) {
			refs = append(refs, ref)
		}
	}
	t.mu.RUnlock()
	over := time.Duration(len(refs)) * time.Second / spreadRate
	for i, ref := range refs {
		if i < atOnce {
			t.queue.Add(ref)
		} else {
			t.queue.AddAfter(ref, time.Duration(rand.Int64N(int64(min(over, t.e.c.Resync)))))
		}
	}
}

// collect notes the rules and suspensions of a load, to be matched by the next sweep.
func (l *loader) collect(d delta) {
	if !d.all {
		l.rules = append(l.rules, d.policy...)
	}
}

// sweep nudges what changed rules and suspensions speak about. Under a stream of changes it runs once a second, so
// that a look at many refs is paid once for many rules. It also drops what is too old.
func (l *loader) sweep(ctx context.Context) error {
	t, now := l.t, l.t.e.c.Now()
	if len(l.rules) > 0 && now.Sub(l.swept) >= sweepEvery {
		t.nudgeGoverned(l.rules)
		l.rules, l.swept = nil, now
	}
	if now.Sub(l.pruned) < pruneEvery {
		return nil
	}
	l.pruned = now
	return l.prune(ctx, now)
}

// next is when to load again although nothing said so.
func (l *loader) next() time.Duration {
	if len(l.rules) > 0 {
		return sweepEvery
	}
	return jitter(l.t.e.c.Resync)
}

// nudgeGoverned queues the managed refs that any of the matches speaks about.
func (t *tenant) nudgeGoverned(list []governed) {
	t.mu.RLock()
	head := t.head
	t.mu.RUnlock()
	if head == nil {
		return
	}
	byProject := map[string][]desired.Match{}
	for _, g := range list {
		byProject[g.project] = append(byProject[g.project], g.match)
	}
	n := 0
	for project, matches := range byProject {
		for _, info := range desired.Kinds() {
			if !info.Managed || !speaksOf(matches, info.Kind) {
				continue
			}
			for e := range head.Snapshot.List(info.Kind, project, "") {
				for _, m := range matches {
					if m.Matches(e.Ref, e.Resource.Metadata.Labels) {
						t.addSpread(e.Ref, n)
						n++
						break
					}
				}
			}
		}
	}
}

func speaksOf(matches []desired.Match, k desired.Kind) bool {
	for _, m := range matches {
		if len(m.Kinds) == 0 {
			return true
		}
		for _, x := range m.Kinds {
			if x == k {
				return true
			}
		}
	}
	return false
}

// addSpread queues the n-th of many refs.
func (t *tenant) addSpread(ref desired.Ref, n int) {
	if n < atOnce {
		t.queue.Add(ref)
		return
	}
	t.queue.AddAfter(ref, time.Duration(n-atOnce)*time.Second/spreadRate)
}

// prune drops findings that closed, and runs that ended without a document, more than 30 days ago.
func (l *loader) prune(ctx context.Context, now time.Time) error {
	t := l.t
	findings, _, err := state.LoadFindings(ctx, t.e.c.Store, t.name)
	if err != nil {
		return err
	}
	runs, _, err := state.LoadRuns(ctx, t.e.c.Store, t.name)
	if err != nil {
		return err
	}
	old := map[string][]state.Put{} // by project: its unit writes them
	for _, f := range findings {
		if !f.Open() && now.Sub(f.ClosedAt) > keepEnded {
			old[f.Ref.Project] = append(old[f.Ref.Project], state.Delete(state.FindingKey(f.Ref, f.ID)))
			delete(l.findings, f.ID)
		}
	}
	for _, r := range runs {
		if (r.Stage == plan.RunDone || r.Stage == plan.RunFailed) && now.Sub(r.Ended) > keepEnded && !l.recorded(r.Ref) {
			old[r.Ref.Project] = append(old[r.Ref.Project], state.Delete(state.RunKey(r.Ref, r.ID)))
		}
	}
	for project, puts := range old {
		fence, err := t.owner.hold(ctx, project)
		if err != nil {
			return err
		}
		if _, err := t.e.c.Store.Commit(ctx, fence, puts...); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) recorded(ref desired.Ref) bool {
	l.t.mu.RLock()
	defer l.t.mu.RUnlock()
	return l.t.book.refs[ref] != nil
}

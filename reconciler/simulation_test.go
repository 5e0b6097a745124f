// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/adapters/adaptertest"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// bubble runs f inside synctest. rapid steers and shrinks by panicking, so a panic has to leave the bubble.
func bubble(t *testing.T, f func(t *testing.T)) {
	var p any
	synctest.Test(t, func(t *testing.T) {
		defer func() { p = recover() }()
		f(t)
	})
	if p != nil {
		panic(p)
	}
}

// TestSimulation draws a story of documents, people at the provider, faults, crashes and lost ownership. Whatever
// happened: nothing runs twice, nothing is made again or deleted without leave, and when the faults end the world
// converges to the documents and falls silent.
func TestSimulation(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bubble(t, func(t *testing.T) {
			mem := state.NewMemory(state.MemoryConfig{Epoch: "e1"})
			r := &rig{t: t, fake: adaptertest.NewFake(), store: &tap{Store: mem}, sources: map[string]*files{"acme": newFiles("acme")}}
			defer func() {
				if r.stop != nil {
					r.kill()
				}
				if err := mem.Close(); err != nil {
					t.Error(err)
				}
			}()
			s := &simulation{rig: r, rt: rt, docs: map[string]string{}, seen: map[desired.Ref]bool{}}
			r.start()
			for range rapid.IntRange(3, 25).Draw(rt, "steps") {
				s.step()
				s.check()
			}
			s.end()
		})
	})
}

type simulation struct {
	*rig
	rt   *rapid.T
	docs map[string]string
	seen map[desired.Ref]bool // refs that were wanted ever
}

func (s *simulation) pick(label string, options ...string) string {
	return rapid.SampledFrom(options).Draw(s.rt, label)
}

// document draws one document.
func (s *simulation) document() (name, yaml string) {
	n := fmt.Sprint(rapid.IntRange(0, 2).Draw(s.rt, "which"))
	branch := s.pick("branch", "feature/0", "feature/1", "feature/2")
	switch s.pick("kind", "repository", "branch", "branch", "commit", "commit", "pull", "rule", "manual") {
	case "repository":
		return "api", "kind: Repository\nmetadata: {name: api}\nspec: {description: " + s.pick("text", "a", "b") + ", visibility: " + s.pick("visibility", "private", "public") + "}"
	case "manual":
		return "api", "kind: Repository\nmetadata: {name: api}\nspec: {description: " + s.pick("text", "a", "b") + ", sync: {apply: manual}}"
	case "branch":
		return "branch" + n, "kind: Branch\nmetadata: {name: branch" + n + "}\nspec: {repository: api, name: feature/" + n + "}"
	case "commit":
		return "commit" + n, "kind: Commit\nmetadata: {name: commit" + n + "}\nspec: {repository: api, branch: " + branch + ", message: m" + n + ", artifactId: art, changes: [{path: f" + n + ", operation: add}]}"
	case "pull":
		return "pull" + n, "kind: PullRequest\nmetadata: {name: pull" + n + "}\nspec: {repository: api, sourceBranch: " + branch + ", title: t, state: " + s.pick("state", "open", "open", "merged", "closed") + "}"
	}
	return "rule", "kind: DriftRule\nmetadata: {name: rule}\nspec: {action: " + s.pick("action", "report", "revert", "ignore") + "}"
}

func (s *simulation) step() {
	switch s.pick("step", "write", "write", "write", "remove", "outside", "outside", "fault", "fault", "crash", "lose", "time", "time") {
	case "write":
		name, yaml := s.document()
		s.docs[name] = yaml
		s.write(map[string]string{name: yaml})
	case "remove":
		if len(s.docs) > 0 {
			name := rapid.SampledFrom(slices.Sorted(keysOf(s.docs))).Draw(s.rt, "document")
			delete(s.docs, name)
			s.write(map[string]string{name: ""})
		}
	case "outside":
		s.outside()
	case "fault":
		s.fault()
	case "crash":
		s.kill()
		s.start()
	case "lose":
		s.store.Store.(*state.Memory).Lose(s.pick("unit", "acme/-", "acme/booking"))
		s.pass(time.Second)
	case "time":
		s.pass(time.Duration(rapid.IntRange(1, 600).Draw(s.rt, "seconds")) * time.Second)
	}
}

func keysOf(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// outside is what people do at the provider.
func (s *simulation) outside() {
	if s.fake.Files(api, "main") == nil {
		return // there is no repository yet
	}
	branch := s.pick("branch", "feature/0", "feature/1", "feature/2")
	switch s.pick("act", "delete", "push", "edit", "close") {
	case "delete":
		s.fake.DeleteBranch(api, branch)
	case "push":
		s.fake.Push(api, branch, map[string]string{"by-hand": s.pick("text", "a", "b")})
	case "edit":
		s.fake.EditRepository(api, func(a *adapters.RepositoryActual) { a.Visibility = "internal" })
	case "close":
		if p := s.state(ref(desired.KindPullRequest, "pull0")); p != nil && len(p.Outputs) > 0 {
			s.fake.ClosePull(api, outputs[adapters.PullRequestActual](s.t, p).Number)
		}
	}
}

func (s *simulation) fault() {
	f := adaptertest.Fault{Times: rapid.IntRange(1, 3).Draw(s.rt, "times")}
	class := rapid.SampledFrom([]desired.Class{desired.Transient, desired.Throttled, desired.Internal}).Draw(s.rt, "class")
	err := desired.Errorf("call", desired.Ref{}, class, "a fault")
	switch s.pick("fault", "observe fails", "apply fails", "reply lost", "hang", "stale", "pending") {
	case "observe fails":
		f.Method, f.Err = adaptertest.Observe, err
	case "apply fails":
		f.Method, f.Err = adaptertest.Apply, err
	case "reply lost":
		f.Method, f.LoseReply = adaptertest.Apply, true
	case "hang":
		f.Hang = true
	case "stale":
		f.Method, f.Stale = adaptertest.Observe, true
	case "pending":
		f.Method, f.Pending = adaptertest.Apply, time.Second
	}
	s.fake.Script(f)
}

// check holds at every moment.
func (s *simulation) check() {
	runs, pulls := map[string]int{}, map[string]int{}
	for _, c := range s.fake.Applies() {
		switch {
		case !c.Changed:
		case c.Op == adapters.Remove:
			s.rt.Fatalf("deleted although every policy is retain: %s", c)
		case c.Op == adapters.Run:
			runs[c.Ref.Name]++
		case c.Op == adapters.Create && c.Ref.Kind == desired.KindPullRequest:
			pulls[c.Ref.Name]++
		}
	}
	for name, n := range runs {
		if n > 1 {
			s.rt.Fatalf("%s ran %d times\n%s", name, n, s.log())
		}
	}
	for name, n := range pulls {
		if n > 1 {
			s.rt.Fatalf("%s was opened %d times\n%s", name, n, s.log())
		}
	}
	if n := s.fake.Overlaps(); n > 0 {
		s.rt.Fatalf("%d calls for a ref overlapped", n)
	}
}

// end is what must be so when the faults have ended.
func (s *simulation) end() {
	s.fake.Heal()
	s.pass(3 * time.Hour)
	s.check()
	snap := s.sources["acme"].Head().Snapshot
	for e := range snap.All() {
		st := s.state(e.Ref)
		if st == nil || st.Digest != e.Digest || st.DesiredSeq != e.Changed.Seq {
			s.rt.Fatalf("%s: state %+v does not speak of the document at seq %d", e.Ref, st, e.Changed.Seq)
		}
		open := s.open(e.Ref)
		if len(open) != st.Findings {
			s.rt.Fatalf("%s: %d findings counted, open are %v", e.Ref, st.Findings, open)
		}
		switch st.Phase {
		case plan.Synced:
			if st.AppliedSeq != st.DesiredSeq || len(open) > 0 {
				s.rt.Fatalf("%s: synced at seq %d of %d, with %v", e.Ref, st.AppliedSeq, st.DesiredSeq, open)
			}
		case plan.OutOfSync, plan.Failed:
		case plan.Stalled, plan.Unknown: // its repository is not declared, or lost
			if _, ok := snap.Get(api); ok && e.Ref.Kind == desired.KindRepository {
				s.rt.Fatalf("%s is %s %s: %s\n%s", e.Ref, st.Phase, st.Reason, st.Message, s.log())
			}
		default:
			s.rt.Fatalf("%s is still %s %s: %s\n%s", e.Ref, st.Phase, st.Reason, st.Message, s.log())
		}
	}
	s.silence(snap)
}

// silence: nothing is recorded of what is not wanted, and twenty cycles pass without a call that changes anything and
// without a write.
func (s *simulation) silence(snap *desired.Snapshot) {
	states, _, err := state.LoadStates(s.t.Context(), s.store, "acme")
	if err != nil {
		s.rt.Fatal(err)
	}
	for _, st := range states {
		if _, ok := snap.Get(st.Ref); !ok && st.Reason != string(plan.Orphaned) {
			s.rt.Fatalf("%s is recorded as %s %s, and there is no document", st.Ref, st.Phase, st.Reason)
		}
	}
	s.fake.ForgetCalls()
	s.store.forget()
	s.pass(20 * 4 * time.Minute)
	for _, c := range s.fake.Applies() {
		if c.Changed {
			s.rt.Fatalf("changed after it had converged: %s", c)
		}
	}
	if w := s.store.written(); len(w) > 0 {
		s.rt.Fatalf("written after it had converged:\n%s", strings.Join(w, "\n"))
	}
}

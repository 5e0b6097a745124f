// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/adapters/adaptertest"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// authored counts the commits on a branch that carry a tag.
func authored(r *rig, branch string) (n int) {
	for _, c := range r.fake.History(api, branch) {
		if strings.Contains(c.Message, "Plumbline-Change:") {
			n++
		}
	}
	return n
}

// TestCrashAtEveryWrite kills the engine at the k-th write to the store, before and after it, for every k that a whole
// story has, and starts it again: everything is done exactly once in the end.
func TestCrashAtEveryWrite(t *testing.T) {
	docs := map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc, "pr": pullDoc}
	merged := map[string]string{"pr": strings.Replace(pullDoc, "title:", "state: merged, title:", 1)}
	for _, before := range []bool{true, false} {
		for k, ended := 1, false; !ended; k++ {
			scene(t, func(r *rig) {
				r.store.dieAt, r.store.before = k, before
				r.store.died = func() { r.stop() }
				r.start()
				r.write(docs)
				r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Op: adapters.Update, Times: 1, LoseReply: true})
				r.write(merged)
				if r.store.dead {
					r.kill()
					r.store.dead, r.store.dieAt = false, 0
					r.start()
				} else {
					ended = true
				}
				r.pass(time.Hour)
				for _, x := range []desired.Ref{api, feature, commit, pull} {
					if s := r.state(x); s == nil || s.Phase != plan.Synced {
						t.Fatalf("killed at write %d, before=%v: %s is %+v\n%s", k, before, x, s, r.log())
					}
				}
				if n := authored(r, "feature/x"); n != 1 {
					t.Fatalf("killed at write %d, before=%v: %d authored commits", k, before, n)
				}
				if a := outputs[adapters.PullRequestActual](t, r.state(pull)); a.Number != 1 || a.State != "merged" {
					t.Fatalf("killed at write %d, before=%v: pull request %+v", k, before, a)
				}
				if got := len(r.open(api)) + len(r.open(feature)) + len(r.open(commit)) + len(r.open(pull)); got > 0 {
					t.Fatalf("killed at write %d, before=%v: %d findings are left", k, before, got)
				}
			})
			if t.Failed() || k > 200 {
				t.Fatalf("no end after %d writes", k)
			}
		}
	}
}

func TestALostReplyRunsOnce(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc})
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Op: adapters.Run, Times: 3, LoseReply: true},
			adaptertest.Fault{Method: adaptertest.Apply, Kind: desired.KindPullRequest, Op: adapters.Create, Times: 2, LoseReply: true})
		r.write(map[string]string{"c": commitDoc, "pr": pullDoc})
		r.pass(time.Minute)
		r.want(commit, plan.Synced, "Committed")
		r.want(pull, plan.Synced, "")
		if n := authored(r, "feature/x"); n != 1 {
			t.Errorf("%d authored commits", n)
		}
		tags := map[string]bool{}
		for _, c := range r.fake.Applies() {
			if c.Op == adapters.Run {
				tags[c.Tag] = true
			}
		}
		if len(tags) != 1 {
			t.Errorf("one run was tried under several tags: %v", tags)
		}
		if run := r.records(commit).Run; run == nil || run.Stage != plan.RunDone || !tags[run.Tag] {
			t.Errorf("journal %+v", run)
		}
		if a := outputs[adapters.PullRequestActual](t, r.state(pull)); a.Number != 1 {
			t.Errorf("pull request %d, want the first one found again", a.Number)
		}
	})
}

func TestTheIntentIsRecordedBeforeTheCall(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc})
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Op: adapters.Run, Times: -1, Hang: true})
		r.write(map[string]string{"c": commitDoc})
		if run := r.records(commit).Run; run == nil || run.Stage != plan.RunIntent {
			t.Fatalf("journal while the call is under way: %+v", run)
		}
		r.pass(30 * time.Second)
		if run := r.records(commit).Run; run.Stage != plan.RunPosted {
			t.Errorf("journal after the call took too long: %+v", run)
		}
		r.want(commit, plan.Progressing, "Retrying")
		r.fake.Heal()
		r.pass(5 * time.Minute)
		r.want(commit, plan.Synced, "")
	})
}

func TestAFailedRunIsNotRepeated(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc})
		r.write(map[string]string{"c": strings.Replace(commitDoc, "operation: add", "operation: delete", 1)})
		r.want(commit, plan.Failed, "Failed")
		r.fake.ForgetCalls()
		r.pass(time.Hour)
		r.write(map[string]string{"c": commitDoc})
		r.pass(time.Hour)
		s := r.want(commit, plan.Failed, "Failed")
		if !strings.Contains(s.Message, "write a new Commit") || strings.Count(s.Message, "write a new") != 1 {
			t.Errorf("message %q", s.Message)
		}
		if got := r.fake.Applies(); len(got) > 0 {
			t.Errorf("calls after the run failed: %v", got)
		}
		// What comes next on the branch does not wait for it.
		r.write(map[string]string{"next": strings.ReplaceAll(strings.ReplaceAll(commitDoc, "01j9", "01k0"), "a.txt", "b.txt")})
		r.want(ref(desired.KindCommit, "01k0"), plan.Synced, "")
	})
}

func TestCommitsOnABranchKeepTheirOrder(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		docs := map[string]string{"api": apiDoc, "feature": featureDoc}
		for i := range 12 {
			docs[fmt.Sprint("c", i)] = strings.NewReplacer("01j9", fmt.Sprintf("01j%02d", i), "a.txt", fmt.Sprintf("%02d.txt", i), "cancel", fmt.Sprintf("step %02d", i)).Replace(commitDoc)
		}
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Name: "01j03", Times: 2, Err: desired.Errorf("run", desired.Ref{}, desired.Transient, "reset")})
		r.write(docs)
		r.pass(10 * time.Second)
		var got []string
		for _, c := range r.fake.History(api, "feature/x") {
			if s, ok := strings.CutPrefix(c.Message, "feat: step "); ok {
				got = append(got, s[:2])
			}
		}
		slices.Reverse(got)
		if want := []string{"00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11"}; !slices.Equal(got, want) {
			t.Errorf("order %v", got)
		}
	})
}

func TestAOneShotOlderThanTheJournalNeverRuns(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc})
		r.kill()
		r.pass(time.Hour)
		fresh := state.NewMemory(state.MemoryConfig{Epoch: "e2"}) // the state store was lost
		defer fresh.Close()
		r.store.Store = fresh
		r.effects()
		r.start()
		r.pass(2 * time.Hour)
		r.wantEffects()
		r.want(commit, plan.Unknown, "CommitUndecided")
		if n := authored(r, "feature/x"); n != 1 {
			t.Errorf("%d authored commits", n)
		}
		r.want(feature, plan.Synced, "")
	})
}

func TestBranchesThatEndedBeforeTheStateWasLostAreNotMadeAgain(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc, "pr": strings.Replace(pullDoc, "title:", "state: merged, deleteSourceBranch: true, title:", 1)})
		r.want(pull, plan.Synced, "Merged")
		r.kill()
		r.pass(time.Hour)
		fresh := state.NewMemory(state.MemoryConfig{Epoch: "e2"})
		defer fresh.Close()
		r.store.Store = fresh
		r.effects()
		r.start()
		r.pass(time.Hour)
		r.wantEffects()
		r.want(feature, plan.Synced, "Retired")
	})
}

func TestConvergedMeansQuiet(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{
			"api": apiDoc, "feature": featureDoc, "c": commitDoc, "pr": pullDoc,
			"held":   strings.NewReplacer("name: api", "name: held", "spec: {", "spec: {sync: {apply: manual}, ").Replace(apiDoc),
			"waits":  "kind: Branch\nmetadata: {name: waits}\nspec: {repository: nowhere, name: x}",
			"denied": "kind: Repository\nmetadata: {name: denied}\nspec: {}",
			"rule":   "kind: DriftRule\nmetadata: {name: rule}\nspec: {action: report, match: {names: [api]}}",
		})
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Name: "denied", Times: -1, Err: desired.Errorf("create", desired.Ref{}, desired.Denied, "the quota is used up")})
		r.fake.EditRepository(api, func(a *adapters.RepositoryActual) { a.Visibility = "public" })
		r.write(map[string]string{"denied": "kind: Repository\nmetadata: {name: denied}\nspec: {description: x}"})
		r.fake.DropRepository(ref(desired.KindRepository, "denied"))
		r.write(map[string]string{"denied2": strings.ReplaceAll("kind: Repository\nmetadata: {name: denied2}\nspec: {}", "denied2", "other")})
		r.pass(30 * time.Minute)
		r.effects()
		r.store.forget()
		r.pass(20 * 4 * time.Minute)
		if got := r.store.written(); len(got) > 0 {
			t.Errorf("%d writes while nothing changed: %s", len(got), strings.Join(got, "\n"))
		}
		if len(r.fake.Calls()) == 0 {
			t.Error("nothing was looked at")
		}
		r.wantEffects()
		// A restart is quiet, too.
		r.kill()
		r.fake.ForgetCalls()
		r.start()
		r.pass(10 * time.Minute)
		if got := r.store.written(); len(got) > 0 {
			t.Errorf("%d writes after a restart: %s", len(got), strings.Join(got, "\n"))
		}
		if len(r.fake.Calls()) == 0 {
			t.Error("nothing was looked at after the restart")
		}
		r.wantEffects()
	})
}

func TestAStalledChangeIsTriedWithoutWriting(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Times: -1, Err: desired.Errorf("create", desired.Ref{}, desired.Denied, "the quota is used up")})
		r.write(map[string]string{"api": apiDoc})
		r.want(api, plan.Stalled, "Denied")
		r.store.forget()
		r.fake.ForgetCalls()
		r.pass(time.Hour)
		if got := r.store.written(); len(got) > 0 {
			t.Errorf("writes: %s", strings.Join(got, "\n"))
		}
		if n := len(r.fake.Applies()); n < 10 || n > 40 {
			t.Errorf("tried %d times in an hour", n)
		}
		r.fake.Heal()
		r.pass(5 * time.Minute)
		r.want(api, plan.Synced, "")
	})
}

func TestOneHostileTenantSlowsNobodyElse(t *testing.T) {
	scene(t, func(r *rig) {
		r.sources["evil"] = newFiles("evil")
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Name: "hang", Times: -1, Hang: true})
		r.start()
		docs := map[string]string{}
		for i := range 50 {
			name := fmt.Sprint("h", i)
			docs[name] = "kind: Repository\nmetadata: {name: " + name + "}\nspec: {}"
			r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Name: name, Times: -1, Hang: true})
		}
		docs["broken"] = "kind: broken"
		r.writeTo("evil", docs)
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc, "pr": pullDoc})
		for _, x := range []desired.Ref{api, feature, commit, pull} {
			r.want(x, plan.Synced, "")
		}
		if s := r.state(desired.Ref{Tenant: "evil", Project: "booking", Kind: desired.KindRepository, Name: "h7"}); s == nil || s.Phase == plan.Synced {
			t.Errorf("the hostile tenant is not: %+v", s)
		}
	})
}

// TestLostOwnershipFencesWrites: a turn that lost its unit writes nothing any more; the next owner goes on.
func TestLostOwnershipFencesWrites(t *testing.T) {
	scene(t, func(r *rig) {
		mem := r.store.Store.(*state.Memory)
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc})
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Op: adapters.Run, Times: 1, Hang: true})
		r.write(map[string]string{"c": commitDoc})
		fences := map[string]bool{}
		r.store.each = func(f state.Fence, _ []state.Put) { fences[fmt.Sprint(f.Unit, f.Revision)] = true }
		mem.Lose("acme/booking")
		r.pass(100 * time.Millisecond)
		r.mu.Lock()
		var lost bool
		for _, e := range r.turns {
			lost = lost || e.Ref == commit && e.Err != nil && strings.Contains(e.Err.Error(), "ownership")
		}
		r.mu.Unlock()
		if !lost {
			t.Errorf("the turn in flight did not end with its unit\n%s", r.log())
		}
		r.pass(time.Minute)
		r.want(commit, plan.Synced, "")
		if n := authored(r, "feature/x"); n != 1 {
			t.Errorf("%d authored commits", n)
		}
		if len(fences) != 1 && len(fences) != 2 {
			t.Errorf("fences %v", fences)
		}
		mem.Lose("acme/-")
		r.pass(time.Minute)
		r.write(map[string]string{"base": "kind: Repository\nmetadata: {name: base}\nspec: {}"})
		r.want(ref(desired.KindRepository, "base"), plan.Synced, "")
	})
}

func TestASecondEngineWaitsAndTakesOver(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc})
		first, done := r.stop, r.done
		r.start() // a second engine over the same store and repository
		r.fake.ForgetCalls()
		r.write(map[string]string{"feature": featureDoc})
		r.wantEffects("create $Branch/api.feature")
		if n := r.fake.Overlaps(); n > 0 {
			t.Errorf("%d overlapping calls", n)
		}
		first()
		<-done
		r.pass(time.Second)
		r.write(map[string]string{"c": commitDoc})
		r.want(commit, plan.Synced, "")
		if n := authored(r, "feature/x"); n != 1 {
			t.Errorf("%d authored commits", n)
		}
	})
}

// states lists the states of a ref that are written from now on.
func (r *rig) states(ref desired.Ref) *[]state.SyncState {
	var out []state.SyncState
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.store.each = func(_ state.Fence, puts []state.Put) {
		for _, p := range puts {
			if s, err := state.Decode[state.SyncState](state.KV{Value: p.Value}); err == nil && p.Key == state.StateKey(ref) {
				out = append(out, s)
			}
		}
	}
	return &out
}

func TestADocumentThatMovesDuringACall(t *testing.T) {
	scene(t, func(r *rig) {
		r.config = func(c *Config) { c.Drivers = map[string]adapters.Driver{"local": slow{r.fake}} }
		r.start()
		states := r.states(api)
		r.write(map[string]string{"api": apiDoc})
		r.write(map[string]string{"api": strings.Replace(apiDoc, "Reservations", "Cancellations", 1)})
		r.pass(time.Minute)
		r.wantEffects("create $Repository/api", "update $Repository/api [spec.description]")
		var got []string
		for _, s := range *states {
			got = append(got, fmt.Sprintf("%s %d/%d", s.Phase, s.AppliedSeq, s.DesiredSeq))
		}
		want := []string{"Pending 0/1", "Progressing 0/1", "Pending 0/2", "Pending 1/2", "Progressing 1/2", "Synced 2/2"}
		if !slices.Equal(got, want) {
			t.Errorf("states %q, want %q", got, want)
		}
	})
}

// TestATurnLeavesAHeadThatIsNotRecordedYet: a turn that comes between a head and its Pending does nothing.
func TestATurnLeavesAHeadThatIsNotRecordedYet(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc})
		r.fake.ForgetCalls()
		var early int
		once := sync.OnceFunc(func() {
			r.engine.Nudge(api)
			time.Sleep(500 * time.Millisecond) // of the bubble: the turn comes now
			early = len(r.fake.Calls())
		})
		r.store.pre = func([]state.Put) { once() }
		r.write(map[string]string{"api": strings.Replace(apiDoc, "Reservations", "Cancellations", 1)})
		r.pass(2 * time.Second)
		if early > 0 {
			t.Errorf("%d calls before the new document was recorded", early)
		}
		r.want(api, plan.Synced, "")
	})
}

// TestTheLoaderReadsAgainWhatATurnWroteMeanwhile: between reading a state and replacing it another writer comes.
func TestTheLoaderReadsAgainWhatATurnWroteMeanwhile(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc})
		once := sync.OnceFunc(func() {
			s := r.state(api)
			s.AppliedSeq = 1
			s.Message = "written meanwhile"
			put, err := state.PutState(*s)
			if err == nil {
				_, err = r.store.Store.Commit(r.t.Context(), state.Fence{}, put)
			}
			if err != nil {
				t.Error(err)
			}
		})
		r.store.pre = func([]state.Put) { once() }
		seq := r.write(map[string]string{"api": strings.Replace(apiDoc, "Reservations", "Cancellations", 1)})
		if s := r.want(api, plan.Synced, ""); s.AppliedSeq != seq {
			t.Errorf("applied seq %d, want %d", s.AppliedSeq, seq)
		}
	})
}

// TestEveryWriteMayFail refuses the k-th write to the store, and the three after it, for every k; the engine goes on.
func TestEveryWriteMayFail(t *testing.T) {
	for k := 1; k < 30; k++ {
		scene(t, func(r *rig) {
			n := 0
			r.store.each = func(state.Fence, []state.Put) {
				if n++; n == k {
					r.store.fail = 4
				}
			}
			r.start()
			r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc, "pr": pullDoc})
			r.write(map[string]string{"api": strings.Replace(apiDoc, "Reservations", "Cancellations", 1), "rule": "kind: DriftRule\nmetadata: {name: rule}\nspec: {action: report}"})
			r.pass(5 * time.Minute)
			r.want(pull, plan.Synced, "")
			r.write(map[string]string{"pr": "", "rule": ""})
			r.fake.DeleteBranch(api, "feature/x")
			r.pass(5 * time.Minute)
			for _, x := range []desired.Ref{api, feature, commit} {
				r.want(x, plan.Synced, "")
			}
			for _, x := range []desired.Ref{pull, ref(desired.KindDriftRule, "rule")} {
				if s := r.state(x); s != nil {
					t.Errorf("write %d failed: %s is still recorded", k, x)
				}
			}
			if n := authored(r, "feature/x"); n != 1 {
				t.Errorf("write %d failed: %d authored commits", k, n)
			}
		})
	}
}

// panicky is a driver with a defect.
type panicky struct {
	adapters.Driver
	name string
}

func (p panicky) Observe(ctx context.Context, s []adapters.Subject) ([]adapters.Observation, error) {
	if s[0].Ref.Name == p.name {
		panic("index out of range")
	}
	return p.Driver.Observe(ctx, s)
}

func TestADefectStallsItsRefOnly(t *testing.T) {
	scene(t, func(r *rig) {
		r.config = func(c *Config) { c.Drivers = map[string]adapters.Driver{"local": panicky{r.fake, "api"}} }
		r.start()
		r.write(map[string]string{"api": apiDoc, "base": "kind: Repository\nmetadata: {name: base}\nspec: {}"})
		r.pass(time.Minute)
		r.want(ref(desired.KindRepository, "base"), plan.Synced, "")
		s := r.want(api, plan.Stalled, "Panicked")
		if strings.Contains(s.Message, "index") {
			t.Errorf("the defect is shown to callers: %q", s.Message)
		}
		count := func() (n int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, e := range r.turns {
				if e.Ref == api && e.Outcome == "error" {
					n++
				}
			}
			return n
		}
		before := count()
		r.kill()
		r.start()
		r.pass(time.Hour)
		if n := count() - before; n > 0 {
			t.Errorf("%d more panics after it was stalled", n)
		}
		r.config = nil // the defect is mended
		r.kill()
		r.start()
		r.engine.Nudge(api)
		r.pass(time.Second)
		r.want(api, plan.Synced, "")
	})
}

// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/adapters/adaptertest"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

func branchDoc(name string, policy string) string {
	return "kind: Branch\nmetadata: {name: " + name + "}\nspec: {repository: api, name: " + name + ", deletionPolicy: " + policy + "}"
}

// branches are documents of n branches that are deleted with them.
func branches(n int) map[string]string {
	docs := map[string]string{"api": apiDoc}
	for i := range n {
		name := fmt.Sprintf("b%02d", i)
		docs[name] = branchDoc(name, "delete")
	}
	return docs
}

func gone(names ...string) map[string]string {
	docs := map[string]string{}
	for _, n := range names {
		docs[n] = ""
	}
	return docs
}

func TestRemovingADocumentRetainsByDefault(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc, "pr": pullDoc})
		r.effects()
		r.write(gone("api", "feature", "c", "pr"))
		r.pass(time.Minute)
		r.wantEffects()
		for _, x := range []desired.Ref{api, feature, commit, pull} {
			if rec := r.records(x); rec.State != nil || rec.Applied != nil {
				t.Errorf("%s is still recorded: %+v", x, rec.State)
			}
		}
		// They are found again, and nothing is made a second time.
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc, "pr": pullDoc})
		r.wantEffects()
		r.want(feature, plan.Synced, "")
		r.want(commit, plan.Synced, "Committed") // its journal entry stays, so that it never runs again
		if n := authored(r, "feature/x"); n != 1 {
			t.Errorf("%d authored commits", n)
		}
	})
}

func TestDeletionsWithinTheBudgetAreMade(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(branches(10))
		r.effects()
		r.write(gone("b00", "b01"))
		r.pass(time.Second)
		got := r.effects()
		slices.Sort(got)
		if want := []string{"remove acme/booking/Branch/b00", "remove acme/booking/Branch/b01"}; !slices.Equal(got, want) {
			t.Fatalf("effects %v\n%s", got, r.log())
		}
		if rec := r.records(ref(desired.KindBranch, "b00")); rec.State != nil || rec.Applied != nil {
			t.Errorf("still recorded: %+v", rec.State)
		}
	})
}

func TestMassDeletionsAreStopped(t *testing.T) {
	for name, removed := range map[string]map[string]string{
		"too many":   gone("b00", "b01", "b02", "b03"),
		"all":        gone("b00", "b01", "b02", "b03", "b04", "b05", "b06", "b07", "b08", "b09"),
		"everything": gone("api", "b00", "b01", "b02", "b03", "b04", "b05", "b06", "b07", "b08", "b09"),
	} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(r *rig) {
				r.start()
				r.write(branches(10))
				r.effects()
				r.write(removed)
				r.pass(time.Hour)
				r.wantEffects()
				b := ref(desired.KindBranch, "b00")
				s := r.want(b, plan.OutOfSync, "DeletionStopped")
				if got := r.open(b); !slices.Equal(got, []string{"DeletionStopped not-yet-applied"}) {
					t.Errorf("findings %v (%s)", got, s.Message)
				}
				v, _, ok, err := state.Read[state.Verdict](r.t.Context(), r.store, state.VerdictKey("acme"))
				if err != nil || !ok || len(v.Allowed) > 0 || len(v.Stopped) != len(gone(keys(removed, "b")...)) || v.Reason == "" {
					t.Errorf("verdict %+v %v", v, err)
				}
				// The documents come back: nothing happened.
				r.write(branches(10))
				r.pass(time.Minute)
				r.wantEffects()
				r.want(b, plan.Synced, "")
				if got := r.open(b); len(got) > 0 {
					t.Errorf("still open: %v", got)
				}
			})
		})
	}
}

func keys(m map[string]string, prefix string) (out []string) {
	for k := range m {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k)
		}
	}
	return out
}

func TestWhatIsInsideIsDeletedFirst(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		docs := branches(10)
		docs["old"] = "kind: Repository\nmetadata: {name: old}\nspec: {deletionPolicy: delete}"
		docs["inner"] = strings.ReplaceAll(branchDoc("inner", "delete"), "api", "old")
		r.write(docs)
		r.effects()
		r.write(gone("old", "inner"))
		r.pass(10 * time.Minute)
		r.wantEffects("remove $Branch/inner", "remove $Repository/old")
	})
}

func TestADeletionSurvivesALostReplyAndARestart(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(branches(10))
		r.effects()
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Op: adapters.Remove, Times: 1, LoseReply: true})
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Op: adapters.Remove, Times: 1, Hang: true})
		r.write(gone("b00"))
		r.kill()
		r.start()
		r.pass(time.Minute)
		r.wantEffects("remove $Branch/b00 changed err=transient")
		if rec := r.records(ref(desired.KindBranch, "b00")); rec.State != nil || rec.Applied != nil {
			t.Errorf("still recorded: %+v", rec.State)
		}
	})
}

func TestRemovedWhileItWasBeingMadeLeavesAnOrphanToLookAt(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Op: adapters.Create, Times: -1, LoseReply: true})
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Observe, Times: -1, Stale: true})
		r.write(map[string]string{"api": apiDoc})
		r.write(gone("api"))
		r.fake.Heal()
		r.pass(time.Minute)
		r.want(api, plan.OutOfSync, "Orphaned")
		r.pass(time.Hour)
		r.want(api, plan.OutOfSync, "Orphaned")
		r.write(map[string]string{"rule": "kind: DriftRule\nmetadata: {name: rule}\nspec: {action: ignore, findings: [Orphaned]}"})
		r.pass(10 * time.Minute)
		if s := r.state(api); s != nil {
			t.Errorf("still recorded: %+v", s)
		}
	})
}

func TestARenameCarriesEverythingOver(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": strings.Replace(apiDoc, "spec: {", "spec: {deletionPolicy: delete, ", 1), "feature": featureDoc, "pr": pullDoc, "c": commitDoc})
		r.effects()
		moved := ref(desired.KindRepository, "reservations")
		r.write(map[string]string{
			"api":     "kind: Repository\nmetadata: {name: reservations, formerName: api}\nspec: {deletionPolicy: delete, description: Reservations}",
			"feature": strings.Replace(featureDoc, "repository: api", "repository: reservations", 1),
			"pr":      strings.NewReplacer("repository: api", "repository: reservations", "name: pr-1", "name: pr-2, formerName: pr-1").Replace(pullDoc),
			"c":       strings.Replace(commitDoc, "repository: api", "repository: reservations", 1),
		})
		r.pass(10 * time.Minute)
		r.wantEffects("rename $Repository/reservations")
		r.want(moved, plan.Synced, "")
		r.want(feature, plan.Synced, "")
		r.want(commit, plan.Synced, "")
		if a := outputs[adapters.PullRequestActual](t, r.want(ref(desired.KindPullRequest, "pr-2"), plan.Synced, "")); a.Number != 1 {
			t.Errorf("pull request %+v", a)
		}
		for _, old := range []desired.Ref{api, pull} {
			if rec := r.records(old); rec.State != nil || rec.Applied != nil {
				t.Errorf("%s is still recorded: %+v", old, rec.State)
			}
		}
	})
}

func TestAChangeDuringACallIsNotLost(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Op: adapters.Create, Times: 1, Hang: true})
		r.config = nil
		first := r.write(map[string]string{"api": apiDoc})
		second := r.write(map[string]string{"api": strings.Replace(apiDoc, "Reservations", "Cancellations", 1)})
		if s := r.state(api); s.DesiredSeq != second || s.Phase != plan.Pending {
			t.Errorf("while the call for seq %d is under way: %+v", first, s)
		}
		r.pass(time.Minute)
		if s := r.want(api, plan.Synced, ""); s.AppliedSeq != second {
			t.Errorf("applied seq %d, want %d", s.AppliedSeq, second)
		}
		if a := outputs[adapters.RepositoryActual](t, r.state(api)); a.Description != "Cancellations" {
			t.Errorf("outputs %+v", a)
		}
	})
}

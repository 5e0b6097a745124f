// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
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

var (
	feature = ref(desired.KindBranch, "api.feature")
	commit  = ref(desired.KindCommit, "01j9")
	pull    = ref(desired.KindPullRequest, "pr-1")
)

func TestDocumentsBecomeTrueInTheirOrder(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		// All at once, and the ones that depend first in the alphabet.
		seq := r.write(map[string]string{"d": apiDoc, "c": featureDoc, "b": commitDoc, "a": pullDoc})
		for _, x := range []desired.Ref{api, feature, commit, pull} {
			s := r.want(x, plan.Synced, "")
			if s.DesiredSeq != seq || s.AppliedSeq != seq || s.AppliedCommit != s.DesiredCommit {
				t.Errorf("%s: seq %d/%d, want %d", x, s.DesiredSeq, s.AppliedSeq, seq)
			}
		}
		r.wantEffects("create $Repository/api", "create $Branch/api.feature", "run $Commit/01j9", "create $PullRequest/pr-1")
		if got := r.fake.Files(api, "feature/x")["a.txt"]; got != "acme art a.txt" {
			t.Errorf("content from the artifact: %q", got)
		}
		if who := r.fake.History(api, "feature/x")[0].Author; who.Name != "Ann" || who.Email != "ann@example.com" {
			t.Errorf("authored by %v, want who changed the document", who)
		}
		if a := outputs[adapters.PullRequestActual](t, r.state(pull)); a.Number != 1 || a.State != "open" {
			t.Errorf("outputs %+v", a)
		}
		h, _, _, err := state.Read[state.Horizon](r.t.Context(), r.store, state.HorizonKey("acme"))
		if err != nil || h.Seq != seq {
			t.Errorf("horizon %+v %v", h, err)
		}
	})
}

func TestPendingIsRecordedBeforeTheHorizonAndBeforeAnyCall(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		var order []string
		r.store.each = func(_ state.Fence, puts []state.Put) {
			for _, p := range puts {
				switch {
				case p.Key.Table == state.Horizons:
					order = append(order, "horizon")
				case p.Key.Table == state.States:
					s, _ := state.Decode[state.SyncState](state.KV{Value: p.Value})
					order = append(order, string(s.Phase))
				}
			}
		}
		r.write(map[string]string{"api": apiDoc})
		want := []string{"Pending", "horizon", "Progressing", "Synced"}
		if !slices.Equal(order, want) {
			t.Errorf("recorded %v, want %v", order, want)
		}
	})
}

func TestDriftIsReportedThenRevertedAndStaysVisible(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc})
		head := r.fake.Push(api, "feature/x", map[string]string{"b.txt": "b"})
		r.pass(time.Second)
		r.effects()
		var phases []string
		r.store.each = func(_ state.Fence, puts []state.Put) {
			for _, p := range puts {
				if s, err := state.Decode[state.SyncState](state.KV{Value: p.Value}); err == nil && p.Key.Table == state.States {
					phases = append(phases, string(s.Phase))
				}
			}
		}
		r.fake.DeleteBranch(api, "feature/x")
		r.pass(time.Second)
		r.wantEffects("restore $Branch/api.feature")
		r.want(feature, plan.Synced, "")
		if got := r.transitions(); !slices.Equal(got, []string{"open BranchMissing", "closed BranchMissing by revert"}) {
			t.Errorf("findings told: %v", got)
		}
		if !slices.Equal(phases, []string{"OutOfSync", "Synced"}) {
			t.Errorf("phases recorded: %v", phases)
		}
		if a := outputs[adapters.BranchActual](t, r.state(feature)); a.Head != head {
			t.Errorf("it came back at %s, want its last head %s", a.Head, head)
		}
		f := r.records(feature).Findings[0]
		if f.Reverts != 1 || f.Source.Path != "projects/booking/feature.yaml" || f.Source.Line != 1 || f.Source.Author != "Ann <ann@example.com>" || f.Source.Commit == "" {
			t.Errorf("finding %+v", f)
		}
	})
}

func TestTheResyncAloneConverges(t *testing.T) {
	scene(t, func(r *rig) {
		r.config = func(c *Config) { c.Drivers = map[string]adapters.Driver{"local": deaf{r.fake}} }
		r.start()
		r.write(map[string]string{"api": apiDoc})
		r.effects()
		r.fake.EditRepository(api, func(a *adapters.RepositoryActual) { a.Visibility = "public" })
		r.pass(10 * time.Second)
		r.want(api, plan.Synced, "")
		r.wantEffects()
		r.pass(4 * time.Minute)
		r.wantEffects("update $Repository/api [spec.visibility]")
		r.want(api, plan.Synced, "")
	})
}

func TestInProductionDriftIsReportedOnly(t *testing.T) {
	scene(t, func(r *rig) {
		src := r.sources["acme"]
		src.platform, _ = desired.Empty("").Advance(desired.Delta{Commit: "p1", Files: []desired.File{{
			Path: "tenants/acme.yaml", Blob: "1",
			Data: []byte("apiVersion: plumbline.dev/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {stages: {booking: prod}}\n"),
		}}}, nil)
		r.start()
		r.write(map[string]string{"api": apiDoc})
		r.effects()
		r.fake.EditRepository(api, func(a *adapters.RepositoryActual) { a.Visibility = "public" })
		r.pass(10 * time.Minute)
		r.wantEffects()
		r.want(api, plan.OutOfSync, "VisibilityMismatch")
		if f := r.records(api).Findings[0]; f.Severity != plan.Critical || f.Cause != plan.CauseDrift {
			t.Errorf("finding %+v", f)
		}
	})
}

func TestALostRepositoryIsNeverMadeAgain(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc})
		r.effects()
		r.fake.DropRepository(api)
		r.pass(time.Hour)
		r.wantEffects()
		r.want(api, plan.OutOfSync, "RepositoryMissing")
		r.want(feature, plan.Unknown, "RepositoryUnavailable")
		if got := r.open(feature); len(got) > 0 {
			t.Errorf("what is inside a lost repository has findings of its own: %v", got)
		}
		// Removing the document and adding it again is the approval.
		r.write(map[string]string{"api": ""})
		if s := r.state(api); s != nil {
			t.Fatalf("still recorded: %+v", s)
		}
		r.write(map[string]string{"api": apiDoc})
		r.want(api, plan.Synced, "")
	})
}

func TestUnknownChangesNothing(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": strings.Replace(featureDoc, "spec: {", "spec: {deletionPolicy: delete, ", 1), "c": commitDoc})
		r.effects()
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Observe, Times: -1, Err: desired.Errorf("observe", desired.Ref{}, desired.Transient, "the provider answered 503")})
		r.fake.DropRepository(api)
		r.pass(40 * time.Minute) // what has ended is looked at more rarely
		for _, x := range []desired.Ref{api, feature, commit} {
			r.want(x, plan.Unknown, "Unreadable")
			if got := r.open(x); len(got) > 0 {
				t.Errorf("%s has findings without having been seen: %v", x, got)
			}
		}
		r.write(map[string]string{"feature": ""})
		r.pass(20 * time.Minute)
		r.wantEffects()
		if r.records(feature).Applied == nil {
			t.Error("the applied record went although nothing could be seen")
		}
	})
}

func TestAManualDocumentIsReportedAndLeftAlone(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": strings.Replace(apiDoc, "spec: {", "spec: {sync: {apply: manual}, ", 1)})
		r.wantEffects()
		s := r.want(api, plan.OutOfSync, "RepositoryMissing")
		if s.AppliedSeq != 0 || s.Findings != 1 {
			t.Errorf("state %+v", s)
		}
		if got := r.open(api); !slices.Equal(got, []string{"RepositoryMissing not-yet-applied"}) {
			t.Errorf("findings %v", got)
		}
		r.write(map[string]string{"api": apiDoc})
		r.want(api, plan.Synced, "")
		if got := r.transitions(); !slices.Equal(got, []string{"open RepositoryMissing", "closed RepositoryMissing by document"}) {
			t.Errorf("findings told: %v", got)
		}
	})
}

func TestSuspensionsAndRulesTakeEffectWhenTheyChange(t *testing.T) {
	scene(t, func(r *rig) {
		r.config = func(c *Config) { c.Drivers = map[string]adapters.Driver{"local": deaf{r.fake}} }
		r.start()
		r.write(map[string]string{"api": apiDoc})
		r.write(map[string]string{"stop": "kind: Suspension\nmetadata: {name: stop}\nspec: {reason: release, match: {kinds: [Repository]}}"})
		r.want(api, plan.Suspended, "Suspended")
		r.want(ref(desired.KindSuspension, "stop"), plan.Synced, "Loaded")
		r.fake.EditRepository(api, func(a *adapters.RepositoryActual) { a.Visibility = "public" })
		r.effects()
		r.pass(5 * time.Minute)
		r.wantEffects()
		if got := r.open(api); !slices.Equal(got, []string{"VisibilityMismatch drift"}) {
			t.Errorf("findings while suspended: %v", got)
		}
		r.pass(2 * time.Second)
		r.write(map[string]string{"quiet": "kind: DriftRule\nmetadata: {name: quiet}\nspec: {action: ignore, findings: [VisibilityMismatch]}", "stop": ""})
		r.pass(2 * time.Second)
		r.want(api, plan.Synced, "")
		r.wantEffects()
		r.pass(2 * time.Second)
		r.write(map[string]string{"quiet": ""})
		r.pass(2 * time.Second)
		r.wantEffects("update $Repository/api [spec.visibility]")
		if s := r.state(ref(desired.KindDriftRule, "quiet")); s != nil {
			t.Errorf("a removed rule is still recorded: %+v", s)
		}
	})
}

func TestASuspensionEndsByItself(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		until := time.Now().Add(90 * time.Second).UTC().Format(time.RFC3339)
		r.write(map[string]string{"api": apiDoc, "stop": "kind: Suspension\nmetadata: {name: stop}\nspec: {reason: release, until: '" + until + "'}"})
		r.want(api, plan.Suspended, "")
		r.pass(95 * time.Second)
		r.want(api, plan.Synced, "")
	})
}

func TestAMergeRetiresTheSourceBranch(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc, "pr": pullDoc})
		r.effects()
		seq := r.write(map[string]string{"pr": strings.Replace(pullDoc, "title:", "state: merged, deleteSourceBranch: true, title:", 1)})
		r.wantEffects("merge $PullRequest/pr-1")
		if s := r.want(pull, plan.Synced, "Merged"); s.AppliedSeq != seq {
			t.Errorf("applied seq %d, want %d", s.AppliedSeq, seq)
		}
		r.pass(2 * time.Hour)
		r.wantEffects()
		r.want(feature, plan.Synced, "Retired")
		r.want(pull, plan.Synced, "Merged")
		if got := append(r.open(feature), r.open(commit)...); len(got) > 0 {
			t.Errorf("findings about what was merged: %v", got)
		}
	})
}

func TestAMergeAtTheHostIsFinal(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc, "pr": pullDoc})
		r.effects()
		r.fake.MergeByHand(api, "feature/x", "main")
		r.fake.DeleteBranch(api, "feature/x")
		r.pass(2 * time.Hour)
		r.wantEffects()
		r.want(pull, plan.Synced, "MergedAtHost")
		r.want(feature, plan.Synced, "Retired")
	})
}

func TestABadFileIsAFindingAndItsLastGoodVersionStays(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc})
		r.write(map[string]string{"api": strings.Replace(apiDoc, "description", "broken", 1), "new": "kind: broken"})
		r.pass(time.Second)
		r.want(api, plan.Synced, "")
		if got := r.open(api); !slices.Equal(got, []string{"DocumentQuarantined quarantined"}) {
			t.Errorf("findings of the ref: %v", got)
		}
		file := plan.FileRef("acme", "projects/booking/new.yaml")
		if got := r.open(file); !slices.Equal(got, []string{"DocumentQuarantined quarantined"}) {
			t.Errorf("findings of the file: %v", got)
		}
		r.write(map[string]string{"api": apiDoc, "new": ""})
		r.pass(time.Second)
		if got := append(r.open(api), r.open(file)...); len(got) > 0 {
			t.Errorf("still open: %v", got)
		}
	})
}

func TestAFrozenRepositoryChangesNothing(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc})
		r.sources["acme"].amend(func(h *desired.Head) { h.Frozen = "main was rewritten" })
		r.pass(time.Second)
		r.effects()
		r.fake.EditRepository(api, func(a *adapters.RepositoryActual) { a.Visibility = "public" })
		r.pass(10 * time.Minute)
		r.wantEffects()
		r.want(api, plan.Suspended, "Frozen")
		if got := r.open(plan.ControlRef("acme")); !slices.Equal(got, []string{"ControlRepositoryFrozen quarantined"}) {
			t.Errorf("findings: %v", got)
		}
		r.sources["acme"].amend(func(h *desired.Head) { h.Frozen = "" })
		r.pass(time.Second)
		r.want(api, plan.Synced, "")
		if got := r.open(plan.ControlRef("acme")); len(got) > 0 {
			t.Errorf("still open: %v", got)
		}
	})
}

func TestAControlRepositoryThatLostItsHistoryRemovesNothing(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc})
		r.kill()
		r.sources["acme"] = newFiles("acme") // the repository directory was lost, the state was not
		r.start()
		r.pass(time.Hour)
		if r.records(api).Applied == nil || r.records(feature).Applied == nil {
			t.Error("records were forgotten because the control repository was lost")
		}
		if got := r.open(plan.ControlRef("acme")); !slices.Equal(got, []string{"ControlRepositoryFrozen quarantined"}) {
			t.Errorf("findings: %v", got)
		}
	})
}

func TestAMissingProviderStallsUntilItIsThere(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": strings.Replace(apiDoc, "spec: {", "spec: {provider: azure, ", 1)})
		s := r.want(api, plan.Stalled, "Invalid")
		if !strings.Contains(s.Message, "known: local") {
			t.Errorf("message %q", s.Message)
		}
		r.write(map[string]string{"providers/azure": "kind: Provider\nmetadata: {name: azure}\nspec: {type: local}"})
		r.want(api, plan.Synced, "")
		// Another name for the same place is no move, another place is, and an unknown one has to be corrected.
		r.write(map[string]string{"api": apiDoc, "providers/elsewhere": "kind: Provider\nmetadata: {name: elsewhere}\nspec: {type: local, url: 'https://git.example'}"})
		r.want(api, plan.Synced, "")
		r.write(map[string]string{"api": strings.Replace(apiDoc, "spec: {", "spec: {provider: elsewhere, ", 1)})
		r.want(api, plan.OutOfSync, "ProviderMismatch")
		r.write(map[string]string{"api": strings.Replace(apiDoc, "spec: {", "spec: {provider: nowhere, ", 1)})
		r.want(api, plan.Stalled, "Invalid")
		r.write(map[string]string{"api": strings.Replace(apiDoc, "spec: {", "spec: {provider: azure, ", 1)})
		r.want(api, plan.Synced, "")
	})
}

func TestDependsOnIsWaitedFor(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": strings.Replace(apiDoc, "metadata: {", "metadata: {dependsOn: [Repository/base], ", 1)})
		s := r.want(api, plan.Pending, "Waiting")
		if !strings.Contains(s.Message, "Repository/base") {
			t.Errorf("message %q", s.Message)
		}
		r.write(map[string]string{"base": "kind: Repository\nmetadata: {name: base}\nspec: {}"})
		r.want(api, plan.Synced, "")
		r.wantEffects("create $Repository/base", "create $Repository/api")
	})
}

func TestWhatTakesTooLongIsStalledAndANewerDocumentSupersedes(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": strings.Replace(featureDoc, "main", "develop", 1)})
		r.want(feature, plan.Progressing, "Waiting")
		r.pass(20 * time.Minute)
		s := r.want(feature, plan.Stalled, "DeadlineExceeded")
		if !strings.Contains(s.Message, "develop") {
			t.Errorf("message %q", s.Message)
		}
		r.write(map[string]string{"feature": featureDoc})
		r.want(feature, plan.Synced, "")
	})
}

func TestAProviderThatIsAddedMovesNothing(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc})
		// The only one of its type: the name "local" now means this document, and still the same place.
		r.write(map[string]string{"providers/azure": "kind: Provider\nmetadata: {name: azure}\nspec: {type: local}"})
		r.write(map[string]string{"api": strings.Replace(apiDoc, "Reservations", "Cancellations", 1)})
		r.pass(10 * time.Minute)
		r.want(api, plan.Synced, "")
		r.want(feature, plan.Synced, "")
		r.write(map[string]string{"providers/azure": ""})
		r.pass(10 * time.Minute)
		r.want(api, plan.Synced, "")
		r.want(feature, plan.Synced, "")
	})
}

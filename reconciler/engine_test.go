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

func TestConfigIsChecked(t *testing.T) {
	mem := state.NewMemory(state.MemoryConfig{})
	defer mem.Close()
	for name, c := range map[string]Config{
		"no store": {Now: time.Now},
		"no clock": {Store: mem},
		"negative": {Store: mem, Now: time.Now, Workers: -1},
	} {
		if _, err := New(c); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("%s: %v, want an invalid configuration", name, err)
		}
	}
}

func TestPostCheck(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		check := adapters.Check{Name: "build", Status: "Succeeded"}
		if err := r.engine.PostCheck(r.t.Context(), pull, check); desired.ClassOf(err) != desired.NotFound {
			t.Errorf("without a document: %v", err)
		}
		r.write(map[string]string{"pr": pullDoc})
		if err := r.engine.PostCheck(r.t.Context(), pull, check); desired.ClassOf(err) != desired.Waiting {
			t.Errorf("before it is opened: %v", err)
		}
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc})
		r.want(pull, plan.Synced, "")
		if err := r.engine.PostCheck(r.t.Context(), pull, check); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Second)
		if a := outputs[adapters.PullRequestActual](t, r.state(pull)); len(a.Checks) != 1 || a.Checks[0] != check {
			t.Errorf("checks shown: %+v", a.Checks)
		}
		other := pull
		other.Tenant = "other"
		if err := r.engine.PostCheck(r.t.Context(), other, check); desired.ClassOf(err) != desired.NotFound {
			t.Errorf("another tenant's: %v", err)
		}
	})
	scene(t, func(r *rig) {
		r.config = func(c *Config) { c.Drivers = map[string]adapters.Driver{"local": deaf{r.fake}} }
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc, "pr": pullDoc})
		if err := r.engine.PostCheck(r.t.Context(), pull, adapters.Check{}); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("a host without checks: %v", err)
		}
	})
}

func TestNudgeAndReconcileLookAtOnce(t *testing.T) {
	scene(t, func(r *rig) {
		r.config = func(c *Config) { c.Drivers = map[string]adapters.Driver{"local": deaf{r.fake}} }
		r.start()
		r.write(map[string]string{
			"api": apiDoc, "base": "kind: Repository\nmetadata: {name: base}\nspec: {}", "feature": featureDoc,
			"rule": "kind: DriftRule\nmetadata: {name: rule}\nspec: {action: report, match: {names: [none]}}",
		})
		r.effects()
		r.fake.EditRepository(api, func(a *adapters.RepositoryActual) { a.Visibility = "public" })
		r.engine.Nudge(ref(desired.KindRepository, "unknown"), desired.Ref{Tenant: "nobody", Kind: desired.KindRepository, Name: "x"}, api)
		r.pass(100 * time.Millisecond)
		r.wantEffects("update $Repository/api [spec.visibility]")
		got := r.engine.Reconcile("acme", func(e *desired.Entry) bool { return e.Ref.Kind != desired.KindBranch })
		if want := []desired.Ref{api, ref(desired.KindRepository, "base")}; !slices.Equal(got, want) {
			t.Errorf("nudged %v, want %v", got, want)
		}
		r.pass(100 * time.Millisecond)
		if n := len(r.fake.Calls()); n != 2 {
			t.Errorf("%d looks, want 2", n)
		}
		if got := r.engine.Reconcile("nobody", func(*desired.Entry) bool { return true }); got != nil {
			t.Errorf("another tenant: %v", got)
		}
	})
}

func TestTenantsComeAndGoWhileRunning(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.sources["beta"] = newFiles("beta")
		r.engine.Attach("beta", r.sources["beta"])
		r.writeTo("beta", map[string]string{"api": apiDoc})
		beta := api
		beta.Tenant = "beta"
		r.want(beta, plan.Synced, "")
		r.engine.Detach("beta")
		r.fake.ForgetCalls()
		r.writeTo("beta", map[string]string{"feature": featureDoc})
		r.engine.Nudge(beta)
		r.pass(10 * time.Minute)
		for _, c := range r.fake.Calls() {
			if c.Ref.Tenant == "beta" {
				t.Errorf("call after it was detached: %s", c)
			}
		}
		r.engine.Detach("beta")
		r.engine.Attach("beta", r.sources["beta"])
		r.pass(time.Second)
		branch := feature
		branch.Tenant = "beta"
		r.want(branch, plan.Synced, "")
	})
}

func TestARestartRewritesNothingAndCatchesUp(t *testing.T) {
	for name, forgets := range map[string]bool{"changes known": false, "changes unknown": true} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(r *rig) {
				r.sources["acme"].forgets = forgets
				r.start()
				r.write(map[string]string{
					"api": apiDoc, "feature": featureDoc, "old": "kind: Repository\nmetadata: {name: old}\nspec: {}",
					"rule": "kind: DriftRule\nmetadata: {name: rule}\nspec: {action: report}",
				})
				r.kill()
				r.write(map[string]string{"c": commitDoc, "old": "", "rule": ""})
				r.store.forget()
				r.start()
				r.pass(time.Minute)
				r.want(commit, plan.Synced, "")
				for _, gone := range []desired.Ref{ref(desired.KindRepository, "old"), ref(desired.KindDriftRule, "rule")} {
					if s := r.state(gone); s != nil {
						t.Errorf("still recorded: %+v", s)
					}
				}
				for _, w := range r.store.written() {
					if strings.Contains(w, api.ID()) {
						t.Errorf("what did not change was written: %s", w)
					}
				}
			})
		})
	}
}

func TestAnEmptiedControlRepositoryDeletesNothing(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		docs := branches(3)
		docs["api"] = strings.Replace(apiDoc, "spec: {", "spec: {deletionPolicy: delete, ", 1)
		r.write(docs)
		r.effects()
		for name := range docs {
			docs[name] = ""
		}
		r.write(docs)
		r.pass(2 * time.Hour)
		r.wantEffects()
		r.want(api, plan.OutOfSync, "DeletionStopped")
	})
}

func TestOldFindingsAndRunsAreDropped(t *testing.T) {
	scene(t, func(r *rig) {
		r.config = func(c *Config) { c.Resync = 3 * time.Hour }
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc, "c": commitDoc})
		r.fake.EditRepository(api, func(a *adapters.RepositoryActual) { a.Visibility = "public" })
		r.write(map[string]string{"c": ""})
		r.pass(10 * 24 * time.Hour)
		if rec := r.records(api); len(rec.Findings) != 1 || rec.Findings[0].Open() {
			t.Fatalf("findings after ten days: %+v", rec.Findings)
		}
		if rec := r.records(commit); rec.Run == nil {
			t.Error("the journal entry of a removed Commit went before its time")
		}
		r.pass(22 * 24 * time.Hour)
		if rec := r.records(api); len(rec.Findings) != 0 {
			t.Errorf("findings after a month: %+v", rec.Findings)
		}
		if rec := r.records(commit); rec.Run != nil {
			t.Errorf("journal entry after a month: %+v", rec.Run)
		}
	})
}

func TestAuthorsAreWhoTheDocumentNamesElseWhoChangedIt(t *testing.T) {
	entry := func(spec desired.Spec, author, principal string) *desired.Entry {
		return &desired.Entry{Resource: &desired.Resource{Spec: spec}, Changed: desired.Provenance{Author: author, Principal: principal}}
	}
	for _, c := range []struct {
		e    *desired.Entry
		want desired.Person
	}{
		{entry(&desired.CommitSpec{Author: &desired.Person{Name: "Eve", Email: "eve@example.com"}}, "Ann <ann@example.com>", "user:ann"), desired.Person{Name: "Eve", Email: "eve@example.com"}},
		{entry(&desired.CommitSpec{}, "Ann <ann@example.com>", "user:ann"), desired.Person{Name: "Ann", Email: "ann@example.com"}},
		{entry(&desired.BranchSpec{}, "", "agent:Builder"), desired.Person{Name: "agent:Builder", Email: "builder@localhost"}},
		{entry(&desired.BranchSpec{}, "not an address", "unknown"), desired.Person{Name: "Plumbline", Email: "plumbline@localhost"}},
		{nil, desired.Person{Name: "Plumbline", Email: "plumbline@localhost"}},
	} {
		if got := author(c.e); got != c.want {
			t.Errorf("author %+v, want %+v", got, c.want)
		}
	}
}

func TestLongWorkIsWatchedFromTurnToTurn(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.fake.Script(adaptertest.Fault{Method: adaptertest.Apply, Op: adapters.Create, Times: 3, Pending: 2 * time.Second})
		r.write(map[string]string{"api": apiDoc})
		s := r.want(api, plan.Progressing, "Creating")
		if s.Message != "accepted, not there yet" {
			t.Errorf("message %q", s.Message)
		}
		if run := r.records(api).Run; run == nil || run.Stage != plan.RunPosted {
			t.Errorf("journal of what is under way: %+v", run)
		}
		r.pass(10 * time.Second)
		r.want(api, plan.Synced, "")
		if run := r.records(api).Run; run.Stage != plan.RunDone {
			t.Errorf("journal in the end: %+v", run)
		}
		r.wantEffects("create $Repository/api")
	})
}

func TestContestedDriftBacksOff(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc})
		r.effects()
		// Another writer makes it public again, ten seconds after each time that we put it back.
		for range 6 * 60 {
			r.fake.EditRepository(api, func(a *adapters.RepositoryActual) { a.Visibility = "public" })
			r.pass(10 * time.Second)
		}
		n := len(r.effects())
		if n < 6 || n > 10 {
			t.Errorf("put back %d times in an hour", n)
		}
		s := r.want(api, plan.OutOfSync, "VisibilityMismatch")
		f := r.records(api).Findings[0]
		if !f.Contested || f.Severity != plan.Critical || !strings.Contains(s.Message, "another writer") {
			t.Errorf("finding %+v", f)
		}
	})
}

func TestEventsTellEveryTurn(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc})
		r.mu.Lock()
		defer r.mu.Unlock()
		var got []string
		for _, e := range r.turns {
			got = append(got, fmt.Sprint(e.Ref.Name, " ", e.Phase, " ", e.Outcome, " ", e.Changes, " ", e.Commit != "", " ", e.Err))
		}
		if want := "api Synced changed 1 true <nil>"; !slices.Contains(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
		if want := []string{"acme/- true", "acme/booking true"}; !slices.Equal(r.owners, want) {
			t.Errorf("ownership %q, want %q", r.owners, want)
		}
		if len(r.errors) > 0 {
			t.Errorf("errors %v", r.errors)
		}
	})
}

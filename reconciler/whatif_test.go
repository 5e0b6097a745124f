// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// imagine is the head that a change of documents would make of the present one.
func (r *rig) imagine(docs map[string]string) (base, next *desired.Head, c desired.Changes) {
	r.t.Helper()
	base = r.sources["acme"].Head()
	d := desired.Delta{Commit: base.Commit, Change: desired.Provenance{Seq: base.Seq + 1, Author: "Ann <ann@example.com>", Principal: "user:ann", At: time.Now()}}
	for name, yaml := range docs {
		data := "apiVersion: plumbline.dev/v1\n" + strings.TrimSpace(yaml) + "\n"
		d.Files = append(d.Files, desired.File{Path: "projects/booking/" + name + ".yaml", Blob: sha(data), Data: []byte(data), Deleted: yaml == ""})
	}
	snap, c := base.Snapshot.Advance(d, nil)
	if len(c.Quarantined) > 0 {
		r.t.Fatalf("bad test document: %v", c.Quarantined[0].Err)
	}
	return base, &desired.Head{Seq: base.Seq + 1, Commit: base.Commit, Snapshot: snap, At: time.Now()}, c
}

// forecast plans a change of documents and makes sure that nothing came of it.
func (r *rig) forecast(docs map[string]string) Forecast {
	r.t.Helper()
	base, next, c := r.imagine(docs)
	before, effects := len(r.fake.Applies()), r.store.commits
	f, err := r.engine.Plan(r.t.Context(), base, next, c)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(r.fake.Applies()) != before || r.store.commits != effects {
		r.t.Fatalf("a what-if applied or recorded something:\n%s", r.log())
	}
	return f
}

// steps lists what a forecast would do, as the fake logs it.
func (f Forecast) steps() (out []string) {
	for _, p := range f.Previews {
		for _, s := range p.Plan.Changes {
			step := string(s.Op) + " " + p.Ref.String()
			if len(s.Fields) > 0 {
				step += fmt.Sprint(" ", s.Fields)
			}
			out = append(out, step)
		}
	}
	return out
}

func TestWhatIfSaysWhatThenHappens(t *testing.T) {
	const branch = "kind: Branch\nmetadata: {name: b}\nspec: {repository: api, name: b, deletionPolicy: delete}"
	other := "kind: Branch\nmetadata: {name: c}\nspec: {repository: api, name: c, deletionPolicy: delete}"
	scene(t, func(r *rig) {
		r.config = func(c *Config) { c.Drivers["local"] = deaf{r.fake} }
		r.start()
		for _, docs := range []map[string]string{
			{"api": apiDoc},
			{"b": branch, "c": other, "rule": "kind: DriftRule\nmetadata: {name: quiet}\nspec: {action: report, findings: [BranchMoved]}"},
			{"api": strings.Replace(apiDoc, "Reservations", "Bookings", 1)},
			{"b": ""},
			{"api": strings.Replace(apiDoc, "Reservations", "Bookings", 1)},
		} {
			f := r.forecast(docs)
			r.fake.ForgetCalls()
			r.write(docs)
			r.pass(2 * time.Second)
			got := r.effects()
			want := f.steps()
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%v: it would do %v, and did %v", docs, want, got)
			}
		}
	})
}

func TestWhatIfJudgesDeletions(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		docs, gone := map[string]string{"api": apiDoc}, map[string]string{}
		for i := range 8 {
			name := fmt.Sprint("b", i)
			docs[name] = branchDoc(name, "delete")
			if i < 5 {
				gone[name] = ""
			}
		}
		r.write(docs)
		r.pass(5 * time.Second)
		f := r.forecast(gone)
		if f.Deleting != 5 || len(f.Deletions.Stopped) != 5 || !strings.Contains(f.Deletions.Reason, "5 of 8") || len(f.steps()) != 0 {
			t.Errorf("five at once: %d added, %+v, %v", f.Deleting, f.Deletions, f.steps())
		}
		for _, p := range f.Previews {
			if p.Plan.Reason != string(plan.DeletionStopped) {
				t.Errorf("%s: %s", p.Ref, p.Plan)
			}
		}
		f = r.forecast(map[string]string{"b0": ""})
		if f.Deleting != 1 || len(f.Deletions.Allowed) != 1 || len(f.steps()) != 1 || f.Digest == plan.Digest() {
			t.Errorf("one: %d added, %+v, %v", f.Deleting, f.Deletions, f.steps())
		}
	})
}

func TestWhatIfIsBounded(t *testing.T) {
	scene(t, func(r *rig) {
		var late atomic.Bool
		r.config = func(c *Config) { c.Drivers["local"] = tardy{r.fake, &late} }
		r.start()
		r.write(map[string]string{"api": apiDoc})
		docs := map[string]string{}
		for i := range 60 {
			name := fmt.Sprintf("b%02d", i)
			docs[name] = branchDoc(name, "retain")
		}
		r.fake.ForgetCalls()
		f := r.forecast(docs)
		blind := 0
		for _, p := range f.Previews {
			if strings.Contains(p.Unobserved, "more than 50") {
				blind++
			}
		}
		if len(f.Previews) != 60 || blind != 10 || len(f.steps()) != 50 {
			t.Errorf("%d previews, %d not observed, %d steps", len(f.Previews), blind, len(f.steps()))
		}
		// Ten seconds at most, however slow the provider is.
		late.Store(true)
		began := time.Now()
		f = r.forecast(docs)
		if took := time.Since(began); took > previewTime+time.Second {
			t.Errorf("it took %v", took)
		}
		if n := len(f.steps()); n >= 50 {
			t.Errorf("%d were observed in spite of the delay", n)
		}
	})
}

func TestWhatIfBeforeAnythingIsLoadedReadsTheStore(t *testing.T) {
	scene(t, func(r *rig) {
		r.start()
		r.write(map[string]string{"api": apiDoc, "feature": featureDoc})
		r.pass(5 * time.Second)
		// A second process that does not own the tenant.
		e, err := New(Config{Store: r.store, Drivers: map[string]adapters.Driver{"local": r.fake}, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		e.Attach("acme", r.sources["acme"])
		defer e.Detach("acme")
		base, next, c := r.imagine(map[string]string{"new": "kind: Branch\nmetadata: {name: new}\nspec: {repository: api, name: new, fromBranch: feature/x}"})
		f, err := e.Plan(r.t.Context(), base, next, c)
		if err != nil || len(f.Previews) != 1 || len(f.Previews[0].Plan.Changes) != 1 {
			t.Errorf("%v: %+v", err, f.Previews)
		}
	})
}

// tardy is a driver that, when told so, takes its time to look.
type tardy struct {
	adapters.Driver
	late *atomic.Bool
}

func (d tardy) Observe(ctx context.Context, s []adapters.Subject) ([]adapters.Observation, error) {
	if d.late.Load() {
		sleep(ctx, 4*time.Second)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return d.Driver.Observe(ctx, s)
}

// bad is a driver with a defect.
type bad struct{ adapters.Driver }

func (bad) Observe(context.Context, []adapters.Subject) ([]adapters.Observation, error) {
	panic("defect")
}

func TestWhatIfOutlivesADefectiveDriver(t *testing.T) {
	scene(t, func(r *rig) {
		r.config = func(c *Config) { c.Drivers["local"] = bad{r.fake} }
		r.start()
		f := r.forecast(map[string]string{"api": apiDoc})
		if len(f.Previews) != 1 || !strings.Contains(f.Previews[0].Unobserved, "internal error") {
			t.Errorf("%+v", f.Previews)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

var start = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// drawSpec draws a document's spec of a managed kind.
func drawSpec(t *rapid.T, k desired.Kind) desired.Spec {
	pick := func(label string, s ...string) string { return rapid.SampledFrom(s).Draw(t, label) }
	common := desired.CommonSpec{DeletionPolicy: desired.DeletionPolicy(pick("policy", "", "retain", "delete"))}
	if rapid.Bool().Draw(t, "sync") {
		common.Sync = &desired.Sync{Apply: desired.ApplyMode(pick("apply", "", "automatic", "manual")), Drift: desired.DriftMode(pick("drift", "", "report", "revert"))}
	}
	switch k {
	case desired.KindRepository:
		s := &desired.RepositorySpec{
			CommonSpec: common, Description: pick("description", "", "a", "b"), Visibility: pick("visibility", "", "private", "public"),
			DefaultBranch: pick("default", "", "main", "trunk"), Archived: rapid.Bool().Draw(t, "archived"),
		}
		if rapid.Bool().Draw(t, "protected") {
			s.Protection = []desired.BranchProtection{{Pattern: pick("pattern", "main", "release/*"), RequirePull: rapid.Bool().Draw(t, "pull")}}
		}
		return s
	case desired.KindBranch:
		return &desired.BranchSpec{CommonSpec: common, Repository: "api", Name: pick("name", "x", "x", "x", "y"), Commit: pick("commit", "", "", "1", "2")}
	case desired.KindCommit:
		return &desired.CommitSpec{CommonSpec: common, Repository: "api", Branch: "x", Message: pick("message", "m", "m", "n")}
	}
	return &desired.PullRequestSpec{
		CommonSpec: common, Repository: "api", SourceBranch: "x", TargetBranch: pick("target", "", "main", "dev"), Title: pick("title", "a", "b"),
		State: pick("state", "", "open", "merged", "closed"),
	}
}

func drawActual(t *rapid.T, k desired.Kind) adapters.Actual {
	pick := func(label string, s ...string) string { return rapid.SampledFrom(s).Draw(t, label) }
	switch k {
	case desired.KindRepository:
		return &adapters.RepositoryActual{
			DefaultBranch: pick("default", "main", "trunk"), Visibility: pick("visibility", "private", "public"),
			Description: pick("description", "", "a", "b"), Archived: rapid.Bool().Draw(t, "archived"),
		}
	case desired.KindBranch:
		return &adapters.BranchActual{Name: "x", Head: pick("head", "1", "2")}
	case desired.KindCommit:
		return &adapters.CommitActual{SHA: "1", Branch: "x"}
	}
	return &adapters.PullRequestActual{
		Number: 1, State: pick("state", "open", "merged", "closed"), Title: pick("title", "a", "b"), SourceBranch: "x",
		TargetBranch: pick("target", "main", "dev"), Mergeable: pick("mergeable", "yes", "no"), Conflicts: []string{"a.txt"},
	}
}

func entryOf(ref desired.Ref, spec desired.Spec, seq uint64, at time.Time) *desired.Entry {
	r := &desired.Resource{Kind: ref.Kind, Metadata: desired.Metadata{Name: ref.Name}, Spec: spec}
	return &desired.Entry{
		Ref: ref, Resource: r, Digest: encode(r), Path: "projects/booking/x.yaml", Line: 1,
		Changed: desired.Provenance{Seq: seq, Commit: fmt.Sprint("c", seq), Author: "Ann", At: at},
	}
}

func appliedOf(ref desired.Ref, spec desired.Spec) *Applied {
	a := &Applied{Ref: ref, Digest: entryOf(ref, spec, 1, start).Digest, Provider: "local", DeletionPolicy: spec.Common().DeletionPolicy, Handle: json.RawMessage(`{}`)}
	a.Spec = json.RawMessage(encode(spec))
	return a
}

// drawInput draws any situation whatsoever.
func drawInput(t *rapid.T) Input {
	kinds := []desired.Kind{desired.KindRepository, desired.KindBranch, desired.KindCommit, desired.KindPullRequest}
	k := rapid.SampledFrom(kinds).Draw(t, "kind")
	ref := desired.Ref{Tenant: "acme", Project: "booking", Kind: k, Name: "it"}
	in := Input{
		Now: start.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "minutes")) * time.Minute), Ref: ref, Provider: "local",
		Stage: rapid.SampledFrom([]string{"", "prod"}).Draw(t, "stage"), Birth: rapid.SampledFrom([]time.Time{{}, start, start.Add(time.Hour)}).Draw(t, "birth"),
	}
	if rapid.IntRange(0, 5).Draw(t, "document") > 0 {
		in.Want = entryOf(ref, drawSpec(t, k), 2, start.Add(time.Minute))
	}
	if rapid.Bool().Draw(t, "applied") {
		in.Applied = appliedOf(ref, drawSpec(t, k))
		in.Applied.Terminal = rapid.Bool().Draw(t, "terminal")
		in.Applied.Actual = json.RawMessage(encode(drawActual(t, k)))
	}
	switch rapid.IntRange(0, 2).Draw(t, "presence") {
	case 0:
		in.Have = adapters.Observation{Reason: "503"}
	case 1:
		in.Have = adapters.Observation{Presence: adapters.Absent}
	case 2:
		in.Have = adapters.Observation{Presence: adapters.Known, Actual: drawActual(t, k)}
	}
	if rapid.Bool().Draw(t, "ran") {
		in.Run = &Run{Stage: rapid.SampledFrom([]RunStage{RunIntent, RunPosted, RunDone, RunFailed}).Draw(t, "stage of run"), Message: "m"}
	}
	if rapid.IntRange(0, 3).Draw(t, "suspended") == 0 {
		in.Suspension = &desired.Entry{Ref: ref.Sibling(desired.KindSuspension, "s"), Resource: &desired.Resource{Spec: &desired.SuspensionSpec{Reason: "r"}}}
	}
	if rapid.IntRange(0, 5).Draw(t, "frozen") == 0 {
		in.Frozen = "rewritten"
	}
	for range rapid.IntRange(0, 2).Draw(t, "rules") {
		in.Rules = append(in.Rules, &desired.DriftRuleSpec{Action: rapid.SampledFrom([]string{"report", "revert", "ignore"}).Draw(t, "action")})
	}
	if rapid.IntRange(0, 3).Draw(t, "waits") == 0 {
		in.DependsOn = []Dependency{{
			Ref: ref.Sibling(desired.KindBranch, "b"), Role: rapid.SampledFrom([]Role{RoleExplicit, RoleParent, RoleBranch, RoleOrder}).Draw(t, "role"),
			Exists: rapid.Bool().Draw(t, "exists"), Applied: rapid.Bool().Draw(t, "dep applied"), Phase: Synced,
		}}
	}
	in.DeletionAllowed = rapid.Bool().Draw(t, "allowed")
	in.Attempted = rapid.Bool().Draw(t, "attempted")
	return in
}

func has(p Plan, ops ...adapters.Op) bool {
	return slices.ContainsFunc(p.Changes, func(s Step) bool { return slices.Contains(ops, s.Op) })
}

// check runs a property over drawn situations and, to begin with, over what one failed attempt makes of them.
func check(t *testing.T, property func(t *rapid.T, in Input, p Plan)) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		p := Diff(in)
		property(t, in, p)
		if len(p.Changes) == 0 {
			return
		}
		classes := []desired.Class{desired.Invalid, desired.Denied, desired.Conflict, desired.Transient, desired.Waiting, desired.Stalled, desired.Internal}
		err := desired.E("apply", in.Ref, rapid.SampledFrom(classes).Draw(t, "class"), errors.New("why"))
		failed := AfterError(in, p, err)
		property(t, in, failed)
		in.Was = Standing{failed.Phase, failed.Reason, failed.Message}
		property(t, in, Diff(in))
	})
}

func TestNothingIsChangedOnUnknown(t *testing.T) {
	check(t, func(t *rapid.T, in Input, p Plan) {
		if in.Have.Presence == adapters.Unknown && len(p.Changes) > 0 {
			t.Fatalf("changes without having seen the outside:\n%s", p)
		}
	})
}

func TestUnknownEndsNoFindingAboutTheOutside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		seen := in
		if seen.Have.Presence == adapters.Unknown {
			t.Skip("nothing was seen")
		}
		in.Findings = Diff(seen).Findings
		in.Have = adapters.Observation{Reason: "503"}
		p := Diff(in)
		if p.Forget || p.Phase == Failed {
			return // nothing is managed any more, or ever will be
		}
		for _, f := range p.Closed {
			if f.aboutOutside() {
				t.Fatalf("%s ended although nothing was seen:\n%s", f.Kind, p)
			}
		}
	})
}

func TestNothingIsAppliedWhileSuspendedOrFrozen(t *testing.T) {
	check(t, func(t *rapid.T, in Input, p Plan) {
		if (in.Suspension != nil || in.Frozen != "") && len(p.Changes) > 0 {
			t.Fatalf("changes while suspended:\n%s", p)
		}
	})
}

func TestNothingIsAppliedWhileWaiting(t *testing.T) {
	check(t, func(t *rapid.T, in Input, p Plan) {
		if len(p.Waits) > 0 && len(p.Changes) > 0 {
			t.Fatalf("changes while waiting:\n%s", p)
		}
	})
}

func TestAnAppliedObjectIsNeverMadeAgain(t *testing.T) {
	check(t, func(t *rapid.T, in Input, p Plan) {
		if in.Applied != nil && has(p, adapters.Create) {
			t.Fatalf("made again:\n%s", p)
		}
		if in.Ref.Kind == desired.KindRepository && has(p, adapters.Restore) {
			t.Fatalf("a repository is put back:\n%s", p)
		}
	})
}

func TestAOneShotNeverRunsTwice(t *testing.T) {
	check(t, func(t *rapid.T, in Input, p Plan) {
		ended := in.Applied != nil || in.Run != nil && (in.Run.Stage == RunDone || in.Run.Stage == RunFailed)
		if in.Ref.Kind == desired.KindCommit && ended && len(p.Changes) > 0 {
			t.Fatalf("a run that ended runs again:\n%s", p)
		}
		if in.Ref.Kind == desired.KindCommit && in.Run == nil && in.Want != nil && in.Want.Changed.At.Before(in.Birth) && len(p.Changes) > 0 {
			t.Fatalf("run without being able to tell whether it ran:\n%s", p)
		}
	})
}

func TestNothingIsDeletedWithoutAppliedRecordVerdictAndPolicy(t *testing.T) {
	check(t, func(t *rapid.T, in Input, p Plan) {
		if has(p, adapters.Remove) && (in.Want != nil || in.Applied == nil || !in.DeletionAllowed || in.Applied.DeletionPolicy != desired.Delete || in.Have.Presence != adapters.Known) {
			t.Fatalf("deleted without leave:\n%s", p)
		}
	})
}

func TestLossyDriftIsRevertedOnlyWhenAsked(t *testing.T) {
	check(t, func(t *rapid.T, in Input, p Plan) {
		if in.Want == nil || in.Applied == nil || in.Applied.Digest != in.Want.Digest || len(in.Rules) > 0 {
			return
		}
		if s := in.Want.Resource.Spec.Common().Sync; s != nil && s.Drift == desired.DriftRevert {
			return
		}
		for _, f := range p.Findings {
			lossy := f.Kind == string(BranchMoved) || f.Kind == string(TitleMismatch)
			if f.Reverting && (lossy || in.Stage == StageProd) {
				t.Fatalf("%s is reverted by default:\n%s", f.Kind, p)
			}
		}
	})
}

func TestEveryOpenFindingSaysWhatToDo(t *testing.T) {
	check(t, func(t *rapid.T, in Input, p Plan) {
		for _, f := range p.Findings {
			if f.ID == "" || f.Message == "" || f.Severity == "" || f.Cause == "" || !f.Open() || f.Occurrences < 1 || f.FirstSeen.IsZero() {
				t.Fatalf("incomplete finding %+v", f)
			}
		}
		if p.Phase == "" || p.Reason == "" || p.Message == "" {
			t.Fatalf("incomplete plan:\n%s", p)
		}
	})
}

func TestDifferencesAndSyncedExcludeEachOther(t *testing.T) {
	check(t, func(t *rapid.T, in Input, p Plan) {
		if p.Phase == Synced && (len(p.Changes) > 0 || len(p.Findings) > 0) {
			t.Fatalf("synced, with differences:\n%s", p)
		}
		if p.Phase == OutOfSync && len(p.Findings) == 0 {
			t.Fatalf("out of sync without a finding:\n%s", p)
		}
	})
}

// TestASecondLookAfterSuccessIsQuiet: when every change is made and recorded, nothing is left to do or to tell.
func TestASecondLookAfterSuccessIsQuiet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		in.Have = adapters.Observation{Presence: adapters.Absent}
		in.Applied, in.Run, in.Suspension, in.Frozen, in.DependsOn, in.Birth = nil, nil, nil, "", nil, time.Time{}
		if in.Want == nil {
			t.Skip("no document")
		}
		w := world{in: in}
		for turn := range 6 {
			p := Diff(w.in)
			w.record(p)
			if len(p.Changes) == 0 {
				if again := Diff(w.in); turn > 0 && (len(again.Changes)+len(again.Closed) > 0 || again.String() != Diff(w.in).String() || again.Phase != p.Phase) {
					t.Fatalf("not quiet:\n%s\nafter\n%s", again, p)
				}
				return
			}
			w.in.Have = adapters.Observation{Presence: adapters.Known, Actual: fulfil(w.in, p.Changes[0])}
		}
		t.Fatalf("six turns and still changing:\n%s", Diff(w.in))
	})
}

// fulfil is what the outside looks like after a change succeeded.
func fulfil(in Input, s Step) adapters.Actual {
	switch want := in.Want.Resource.Spec.(type) {
	case *desired.RepositorySpec:
		return &adapters.RepositoryActual{DefaultBranch: want.DefaultBranchOr(), Visibility: want.VisibilityOr(), Description: want.Description, Archived: want.Archived, Protection: want.Protection}
	case *desired.BranchSpec:
		return &adapters.BranchActual{Name: want.Name, Head: want.Commit}
	case *desired.CommitSpec:
		return &adapters.CommitActual{SHA: "1", Branch: want.Branch}
	case *desired.PullRequestSpec:
		a := &adapters.PullRequestActual{Number: 1, State: "open", Title: want.Title, SourceBranch: want.SourceBranch, TargetBranch: want.TargetBranch, Mergeable: "yes"}
		if s.Op == adapters.Merge || s.Op == adapters.Close {
			a.State = want.State
		}
		return a
	}
	return nil
}

func TestTheDigestIgnoresTimesAndActuals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		p := Diff(in)
		q := p
		q.Findings, q.Actual, q.Message, q.Next = nil, drawActual(t, in.Ref.Kind), "other", time.Hour
		if Digest(p) != Digest(q) {
			t.Fatalf("the digest moved with times or actuals:\n%s", p)
		}
		if len(p.Changes) > 0 {
			q.Desired += "x"
			if Digest(p) == Digest(q) {
				t.Fatalf("the digest stays when the document moves:\n%s", p)
			}
		}
		a, b := Plan{Ref: in.Ref, Changes: []Step{{Op: adapters.Remove}}}, p
		if Digest(a, b) != Digest(b, a) {
			t.Fatal("the digest depends on the order of plans")
		}
	})
}

func TestBudgetNeverDeletesAllOrProduction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in DeletionInput
		in.Totals = map[desired.Kind]int{}
		prod := map[desired.Kind]bool{}
		for _, k := range []desired.Kind{desired.KindRepository, desired.KindBranch} {
			total := rapid.IntRange(0, 60).Draw(t, "total")
			in.Totals[k] = total
			for i := range rapid.IntRange(0, total).Draw(t, "pending") {
				stage := rapid.SampledFrom([]string{"", "", "", "", "", "", "", "prod"}).Draw(t, "stage")
				prod[k] = prod[k] || stage == "prod"
				in.Pending = append(in.Pending, PendingDeletion{Ref: desired.Ref{Tenant: "a", Kind: k, Name: fmt.Sprint(i)}, Stage: stage})
			}
		}
		j := JudgeDeletions(in)
		n := map[desired.Kind]int{}
		for _, r := range j.Allowed {
			n[r.Kind]++
		}
		for k, allowed := range n {
			if prod[k] || allowed >= in.Totals[k] || float64(allowed) > max(3, 0.15*float64(in.Totals[k])) {
				t.Fatalf("%d of %d of %s allowed", allowed, in.Totals[k], k)
			}
		}
		if len(j.Allowed)+len(j.Stopped) != len(in.Pending) || (len(j.Stopped) > 0) != (j.Reason != "") {
			t.Fatalf("incomplete judgement %+v", j)
		}
	})
}

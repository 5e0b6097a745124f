// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

var (
	day  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	repo = desired.Ref{Tenant: "acme", Project: "booking", Kind: desired.KindRepository, Name: "api"}
)

// fixture reads records as they lie in stores of the field. Never edit one: add a file when the format moves.
func fixture(t *testing.T, file string) map[Table]KV {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[Table]KV{}
	for line := range bytes.Lines(b) {
		var r struct {
			Key   string
			Value json.RawMessage
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		k, ok := parseKey(root + r.Key)
		if !ok {
			t.Fatalf("bad key %q", r.Key)
		}
		out[k.Table] = KV{Key: k, Value: r.Value, Rev: 9}
	}
	return out
}

// decoded reads one record of each type.
func decoded(t *testing.T, kvs map[Table]KV) []any {
	t.Helper()
	s, e1 := Decode[SyncState](kvs[States])
	f, e2 := Decode[plan.Finding](kvs[Findings])
	r, e3 := Decode[plan.Run](kvs[Runs])
	a, e4 := Decode[plan.Applied](kvs[Applieds])
	v, e5 := Decode[Verdict](kvs[Verdicts])
	h, e6 := Decode[Horizon](kvs[Horizons])
	if err := errors.Join(e1, e2, e3, e4, e5, e6); err != nil {
		t.Fatal(err)
	}
	return []any{s, f, r, a, v, h}
}

func samples() []any {
	const id = "repo-aaaaaaaaaaaaaaaa"
	web := repo.Sibling(desired.KindRepository, "web")
	return []any{
		SyncState{
			V: 1, Ref: repo, ID: id, Phase: plan.OutOfSync, Health: "Healthy", Reason: "Drift", Message: "m", DesiredSeq: 7, DesiredCommit: "c0ffee",
			AppliedSeq: 6, AppliedCommit: "bead", Outputs: json.RawMessage(`{"remoteUrl":"u"}`), Findings: 1, Since: day, Labels: map[string]string{"module": "api"},
		},
		plan.Finding{
			V: 1, ID: "drift-bbbbbbbbbbbbbbbb", Ref: repo, ResourceID: id, Kind: "VisibilityMismatch", Field: "spec.visibility", Desired: "private", Actual: "public",
			Severity: plan.High, Cause: plan.CauseDrift, Message: "m", Source: plan.FindingPlace{Commit: "c0ffee", Path: "projects/booking/api.yaml", Line: 3, Author: "a"},
			FirstSeen: day, ClosedAt: day.Add(time.Hour), ResolvedBy: "revert", Occurrences: 2, Reverts: 1,
		},
		plan.Run{
			V: 1, ID: "01JGMR", Ref: repo, Op: "create", Tag: "t", Stage: plan.RunDone, Handle: json.RawMessage(`{"n":1}`), Attempts: 1, Message: "m", Seq: 7, Commit: "c0ffee",
			Started: day, Ended: day.Add(time.Minute),
		},
		plan.Applied{
			V: 1, Ref: repo, Digest: "d", Spec: json.RawMessage(`{"visibility":"private"}`), Provider: "local", Handle: json.RawMessage(`{"n":1}`), DeletionPolicy: "retain", Seq: 7,
			Commit: "c0ffee", Actual: json.RawMessage(`{"visibility":"public"}`), Terminal: true, At: day,
		},
		Verdict{V: 1, Seq: 7, Commit: "c0ffee", Digest: "d", Allowed: []desired.Ref{repo}, Stopped: []desired.Ref{web}, Reason: "r", At: day},
		Horizon{V: 1, Tenant: "acme", Seq: 7, Commit: "c0ffee", At: day},
	}
}

func TestStoredRecordsOfThisFormatLoad(t *testing.T) {
	if diff := cmp.Diff(samples(), decoded(t, fixture(t, "records-v1.jsonl"))); diff != "" {
		t.Error(diff)
	}
}

func TestStoredRecordsOfTheFormatBeforeLoad(t *testing.T) {
	got := decoded(t, fixture(t, "records-v0.jsonl"))
	if s := got[0].(SyncState); s.Ref != repo || s.Phase != plan.Synced || s.AppliedSeq != 7 || !s.Since.Equal(day) {
		t.Errorf("sync state %+v", s)
	}
	if f := got[1].(plan.Finding); f.Occurrences != 2 || !f.Open() {
		t.Errorf("finding %+v", f)
	}
	if h := got[5].(Horizon); h.Seq != 7 {
		t.Errorf("horizon %+v", h)
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	kvs := map[Table]KV{}
	for _, v := range samples() {
		p, err := putOf(v)
		if err != nil {
			t.Fatal(err)
		}
		kvs[p.Key.Table] = KV{Key: p.Key, Value: p.Value}
	}
	if diff := cmp.Diff(samples(), decoded(t, kvs)); diff != "" {
		t.Error(diff)
	}
}

func putOf(v any) (Put, error) {
	switch v := v.(type) {
	case SyncState:
		return PutState(v)
	case plan.Finding:
		return PutFinding(v)
	case plan.Run:
		return PutRun(v)
	case plan.Applied:
		return PutApplied(v)
	case Verdict:
		return PutVerdict("acme", v)
	case Horizon:
		return PutHorizon(v)
	}
	return Put{}, errors.New("not a record")
}

func TestWritersStampVersionAndIDs(t *testing.T) {
	p, err := PutState(SyncState{Ref: repo})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Decode[SyncState](KV{Key: p.Key, Value: p.Value})
	if err != nil || s.V != Version || s.ID != repo.ID() || p.Key != (Key{"acme", States, repo.ID()}) {
		t.Errorf("%+v, %v at %v", s, err, p.Key)
	}
	if k := StateKey(desired.Ref{Kind: desired.KindTenant, Name: "acme"}); k.Tenant != Platform {
		t.Errorf("a ref of the platform lies at %v", k)
	}
}

func TestBadRecordsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		class desired.Class
		say   string
	}{
		"garbage":        {"{", desired.Internal, "does not parse"},
		"wrong type":     {`{"v":"one"}`, desired.Internal, "does not parse"},
		"of the future":  {`{"v":2}`, desired.Stalled, "has format 2"},
		"empty":          {"", desired.Internal, "does not parse"},
		"far the future": {`{"v":999999}`, desired.Stalled, "upgrade"},
	} {
		_, err := Decode[Horizon](KV{Key: HorizonKey("acme"), Value: []byte(c.value)})
		if desired.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), "acme/horizon/head") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUnknownFieldsSurvive: an older replica's read-modify-write keeps what a newer one wrote, and drops what it
// knows and left out.
func TestUnknownFieldsSurvive(t *testing.T) {
	old := `{"v":1,"ID":"x","resolvedBy":"rule","newTop":[1,2],"source":{"commit":"a","line":9,"newNested":{"z":1}},"ref":{"tenant":"acme","kind":"Branch","name":"n","region":"eu"}}`
	f, err := Decode[plan.Finding](KV{Value: []byte(old)})
	if err != nil {
		t.Fatal(err)
	}
	f.ResolvedBy, f.Source.Line, f.Message = "", 0, "changed"
	p, err := PutFinding(f)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(KeepUnknown([]byte(old), p).Value, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{1.0, 2.0}, got["newTop"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"commit": "a", "newNested": map[string]any{"z": 1.0}}, got["source"]); diff != "" {
		t.Error(diff)
	}
	if got["ref"].(map[string]any)["region"] != "eu" || got["message"] != "changed" || got["ID"] != nil || got["resolvedBy"] != nil {
		t.Errorf("got %v", got)
	}
	// Nothing unknown, nothing stored, and deletions: the write stays as it is, byte for byte.
	for name, stored := range map[string]string{"known only": `{"v":1,"kind":"k"}`, "nothing": "", "no object": "[]"} {
		if q := KeepUnknown([]byte(stored), p); !bytes.Equal(q.Value, p.Value) {
			t.Errorf("%s: %s", name, q.Value)
		}
	}
	if q := KeepUnknown([]byte(old), Delete(p.Key)); q.Value != nil {
		t.Errorf("a deletion became a write: %s", q.Value)
	}
}

func TestLoadReadsEverythingOfARef(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	empty, err := Load(t.Context(), m, repo)
	if err != nil || empty.State != nil || empty.Applied != nil || empty.Run != nil || len(empty.Findings) > 0 || empty.Rev(StateKey(repo)) != 0 {
		t.Fatalf("got %+v, %v", empty, err)
	}
	other := repo.Sibling(desired.KindRepository, "web")
	var puts []Put
	for _, v := range []any{
		SyncState{Ref: repo, Phase: plan.Synced},
		SyncState{Ref: other},
		plan.Applied{Ref: repo, Digest: "d"},
		plan.Run{Ref: repo, ID: "b", Started: day},
		plan.Run{Ref: repo, ID: "a", Started: day.Add(time.Hour)},
		plan.Run{Ref: other, ID: "c", Started: day.Add(2 * time.Hour)},
		plan.Finding{Ref: repo, ID: "drift-2", ClosedAt: day},
		plan.Finding{Ref: repo, ID: "drift-1"},
		plan.Finding{Ref: other, ID: "drift-3"},
	} {
		p, err := putOf(v)
		if err != nil {
			t.Fatal(err)
		}
		puts = append(puts, p)
	}
	puts[0].Value = []byte(strings.Replace(string(puts[0].Value), `{"v"`, `{"mood":"new","v"`, 1))
	rev := commit(t, m, puts...)
	r, err := Load(t.Context(), m, repo)
	if err != nil {
		t.Fatal(err)
	}
	if r.State.Phase != plan.Synced || r.Applied.Digest != "d" || r.Run.ID != "a" || len(r.Runs) != 2 ||
		len(r.Findings) != 2 || r.Findings[0].ID != "drift-1" || r.Rev(StateKey(repo)) != rev {
		t.Errorf("got %+v", r)
	}
	r.State.Phase = plan.OutOfSync
	p, err := PutState(*r.State)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, m, r.Keep(p).If(r.Rev(p.Key)))
	if _, err := m.Commit(t.Context(), Fence{}, r.Keep(p).If(r.Rev(p.Key))); !errors.Is(err, ErrConflict) {
		t.Errorf("a second write of the same reading: %v", err)
	}
	kvs, _ := m.Get(t.Context(), p.Key)
	if !strings.Contains(string(kvs[0].Value), `"mood":"new"`) || !strings.Contains(string(kvs[0].Value), `"OutOfSync"`) {
		t.Errorf("stored %s", kvs[0].Value)
	}
}

func TestLoadTables(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	var puts []Put
	for _, v := range samples() {
		p, err := putOf(v)
		if err != nil {
			t.Fatal(err)
		}
		puts = append(puts, p)
	}
	stranger, _ := PutState(SyncState{Ref: desired.Ref{Tenant: "other", Kind: desired.KindRepository, Name: "x"}})
	rev := commit(t, m, append(puts, stranger)...)
	states, r1, e1 := LoadStates(t.Context(), m, "acme")
	applied, r2, e2 := LoadApplied(t.Context(), m, "acme")
	findings, r3, e3 := LoadFindings(t.Context(), m, "acme")
	runs, r4, e4 := LoadRuns(t.Context(), m, "acme")
	if err := errors.Join(e1, e2, e3, e4); err != nil || r1 != rev || r2 != rev || r3 != rev || r4 != rev {
		t.Fatalf("revisions %d %d %d %d, want %d; %v", r1, r2, r3, r4, rev, err)
	}
	got := []any{states["repo-aaaaaaaaaaaaaaaa"], findings["drift-bbbbbbbbbbbbbbbb"], runs["01JGMR"], applied[repo.ID()]}
	if diff := cmp.Diff(samples()[:4], got); diff != "" || len(states) != 1 {
		t.Error(len(states), diff)
	}
	v, at, ok, err := Read[Verdict](t.Context(), m, VerdictKey("acme"))
	if !ok || err != nil || at != rev || !reflect.DeepEqual(v, samples()[4]) {
		t.Errorf("verdict %+v at %d, %v, %v", v, at, ok, err)
	}
	if _, at, ok, err := Read[Horizon](t.Context(), m, HorizonKey("nobody")); ok || err != nil || at != 0 {
		t.Errorf("no horizon: at %d, %v, %v", at, ok, err)
	}
	commit(t, m, put(StateKey(repo), "{"))
	if _, _, err := LoadStates(t.Context(), m, "acme"); desired.ClassOf(err) != desired.Internal {
		t.Errorf("a damaged record: %v", err)
	}
}

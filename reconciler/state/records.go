// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
)

// Version is the format that is written. Readers take it and the one before; version 0 had no "v".
const Version = 1

// Record is what the tables hold.
type Record interface {
	SyncState | Horizon | Verdict | plan.Finding | plan.Run | plan.Applied
}

// StateKey is where the sync state of a ref lies.
func StateKey(ref desired.Ref) Key { return Key{tenantOf(ref.Tenant), States, ref.ID()} }

// AppliedKey is where the applied record of a ref lies.
func AppliedKey(ref desired.Ref) Key { return Key{tenantOf(ref.Tenant), Applieds, ref.ID()} }

// FindingKey is where a finding of a ref lies.
func FindingKey(ref desired.Ref, id string) Key {
	return Key{tenantOf(ref.Tenant), Findings, ref.ID() + "." + id}
}

// RunKey is where a run of a ref lies.
func RunKey(ref desired.Ref, id string) Key {
	return Key{tenantOf(ref.Tenant), Runs, ref.ID() + "." + id}
}

// FindingsOf addresses all findings of a ref in a Get.
func FindingsOf(ref desired.Ref) Key { return FindingKey(ref, "") }

// RunsOf addresses all runs of a ref in a Get.
func RunsOf(ref desired.Ref) Key { return RunKey(ref, "") }

// VerdictKey is where the judgement of a tenant's pending deletions lies.
func VerdictKey(tenant string) Key { return Key{tenantOf(tenant), Verdicts, "root"} }

// HorizonKey is where the horizon of a tenant lies.
func HorizonKey(tenant string) Key { return Key{tenantOf(tenant), Horizons, "head"} }

// PutState writes a sync state; its id is derived when it is empty.
func PutState(s SyncState) (Put, error) {
	s.V, s.ID = Version, cmp.Or(s.ID, s.Ref.ID())
	return encode(StateKey(s.Ref), s)
}

// PutFinding writes a finding, open or closed.
func PutFinding(f plan.Finding) (Put, error) {
	f.V, f.ResourceID = Version, cmp.Or(f.ResourceID, f.Ref.ID())
	return encode(FindingKey(f.Ref, f.ID), f)
}

// PutRun writes a run.
func PutRun(r plan.Run) (Put, error) {
	r.V = Version
	return encode(RunKey(r.Ref, r.ID), r)
}

// PutApplied writes an applied record.
func PutApplied(a plan.Applied) (Put, error) {
	a.V = Version
	return encode(AppliedKey(a.Ref), a)
}

// PutHorizon writes the horizon of h.Tenant.
func PutHorizon(h Horizon) (Put, error) {
	h.V = Version
	return encode(HorizonKey(h.Tenant), h)
}

// PutVerdict writes the judgement of a tenant's pending deletions.
func PutVerdict(tenant string, v Verdict) (Put, error) {
	v.V = Version
	return encode(VerdictKey(tenant), v)
}

// Delete removes a record.
func Delete(k Key) Put { return Put{Key: k} }

// If makes a write conditional on the record's revision (0 = must not exist).
func (p Put) If(rev int64) Put {
	p.IfRev = &rev
	return p
}

func encode(k Key, v any) (Put, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return Put{}, desired.Errorf("encode record", desired.Ref{}, desired.Internal, "record %q: %w", k, err)
	}
	return Put{Key: k, Value: b}, nil
}

// Decode reads a record. One that a newer version of the program wrote is an error of class Stalled, never a guess.
func Decode[T Record](kv KV) (T, error) {
	var v T
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return v, desired.Errorf("decode record", desired.Ref{}, desired.Internal, "record %q does not parse: %w", kv.Key, err)
	}
	if n := version(&v); n > Version {
		return v, desired.Errorf("decode record", desired.Ref{}, desired.Stalled,
			"record %q has format %d and this program reads up to %d; upgrade every replica before the format moves", kv.Key, n, Version)
	}
	return v, nil
}

func version(v any) int {
	switch v := v.(type) {
	case *SyncState:
		return v.V
	case *Horizon:
		return v.V
	case *Verdict:
		return v.V
	case *plan.Finding:
		return v.V
	case *plan.Run:
		return v.V
	case *plan.Applied:
		return v.V
	}
	return 0
}

// Read reads one record; ok is false when there is none. rev is for Put.If.
func Read[T Record](ctx context.Context, s Store, k Key) (v T, rev int64, ok bool, err error) {
	kvs, err := s.Get(ctx, k)
	if err != nil || len(kvs) == 0 {
		return v, 0, false, err
	}
	v, err = Decode[T](kvs[0])
	return v, kvs[0].Rev, err == nil, err
}

// LoadStates reads all sync states of a tenant, by resource id, and the revision they were read at.
func LoadStates(ctx context.Context, s Store, tenant string) (map[string]SyncState, int64, error) {
	return load(ctx, s, tenant, States, func(v *SyncState) string { return v.ID })
}

// LoadApplied reads all applied records of a tenant, by resource id.
func LoadApplied(ctx context.Context, s Store, tenant string) (map[string]plan.Applied, int64, error) {
	return load(ctx, s, tenant, Applieds, func(v *plan.Applied) string { return v.Ref.ID() })
}

// LoadFindings reads all findings of a tenant, by finding id.
func LoadFindings(ctx context.Context, s Store, tenant string) (map[string]plan.Finding, int64, error) {
	return load(ctx, s, tenant, Findings, func(v *plan.Finding) string { return v.ID })
}

// LoadRuns reads all runs of a tenant, by run id.
func LoadRuns(ctx context.Context, s Store, tenant string) (map[string]plan.Run, int64, error) {
	return load(ctx, s, tenant, Runs, func(v *plan.Run) string { return v.ID })
}

func load[T Record](ctx context.Context, s Store, tenant string, t Table, id func(*T) string) (map[string]T, int64, error) {
	kvs, rev, err := s.List(ctx, tenantOf(tenant), t)
	if err != nil {
		return nil, 0, err
	}
	out := make(map[string]T, len(kvs))
	for _, kv := range kvs {
		v, err := Decode[T](kv)
		if err != nil {
			return nil, 0, err
		}
		out[id(&v)] = v
	}
	return out, rev, nil
}

// Records is everything stored about one ref, read at one moment. What was not there is nil.
type Records struct {
	State    *SyncState
	Applied  *plan.Applied
	Run      *plan.Run      // the last one begun
	Runs     []plan.Run     // all, oldest first
	Findings []plan.Finding // open and closed ones, by id
	stored   map[Key]KV
}

// Load reads everything stored about a ref in one request.
func Load(ctx context.Context, s Store, ref desired.Ref) (*Records, error) {
	kvs, err := s.Get(ctx, StateKey(ref), AppliedKey(ref), RunsOf(ref), FindingsOf(ref))
	if err != nil {
		return nil, err
	}
	r := &Records{stored: make(map[Key]KV, len(kvs))}
	for _, kv := range kvs {
		r.stored[kv.Key] = kv
		if err := r.add(kv); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(r.Runs, func(a, b plan.Run) int { return a.Started.Compare(b.Started) })
	if n := len(r.Runs); n > 0 {
		r.Run = &r.Runs[n-1]
	}
	return r, nil
}

func (r *Records) add(kv KV) (err error) {
	switch kv.Key.Table {
	case States:
		var v SyncState
		v, err = Decode[SyncState](kv)
		r.State = &v
	case Applieds:
		var v plan.Applied
		v, err = Decode[plan.Applied](kv)
		r.Applied = &v
	case Runs:
		var v plan.Run
		v, err = Decode[plan.Run](kv)
		r.Runs = append(r.Runs, v)
	case Findings:
		var v plan.Finding
		v, err = Decode[plan.Finding](kv)
		r.Findings = append(r.Findings, v)
	}
	return err
}

// Rev is the revision of a record as read, 0 when it was not there: for Put.If.
func (r *Records) Rev(k Key) int64 { return r.stored[k].Rev }

// Keep returns p with those fields of the stored record that this version of the program does not know. Every write
// of a record that was read goes through it, so that an older replica does not erase what a newer one wrote.
func (r *Records) Keep(p Put) Put {
	if old, ok := r.stored[p.Key]; ok {
		return KeepUnknown(old.Value, p)
	}
	return p
}

// KeepUnknown carries fields of the old value that the record's type does not know over into p, at every depth of
// nested structs.
func KeepUnknown(old []byte, p Put) Put {
	if p.Value == nil || recordType(p.Key.Table) == nil {
		return p
	}
	if b, changed := keep(recordType(p.Key.Table), old, p.Value); changed {
		p.Value = b
	}
	return p
}

func recordType(t Table) reflect.Type {
	switch t {
	case States:
		return reflect.TypeFor[SyncState]()
	case Findings:
		return reflect.TypeFor[plan.Finding]()
	case Runs:
		return reflect.TypeFor[plan.Run]()
	case Applieds:
		return reflect.TypeFor[plan.Applied]()
	case Verdicts:
		return reflect.TypeFor[Verdict]()
	case Horizons:
		return reflect.TypeFor[Horizon]()
	}
	return nil
}

// keep merges the unknown members of the object old into the object fresh. Field names match as encoding/json
// matches them, without case.
func keep(t reflect.Type, old, fresh []byte) ([]byte, bool) {
	var was, now map[string]json.RawMessage
	if json.Unmarshal(old, &was) != nil || json.Unmarshal(fresh, &now) != nil || now == nil {
		return nil, false
	}
	known := make(map[string]reflect.Type, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		known[strings.ToLower(cmp.Or(name, t.Field(i).Name))] = t.Field(i).Type
	}
	changed := false
	for name, raw := range was {
		ft, ok := known[strings.ToLower(name)]
		switch {
		case !ok:
			now[name], changed = raw, true
		case ft.Kind() == reflect.Struct && now[name] != nil && bytes.HasPrefix(raw, []byte("{")):
			if b, deeper := keep(ft, raw, now[name]); deeper {
				now[name], changed = b, true
			}
		}
	}
	if !changed {
		return nil, false
	}
	b, err := json.Marshal(now) // raw messages that were just parsed
	return b, err == nil
}

// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"strings"
	"testing"

	"github.com/connectsoft/plumbline/desired"
)

func TestEveryRowIsWhole(t *testing.T) {
	ids, faces := map[string]bool{}, map[string]string{}
	for _, op := range Operations() {
		if ids[op.ID] || op.ID == "" {
			t.Errorf("%q: listed twice or without id", op.ID)
		}
		ids[op.ID] = true
		if (op.Method == "") != (op.Path == "") || op.Path == "" && op.RPC == "" && op.Door == NoDoor {
			t.Errorf("%s: has no face", op.ID)
		}
		for _, face := range []string{op.Method + " " + op.Path, op.RPC, string(op.Door)} {
			if face == " " || face == "" {
				continue
			}
			if op.Door != NoDoor && op.Write {
				face += " push"
			}
			if other := faces[face]; other != "" {
				t.Errorf("%s and %s share %s", op.ID, other, face)
			}
			faces[face] = op.ID
		}
		if op.Public != (op.Scope == "" && !op.Derived) || op.Public != (op.Tenant == NoTenant) {
			t.Errorf("%s: public %v, scope %q, derived %v, tenant %q", op.ID, op.Public, op.Scope, op.Derived, op.Tenant)
		}
		if op.Commits && (op.Public || op.Method == "GET") {
			t.Errorf("%s: commits", op.ID)
		}
		if platformScope(op.Scope) != (op.Tenant == PlatformClaim) {
			t.Errorf("%s: scope %q with tenant source %q", op.ID, op.Scope, op.Tenant)
		}
	}
}

func TestEveryKindCanBeListedAndRead(t *testing.T) {
	reads := map[string]string{}
	for _, op := range Operations() {
		if op.Method == "GET" {
			reads[op.Path] = op.Scope
		}
	}
	for _, k := range desired.Kinds() {
		item := ""
		for path := range reads {
			if rest, ok := strings.CutPrefix(path, "/"+k.Plural+"/{"); ok && strings.HasSuffix(rest, "}") {
				item = path
			}
		}
		for _, path := range []string{"/" + k.Plural, item} {
			if got, want := reads[path], k.Scope+".read"; got != want {
				t.Errorf("%s: scope of GET %s is %q, want %q", k.Kind, path, got, want)
			}
		}
	}
}

// TestAllow compares every row with a second, independent judgement over scopes, tenants and callers.
func TestAllow(t *testing.T) {
	a, err := New(Config{Issuers: []Issuer{{URL: "https://id.example", Audience: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, op := range Operations() {
		if op.Scope != "" {
			all = append(all, op.Scope)
		}
	}
	sets := [][]string{nil, all, {"", " "}, {"devops"}, {"devops.*"}, {"DEVOPS.REPOSITORIES.WRITE"}}
	for i, s := range all {
		sets = append(sets, []string{s}, append(append([]string{}, all[:i]...), all[i+1:]...))
	}
	cells := 0
	for _, op := range a.Operations() {
		for _, set := range sets {
			for _, tenant := range []string{"", "acme"} {
				for _, platform := range []bool{false, true} {
					if tenant == "" && platform {
						continue
					}
					p := &Principal{Subject: "user:a", Tenant: tenant, Scopes: set, Platform: platform}
					held := false
					for _, s := range set {
						held = held || s == op.Scope && s != ""
					}
					want := tenant != "" && (held || op.ID == "deleteResource")
					if strings.Contains(string(op.Tenant)+op.Scope, "platform") {
						want = want && platform
					}
					if op.Public {
						want = true
					}
					if err := a.Allow(p, &op); (err == nil) != want {
						t.Fatalf("%s by %+v: got %v, want allowed=%v", op.ID, *p, err, want)
					}
					cells++
				}
			}
		}
		if err := a.Allow(nil, &op); (err == nil) != op.Public {
			t.Errorf("%s without a caller: %v", op.ID, err)
		}
	}
	if a.Allow(&Principal{Tenant: "acme", Scopes: all}, nil) == nil {
		t.Error("an operation without a row is allowed")
	}
	t.Logf("%d cells", cells)
}

func TestUnknownFacesHaveNoRow(t *testing.T) {
	a, err := New(Config{Issuers: []Issuer{{URL: "https://id.example", Audience: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"", "plumbline.v1.GitOpsSync/WatchSyncState", "/plumbline.v1.GitOpsSync/", "//plumbline.v1.GitOpsSync/WatchSyncState", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
		if op := a.RPC(m); op != nil {
			t.Errorf("%q leads to %s", m, op.ID)
		}
	}
	if a.DoorOperation("attic", false) != nil || a.DoorOperation(NoDoor, true) != nil {
		t.Error("an unknown door has a row")
	}
}

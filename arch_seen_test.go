// SPDX-License-Identifier: Apache-2.0

package plumbline

import (
	"strings"
	"testing"
)

// TestRulesAreSeenToFail shows each rule a small house that breaks it and one that does not: a rule that cannot fail
// guards nothing.
func TestRulesAreSeenToFail(t *testing.T) {
	const spdx = "// SPDX-License-Identifier: Apache-2.0\n\n"
	rows := []struct {
		rule  string
		story string
		path  string
		text  string
		want  string // part of the one fault; "" = none
	}{
		{"imports form a straight line", "upwards", "desired/x.go", `package desired; import _ "github.com/connectsoft/plumbline/reconciler"`, "desired must not import reconciler"},
		{"imports form a straight line", "siblings", "adapters/githost/x.go", `package githost; import _ "github.com/connectsoft/plumbline/adapters/feed"`, "adapters/githost must not import adapters/feed"},
		{"imports form a straight line", "a driver knows the loop", "adapters/target/x.go", `package target; import _ "github.com/connectsoft/plumbline/reconciler/state"`, "adapters/target must not import reconciler/state"},
		{"imports form a straight line", "a package that nobody placed", "forge/x.go", `package forge; import _ "github.com/connectsoft/plumbline/desired"`, "forge has no row"},
		{"imports form a straight line", "down the line", "api/x.go", `package api; import _ "github.com/connectsoft/plumbline/desired/gitrepo"`, ""},
		{"imports form a straight line", "a test may", "desired/x_test.go", `package desired; import _ "github.com/connectsoft/plumbline/api"`, ""},
		{"imports form a straight line", "failpoints in the store", "desired/gitstore/x.go", `package gitstore; import _ "github.com/connectsoft/plumbline/internal/fp"`, ""},
		{"imports form a straight line", "failpoints in the pure core", "reconciler/plan/x.go", `package plan; import _ "github.com/connectsoft/plumbline/internal/fp"`, "reconciler/plan must not import internal/fp"},

		{"libraries stay in their rooms", "etcd at the face", "api/x.go", `package api; import _ "go.etcd.io/etcd/client/v3"`, "is not for api, only for reconciler/state"},
		{"libraries stay in their rooms", "the queue is the loop's, the rest of client-go is not", "reconciler/x.go", `package reconciler; import _ "k8s.io/client-go/rest"`, "is not for reconciler"},
		{"libraries stay in their rooms", "the queue", "reconciler/x.go", `package reconciler; import _ "k8s.io/client-go/util/workqueue"`, ""},
		{"libraries stay in their rooms", "a newcomer", "api/x.go", `package api; import _ "example.org/left-pad"`, "has no row in libraries()"},
		{"libraries stay in their rooms", "a test library that ships", "api/x.go", `package api; import _ "github.com/google/go-cmp/cmp"`, "is not for api, only for tests"},
		{"libraries stay in their rooms", "a requirement without a row", "go.mod", "module x\n\nrequire (\n\texample.org/left-pad v1.0.0\n)\n", "go.mod:4: example.org/left-pad"},
		{"libraries stay in their rooms", "an indirect requirement", "go.mod", "module x\n\nrequire (\n\texample.org/left-pad v1.0.0 // indirect\n)\n", ""},

		{"desired and plan are pure", "a lock", "desired/x.go", `package desired; import _ "sync"`, "must not import sync"},
		{"desired and plan are pure", "an atomic", "desired/x.go", `package desired; import _ "sync/atomic"`, "must not import sync/atomic"},
		{"desired and plan are pure", "the clock under another name", "reconciler/plan/x.go", `package plan; import clock "time"; func f() any { return clock.Now() }`, "must not call time.Now"},
		{"desired and plan are pure", "time as a value", "reconciler/plan/x.go", `package plan; import "time"; func f(now time.Time) any { return now.Add(time.Second) }`, ""},
		{"desired and plan are pure", "the packages below may", "desired/gitstore/x.go", `package gitstore; import _ "os"`, ""},

		{"no init functions", "init", "api/x.go", `package api; func init() {}`, "func init"},
		{"no init functions", "a method of that name", "api/x.go", `package api; type t int; func (t) init() {}`, ""},
		{"no init functions", "generated", "api/pb/x.pb.go", `package pb; func init() {}`, ""},

		{"no mutable package variables", "a counter", "api/x.go", `package api; var n int; func f() { n++ }`, "variable n is written to at api/x.go:1"},
		{"no mutable package variables", "an element", "api/x.go", `package api; var m = map[string]int{}; func f() { m["a"] = 1 }`, "variable m is written to"},
		{"no mutable package variables", "its address", "api/x.go", `package api; var n = 1; func f() *int { return &n }`, "variable n is written to"},
		{"no mutable package variables", "its address, in a test that looks", "api/x_test.go", `package api; var n = 1; func f() *int { return &n }`, ""},
		{"no mutable package variables", "a deleted key", "api/x.go", `package api; var m = map[string]int{}; func f() { delete(m, "a") }`, "variable m is written to"},
		{"no mutable package variables", "a lock", "api/x.go", `package api; import "sync"; var mu sync.Mutex`, "is shared state (sync.Mutex)"},
		{"no mutable package variables", "a channel", "api/x.go", `package api; var c chan int`, "is a channel"},
		{"no mutable package variables", "a metric", "api/x.go", `package api; import "github.com/prometheus/client_golang/prometheus"; var c = prometheus.NewCounter(prometheus.CounterOpts{})`, "is set by calling prometheus.NewCounter"},
		{"no mutable package variables", "a made map", "api/x.go", `package api; var m = make(map[string]int)`, "is set by calling make"},
		{"no mutable package variables", "a map that waits to be filled", "api/x.go", `package api; var m map[string]int`, "has no value"},
		{"no mutable package variables", "sentinels and tables", "api/x.go", `package api; import "errors"; var ErrGone = errors.New("gone"); var words = map[string][]string{"a": {"b"}}; var _ error = ErrGone`, ""},
		{"no mutable package variables", "an embedded file", "api/x.go", "package api\n\nimport _ \"embed\"\n\n//go:embed x.yaml\nvar contract []byte\n", ""},
		{"no mutable package variables", "a table computed on the spot", "desired/x.go", `package desired; var t = func() map[string]int { return nil }()`, ""},
		{"no mutable package variables", "a local of the same name", "api/x.go", `package api; var n = 1; func f() { n := 2; n++; _ = n }`, ""},

		{"no context from nowhere", "in a package", "api/x.go", `package api; import "context"; var f = func() any { return context.Background() }`, "context.Background outside main"},
		{"no context from nowhere", "to do", "cmd/plumbline/serve.go", `package main; import "context"; func f() any { return context.TODO() }`, "context.TODO outside main"},
		{"no context from nowhere", "in main", "cmd/plumbline/main.go", `package main; import "context"; func main() { _ = context.Background() }`, ""},

		{"no context in a struct", "kept", "api/x.go", `package api; import "context"; type s struct { ctx context.Context }`, "a struct holds a context.Context"},
		{"no context in a struct", "a message", "api/x.go", "package api\n\nimport \"context\"\n\ntype s struct {\n\tctx context.Context // of the caller\n}\n", ""},

		{"no context in a struct", "a stream's own", "api/x.go", `package api; import ("context"; "google.golang.org/grpc"); type s struct { grpc.ServerStream; ctx context.Context }`, ""},

		{"testing stays in tests", "shipped", "api/x.go", `package api; import _ "testing"`, "api imports testing"},
		{"testing stays in tests", "the drivers' suite", "adapters/adaptertest/x.go", `package adaptertest; import _ "testing"`, ""},

		{"SPDX header", "none in Go", "api/x.go", "package api\n", "api/x.go:1: no SPDX"},
		{"SPDX header", "none in a script", ".ci/run", "#!/bin/sh\n", ".ci/run:1: no SPDX"},
		{"SPDX header", "there", "api/x.go", spdx + "package api\n", ""},

		{"package comments", "none", "api/x.go", spdx + "package api\n", "package api has no package comment"},
		{"package comments", "says something else", "api/x.go", "// Handlers.\npackage api\n", "package api has no package comment"},
		{"package comments", "there", "api/x.go", "// Package api is the face.\npackage api\n", ""},
		{"package comments", "a command", "cmd/plumbline/x.go", "// Command plumbline runs.\npackage main\n", ""},

		{"every package is on the map", "a package without a line", "api/x.go", "package api\n", "package api has no line"},
		{"every package is on the map", "a line without a package", "doc.go", "// Package plumbline is a map:\n//\n//\tapi/gone  was here\npackage plumbline\n", "api/gone stands for no package"},

		{"packages have names that say something", "util", "api/util/x.go", "package util\n", `is named "util"`},
		{"packages have names that say something", "a word that contains one", "api/auth/x.go", "package auth\n", ""},

		{"documents name files that exist", "a file that is gone", "docs/ARCHITECTURE.md", "see `api/gone.go`\n", "docs/ARCHITECTURE.md:1: there is no api/gone.go"},
		{"documents name files that exist", "the map", "doc.go", "// Package plumbline names api/gone.go.\npackage plumbline\n", "doc.go:1: there is no api/gone.go"},

		{"guarantees name tests that exist", "a test that is gone", "docs/GUARANTEES.md", "| `TestKept` | `api` |\n", "docs/GUARANTEES.md:1: api has no TestKept"},
		{"guarantees name tests that exist", "a session that is gone", "docs/GUARANTEES.md", "| Session `story` | `cmd/plumbline` |\n", "docs/GUARANTEES.md:1: there is no session story"},
		{"guarantees name tests that exist", "prose may name what it likes", "docs/GUARANTEES.md", "`TestNothing` is not in a table.\n", ""},

		{"functions fit a head", "121 lines", "api/x.go", "package api\n\nfunc f() {" + strings.Repeat("\n", 120) + "}\n", "func f has 121 lines"},
		{"functions fit a head", "with a reason", "api/x.go", "package api\n\n// f is one table. Long because it is one.\nfunc f() {" + strings.Repeat("\n", 120) + "}\n", ""},
		{"functions fit a head", "120 lines", "api/x.go", "package api\n\nfunc f() {" + strings.Repeat("\n", 119) + "}\n", ""},
	}
	failed := map[string]bool{}
	for _, row := range rows {
		t.Run(row.rule+"/"+row.story, func(t *testing.T) {
			texts := map[string]string{row.path: row.text}
			if row.rule == "every package is on the map" && row.path != "doc.go" {
				texts["doc.go"] = "package plumbline\n"
			}
			tr, err := parseTree(texts)
			if err != nil {
				t.Fatal(err)
			}
			got := findRule(t, row.rule).check(tr)
			switch {
			case row.want == "" && len(got) > 0:
				t.Errorf("got %q, want no fault", got)
			case row.want != "" && (len(got) != 1 || !strings.Contains(got[0], row.want)):
				t.Errorf("got %q, want one fault with %q", got, row.want)
			case row.want != "":
				failed[row.rule] = true
			}
		})
	}
	for _, r := range rules() {
		if !failed[r.name] {
			t.Errorf("rule %q was never seen to fail: add a row that breaks it", r.name)
		}
	}
}

func findRule(t *testing.T, name string) rule {
	t.Helper()
	for _, r := range rules() {
		if r.name == name {
			return r
		}
	}
	t.Fatalf("no rule is called %q", name)
	return rule{}
}

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/connectsoft/plumbline/desired"
)

func classes() []desired.Class {
	return []desired.Class{
		desired.Invalid, desired.NotFound, desired.Conflict, desired.Denied, desired.Throttled,
		desired.Transient, desired.Waiting, desired.Stalled, desired.Internal,
	}
}

func TestErrorTableIsTotalBothWays(t *testing.T) {
	rows := ErrorTable()
	if len(rows) != len(classes()) {
		t.Fatalf("table has %d rows for %d classes", len(rows), len(classes()))
	}
	seen := map[any]desired.Class{}
	for _, c := range classes() {
		r := row(c)
		if r.Class != c {
			t.Errorf("class %s has no row", c)
		}
		if got := ClassOfStatus(r.Status); got != c {
			t.Errorf("status %d leads to %q, want %q", r.Status, got, c)
		}
		if got := ClassOfRPC(r.RPC); got != c {
			t.Errorf("gRPC %s leads to %q, want %q", r.RPC, got, c)
		}
		for _, k := range []any{r.Status, r.RPC} {
			if other, dup := seen[k]; dup {
				t.Errorf("%v stands for %q and %q", k, other, c)
			}
			seen[k] = c
		}
		if r.Title == "" || ExitCode(c) == 0 {
			t.Errorf("class %s: title %q, exit code %d", c, r.Title, ExitCode(c))
		}
	}
	if ExitCode("") != 0 {
		t.Error("no error must exit 0")
	}
}

func TestEveryStatusAndRPCCodeHasAClass(t *testing.T) {
	known := map[desired.Class]bool{}
	for _, c := range classes() {
		known[c] = true
	}
	for s := 400; s < 600; s++ {
		if c := ClassOfStatus(s); !known[c] {
			t.Errorf("status %d has class %q", s, c)
		}
	}
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		if got := ClassOfRPC(c); !known[got] {
			t.Errorf("gRPC %s has class %q", c, got)
		}
	}
	if ClassOfStatus(http.StatusCreated) != "" || ClassOfRPC(codes.OK) != "" {
		t.Error("success has a class")
	}
}

func TestCodesRefineTheirClass(t *testing.T) {
	for _, c := range codeTable() {
		f := faultf(c.code, "test", "why")
		v := judge(fmt.Errorf("wrapped: %w", f))
		if v.code != c.code || v.status != c.status || v.rpc != c.rpc || v.err.Class != c.class {
			t.Errorf("%s judged as %+v", c.code, v)
		}
		if got := ClassOfStatus(c.status); got != c.class {
			t.Errorf("%s: status %d leads to %q, want %q", c.code, c.status, got, c.class)
		}
	}
}

func TestForeignErrorsAreInternal(t *testing.T) {
	v := judge(errors.New("disk /secret/place is full"))
	if v.status != http.StatusInternalServerError || v.code != Code(desired.Internal) {
		t.Errorf("got %d %s, want 500 internal", v.status, v.code)
	}
}

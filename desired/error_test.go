// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestErrorText(t *testing.T) {
	ref := Ref{"acme", "p", KindBranch, "x"}
	cause := errors.New("no such host")
	for _, row := range []struct {
		err          *Error
		want, detail string
	}{
		{E("create branch", ref, Transient, cause), "create branch acme/p/Branch/x: no such host", "no such host"},
		{E("open store", Ref{}, Internal, nil), "open store: internal", "internal"},
		{Errorf("put", ref, Conflict, "it is %d", 3), "put acme/p/Branch/x: it is 3", "it is 3"},
		{&Error{Op: "decode file", Class: Invalid, Fields: []FieldError{{File: "a.yaml", Line: 3, Column: 4, Pointer: "/kind", Detail: "bad"}}}, "decode file: a.yaml:3:4: /kind: bad", "a.yaml:3:4: /kind: bad"},
	} {
		if got := row.err.Error(); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
		if got := row.err.Detail(); got != row.detail {
			t.Errorf("got %q, want %q", got, row.detail)
		}
	}
	for _, row := range []struct {
		f    FieldError
		want string
	}{
		{FieldError{Detail: "d"}, "d"},
		{FieldError{Pointer: "/a", Detail: "d"}, "/a: d"},
		{FieldError{Line: 2, Detail: "d"}, "line 2: d"},
		{FieldError{Line: 2, Column: 3, Pointer: "/a", Detail: "d"}, "line 2:3: /a: d"},
		{FieldError{File: "f", Detail: "d"}, "f: d"},
		{FieldError{File: "f", Line: 2, Detail: "d"}, "f:2: d"},
	} {
		if got := row.f.String(); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
	wrapped := fmt.Errorf("later: %w", E("a", Ref{}, Denied, E("b", Ref{}, Transient, cause)))
	if ClassOf(wrapped) != Denied || ClassOf(cause) != Internal || ClassOf(nil) != "" || !errors.Is(wrapped, cause) {
		t.Error("classes are wrong")
	}
}

func TestRefs(t *testing.T) {
	for _, ref := range []Ref{
		{"acme", "booking", KindRepository, "web"}, {"acme", "", KindProvider, "gitea"}, {"", "", KindTenant, "acme"},
	} {
		got, err := ParseRef(ref.String())
		if err != nil || got != ref {
			t.Errorf("%s: got %v, %v", ref, got, err)
		}
	}
	for _, s := range []string{"", "a/b/Repository", "a/b/Repository/", "//Repository/x", "a/b/repository/x", "a/b/Repository/x/y"} {
		if _, err := ParseRef(s); ClassOf(err) != Invalid {
			t.Errorf("%q: got %v", s, err)
		}
	}
	// Ids are stored by callers: they must never change.
	for ref, want := range map[Ref]string{
		{"acme", "booking", KindRepository, "web"}: "repo-",
		{"", "", KindTenant, "acme"}:               "tenant-",
	} {
		id := ref.ID()
		if !strings.HasPrefix(id, want) || len(id) != len(want)+16 || id != ref.ID() {
			t.Errorf("%s: got %s", ref, id)
		}
	}
	if got, want := (Ref{"acme", "booking", KindRepository, "web"}).ID(), "repo-sdxvs5gs56a6o2cs"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if (Ref{}).String() != "" || !(Ref{}).IsZero() {
		t.Error("the zero ref is not empty")
	}
	seen := map[string]bool{}
	for _, i := range Kinds() {
		for _, unique := range []string{"plural " + i.Plural, "prefix " + i.IDPrefix, "kind " + string(i.Kind)} {
			if seen[unique] {
				t.Errorf("%s is there twice", unique)
			}
			seen[unique] = true
		}
		if got, ok := KindByPlural(i.Plural); !ok || got.Kind != i.Kind || i.Kind.NewSpec() == nil {
			t.Errorf("%s is not found by its plural", i.Kind)
		}
	}
	if _, ok := KindByPlural("things"); ok || Kind("Thing").NewSpec() != nil {
		t.Error("an unknown kind was found")
	}
}

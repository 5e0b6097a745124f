// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
)

// Ref is the identity of a resource. Tenant is empty for resources of the platform repository, Project for
// resources that belong to no project (Tenant, Provider, Policy; DriftRule and Suspension may).
// A Ref is comparable and may key a map.
type Ref struct {
	Tenant  string `json:"tenant,omitempty"`
	Project string `json:"project,omitempty"`
	Kind    Kind   `json:"kind"`
	Name    string `json:"name"`
}

// IsZero reports whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// String renders tenant/project/Kind/name; an empty tenant or project is written "-".
func (r Ref) String() string {
	if r.IsZero() {
		return ""
	}
	return dash(r.Tenant) + "/" + dash(r.Project) + "/" + string(r.Kind) + "/" + r.Name
}

// Sibling is the ref of another resource of the same tenant and project.
func (r Ref) Sibling(kind Kind, name string) Ref {
	return Ref{Tenant: r.Tenant, Project: r.Project, Kind: kind, Name: name}
}

// ParseRef is the inverse of String.
func ParseRef(s string) (Ref, error) {
	p := strings.Split(s, "/")
	if len(p) != 4 || p[2] == "" || p[3] == "" || p[0] == "" || p[1] == "" {
		return Ref{}, Errorf("parse ref", Ref{}, Invalid, "a ref is tenant/project/Kind/name, with - for an empty tenant or project")
	}
	r := Ref{Tenant: undash(p[0]), Project: undash(p[1]), Kind: Kind(p[2]), Name: p[3]}
	if _, ok := r.Kind.Info(); !ok {
		return Ref{}, Errorf("parse ref", Ref{}, Invalid, "unknown kind in ref")
	}
	return r, nil
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ID is what the API shows for r: the kind's prefix, "-", and 16 base32 characters of SHA-256(ref).
// It is derived, never allotted: the same ref has the same id on every replica and after every restart.
func (r Ref) ID() string {
	info, _ := r.Kind.Info()
	return DeriveID(info.IDPrefix, r.String())
}

// DeriveID is prefix + "-" + 16 base32 characters of SHA-256 over the parts, each ended by a NUL between them.
// Findings use it as DeriveID("drift", ref, kind, subject, field path).
func DeriveID(prefix string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return prefix + "-" + idEncoding.EncodeToString(sum[:10])
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func undash(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

var _ fmt.Stringer = Ref{}

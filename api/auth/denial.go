// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"errors"

	"github.com/connectsoft/plumbline/desired"
)

// Reason says why a caller was turned away.
type Reason string

// The reasons. The first two mean that the caller is not known (401), the others that the caller may not (403).
const (
	NoToken     Reason = "no-token"
	BadToken    Reason = "invalid-token"
	NoScope     Reason = "insufficient-scope"
	WrongTenant Reason = "wrong-tenant"
	NoOperation Reason = "no-operation"
)

// Denial is the cause in every refusal of this package; it is wrapped in a *desired.Error of class Denied. Its
// text never holds anything of the token.
type Denial struct {
	Reason Reason
	Scope  string // the scope that is missing
	Detail string
}

func (d *Denial) Error() string { return d.Detail }

func deny(reason Reason, scope, detail string) error {
	return desired.E("authorize request", desired.Ref{}, desired.Denied, &Denial{Reason: reason, Scope: scope, Detail: detail})
}

// Unauthenticated reports whether err says that the caller is not known, as opposed to not allowed.
func Unauthenticated(err error) bool {
	var d *Denial
	return errors.As(err, &d) && (d.Reason == NoToken || d.Reason == BadToken)
}

// Challenge is the WWW-Authenticate header of a refusal, "" when err is none. The git doors ask for Basic, which
// git's own client knows how to answer.
func Challenge(err error, basic bool) string {
	var d *Denial
	if !errors.As(err, &d) {
		return ""
	}
	const bearer = `Bearer realm="plumbline"`
	switch {
	case basic && Unauthenticated(err):
		return `Basic realm="plumbline", charset="UTF-8"`
	case d.Reason == NoToken:
		return bearer
	case d.Reason == BadToken:
		return bearer + `, error="invalid_token", error_description="` + d.Detail + `"`
	case d.Reason == NoScope && d.Scope != "":
		return bearer + `, error="insufficient_scope", scope="` + d.Scope + `"`
	}
	return ""
}

// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"slices"
	"time"
)

// Principal is a verified caller.
type Principal struct {
	Subject  string // "user:<sub>" or "agent:<client_id>"
	Issuer   string
	ClientID string
	Tenant   string // the tenant claim; "" when the token has none
	Scopes   []string
	Platform bool      // Tenant is the configured platform tenant: platform.* scopes count
	Expires  time.Time // from then on the token is no longer accepted (leeway included)
}

// Has reports whether the scope was granted, exactly, and counts: platform.* scopes do so only with the platform
// tenant's claim.
func (p *Principal) Has(scope string) bool {
	if scope == "" || platformScope(scope) && !p.Platform {
		return false
	}
	return slices.Contains(p.Scopes, scope)
}

type principalKey struct{}

// With returns a context that carries p.
func With(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns the verified caller of a request, false when it was a public one.
func From(ctx context.Context) (*Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(*Principal)
	return p, ok && p != nil
}

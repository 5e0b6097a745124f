// SPDX-License-Identifier: Apache-2.0

package auth

import "time"

// Principal is a verified caller.
type Principal struct {
	Subject  string // "user:<sub>" or "agent:<client_id>"
	Issuer   string
	ClientID string
	Tenant   string // the tenant claim
	Scopes   []string
	Platform bool // Tenant is the configured platform tenant: platform.* scopes count
	Expires  time.Time
}

// Has reports whether the scope was granted, exactly.
func (p *Principal) Has(scope string) bool {
	for _, s := range p.Scopes {
		if s == scope {
			return true
		}
	}
	return false
}

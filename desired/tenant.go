// SPDX-License-Identifier: Apache-2.0

package desired

// TenantSpec declares a tenant. Tenant documents live in the platform repository only.
type TenantSpec struct {
	CommonSpec   `json:",inline"`
	DisplayName  string            `json:"displayName,omitempty"`
	Providers    []string          `json:"providers,omitempty"`    // platform providers the tenant may use; empty = all
	AllowedHosts []string          `json:"allowedHosts,omitempty"` // host names its own providers may reach
	Credentials  []string          `json:"credentials,omitempty"`  // credential names granted to the tenant's own providers
	Quotas       *TenantQuotas     `json:"quotas,omitempty"`
	Control      *ControlLocation  `json:"controlRepository,omitempty"`
	Stages       map[string]string `json:"stages,omitempty"` // project name -> stage ("prod" tightens defaults)
}

// TenantQuotas bound what one tenant may hold.
type TenantQuotas struct {
	Resources int `json:"resources,omitempty"` // documents; 0 = the server's default (100000)
}

// ControlLocation says where the tenant's control repository lives.
type ControlLocation struct {
	URL      string `json:"url,omitempty"`      // empty = embedded
	Provider string `json:"provider,omitempty"` // the Provider whose credential reaches it
	Branch   string `json:"branch,omitempty"`   // default "main"
}

// Validate implements Spec.
func (s *TenantSpec) Validate(ref Ref) []FieldError { return nil }

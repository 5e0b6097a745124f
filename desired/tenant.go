// SPDX-License-Identifier: Apache-2.0

package desired

// TenantSpec declares a tenant. Tenant documents live in the platform repository only.
type TenantSpec struct {
	CommonSpec `json:",inline"`
	// DisplayName is what people read.
	DisplayName string `json:"displayName,omitempty" check:"line"`
	// Providers are the platform's providers that the tenant may use; none listed means all.
	Providers []string `json:"providers,omitempty" check:"word"`
	// AllowedHosts are the host names that the tenant's own providers may reach.
	AllowedHosts []string `json:"allowedHosts,omitempty" check:"host"`
	// Credentials are the names of credentials granted to the tenant's own providers.
	Credentials []string `json:"credentials,omitempty" check:"name"`
	// Quotas bound what the tenant may hold.
	Quotas *TenantQuotas `json:"quotas,omitempty"`
	// Control says where the tenant's control repository lives; left out, Plumbline hosts it.
	Control *ControlLocation `json:"controlRepository,omitempty"`
	// Stages gives the stage of each project; "prod" tightens defaults.
	Stages map[string]string `json:"stages,omitempty" check:"tenant"`
}

// TenantQuotas bound what one tenant may hold.
type TenantQuotas struct {
	// Resources is the number of documents; 0 means the server's default (100000).
	Resources int `json:"resources,omitempty" check:",max=10000000"`
}

// ControlLocation says where the tenant's control repository lives.
type ControlLocation struct {
	// URL of the repository; left out, Plumbline hosts it.
	URL string `json:"url,omitempty" check:"url"`
	// Provider whose credential reaches it.
	Provider string `json:"provider,omitempty" check:"word"`
	// Branch that holds the truth; default main.
	Branch string `json:"branch,omitempty" check:"branch"`
}

// Validate implements Spec.
func (s *TenantSpec) Validate(ref Ref) []FieldError {
	l := checkForms(s)
	for _, project := range sortedKeys(s.Stages) {
		if err := ValidTenant(project); err != nil {
			l.add("/spec/stages/"+pointerToken(shown(project)), "a project's name "+err.Error())
		}
	}
	if c := s.Control; c != nil && c.URL == "" && c.Provider != "" {
		l.add("/spec/controlRepository/url", "is required where provider is given: add it")
	}
	return l
}

// BranchOr is the branch of the control repository that holds the truth.
func (c *ControlLocation) BranchOr() string {
	if c == nil || c.Branch == "" {
		return defaultBranch
	}
	return c.Branch
}

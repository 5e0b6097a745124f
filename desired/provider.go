// SPDX-License-Identifier: Apache-2.0

package desired

// ProviderSpec declares a git host, CI system, cloud account, Pulumi backend or registry. Credentials are
// references only.
type ProviderSpec struct {
	CommonSpec   `json:",inline"`
	Type         string         `json:"type"`                   // "local", "gitea", "azuredevops", …: any type may bear any name
	URL          string         `json:"url,omitempty"`          // base URL
	Owner        string         `json:"owner,omitempty"`        // organisation or owner at the host
	Projects     string         `json:"projects,omitempty"`     // how our project maps to the host's, "{project}" by default
	Credential   *CredentialRef `json:"credential,omitempty"`   // none: anonymous
	AllowedHosts []string       `json:"allowedHosts,omitempty"` // hosts beyond that of URL
	Targets      []string       `json:"targets,omitempty"`      // compute targets served
}

// CredentialRef names a secret; exactly one field is set. File and Env are allowed in the platform repository only.
type CredentialRef struct {
	Name string `json:"name,omitempty"` // granted by the Tenant document
	File string `json:"file,omitempty"`
	Env  string `json:"env,omitempty"`
}

// Validate implements Spec.
func (s *ProviderSpec) Validate(ref Ref) []FieldError { return nil }

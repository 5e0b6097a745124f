// SPDX-License-Identifier: Apache-2.0

package desired

import "strings"

// ProviderSpec declares a git host, CI system, cloud account, Pulumi backend or registry. Credentials are
// references only.
type ProviderSpec struct {
	CommonSpec `json:",inline"`
	// Type of the outside system, as in local, gitea, azuredevops: any type may bear any name.
	Type string `json:"type" check:"word"`
	// URL is the base URL of the outside system.
	URL string `json:"url,omitempty" check:"url"`
	// Owner is the organisation or owner at the host.
	Owner string `json:"owner,omitempty" check:"line"`
	// Projects says how our project maps to the host's; default {project}.
	Projects string `json:"projects,omitempty" check:"line"`
	// Credential to use; left out, access is anonymous.
	Credential *CredentialRef `json:"credential,omitempty"`
	// AllowedHosts are hosts that may be reached beyond that of URL.
	AllowedHosts []string `json:"allowedHosts,omitempty" check:"host"`
	// Targets are the compute targets that the provider serves.
	Targets []string `json:"targets,omitempty" check:"name"`
}

// CredentialRef names a secret; exactly one field is set. File and Env are allowed in the platform repository only.
type CredentialRef struct {
	// Name of a credential that the Tenant document grants.
	Name string `json:"name,omitempty" check:"name"`
	// File that holds the credential, on the machine of the server; platform repository only.
	File string `json:"file,omitempty" check:"line,max=1024"`
	// Env is the environment variable that holds the credential; platform repository only.
	Env string `json:"env,omitempty" check:"env"`
}

// DefaultProjects is how projects map to those of a host when the Provider does not say.
const DefaultProjects = "{project}"

// Validate implements Spec.
func (s *ProviderSpec) Validate(ref Ref) []FieldError {
	l := checkForms(s)
	if rest := strings.ReplaceAll(s.Projects, DefaultProjects, ""); strings.ContainsAny(rest, "{}") {
		l.add("/spec/projects", "may contain the placeholder {project} and no other")
	}
	if c := s.Credential; c != nil {
		set := 0
		for _, v := range []string{c.Name, c.File, c.Env} {
			if v != "" {
				set++
			}
		}
		if set != 1 {
			l.add("/spec/credential", "must have exactly one of name, file, env")
		}
		const platformOnly = "is allowed in the platform repository only: use name, and have the platform grant that credential"
		if ref.Tenant != "" && c.File != "" {
			l.add("/spec/credential/file", platformOnly)
		}
		if ref.Tenant != "" && c.Env != "" {
			l.add("/spec/credential/env", platformOnly)
		}
	}
	return l
}

// HostProject is the name that our project has at the host.
func (s *ProviderSpec) HostProject(project string) string {
	template := s.Projects
	if template == "" {
		template = DefaultProjects
	}
	return strings.ReplaceAll(template, DefaultProjects, project)
}

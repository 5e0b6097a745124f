// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/adapters/feed"
	"github.com/connectsoft/plumbline/adapters/guard"
	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

// drivers is the one table of provider types, each driver behind its guards.
func (s *server) drivers() (map[string]adapters.Driver, error) {
	meter, err := guard.NewMeter(s.obs.registry)
	if err != nil {
		return nil, err
	}
	table := map[string]adapters.Driver{
		"local": s.host,
	}
	for providerType, d := range table {
		table[providerType] = guard.All(providerType, d, guard.Config{Meter: meter})
	}
	return table, nil
}

// credential opens what a Provider document refers to. Files and variables are for the platform's documents; a
// tenant's name a credential that its Tenant document grants, kept by the operator as a file of that name in
// $CREDENTIALS_DIRECTORY or in credentials/ of the state directory.
func (s *server) credential(_ context.Context, tenant string, provider desired.Ref, spec *desired.ProviderSpec) (adapters.Secret, error) {
	c := spec.Credential
	switch {
	case c == nil:
		return adapters.Secret{}, nil
	case c.Name != "":
		if provider.Tenant != "" && !s.granted(tenant, c.Name) {
			return adapters.Secret{}, noSuchCredential(provider, "credential %q is not granted to tenant %s: an operator lists it in the Tenant document", c.Name, tenant)
		}
		return s.namedCredential(provider, c.Name)
	case provider.Tenant != "":
		return adapters.Secret{}, noSuchCredential(provider, "files and variables may be named in the platform repository only: name a granted credential")
	case c.File != "":
		return readSecret(provider, c.File)
	}
	v, ok := os.LookupEnv(c.Env)
	if !ok {
		return adapters.Secret{}, noSuchCredential(provider, "variable %s is not set for the daemon", c.Env)
	}
	return adapters.NewSecret(v), nil
}

func (s *server) granted(tenant, name string) bool {
	e, ok := s.platform.Head().Snapshot.Get(desired.Ref{Kind: desired.KindTenant, Name: tenant})
	if !ok {
		return false
	}
	t, ok := e.Resource.Spec.(*desired.TenantSpec)
	return ok && slices.Contains(t.Credentials, name)
}

func (s *server) namedCredential(provider desired.Ref, name string) (adapters.Secret, error) {
	if err := desired.ValidName(name); err != nil {
		return adapters.Secret{}, noSuchCredential(provider, "the credential's name: %v", err)
	}
	for _, dir := range []string{os.Getenv("CREDENTIALS_DIRECTORY"), s.dir.join("credentials")} {
		if dir == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return readSecret(provider, filepath.Join(dir, name))
		}
	}
	return adapters.Secret{}, noSuchCredential(provider, "credential %q is granted but not there: put it into $CREDENTIALS_DIRECTORY or credentials/ of the state directory", name)
}

func readSecret(provider desired.Ref, path string) (adapters.Secret, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return adapters.Secret{}, noSuchCredential(provider, "its file cannot be read: %v", err)
	}
	return adapters.NewSecret(strings.TrimRight(string(data), "\r\n")), nil
}

// artifactStore is the artifact store as the API knows it.
type artifactStore struct{ *feed.Artifacts }

func (a artifactStore) Put(ctx context.Context, tenant, id, mediaType string, r io.Reader) (api.Artifact, error) {
	got, err := a.Artifacts.Put(ctx, tenant, id, mediaType, r)
	return api.Artifact(got), err
}

func (a artifactStore) Stat(ctx context.Context, tenant, id string) (api.Artifact, error) {
	got, err := a.Artifacts.Stat(ctx, tenant, id)
	return api.Artifact(got), err
}

func (a artifactStore) Open(ctx context.Context, tenant, id string) (io.ReadCloser, api.Artifact, error) {
	r, got, err := a.Artifacts.Open(ctx, tenant, id)
	return r, api.Artifact(got), err
}

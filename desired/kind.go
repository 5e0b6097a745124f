// SPDX-License-Identifier: Apache-2.0

package desired

// APIVersion is the apiVersion of every document.
const APIVersion = "plumbline.dev/v1"

// Kind names a kind of resource, as written in YAML.
type Kind string

// The kinds that this version knows. Each has a file of its own with its spec.
const (
	KindTenant      Kind = "Tenant"
	KindProvider    Kind = "Provider"
	KindRepository  Kind = "Repository"
	KindBranch      Kind = "Branch"
	KindCommit      Kind = "Commit"
	KindPullRequest Kind = "PullRequest"
	KindDriftRule   Kind = "DriftRule"
	KindSuspension  Kind = "Suspension"
)

// KindInfo is what the system knows about a kind apart from its spec.
type KindInfo struct {
	Kind     Kind
	Plural   string // lower-case, hyphenated: the REST collection and the folder of API-written documents
	IDPrefix string // prefix of derived ids, without the dash
	OneShot  bool   // runs exactly once per ref
	Scope    string // scope stem of the REST operations: <Scope>.read, <Scope>.write
	// Where documents of the kind may live.
	Platform bool   // in the platform repository
	Control  bool   // in a tenant's control repository
	Project  bool   // below projects/<project>/
	Root     string // folder outside projects/ ("providers", "policies", "tenants"), "" for none
	// Managed kinds have a driver; the others take effect by being loaded.
	Managed bool
	// Retain is the default deletion policy: true keeps the outside object when its document is removed.
	Retain  bool
	newSpec func() Spec
}

// Spec is the typed spec of a kind: a pointer to one of the *Spec types of this package.
type Spec interface {
	// Common returns the settings that every spec shares.
	Common() *CommonSpec
	// Validate returns the faults of the spec, also those that the schema cannot express, pointers relative to the
	// document root ("/spec/name"). It never consults other resources.
	Validate(ref Ref) []FieldError
}

// Kinds returns all kinds in a fixed order.
func Kinds() []KindInfo {
	return []KindInfo{
		{Kind: KindTenant, Plural: "tenants", IDPrefix: "tenant", Scope: "platform.tenants", Platform: true, Root: "tenants", newSpec: func() Spec { return new(TenantSpec) }},
		{Kind: KindProvider, Plural: "providers", IDPrefix: "prov", Scope: "devops.providers", Platform: true, Control: true, Root: "providers", newSpec: func() Spec { return new(ProviderSpec) }},
		{Kind: KindRepository, Plural: "repositories", IDPrefix: "repo", Scope: "devops.repositories", Control: true, Project: true, Managed: true, Retain: true, newSpec: func() Spec { return new(RepositorySpec) }},
		{Kind: KindBranch, Plural: "branches", IDPrefix: "branch", Scope: "devops.repositories", Control: true, Project: true, Managed: true, Retain: true, newSpec: func() Spec { return new(BranchSpec) }},
		{Kind: KindCommit, Plural: "commits", IDPrefix: "commit", OneShot: true, Scope: "devops.repositories", Control: true, Project: true, Managed: true, Retain: true, newSpec: func() Spec { return new(CommitSpec) }},
		{Kind: KindPullRequest, Plural: "pull-requests", IDPrefix: "pr", Scope: "devops.pull-requests", Control: true, Project: true, Managed: true, Retain: true, newSpec: func() Spec { return new(PullRequestSpec) }},
		{Kind: KindDriftRule, Plural: "drift-rules", IDPrefix: "rule", Scope: "devops.drift-rules", Control: true, Project: true, Root: "policies", newSpec: func() Spec { return new(DriftRuleSpec) }},
		{Kind: KindSuspension, Plural: "suspensions", IDPrefix: "susp", Scope: "devops.suspensions", Control: true, Project: true, Root: "policies", newSpec: func() Spec { return new(SuspensionSpec) }},
	}
}

// kindTable is what Kinds returned once. It is never written after it was made.
var kindTable = func() map[Kind]KindInfo {
	m := map[Kind]KindInfo{}
	for _, i := range Kinds() {
		m[i.Kind] = i
	}
	return m
}()

// Info looks the kind up; the name must match exactly.
func (k Kind) Info() (KindInfo, bool) {
	i, ok := kindTable[k]
	return i, ok
}

// kindNames lists the kinds for suggestions.
func kindNames() []string {
	var names []string
	for _, i := range Kinds() {
		names = append(names, string(i.Kind))
	}
	return names
}

// KindByPlural finds the kind of a REST collection.
func KindByPlural(plural string) (KindInfo, bool) {
	for _, i := range Kinds() {
		if i.Plural == plural {
			return i, true
		}
	}
	return KindInfo{}, false
}

// NewSpec returns a zero spec of the kind, nil for an unknown kind.
func (k Kind) NewSpec() Spec {
	i, ok := k.Info()
	if !ok {
		return nil
	}
	return i.newSpec()
}

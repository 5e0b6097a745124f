// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"strings"

	"github.com/connectsoft/plumbline/desired"
)

// TenantSource says what of a request names the tenant that the tenant claim must own.
type TenantSource string

// The sources.
const (
	NoTenant      TenantSource = "none"     // public, or nothing of a tenant is touched
	ClaimOnly     TenantSource = "claim"    // the claim is the tenant
	ClaimAndBody  TenantSource = "body"     // the claim is the tenant; a tenantId in the body must agree
	ClaimAndPath  TenantSource = "path"     // the path names the tenant; another one answers like a missing one
	PlatformClaim TenantSource = "platform" // only the configured platform tenant's claim
)

// Door is a kind of git repository that is served over smart HTTP.
type Door string

// The doors, mounted at /git/control/<tenant>.git, /git/platform.git and /git/hosted/<tenant>/<project>/<name>.git.
const (
	NoDoor       Door = ""
	DoorControl  Door = "control"
	DoorPlatform Door = "platform"
	DoorHosted   Door = "hosted"
)

// Operation is one row of the operation table. What has no row does not exist: the REST router is built from the
// rows, gRPC methods and git doors are looked up in them, and everything else is denied.
type Operation struct {
	ID     string // operationId of openapi.yaml; unique
	Method string // REST, with Path; both empty without a REST face
	Path   string // path template
	RPC    string // full gRPC method, empty without one
	Door   Door   // git door, with Write
	Write  bool   // for doors: a push

	// Scope must have been granted, exactly. Derived asks, besides, for the write scope of each kind that the
	// request turns out to touch (KindScope); it is then judged inside the operation.
	Scope   string
	Derived bool

	Commits bool // lands a commit in a control repository
	Tenant  TenantSource
	Public  bool // no token needed
}

// KindScope is the scope that writes documents of a kind, by whichever operation.
func KindScope(k desired.KindInfo) string { return k.Scope + ".write" }

// Operations returns the operation table. The order is that of the router: the most called come first.
func Operations() []Operation {
	ops := []Operation{
		{ID: "applyResources", Method: "POST", Path: "/resources/apply", Scope: "control.write", Derived: true, Commits: true, Tenant: ClaimAndBody},
		{ID: "provisionRepository", Method: "POST", Path: "/repositories", Scope: "devops.repositories.write", Commits: true, Tenant: ClaimAndBody},
		{ID: "createBranch", Method: "POST", Path: "/repositories/{repoId}/branches", Scope: "devops.repositories.write", Commits: true, Tenant: ClaimAndBody},
		{ID: "authorCommit", Method: "POST", Path: "/repositories/{repoId}/commits", Scope: "devops.repositories.write", Commits: true, Tenant: ClaimAndBody},
		{ID: "openPullRequest", Method: "POST", Path: "/pull-requests", Scope: "devops.pull-requests.write", Commits: true, Tenant: ClaimAndBody},
		{ID: "mergePullRequest", Method: "POST", Path: "/pull-requests/{pullRequestId}/merge", Scope: "devops.pull-requests.write", Commits: true, Tenant: ClaimAndBody},
		{ID: "closePullRequest", Method: "POST", Path: "/pull-requests/{pullRequestId}/close", Scope: "devops.pull-requests.write", Commits: true, Tenant: ClaimAndBody},
		{ID: "postCheck", Method: "POST", Path: "/pull-requests/{pullRequestId}/checks", Scope: "devops.pull-requests.write", Tenant: ClaimAndBody},
		{ID: "getPullRequest", Method: "GET", Path: "/pull-requests/{pullRequestId}", Scope: "devops.pull-requests.read", Tenant: ClaimOnly},
		{ID: "listPullRequests", Method: "GET", Path: "/pull-requests", Scope: "devops.pull-requests.read", Tenant: ClaimOnly},
		{ID: "listRepositories", Method: "GET", Path: "/repositories", Scope: "devops.repositories.read", Tenant: ClaimOnly},
		{ID: "getRepository", Method: "GET", Path: "/repositories/{repoId}", Scope: "devops.repositories.read", Tenant: ClaimOnly},
		{ID: "listBranches", Method: "GET", Path: "/branches", Scope: "devops.repositories.read", Tenant: ClaimOnly},
		{ID: "getBranch", Method: "GET", Path: "/branches/{branchId}", Scope: "devops.repositories.read", Tenant: ClaimOnly},
		{ID: "listCommits", Method: "GET", Path: "/commits", Scope: "devops.repositories.read", Tenant: ClaimOnly},
		{ID: "getCommit", Method: "GET", Path: "/commits/{commitId}", Scope: "devops.repositories.read", Tenant: ClaimOnly},
	}
	ops = append(ops, documentOperations()...)
	ops = append(ops, syncOperations()...)
	ops = append(ops, publicOperations()...)
	return append(ops, doorOperations()...)
}

// documentOperations are those on documents of any kind, and on artifacts.
func documentOperations() []Operation {
	ops := []Operation{
		{ID: "listResources", Method: "GET", Path: "/resources", Scope: "control.read", Tenant: ClaimOnly},
		{ID: "getResource", Method: "GET", Path: "/resources/{id}", Scope: "control.read", Tenant: ClaimOnly},
		{ID: "getResourceHistory", Method: "GET", Path: "/resources/{id}/history", Scope: "control.read", Tenant: ClaimOnly},
		{ID: "deleteResource", Method: "DELETE", Path: "/resources/{id}", Derived: true, Commits: true, Tenant: ClaimOnly},
		{ID: "getReceipt", Method: "GET", Path: "/receipts/{id}", Scope: "devops.gitops.read", Tenant: ClaimOnly},
		{ID: "putArtifact", Method: "PUT", Path: "/artifacts/{id}", Scope: "devops.artifacts.write", Tenant: ClaimOnly},
		{ID: "getArtifact", Method: "GET", Path: "/artifacts/{id}", Scope: "devops.artifacts.read", Tenant: ClaimOnly},
	}
	for _, k := range []struct {
		kind         desired.Kind
		list, get    string
		tenantSource TenantSource
	}{
		{desired.KindProvider, "listProviders", "getProvider", ClaimOnly},
		{desired.KindDriftRule, "listDriftRules", "getDriftRule", ClaimOnly},
		{desired.KindSuspension, "listSuspensions", "getSuspension", ClaimOnly},
		{desired.KindTenant, "listTenants", "getTenant", PlatformClaim},
	} {
		info, _ := k.kind.Info()
		read := info.Scope + ".read"
		ops = append(ops,
			Operation{ID: k.list, Method: "GET", Path: "/" + info.Plural, Scope: read, Tenant: k.tenantSource},
			Operation{ID: k.get, Method: "GET", Path: "/" + info.Plural + "/{id}", Scope: read, Tenant: k.tenantSource})
	}
	return ops
}

// syncOperations are those on what the reconciler knows.
func syncOperations() []Operation {
	const read = "devops.gitops.read"
	return []Operation{
		{ID: "reconcile", Method: "POST", Path: "/gitops/reconcile", Scope: "devops.gitops.reconcile", Tenant: ClaimAndBody},
		{ID: "listSyncStates", Method: "GET", Path: "/sync-states", Scope: read, Tenant: ClaimOnly},
		{ID: "watchSyncStates", Method: "GET", Path: "/sync-states/watch", RPC: "/plumbline.v1.GitOpsSync/WatchSyncState", Scope: read, Tenant: ClaimOnly},
		{ID: "getSyncState", Method: "GET", Path: "/sync-states/{id}", Scope: read, Tenant: ClaimOnly},
		{ID: "listFindings", Method: "GET", Path: "/findings", Scope: read, Tenant: ClaimOnly},
		{ID: "watchFindings", Method: "GET", Path: "/findings/watch", Scope: read, Tenant: ClaimOnly},
		{ID: "getFinding", Method: "GET", Path: "/findings/{id}", Scope: read, Tenant: ClaimOnly},
	}
}

func publicOperations() []Operation {
	return []Operation{
		{ID: "getOpenAPI", Method: "GET", Path: "/openapi.json", Public: true, Tenant: NoTenant},
		{ID: "getSchema", Method: "GET", Path: "/schemas/v1/{kind}.json", Public: true, Tenant: NoTenant},
		{ID: "getIssuerConfiguration", Method: "GET", Path: "/.well-known/openid-configuration", Public: true, Tenant: NoTenant},
		{ID: "getIssuerKeys", Method: "GET", Path: "/oauth/keys", Public: true, Tenant: NoTenant},
		{ID: "healthCheck", RPC: "/grpc.health.v1.Health/Check", Public: true, Tenant: NoTenant},
		{ID: "healthList", RPC: "/grpc.health.v1.Health/List", Public: true, Tenant: NoTenant},
		{ID: "healthWatch", RPC: "/grpc.health.v1.Health/Watch", Public: true, Tenant: NoTenant},
	}
}

func doorOperations() []Operation {
	return []Operation{
		{ID: "cloneControl", Door: DoorControl, Scope: "control.read", Tenant: ClaimAndPath},
		{ID: "pushControl", Door: DoorControl, Write: true, Scope: "control.write", Commits: true, Tenant: ClaimAndPath},
		{ID: "clonePlatform", Door: DoorPlatform, Scope: "platform.read", Tenant: PlatformClaim},
		{ID: "pushPlatform", Door: DoorPlatform, Write: true, Scope: "platform.write", Commits: true, Tenant: PlatformClaim},
		{ID: "cloneHosted", Door: DoorHosted, Scope: "devops.repositories.read", Tenant: ClaimAndPath},
		{ID: "pushHosted", Door: DoorHosted, Write: true, Scope: "devops.repositories.write", Tenant: ClaimAndPath},
	}
}

// platformScope reports whether a scope counts only with the platform tenant's claim.
func platformScope(s string) bool { return strings.HasPrefix(s, "platform.") }

// SPDX-License-Identifier: Apache-2.0

// Package plumbline is the map of the house; it holds no code. Plumbline keeps the desired state of a software
// factory as YAML in git, one control repository per tenant, and a daemon that makes the world agree with it.
//
// One write, in the order of the files that it passes:
//
//	api/repositories.go     a POST becomes an edit
//	desired/edit.go         the edit is a pure change of a tree
//	desired/gitrepo/commit.go   it lands as one durable commit, many writers to one sync of the disk
//	desired/snapshot.go     the commit becomes the next immutable snapshot
//	reconciler/engine.go    the loop looks at what changed: observe, plan, guard, apply, record
//	reconciler/plan/diff.go what to do is decided here and nowhere else, as a pure function
//	adapters/githost/driver.go  the outside is observed and changed
//	reconciler/state/       where the resource stands is recorded
//	api/sync_stream.go      whoever watches is told
//
// The packages. A package without its line here does not exist (arch_test.go sees to that), and the imports between
// them form a straight line, written down in the same test:
//
//	cmd/plumbline         the binary: wiring, configuration, command line, the demo
//	desired               what we want: kinds, refs, the strict codec, Snapshot, Edit
//	desired/gitstore      a durable bare git repository and its smart HTTP doors
//	desired/gitrepo       a control repository on a gitstore: group commit, head, quarantine, push checks
//	adapters              the contract between the reconciler and its drivers
//	adapters/adaptertest  the suite that every driver passes, and a scriptable fake
//	adapters/guard        decorators around drivers: retry, deadline, redaction, metering
//	adapters/githost      repositories, branches, authored commits and pull requests at git hosts
//	adapters/feed         the artifact store
//	reconciler            the loop: keyed queues, unit ownership, five steps, run journal
//	reconciler/plan       the pure decision: (want, have, rules, now) to a plan that prints as text
//	reconciler/state      sync states, findings, runs and leases in etcd, and the hub that streams them
//	api                   the outside face: REST, gRPC, SSE, problem details
//	api/auth              bearer tokens to principals; the operation table; the development issuer
//	api/pb                the gRPC messages and services, generated
//	internal/fp           failpoints for tests; empty without the build tag
//
// docs/ARCHITECTURE.md walks the same way with reasons, docs/GLOSSARY.md fixes the words, docs/GUARANTEES.md says
// what is promised and which tests keep it.
package plumbline

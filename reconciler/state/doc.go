// SPDX-License-Identifier: Apache-2.0

// Package state keeps what the reconciler knows besides git: sync states, findings, runs, applied records,
// horizons and leases. It is etcd, embedded in the process or external, through one clientv3 code path; Memory
// stands beside it for simulation and passes the same suite. A Hub turns one upstream watch into many streams.
//
// In the order of reading: state.go has the vocabulary and the Store contract, key.go the key space, records.go the
// typed records and their formats. etcd.go, etcd_watch.go and etcd_claim.go are the store; embedded.go starts etcd in
// the process. hub.go follows a store, view.go keeps what it knows of one tenant, cursor.go is one reader's place.
package state

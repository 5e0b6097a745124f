// SPDX-License-Identifier: Apache-2.0

// Package state keeps what the reconciler knows besides git: sync states, findings, runs, applied records,
// horizons and leases. It is etcd, embedded in the process or external, through one clientv3 code path; Memory
// stands beside it for simulation and passes the same suite. A Hub turns one upstream watch into many streams.
package state

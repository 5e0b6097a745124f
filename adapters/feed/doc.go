// SPDX-License-Identifier: Apache-2.0

// Package feed stores what builds produce. Today: the artifact store, content-addressed, tenant-scoped, on disk.
package feed

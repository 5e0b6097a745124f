// SPDX-License-Identifier: Apache-2.0

// Package gitrepo is a control repository on a gitstore: one writer owns its head, replays edits on it and lands
// them in group commits; every accepted head becomes a Snapshot with a seq before its writers are answered.
package gitrepo

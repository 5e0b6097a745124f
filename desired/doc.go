// SPDX-License-Identifier: Apache-2.0

// Package desired says what we want: the kinds of resources, their identity, the strict YAML codec, the
// immutable Snapshot of a tenant's resources at one commit, and the Edits that turn one tree into the next.
//
// It is the vocabulary of Plumbline and sits at the bottom of the import graph. It holds no clock, no I/O, no
// logger, no context and no lock: times are arguments, bytes come in as values, answers are values.
package desired

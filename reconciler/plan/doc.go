// SPDX-License-Identifier: Apache-2.0

// Package plan decides. Diff is a pure function of what is wanted, what was observed, what was recorded, the
// rules and the time; its answer prints as text. It holds no clock, I/O, logger, context or lock.
package plan

// SPDX-License-Identifier: Apache-2.0

// Package guard holds what every driver call needs and no driver should do itself: a deadline, retries, rate
// limits, redaction, metering and dry runs, each a decorator around adapters.Driver in a file of its own. A
// decorated driver has exactly the optional capabilities (Lister, Watcher, Checker) of the one inside, and passes
// the same adaptertest.Suite.
package guard

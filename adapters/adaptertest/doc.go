// SPDX-License-Identifier: Apache-2.0

// Package adaptertest is what every driver has to pass, and a scriptable driver that passes it.
//
// A driver's test file is a Harness: how to open a driver over an empty outside, and how to act on that outside
// behind the driver's back (push, delete, edit, break). Suite does the rest. It judges by the state of the
// outside and by what Observe says, never by which calls were made.
//
// To add a driver: write Open, fill the fields of World that the outside allows, call Suite. A nil field skips the
// scenes that need it and says so; a real server can offer nearly all of them through its own API.
//
// Fake keeps a small model of a git host in memory. It passes Suite, so code that is tested against it meets the
// same behaviour as with a real driver, and it can be told to fail, to lose replies, to lag and to hang.
package adaptertest

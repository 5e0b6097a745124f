// SPDX-License-Identifier: Apache-2.0

// Package gitstore is a durable bare git repository: objects are written as packs by our own writer, refs move by
// git's own lock protocol, and a write that returned nil survives a power cut. git's own programs may clone, push,
// fsck and gc the directory at all times. Doors over smart HTTP serve clone and fetch by git's upload-pack and
// take pushes in process.
package gitstore

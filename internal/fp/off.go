// SPDX-License-Identifier: Apache-2.0

//go:build !failpoint

package fp

// Hit does nothing in this build.
func Hit(string) {}

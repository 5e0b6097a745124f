// SPDX-License-Identifier: Apache-2.0

// Package adapters is the contract between the reconciler and the drivers that observe and change the outside:
// git hosts, CI systems, Pulumi, runtime targets. Drivers live in the packages below it and never know each other.
package adapters

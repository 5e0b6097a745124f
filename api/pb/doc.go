// SPDX-License-Identifier: Apache-2.0

// Package pb is the gRPC contract, plumbline.v1, and the code generated from it.
package pb

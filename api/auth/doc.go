// SPDX-License-Identifier: Apache-2.0

// Package auth turns a bearer token into a Principal and judges it by the operation table: an operation without a
// row does not exist, on REST, gRPC and the git doors alike.
package auth

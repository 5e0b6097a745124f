// SPDX-License-Identifier: Apache-2.0

// Package api is the outside face: REST from openapi.yaml, gRPC, SSE, problem details. It turns requests into
// edits of control repositories and joins snapshots with sync states for its answers.
package api

// SPDX-License-Identifier: Apache-2.0

// Package fp holds failpoints: named places at which a crash test kills the process. Without the build tag
// "failpoint" Hit is empty and costs nothing.
//
// With the tag, the environment variable PLUMBLINE_FP=name:n kills the process with SIGKILL at the n-th hit of
// name; PLUMBLINE_FP=name means the first hit.
package fp

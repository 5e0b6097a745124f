// SPDX-License-Identifier: Apache-2.0

// Package reconciler is the loop: for every ref observe, plan, guard, apply, record, level-triggered, fair between
// tenants, fenced by ownership. It sees control repositories through Source and the outside through drivers.
package reconciler

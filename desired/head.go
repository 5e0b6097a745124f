// SPDX-License-Identifier: Apache-2.0

package desired

import "time"

// Head is one accepted head of a control repository. Immutable.
type Head struct {
	Seq      uint64    // position in first-parent order; 0 before the first commit
	Commit   string    // "" before the first commit
	Snapshot *Snapshot // never nil; with the platform snapshot attached
	At       time.Time // when it was accepted
	Frozen   string    // why the repository is frozen, "" when it is not
}

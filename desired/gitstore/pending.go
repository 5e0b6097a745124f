// SPDX-License-Identifier: Apache-2.0

package gitstore

import "context"

type Merge struct {
	Tree      Hash     // zero when there are conflicts
	Conflicts []string // paths
	Base      Hash     // merge base, zero for unrelated histories
}

func (s *Store) Merge(ctx context.Context, b *Batch, ours, theirs Hash) (Merge, error) {
	panic("not built")
}

type MaintenanceStats struct{ Packs, Merged, Removed int }

func (s *Store) Maintain(ctx context.Context) (MaintenanceStats, error) { panic("not built") }
func (s *Store) finishSweep() error                                     { return nil }

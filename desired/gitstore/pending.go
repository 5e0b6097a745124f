// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"context"
	"io"
	"net/http"
	"time"
)

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

type Push struct {
	Updates []RefUpdate
	Options []string  // push options
	Remote  io.Writer // lines for the pusher ("remote: …")
}

func (p *Push) Object(h Hash) (Type, []byte, error) { panic("not built") }
func (p *Push) Blob(h Hash) ([]byte, error)         { panic("not built") }
func (p *Push) Tree(h Hash) ([]TreeEntry, error)    { panic("not built") }
func (p *Push) Commit(h Hash) (*Commit, error)      { panic("not built") }
func (p *Push) Has(h Hash) bool                     { panic("not built") }
func (p *Push) Land(ctx context.Context) error      { panic("not built") }

type Door struct {
	Store      *Store
	ReadOnly   func() string
	HiddenRefs []string
	Accept     func(ctx context.Context, p *Push) error
	AllowForce func(ref string) bool
	MaxPack    int64         // bytes of one push; 0 = 512 MiB
	Timeout    time.Duration // of one upload-pack process; 0 = 1 h
}

func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) { panic("not built") }

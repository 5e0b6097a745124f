// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// refWatch notices when another program moves the branch: fsnotify on the directories that a ref update renames
// into, and a poll, because a notice is only a hint.
type refWatch struct {
	notify *fsnotify.Watcher
	names  map[string]bool // base names worth a look
}

func watchRef(dir, branch string) (*refWatch, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	loose := filepath.Join(dir, "refs", "heads", filepath.FromSlash(branch))
	for _, d := range []string{dir, filepath.Dir(loose)} { // packed-refs; the loose ref
		if err := n.Add(d); err != nil {
			return nil, errors.Join(fmt.Errorf("watch %s: %w", d, err), n.Close())
		}
	}
	return &refWatch{notify: n, names: map[string]bool{filepath.Base(loose): true, "packed-refs": true}}, nil
}

// run nudges until ctx ends.
func (w *refWatch) run(ctx context.Context, poll time.Duration, nudge func()) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	defer w.notify.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			nudge()
		case e, ok := <-w.notify.Events:
			if !ok {
				return
			}
			if w.names[filepath.Base(e.Name)] {
				nudge()
			}
		case <-w.notify.Errors: // an overflow loses notices, never the poll
			nudge()
		}
	}
}

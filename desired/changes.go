// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"cmp"
	"slices"
)

// MergeChanges folds the changes of successive heads into those between the first and the last: a ref that came and
// went is not mentioned, one that went and came back has changed. Of files, the last word counts.
func MergeChanges(steps []Changes) Changes {
	type life struct{ existedBefore, existsNow bool }
	refs := map[Ref]life{}
	see := func(list []Ref, before, now bool) {
		for _, r := range list {
			l, seen := refs[r]
			if !seen {
				l.existedBefore = before
			}
			l.existsNow = now
			refs[r] = l
		}
	}
	bad := map[string]*Quarantine{} // nil: released
	for _, c := range steps {
		see(c.Removed, true, false) // a ref that moved between files is removed and added in one step
		see(c.Added, false, true)
		see(c.Changed, true, true)
		for _, p := range c.Released {
			bad[p] = nil
		}
		for i := range c.Quarantined {
			bad[c.Quarantined[i].Path] = &c.Quarantined[i]
		}
	}
	var out Changes
	for r, l := range refs {
		switch {
		case l.existedBefore && l.existsNow:
			out.Changed = append(out.Changed, r)
		case l.existsNow:
			out.Added = append(out.Added, r)
		case l.existedBefore:
			out.Removed = append(out.Removed, r)
		}
	}
	for p, q := range bad {
		if q == nil {
			out.Released = append(out.Released, p)
		} else {
			out.Quarantined = append(out.Quarantined, *q)
		}
	}
	for _, list := range [][]Ref{out.Added, out.Changed, out.Removed} {
		slices.SortFunc(list, func(a, b Ref) int { return cmp.Compare(a.String(), b.String()) })
	}
	slices.Sort(out.Released)
	slices.SortFunc(out.Quarantined, func(a, b Quarantine) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

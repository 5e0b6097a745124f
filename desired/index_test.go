// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestIndexEqualsMap drives random edits through an index and a map. Every index that was ever made must keep
// saying what it said.
func TestIndexEqualsMap(t *testing.T) {
	keys := rapid.StringMatching(`[a-d]{0,2}(/[a-d0-9]{1,3})?`)
	rapid.Check(t, func(rt *rapid.T) {
		x, m := newIndex[int](), map[string]int{}
		var past []*index[int]
		var was []map[string]int
		for round := range rapid.IntRange(1, 5).Draw(rt, "rounds") {
			e := x.edit()
			del := rapid.IntRange(0, 10).Draw(rt, "deletions in ten")
			for range rapid.IntRange(0, 300).Draw(rt, "edits") {
				k := keys.Draw(rt, "key")
				if rapid.IntRange(1, 10).Draw(rt, "what") <= del {
					e.delete(k)
					delete(m, k)
				} else {
					e.set(k, round)
					m[k] = round
				}
			}
			x = e.done()
			past, was = append(past, x), append(was, maps.Clone(m))
		}
		prefix, start := keys.Draw(rt, "prefix"), keys.Draw(rt, "start")
		for i := range past {
			compareIndex(rt, past[i], was[i], "", "")
			compareIndex(rt, past[i], was[i], prefix, start)
		}
	})
}

func compareIndex(rt *rapid.T, x *index[int], m map[string]int, prefix, start string) {
	var got, want []int
	for v := range x.from(prefix, start) {
		got = append(got, v)
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(k, prefix) && k >= start {
			want = append(want, m[k])
		}
		if v, ok := x.get(k); !ok || v != m[k] {
			rt.Fatalf("%q: got %d, %v; want %d", k, v, ok, m[k])
		}
	}
	if !slices.Equal(got, want) || x.size != len(m) {
		rt.Fatalf("from %q %q: got %v (size %d), want %v (size %d)", prefix, start, got, x.size, want, len(m))
	}
	if _, ok := x.get("absent"); ok {
		rt.Fatal("an absent key was found")
	}
}

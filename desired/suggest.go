// SPDX-License-Identifier: Apache-2.0

package desired

import "strings"

// Suggest is `; did you mean "x"?` for the candidate that is nearest to s, "" when none is near: the same words at
// every face.
func Suggest(s string, candidates []string) string { return didYouMean(s, candidates) }

// didYouMean is `; did you mean "x"?` for the candidate that is nearest to s, "" when none is near.
func didYouMean(s string, candidates []string) string {
	if s == "" || len(s) > 64 {
		return ""
	}
	best, limit := "", max(1, len(s)/3)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d < limit {
			best, limit = c, d
		}
	}
	if best == "" {
		return ""
	}
	return `; did you mean "` + best + `"?`
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// shown makes a key of the input fit to be quoted in a message: control and format characters out, at most 64
// characters.
func shown(key string) string {
	if len(key) <= 64 && wordOf("a"+strings.ToLower(key), 65, "._/-") && isASCII(key) {
		return key
	}
	out := make([]rune, 0, 64)
	for _, r := range key {
		if len(out) == 64 {
			return string(out) + "…"
		}
		if unprintable(r) || r == 0xfffd || r == '"' || r == 0x2028 || r == 0x2029 || r == 0xfeff ||
			r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2060 && r <= 0x206f {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}

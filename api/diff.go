// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
)

const (
	diffContext = 3       // lines around a change, as usual
	diffCells   = 4 << 20 // of the table of one comparison; what is larger is shown as replaced
)

// span is a run of lines of two texts: [a0,a1) of the old one became [b0,b1) of the new one.
type span struct{ a0, a1, b0, b1 int }

// unifiedDiff compares two texts line by line, in the form that git and patch read, with some lines around each change;
// "" when they are equal.
func unifiedDiff(from, to, before, after string, around int) string {
	a, b := diffLines(before), diffLines(after)
	changed := changedSpans(a, b)
	if len(changed) == 0 {
		return ""
	}
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", from, to)
	for len(changed) > 0 {
		n := 1 // changes that are near each other share a hunk
		for n < len(changed) && changed[n].a0-changed[n-1].a1 <= 2*around {
			n++
		}
		writeHunk(&out, a, b, changed[:n], around)
		changed = changed[n:]
	}
	return out.String()
}

// diffLines splits a text behind its line feeds; a last line without one says so, as git does.
func diffLines(s string) []string {
	lines := strings.SplitAfter(s, "\n")
	last := len(lines) - 1
	if lines[last] == "" {
		return lines[:last]
	}
	lines[last] += "\n\\ No newline at end of file\n"
	return lines
}

// changedSpans lists what differs, in order: the least lines that can be, unless the texts are very large.
func changedSpans(a, b []string) []span {
	pre := 0
	for pre < len(a) && pre < len(b) && a[pre] == b[pre] {
		pre++
	}
	post := 0
	for post < len(a)-pre && post < len(b)-pre && a[len(a)-1-post] == b[len(b)-1-post] {
		post++
	}
	a, b = a[pre:len(a)-post], b[pre:len(b)-post]
	if len(a) == 0 && len(b) == 0 {
		return nil
	}
	if len(a)*len(b) > diffCells {
		return []span{{pre, pre + len(a), pre, pre + len(b)}}
	}
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int32, len(a)+1)
	for i := range common {
		common[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []span
	for i, j := 0, 0; i < len(a) || j < len(b); {
		s := span{pre + i, 0, pre + j, 0}
		for i < len(a) && j < len(b) && a[i] == b[j] {
			i, j = i+1, j+1
			s.a0, s.b0 = pre+i, pre+j
		}
		for (i < len(a) || j < len(b)) && (i == len(a) || j == len(b) || a[i] != b[j]) {
			if j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1] {
				i++
			} else {
				j++
			}
		}
		s.a1, s.b1 = pre+i, pre+j
		out = append(out, s)
	}
	return out
}

// writeHunk writes changes that are near each other with the lines around them.
func writeHunk(out *strings.Builder, a, b []string, changed []span, around int) {
	first, last := changed[0], changed[len(changed)-1]
	lead := min(around, first.a0)
	trail := min(around, len(a)-last.a1)
	fmt.Fprintf(out, "@@ -%s +%s @@\n", hunkRange(first.a0-lead, last.a1+trail), hunkRange(first.b0-lead, last.b1+trail))
	at := first.a0 - lead
	for _, s := range changed {
		hunkLines(out, " ", a[at:s.a0])
		hunkLines(out, "-", a[s.a0:s.a1])
		hunkLines(out, "+", b[s.b0:s.b1])
		at = s.a1
	}
	hunkLines(out, " ", a[at:last.a1+trail])
}

func hunkRange(from, to int) string {
	if from == to {
		return fmt.Sprintf("%d,0", from)
	}
	return fmt.Sprintf("%d,%d", from+1, to-from)
}

func hunkLines(out *strings.Builder, mark string, lines []string) {
	for _, l := range lines {
		out.WriteString(mark + l)
	}
}

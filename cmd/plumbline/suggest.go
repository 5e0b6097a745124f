// SPDX-License-Identifier: Apache-2.0

package main

import "strings"

// didYouMean is `; did you mean "x"?` for the candidate nearest to what was typed, "" when none is near.
func didYouMean(typed string, candidates []string) string {
	best, limit := "", max(2, len(typed)/3)+1
	for _, c := range candidates {
		if d := editDistance(strings.ToLower(typed), strings.ToLower(c)); d < limit {
			best, limit = c, d
		}
	}
	if best == "" {
		return ""
	}
	return `; did you mean "` + best + `"?`
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"strings"
	"testing"
	"time"
)

// TestHostileFiles: large files that are made to be slow or to make the parser fall over are refused, soon. What
// grows with the square of the size would take minutes here; the bound leaves room for the race detector.
func TestHostileFiles(t *testing.T) {
	const head = "apiVersion: plumbline.dev/v1\nkind: Suspension\nmetadata: {name: a}\nspec:\n  reason: x\n"
	fill := func(s string) string { return strings.Repeat(s, 256<<10/len(s)) }
	for name, text := range map[string]string{
		"brackets":         fill("["),
		"braces":           fill("{"),
		"braces with keys": fill("{a: "),
		"dashes":           fill("- "),
		"dashes deep":      fill("-\n "),
		"questions":        fill("? "),
		"comments":         fill("#\n"),
		"anchors":          head + fill("  a: &a [*a]\n"),
		"bomb":             "a: &a [x,x,x,x,x,x,x,x,x]\n" + fill("b: &a [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"),
		"keys":             head + fill("k:\n"),
		"unknown keys":     head + fill("  kkkkkkkk: 1\n"),
		"quotes":           head + fill(`  "`),
		"open quote":       head + `  x: "` + fill("a "),
		"escapes":          head + `  x: "` + fill(`\"`),
		"tabs and text":    fill("\ta\n"),
		"colons":           fill(": "),
		"markers":          fill("---\n"),
		"documents":        fill("---\na: b\n"),
		"folded":           head + "  x: >\n" + fill("   a\n\n"),
		"plain":            head + "  x: " + fill("a\n   "),
		"nested":           nested(1000),
		"merge":            fill("<<: {a: b}\n"),
		"tags":             fill("!!map "),
		"percent":          fill("%"),
		"pipes":            fill("|\n"),
		"commas":           "[" + fill(","),
		"carriage returns": fill("\r"),
		"nul":              head + "\x00",
		"control":          head + "# \x1b[31m\n",
		"latin-1":          head + "# caf\xe9\n",
		"utf-16":           "\xff\xfea\x00p\x00",
		"nel":              head + "# \u0085\n",
		"line separator":   head + "# \u2028\n",
		"bom inside":       head + "# \ufeff\n",
		"directive":        "%TAG ! tag:x,2000:\n---\n" + head,
		"too large":        head + strings.Repeat("# more than what is allowed\n", 40_000),
	} {
		start := time.Now()
		_, err := ParseFile(fuzzPlace, []byte(text))
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		blank := name == "comments" || name == "markers" // no document, no fault
		if (err == nil) != blank {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil {
			checkError(t, err)
		}
	}
}

// nested is a mapping of n levels.
func nested(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "k:\n")
	}
	return b.String() + strings.Repeat(" ", n) + "k: v\n"
}

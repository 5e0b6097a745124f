// SPDX-License-Identifier: Apache-2.0

package api

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestUnifiedDiffIsAPatch lets git apply the diffs of arbitrary texts: the new text must come out.
func TestUnifiedDiffIsAPatch(t *testing.T) {
	dir := t.TempDir()
	line := rapid.SampledFrom([]string{"a\n", "b\n", "c\n", "a: 1\n", "  - x\n", "\n", "---\n", "+++ y\n"})
	text := rapid.Custom(func(t *rapid.T) string {
		s := strings.Join(rapid.SliceOfN(line, 1, 40).Draw(t, "lines"), "")
		if rapid.Bool().Draw(t, "cut") {
			s = strings.TrimSuffix(s, "\n") + "end"
		}
		return s
	})
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		before, after := text.Draw(rt, "before"), text.Draw(rt, "after")
		patch := unifiedDiff("a/f", "b/f", before, after, rapid.IntRange(0, 3).Draw(rt, "around"))
		if (patch == "") != (before == after) {
			rt.Fatalf("equal %v, patch %q", before == after, patch)
		}
		if runs++; patch == "" || runs > 60 { // each run is a process
			return
		}
		file := filepath.Join(dir, "f")
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			rt.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "git", "apply", "--unidiff-zero", "--whitespace=nowarn", "-")
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(patch)
		if out, err := cmd.CombinedOutput(); err != nil {
			rt.Fatalf("%v: %s\n%s", err, out, patch)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != after {
			rt.Fatalf("%v: patched to %q, want %q\n%s", err, got, after, patch)
		}
	})
}

func TestUnifiedDiffReadsWell(t *testing.T) {
	before := "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n"
	after := "1\n2\nthree\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n"
	want := "--- a/f\n+++ b/f\n@@ -1,6 +1,6 @@\n 1\n 2\n-3\n+three\n 4\n 5\n 6\n@@ -10,3 +10,4 @@\n 10\n 11\n 12\n+13\n"
	if got := unifiedDiff("a/f", "b/f", before, after, diffContext); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got, want := unifiedDiff("/dev/null", "b/f", "", "a\n", diffContext), "--- /dev/null\n+++ b/f\n@@ -0,0 +1,1 @@\n+a\n"; got != want {
		t.Errorf("new file: got\n%swant\n%s", got, want)
	}
	// Too large to be compared in detail, it is shown as replaced.
	big := strings.Repeat("x\n", 3000)
	if got := unifiedDiff("a/f", "b/f", "a\n"+big+"b\n", "c\n"+strings.ReplaceAll(big, "x", "y")+"d\n", diffContext); strings.Count(got, "\n-") != 3002 {
		t.Errorf("%d lines taken out", strings.Count(got, "\n-"))
	}
}

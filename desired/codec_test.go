// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func suspension(name, reason string) string {
	return fmt.Sprintf("apiVersion: plumbline.dev/v1\nkind: Suspension\nmetadata: {name: %s}\nspec: {reason: %s}\n", name, reason)
}

// TestSplit shows where documents begin and end. Each want is "name@line:start-end".
func TestSplit(t *testing.T) {
	a, b := suspension("a", "x"), suspension("b", "x")
	n := len(a)
	literal := strings.Replace(suspension("a", "x"), "{reason: x}", "\n  reason: |\n    ---\n    x\n    ...\n", 1)
	at := func(name string, line, start, end int) string {
		return fmt.Sprintf("%s@%d:%d-%d", name, line, start, end)
	}
	for _, row := range []struct {
		name, text string
		want       []string
	}{
		{"one", a, []string{at("a", 1, 0, n)}},
		{"marker", "---\n" + a, []string{at("a", 2, 4, n+4)}},
		{"two", a + "---\n" + b, []string{at("a", 1, 0, n), at("b", 6, n+4, 2*n+4)}},
		{"marker with comment", a + "--- # next\n" + b, []string{at("a", 1, 0, n), at("b", 6, n+11, 2*n+11)}},
		{"end marker", a + "...\n" + b, []string{at("a", 1, 0, n), at("b", 6, n+4, 2*n+4)}},
		{"end marker at the end", a + "...\n", []string{at("a", 1, 0, n)}},
		{"both markers", a + "...\n---\n" + b, []string{at("a", 1, 0, n), at("b", 7, n+8, 2*n+8)}},
		{"nothing", "", nil},
		{"comments only", "# a\n---\n# b\n...\n\n", nil},
		{"empty documents between", a + "---\n---\n\n---\n# c\n---\n" + b, []string{at("a", 1, 0, n), at("b", 11, n+21, 2*n+21)}},
		{"comments above", "# c\n\n" + a, []string{at("a", 3, 0, n+5)}},
		{"carriage returns", strings.ReplaceAll("---\n"+a, "\n", "\r\n"), []string{at("a", 2, 5, n+9)}},
		{"byte order mark", "\ufeff" + a, []string{at("a", 1, 3, n+3)}},
		{"byte order mark and marker", "\ufeff---\n" + a, []string{at("a", 2, 7, n+7)}},
		{"no line break at the end", strings.TrimSuffix(a, "\n"), []string{at("a", 1, 0, n-1)}},
		{"markers within a text", literal, []string{at("a", 1, 0, len(literal))}},
		{"content on the marker's line", "--- {apiVersion: plumbline.dev/v1, kind: Suspension, metadata: {name: a}, spec: {reason: x}}\n", []string{at("a", 1, 3, 93)}},
		{"dashes that are no marker", "# ----\n#---\n" + a, []string{at("a", 3, 0, n+12)}},
	} {
		docs, err := ParseFile(fuzzPlace, []byte(row.text))
		var got []string
		for _, d := range docs {
			got = append(got, at(d.Ref.Name, d.Line, d.Start, d.End))
		}
		if err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%s: got %v, %v; want %v", row.name, got, err, row.want)
		}
	}
}

func TestLimits(t *testing.T) {
	var b strings.Builder
	for i := range MaxFileDocuments {
		b.WriteString("---\n" + suspension(fmt.Sprintf("n%d", i), "x"))
	}
	if docs, err := ParseFile(fuzzPlace, []byte(b.String())); err != nil || len(docs) != MaxFileDocuments {
		t.Errorf("got %d documents, %v", len(docs), err)
	}
	b.WriteString("---\n" + suspension("more", "x"))
	if _, err := ParseFile(fuzzPlace, []byte(b.String())); err == nil || !strings.Contains(err.Error(), "more than 64 documents") {
		t.Errorf("got %v", err)
	}
	long := suspension("a", strings.Repeat("a", MaxFileBytes))
	if _, err := ParseFile(fuzzPlace, []byte(long)); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("got %v", err)
	}
	deep := "apiVersion: plumbline.dev/v1\nkind: Suspension\nmetadata: {name: a}\nspec: " + strings.Repeat("[", 40) + strings.Repeat("]", 40)
	_, err := ParseFile(fuzzPlace, []byte(deep))
	if !slices.ContainsFunc(fieldsOf(err), func(f FieldError) bool { return strings.Contains(f.Detail, "nested more than 32 levels deep") }) {
		t.Errorf("got %v", text(err))
	}
	many := "apiVersion: plumbline.dev/v1\nkind: Suspension\nmetadata: {name: a}\nspec:\n  reason: x\n"
	for i := range 300 {
		many += fmt.Sprintf("  unknown%d: x\n", i)
	}
	if _, err := ParseFile(fuzzPlace, []byte(many)); len(fieldsOf(err)) != maxFaults {
		t.Errorf("got %d faults", len(fieldsOf(err)))
	}
}

// Columns count characters, not bytes.
func TestColumns(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"\ufeff" + strings.Replace(suspension("a", "x"), "{reason: x}", "{reason: \"é日本🎯\", until: soon}", 1), "4:31: /spec/until"},
		{strings.Replace(suspension("a", "x"), "{reason: x}", "{reason: é, match: {names: [\"日本*\"]}}", 1), "4:35: /spec/match/names/0"},
		{suspension("a", "x") + "# é\x1b\n", "5:4: control"},
		{"\ufeff\x1b", "1:1: control"},
	} {
		_, err := ParseFile(fuzzPlace, []byte(row.text))
		if err == nil || !strings.Contains(err.Error(), fuzzPlace.Path+":"+row.want) {
			t.Errorf("got %v, want %s", text(err), row.want)
		}
	}
}

// Documents of a request have no file: their project is that of metadata.
func TestDocumentsWithoutPath(t *testing.T) {
	docs, err := ParseFile(Place{Tenant: "acme"}, []byte(`
apiVersion: plumbline.dev/v1
kind: Branch
metadata: {name: web.x, project: booking}
spec: {repository: web, name: x}
---
{"apiVersion": "plumbline.dev/v1", "kind": "Provider", "metadata": {"name": "gitea"}, "spec": {"type": "gitea"}}
`))
	if err != nil || len(docs) != 2 || docs[0].Ref != (Ref{"acme", "booking", KindBranch, "web.x"}) || docs[1].Ref != (Ref{"acme", "", KindProvider, "gitea"}) {
		t.Errorf("got %+v, %v", docs, err)
	}
	for _, row := range []struct{ tenant, text, want string }{
		{"acme", "kind: Branch\nmetadata: {name: x}\nspec: {repository: web, name: x}", "/kind: Branch documents belong to a project"},
		{"acme", "kind: Tenant\nmetadata: {name: x}\nspec: {}", "/kind: Tenant documents belong in the platform repository"},
		{"", "kind: Branch\nmetadata: {name: x, project: p}\nspec: {repository: web, name: x}", "/kind: Branch documents belong in a tenant's control repository"},
		{"acme", "kind: Branch\nmetadata: {name: x, project: Bad.Name}\nspec: {repository: web, name: x}", "/metadata/project: must be 1 to 63"},
		{"acme", "kind: Branch\nmetadata: {name: x, project: p, tenant: other}\nspec: {repository: web, name: x}", "/metadata/tenant: does not agree"},
	} {
		_, err := ParseFile(Place{Tenant: row.tenant}, []byte("apiVersion: plumbline.dev/v1\n"+row.text))
		if !strings.Contains(text(err), row.want) {
			t.Errorf("got %v, want %s", text(err), row.want)
		}
	}
}

// TestKindsHaveTheirPlaces tries every kind in every folder of both repositories.
func TestKindsHaveTheirPlaces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		for _, info := range Kinds() {
			r := genResource(rt, testRef(info.Kind, "n1"))
			text, err := Encode(r)
			if err != nil {
				rt.Fatal(err)
			}
			for _, tenant := range []string{"", "acme"} {
				for _, folder := range []string{"tenants", "providers", "policies", "projects/p"} {
					p := Place{Tenant: tenant, Path: folder + "/x.yaml"}
					want := info.Platform && tenant == "" && folder == info.Root ||
						info.Control && tenant != "" && (folder == info.Root || info.Project && folder == "projects/p")
					if _, err := ParseFile(p, text); p.Managed() && (err == nil) != want {
						rt.Fatalf("%s at %+v: got %v, want %v", info.Kind, p, err, want)
					}
				}
			}
		}
	})
}

// Digests do not depend on layout, order, or on what only repeats the place; they do on everything else.
func TestDigest(t *testing.T) {
	digest := func(text string) string {
		t.Helper()
		docs, err := ParseFile(fuzzPlace, []byte("apiVersion: plumbline.dev/v1\nkind: Suspension\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		return docs[0].Digest
	}
	base := digest("metadata: {name: a, labels: {team: z, b: c}}\nspec: {reason: x, match: {names: [a]}}")
	if want := "07de40a119432c249faff9bccc92c9d4"; len(base) != 64 || base[:32] != want {
		t.Errorf("the digest of the first document was %s, is %s: stored ETags and applied records no longer match", want, base[:32])
	}
	for _, same := range []string{
		"spec:\n  match:\n    names:\n    - 'a'\n  reason: \"x\"\nmetadata:\n  labels: {b: c, team: z}\n  name: a\n",
		"metadata: {name: a, labels: {team: z, b: c}, tenant: acme, project: booking, annotations: {}}\nspec: {reason: x, match: {names: [a], kinds: []}, sync: {}}",
	} {
		if got := digest(same); got != base {
			t.Errorf("another digest for\n%s", same)
		}
	}
	for _, other := range []string{
		"metadata: {name: b, labels: {team: z, b: c}}\nspec: {reason: x, match: {names: [a]}}",
		"metadata: {name: a, labels: {team: z}}\nspec: {reason: x, match: {names: [a]}}",
		"metadata: {name: a, labels: {team: z, b: c}}\nspec: {reason: x, match: {names: [a, b]}}",
		"metadata: {name: a, labels: {team: z, b: c}}\nspec: {reason: x}",
		"metadata: {name: a, labels: {team: z, b: c}, annotations: {a: b}}\nspec: {reason: x, match: {names: [a]}}",
	} {
		if digest(other) == base {
			t.Errorf("the same digest for\n%s", other)
		}
	}
}

// TestErrorsKeepSecrets puts a secret wherever a document has a value, and looks for it in the errors.
func TestErrorsKeepSecrets(t *testing.T) {
	const secret = "hunter2secret"
	files, _ := filepath.Glob(filepath.Join(configDir, "*.yaml"))
	for _, file := range files {
		data := string(readFile(t, file))
		for _, c := range contentChunks([]byte(data)) {
			lines := strings.SplitAfter(data[c.lo:c.hi], "\n")
			for i, line := range lines {
				key, _, ok := strings.Cut(line, ": ")
				if !ok || strings.HasPrefix(line, "#") {
					continue
				}
				for _, v := range []string{secret, "[" + secret + "]", "{a: {b: " + secret + "}}", "https://x:" + secret + "@h", "!" + secret + " x", "&" + secret + " x", "*" + secret, "\"\\q" + secret + "\"", "'" + secret, "@" + secret, "sha256:" + secret, "%" + secret} {
					bad := slices.Clone(lines)
					bad[i] = key + ": " + v + "\n"
					for _, p := range []Place{fuzzPlace, {Path: "tenants/x.yaml"}} {
						if _, err := ParseFile(p, []byte(strings.Join(bad, ""))); strings.Contains(text(err), secret) {
							t.Fatalf("%s: %s", strings.Join(bad, ""), text(err))
						}
					}
				}
			}
		}
	}
}

// Keys may be shown, but not what a terminal would obey.
func TestShownKeys(t *testing.T) {
	doc := "apiVersion: plumbline.dev/v1\nkind: Suspension\nmetadata: {name: a}\nspec: {reason: x, \"k\\e[31m\\u202e\\\"" + strings.Repeat("k", 100) + "\": y}\n"
	_, err := ParseFile(fuzzPlace, []byte(doc))
	want := `unknown key "k?[31m??` + strings.Repeat("k", 56) + `…"`
	if f := fieldsOf(err); len(f) != 1 || !strings.Contains(f[0].Detail, want) {
		t.Errorf("got %v, want %s", text(err), want)
	}
}

func TestDidYouMean(t *testing.T) {
	words := []string{"defaultBranch", "visibility", "provider", "x"}
	for s, want := range map[string]string{
		"defaultbranch": "defaultBranch", "defautlBranch": "defaultBranch", "visiblity": "visibility", "providers": "provider",
		"colour": "", "": "", strings.Repeat("x", 80): "", "y": "x",
	} {
		got := didYouMean(s, words)
		if want != "" {
			want = `; did you mean "` + want + `"?`
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func TestEncodeRefusesWhatItCannotWrite(t *testing.T) {
	for _, r := range []*Resource{nil, {}, {Spec: &SuspensionSpec{Reason: "\xff"}}, {Spec: &SuspensionSpec{}, Metadata: Metadata{Labels: map[string]string{"\xff": "x"}}}} {
		if _, err := Encode(r); ClassOf(err) != Invalid {
			t.Errorf("%+v: got %v", r, err)
		}
	}
}

// Control characters never reach a file as they are.
func TestEncodeEscapes(t *testing.T) {
	r := &Resource{APIVersion: APIVersion, Kind: KindSuspension, Metadata: Metadata{Name: "a"}, Spec: &SuspensionSpec{Reason: "a\x1b\u0085\u2028\ufeff\x00\n\tb"}}
	got, err := Encode(r)
	if want := `reason: "a\u001b\u0085\u2028\ufeff\u0000\n\tb"`; err != nil || !strings.Contains(string(got), want) {
		t.Errorf("got %s, %v", got, err)
	}
	if at, _ := illegible(got); at >= 0 {
		t.Errorf("byte %d is illegible", at)
	}
}

// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	second "sigs.k8s.io/yaml/goyaml.v2"
)

var fuzzPlace = Place{Tenant: "acme", Path: "projects/booking/all.yaml"}

// seeds adds the good and bad files and the shapes that have hurt others.
func seeds(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(configDir, "*.yaml"))
	if err != nil || len(files) < 16 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, c := range contentChunks(data) {
			f.Add(data[c.lo:c.hi])
		}
	}
	const doc = "apiVersion: plumbline.dev/v1\nkind: Suspension\nmetadata: {name: a}\nspec: {reason: x}\n"
	for _, s := range []string{
		doc, "---\n" + doc + "---\n" + strings.ReplaceAll(doc, "name: a", "name: b"), doc + "...\n" + doc,
		strings.ReplaceAll(doc, "\n", "\r\n"), "\xef\xbb\xbf" + doc, "%YAML 1.1\n---\n" + doc,
		strings.ReplaceAll(doc, "{reason: x}", "{reason: |\n  ---\n  x}"),
		"apiVersion: plumbline.dev/v1\nkind: Suspension\nmetadata:\n  name: a\nspec:\n  reason: |2-\n     x\n\n    ---\n   y\n# end\n",
		"apiVersion: plumbline.dev/v1\nkind: Suspension\nmetadata:\n  name: a\nspec:\n  reason: >+\n    a\n\n      b\n\n\n",
		"apiVersion: plumbline.dev/v1\nkind: Suspension\nmetadata:\n  name: a\nspec:\n  reason: a\n   b\n\n   c # d\n",
		"a: &a [x]\nb: [*a, *a]\n", "<<: {a: b}\n", "!!binary x: y\n", "KIND: x\nkind: y\n", "[[[[[[", "{{{{{{", "- - - -", "? a\n: b\n",
		"a: \"\\\n  b\"\n", "\t\n", "a:\tb\n", "---\n---\n...\n", "a: 'x\n---\n'\n",
	} {
		f.Add([]byte(s))
	}
}

// FuzzParseFile: nothing that is read makes it panic; what it accepts can be written and read back, lies where it
// says, and has the same documents and keys for another parser, where that accepts it.
func FuzzParseFile(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := ParseFile(fuzzPlace, data)
		if err != nil {
			checkError(t, err)
			return
		}
		var keys [][]string
		for i, d := range docs {
			if d.Index != i || d.Start < 0 || d.End < d.Start || d.End > len(data) || d.Line < 1 {
				t.Fatalf("document %d lies at %+v", i, d)
			}
			if l := d.Resource.Validate(d.Ref); len(l) > 0 {
				t.Fatalf("document %d is accepted and invalid: %v", i, l)
			}
			text, err := Encode(d.Resource)
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseFile(fuzzPlace, text)
			if err != nil || len(again) != 1 || again[0].Digest != d.Digest || again[0].Ref != d.Ref {
				t.Fatalf("document %d does not survive (%v):\n%s", i, err, text)
			}
			root, err := parseTree(data[d.Start:d.End])
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, nodeKeys(root, ""))
		}
		if other, ok := secondOpinion(data); ok && !slices.EqualFunc(keys, other, slices.Equal) {
			t.Fatalf("keys:\n%q\nanother parser:\n%q", keys, other)
		}
	})
}

// checkError demands that an error has places and is fit to be shown.
func checkError(t *testing.T, err error) {
	var e *Error
	if !errors.As(err, &e) || e.Class != Invalid || len(e.Fields) == 0 || len(e.Fields) > maxFaults {
		t.Fatalf("got %#v", err)
	}
	for _, f := range e.Fields {
		if f.Detail == "" || len(f.Detail) > 600 || strings.ContainsFunc(f.Detail, unprintable) || f.File != fuzzPlace.Path {
			t.Fatalf("got %+v", f)
		}
	}
}

func nodeKeys(n *yaml.Node, at string) []string {
	var out []string
	for i, c := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			out = append(out, nodeKeys(c, fmt.Sprint(at, "/", i))...)
		case i%2 == 0:
			here := at + "/" + c.Value
			out = append(append(out, here), nodeKeys(n.Content[i+1], here)...)
		}
	}
	return out
}

// secondOpinion lists the keys of every document by another parser; false when it refuses the file.
func secondOpinion(data []byte) (out [][]string, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	in := second.NewDecoder(bytes.NewReader(data))
	for {
		var doc second.MapSlice
		switch err := in.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return out, true
		case err != nil:
			return nil, false
		case doc != nil:
			out = append(out, valueKeys(doc, ""))
		}
	}
}

func valueKeys(v any, at string) []string {
	var out []string
	switch v := v.(type) {
	case second.MapSlice:
		for _, item := range v {
			here := at + "/" + fmt.Sprint(item.Key)
			out = append(append(out, here), valueKeys(item.Value, here)...)
		}
	case []any:
		for i, x := range v {
			out = append(out, valueKeys(x, fmt.Sprint(at, "/", i))...)
		}
	}
	return out
}

// FuzzEdit changes the first document of whatever file is accepted: the result says what is wanted, and the other
// documents keep their bytes.
func FuzzEdit(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join(configDir, "*.good.yaml"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "key", "value", uint8(0))
		f.Add(data, "key", "several\nlines\n", uint8(7))
	}
	f.Add([]byte("apiVersion: plumbline.dev/v1\nkind: Suspension\nmetadata:\n  name: a\nspec:\n  reason: |2-\n     x\n\n    ---\n   y\n# end\n"), "a", "é\n x", uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, key, text string, what uint8) {
		docs, err := ParseFile(fuzzPlace, data)
		if err != nil || len(docs) == 0 {
			return
		}
		i := int(what>>3) % len(docs)
		r, err := clone(&Entry{Ref: docs[i].Ref, Resource: docs[i].Resource, Path: fuzzPlace.Path})
		if err != nil {
			t.Fatal(err)
		}
		m := &r.Metadata
		if what&1 != 0 {
			m.Annotations = map[string]string{key: text}
		}
		if what&2 != 0 {
			m.Labels, m.DependsOn = nil, append(m.DependsOn, "Repository/fuzz")
		}
		if s, ok := r.Spec.(*SuspensionSpec); ok && what&4 != 0 {
			s.Reason, s.Match.Names = text, append(s.Match.Names, "fuzz*")
		}
		if s, ok := r.Spec.(*RepositorySpec); ok && what&4 != 0 {
			s.Description, s.Protection, s.Archived = text, nil, !s.Archived
		}
		if len(r.Validate(docs[i].Ref)) > 0 {
			return
		}
		if _, err := Encode(r); err != nil {
			return
		}
		out, err := rewrite(fuzzPlace, data, docs[i].Ref, r)
		if err != nil {
			if len(data) > MaxFileBytes/2 {
				return
			}
			t.Fatalf("%v\n%s", err, data)
		}
		a, b := contentChunks(data), contentChunks(out)
		for j := range a {
			if j != i && !bytes.Equal(data[a[j].lo:a[j].hi], out[b[j].lo:b[j].hi]) {
				t.Fatalf("document %d changed\n%s\n=>\n%s", j, data, out)
			}
		}
	})
}

// refName is what git-check-ref-format says of a branch, written another way.
var badRefName = regexp.MustCompile(`^$|^-|^@$|^HEAD$|[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|\.$|//|^/|/$|(^|/)\.|\.lock(/|$)`)

// FuzzRefName compares with the rules of git-check-ref-format, written another way.
func FuzzRefName(f *testing.F) {
	for _, s := range refNames {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		bad := badRefName.MatchString(s) || len(s) > 255 || strings.ToValidUTF8(s, "") != s || strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 && r < 0xa0 })
		if err := ValidRefName(s); (err != nil) != bad {
			t.Fatalf("%q: got %v, want bad = %v", s, err, bad)
		}
	})
}

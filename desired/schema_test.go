// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	reflected "github.com/invopop/jsonschema"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
	sigs "sigs.k8s.io/yaml"
)

var rewriteFiles = flag.Bool("rewrite", false, "write schemas and expected errors anew")

// TestSchemas compares the committed schemas with the types.
func TestSchemas(t *testing.T) {
	r := new(reflected.Reflector)
	if err := r.AddGoComments("github.com/connectsoft/plumbline/desired", "./", reflected.WithFullComment()); err != nil {
		t.Fatal(err)
	}
	for _, info := range Kinds() {
		want := schemaOf(r, info)
		if *rewriteFiles {
			if err := os.WriteFile(schemaPath(info.Kind), want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := Schema(info.Kind); !*rewriteFiles && (err != nil || !bytes.Equal(got, want)) {
			t.Errorf("%s is stale (%v): run go test ./desired -run Schemas -rewrite", schemaPath(info.Kind), err)
		}
	}
	if _, err := Schema("Repositry"); err == nil || !strings.Contains(err.Error(), `did you mean "Repository"?`) {
		t.Errorf("an unknown kind: %v", err)
	}
}

// schemaOf makes the schema of a kind's document from its shape and the comments of its types.
func schemaOf(r *reflected.Reflector, info KindInfo) []byte {
	spec := reflect.TypeOf(info.newSpec()).Elem()
	s := object(r, reflect.TypeFor[Resource]())
	s.Version = reflected.Version
	s.ID = reflected.ID("https://plumbline.dev/schemas/v1/" + strings.ToLower(string(info.Kind)) + ".json")
	s.Title = string(info.Kind)
	s.Description = comment(r, spec, "")
	property(s, "apiVersion", &reflected.Schema{Const: APIVersion})
	property(s, "kind", &reflected.Schema{Const: string(info.Kind)})
	meta := structSchema(r, reflect.TypeFor[Metadata]())
	if info.Kind == KindTenant {
		name, _ := meta.Properties.Get("name")
		name.Pattern, name.MaxLength = formOf("tenant").pattern, number(maxTenant)
	}
	property(s, "metadata", meta)
	property(s, "spec", structSchema(r, spec))
	s.Required = []string{"apiVersion", "kind", "metadata", "spec"}
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(out, '\n')
}

func object(r *reflected.Reflector, t reflect.Type) *reflected.Schema {
	return &reflected.Schema{
		Type: "object", Properties: reflected.NewProperties(),
		AdditionalProperties: reflected.FalseSchema, Description: comment(r, t, ""),
	}
}

func comment(r *reflected.Reflector, t reflect.Type, name string) string {
	key := t.PkgPath() + "." + t.Name()
	if name != "" {
		key += "." + name
	}
	return strings.Join(strings.Fields(r.CommentMap[key]), " ")
}

func property(s *reflected.Schema, name string, p *reflected.Schema) { s.Properties.Set(name, p) }

func number(n int) *uint64 { u := uint64(n); return &u }

func structSchema(r *reflected.Reflector, t reflect.Type) *reflected.Schema {
	s := object(r, t)
	for i := range shapes[t].fields {
		f := &shapes[t].fields[i]
		sf := t.FieldByIndex(f.index)
		owner := t
		if len(f.index) > 1 {
			owner = t.Field(f.index[0]).Type
		}
		p := fieldSchema(r, f, sf)
		if p.Description = comment(r, owner, sf.Name); p.Description == "" {
			panic(owner.Name() + "." + sf.Name + " has no comment")
		}
		if rest, ok := strings.CutPrefix(p.Description, sf.Name+" "); ok {
			p.Description = f.name + " " + rest
		}
		property(s, f.name, p)
		if f.required {
			s.Required = append(s.Required, f.name)
		}
	}
	return s
}

func fieldSchema(r *reflected.Reflector, f *field, sf reflect.StructField) *reflected.Schema {
	switch f.kind {
	case textField:
		return textSchema(f, 1)
	case flagField:
		return &reflected.Schema{Type: "boolean"}
	case numberField:
		return &reflected.Schema{Type: "integer", Minimum: json.Number(fmt.Sprint(f.check.min)), Maximum: json.Number(fmt.Sprint(f.check.max))}
	case objectField:
		t := sf.Type
		if f.pointer {
			t = t.Elem()
		}
		return structSchema(r, t)
	case listField:
		s := &reflected.Schema{Type: "array", MaxItems: number(f.check.items)}
		if f.required {
			s.MinItems = number(1)
		}
		if f.shape != nil {
			s.Items = structSchema(r, sf.Type.Elem())
			return s
		}
		s.UniqueItems, s.Items = true, textSchema(f, 1)
		switch f.name {
		case "kinds":
			s.Items = textSchema(&field{check: check{enum: kindNames()}}, 1)
		case "dependsOn":
			s.Items.Pattern = `^[A-Z][A-Za-z]*/[a-z0-9][a-z0-9._-]*$`
		}
		return s
	}
	return &reflected.Schema{
		Type: "object", MaxProperties: number(f.check.items), AdditionalProperties: textSchema(f, 0),
		PropertyNames: &reflected.Schema{Pattern: formOf("key").pattern, MaxLength: number(maxName)},
	}
}

func textSchema(f *field, least int) *reflected.Schema {
	s := &reflected.Schema{Type: "string"}
	if f.check.enum != nil {
		for _, e := range f.check.enum {
			s.Enum = append(s.Enum, e)
		}
		return s
	}
	if least > 0 {
		s.MinLength = number(least)
	}
	s.MaxLength, s.Pattern = number(f.check.max), f.check.form.pattern
	return s
}

// validator compiles the committed schema of a kind.
func validator(tb testing.TB, k Kind) *jsonschema.Schema {
	tb.Helper()
	text, err := Schema(k)
	if err != nil {
		tb.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		tb.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		tb.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// judge validates a YAML document by a schema.
func judge(tb testing.TB, s *jsonschema.Schema, text []byte) error {
	tb.Helper()
	raw, err := sigs.YAMLToJSON(text)
	if err != nil {
		tb.Fatalf("%v\n%s", err, text)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		tb.Fatal(err)
	}
	return s.Validate(doc)
}

// TestSchemaSaysNoMore: what Validate accepts, the schema accepts.
func TestSchemaSaysNoMore(t *testing.T) {
	for _, info := range Kinds() {
		s := validator(t, info.Kind)
		rapid.Check(t, func(rt *rapid.T) {
			r := genResource(rt, testRef(info.Kind, "n1"))
			text, err := Encode(r)
			if err != nil {
				rt.Fatal(err)
			}
			if err := judge(t, s, text); err != nil {
				rt.Fatalf("%v\n%s", err, text)
			}
		})
	}
}

const configDir = "../testdata/config"

// TestConfigFiles reads testdata/config: good files decode and satisfy the schema; bad files give exactly the errors
// that their first comments list, and each of their documents fails the schema too, unless it says "# schema cannot
// tell".
func TestConfigFiles(t *testing.T) {
	for _, info := range Kinds() {
		t.Run(string(info.Kind), func(t *testing.T) {
			s, ref := validator(t, info.Kind), testRef(info.Kind, "x")
			base := filepath.Join(configDir, strings.ToLower(string(info.Kind)))
			good := readFile(t, base+".good.yaml")
			docs, err := ParseFile(Place{Tenant: ref.Tenant, Path: somewhere(ref)}, good)
			if err != nil || len(docs) < 2 {
				t.Fatalf("%d documents, %v", len(docs), err)
			}
			for _, d := range docs {
				if d.Ref.Kind != info.Kind {
					t.Errorf("line %d: a %s", d.Line, d.Ref.Kind)
				}
				if err := judge(t, s, good[d.Start:d.End]); err != nil {
					t.Errorf("line %d: %v", d.Line, err)
				}
			}
			checkBadFile(t, base+".bad.yaml", ref)
			bad := readFile(t, base+".bad.yaml")
			for _, c := range contentChunks(bad) {
				text := bad[c.start:c.end]
				if !bytes.Contains(text, []byte("# schema cannot tell")) && judge(t, s, text) == nil {
					t.Errorf("%s.bad.yaml:%d: the schema accepts it", base, c.line)
				}
			}
		})
	}
	// Faults of the frame, whatever the kind.
	checkBadFile(t, filepath.Join(configDir, "frame.bad.yaml"), testRef(KindRepository, "x"))
	checkBadFile(t, filepath.Join(configDir, "syntax.bad.yaml"), testRef(KindRepository, "x"))
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkBadFile compares a file's errors with the list at its top. With -rewrite the list is written anew.
func checkBadFile(t *testing.T, path string, ref Ref) {
	t.Helper()
	data := readFile(t, path)
	const mark = "# error: "
	for range 4 {
		var want []string
		rest := data
		for bytes.HasPrefix(rest, []byte(mark)) {
			line, after, _ := bytes.Cut(rest, []byte("\n"))
			want, rest = append(want, string(line[len(mark):])), after
		}
		var got []string
		_, err := ParseFile(Place{Tenant: ref.Tenant, Path: somewhere(ref)}, data)
		for _, f := range fieldsOf(err) {
			got = append(got, strings.TrimPrefix(f.String(), somewhere(ref)+":"))
		}
		if reflect.DeepEqual(got, want) && len(got) > 0 {
			return
		}
		if !*rewriteFiles {
			t.Errorf("%s:\ngot:\n%s\nwant:\n%s", path, strings.Join(got, "\n"), strings.Join(want, "\n"))
			return
		}
		var head strings.Builder
		for _, g := range got {
			head.WriteString(mark + g + "\n")
		}
		data = append([]byte(head.String()), rest...)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Errorf("%s: the list of errors does not settle", path)
}

func fieldsOf(err error) []FieldError {
	if e, ok := err.(*Error); ok {
		return e.Fields
	}
	return nil
}

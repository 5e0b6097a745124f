// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Generators of valid resources of every kind, and of layouts in which people might have written them.

var (
	genName = rapid.StringMatching(`[a-z0-9][a-z0-9._-]{0,12}`)
	// genLine is text that tempts a careless writer: indicators, numbers, words of YAML 1.1, other scripts.
	genLine = rapid.OneOf(
		rapid.SampledFrom([]string{
			"yes", "No", "on", "null", "~", "1e3", "0x10", "12:30", "1_000", ".5", "2026-01-02", "=", "<<", "- a", "a: b",
			"a #b", "#x", "{a}", "[b]", "&a", "*a", "!t", "%d", "@x", "`x`", "'", `"`, `\`, "a\\nb", "it's", " lead", "trail ",
			"a:b", "a,b", "?", "? x", "-", ":", "|", ">", "---", "...", "é", "日本", "🎯 goal", "x\u00a0y", "a  b", "true", "N", "0o7",
		}),
		rapid.StringMatching(`[A-Za-z0-9 _./:#'",{}\[\]&*!|>%@-]{1,30}`),
	).Filter(func(s string) bool { return lineFault(s) == "" })
	genText = rapid.OneOf(genLine, rapid.StringMatching(`[a-z]{1,5}( [a-z]{1,5}){1,4}`), rapid.StringMatching(`[a-z:#\t -]{1,8}(\r?\n[ a-z:#-]{0,8}){0,4}\n?\n?`)).
		Filter(func(s string) bool { return textFault(s) == "" })
)

// genForm makes valid text of a form.
func genForm(c check) *rapid.Generator[string] {
	if c.enum != nil {
		return rapid.SampledFrom(c.enum)
	}
	switch c.form.name {
	case "name", "name*":
		return genName
	case "tenant":
		return rapid.StringMatching(`[a-z0-9][a-z0-9-]{0,10}`)
	case "branch", "branch*":
		return rapid.SampledFrom([]string{"main", "feature/a-b", "release/1.0", "1e3", "on", "é/x", "a#b", "dev"})
	case "commit":
		return rapid.StringMatching(`[0-9a-f]{40}`)
	case "digest":
		return rapid.StringMatching(`sha256:[0-9a-f]{64}`)
	case "word", "env":
		return rapid.StringMatching(`[A-Za-z][A-Za-z0-9_]{0,10}`)
	case "host":
		return rapid.SampledFrom([]string{"git.example.com", "10.0.0.1:8080", "[::1]:22"})
	case "url":
		return rapid.SampledFrom([]string{"https://git.example.com/a", "ssh://git.example.com:22/x.git"})
	case "time":
		return rapid.SampledFrom([]string{"2026-12-31T18:00:00Z", "2027-01-01T00:00:00+02:00"})
	case "path":
		return rapid.SampledFrom([]string{"a.txt", "src/Main.cs", "docs/read me.md", "1e3", "yes", "x/é.txt"})
	case "text":
		return genText
	case "person":
		return genLine.Filter(func(s string) bool { return personFault(s) == "" })
	}
	return genLine
}

// fill sets the fields of a struct by its shape.
func fill(rt *rapid.T, s *shape, v reflect.Value) {
	for i := range s.fields {
		f := &s.fields[i]
		if !f.required && rapid.IntRange(0, 2).Draw(rt, "skip "+f.name) == 0 {
			continue
		}
		fillField(rt, f, f.in(v))
	}
}

func fillField(rt *rapid.T, f *field, x reflect.Value) {
	switch f.kind {
	case textField:
		x.SetString(genForm(f.check).Draw(rt, f.name))
	case flagField:
		x.SetBool(true)
	case numberField:
		x.SetInt(rapid.Int64Range(1, 50).Draw(rt, f.name))
	case objectField:
		if f.pointer {
			x.Set(reflect.New(x.Type().Elem()))
			x = x.Elem()
		}
		fill(rt, f.shape, x)
	case dictField:
		keys := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._/-]{0,6}`)
		m := map[string]string{}
		for range rapid.IntRange(1, 3).Draw(rt, f.name) {
			k := keys.Draw(rt, "key")
			for o := range m {
				if strings.EqualFold(o, k) {
					delete(m, o)
				}
			}
			m[k] = genForm(f.check).Draw(rt, "value")
		}
		x.Set(reflect.ValueOf(m))
	case listField:
		n := rapid.IntRange(1, 4).Draw(rt, f.name)
		out := reflect.MakeSlice(x.Type(), 0, n)
		seen := map[string]bool{}
		for range n {
			e := reflect.New(x.Type().Elem()).Elem()
			if f.shape != nil {
				fill(rt, f.shape, e)
			} else {
				e.SetString(genForm(f.check).Draw(rt, "item"))
				if seen[e.String()] {
					continue
				}
				seen[e.String()] = true
			}
			out = reflect.Append(out, e)
		}
		x.Set(out)
	}
}

// genResource makes a valid resource for ref.
func genResource(rt *rapid.T, ref Ref) *Resource {
	r := &Resource{APIVersion: APIVersion, Kind: ref.Kind, Spec: ref.Kind.NewSpec()}
	fill(rt, metadataShape, reflect.ValueOf(&r.Metadata).Elem())
	m := &r.Metadata
	m.Name, m.Tenant, m.Project, m.FormerName = ref.Name, "", "", ""
	for i := range m.DependsOn {
		m.DependsOn[i] = fmt.Sprintf("Repository/r%d", i)
	}
	v := reflect.ValueOf(r.Spec).Elem()
	fill(rt, shapes[v.Type()], v)
	mend(r, ref)
	if l := r.Validate(ref); len(l) > 0 {
		rt.Fatalf("generated an invalid %s: %v\n%+v", ref.Kind, l, r.Spec)
	}
	return r
}

// mend makes fields agree that depend on each other.
func mend(r *Resource, ref Ref) {
	switch s := r.Spec.(type) {
	case *ProviderSpec:
		s.Projects = strings.NewReplacer("{", "(", "}", ")").Replace(s.Projects)
		if s.Credential != nil {
			s.Credential = &CredentialRef{Name: "token"}
		}
	case *TenantSpec:
		if s.Stages != nil {
			s.Stages = map[string]string{"booking": "prod", "1e3": "dev"}
		}
		if s.Control != nil && s.Control.URL == "" {
			s.Control.Provider = ""
		}
	case *RepositorySpec:
		for i := range s.Protection {
			s.Protection[i].Pattern = fmt.Sprintf("p%d/*", i)
		}
	case *BranchSpec:
		s.Name += "-x"
	case *PullRequestSpec:
		s.SourceBranch += "-x"
	case *DriftRuleSpec:
		for i := range s.Fields {
			s.Fields[i] = fmt.Sprintf("spec.f%d*", i)
		}
		s.Match.Kinds = s.Match.Kinds[:min(len(s.Match.Kinds), 1)]
		for i := range s.Match.Kinds {
			s.Match.Kinds[i] = KindBranch
		}
	case *SuspensionSpec:
		s.Match.Kinds = nil
	case *CommitSpec:
		s.ArtifactID = "art-1"
		for i := range s.Changes {
			c := &s.Changes[i]
			c.Path = fmt.Sprintf("d%d/%s", i, c.Path)
			c.From, c.Size = "", 0
			switch c.Operation {
			case OpRename:
				c.From = "old/" + c.Path
			case OpDelete:
				c.Digest, c.Mode = "", ""
			}
		}
	}
}

func testRef(k Kind, name string) Ref {
	info, _ := k.Info()
	ref := Ref{Tenant: "acme", Kind: k, Name: name}
	if !info.Control {
		ref.Tenant = ""
	}
	if info.Project {
		ref.Project = "booking"
	}
	return ref
}

func TestEncodeRoundTrip(t *testing.T) {
	for _, info := range Kinds() {
		t.Run(string(info.Kind), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				ref := testRef(info.Kind, "n"+strings.ReplaceAll(genName.Draw(rt, "name"), ".", "-")[:1])
				r := genResource(rt, ref)
				text, err := Encode(r)
				if err != nil {
					rt.Fatal(err)
				}
				docs, err := ParseFile(Place{Tenant: ref.Tenant, Path: Path(ref)}, text)
				if err != nil {
					rt.Fatalf("%v\n%s", err, text)
				}
				if len(docs) != 1 || docs[0].Ref != ref || Digest(docs[0].Resource) != Digest(r) {
					rt.Fatalf("got  %+v\nwant %+v\n%s", docs[0].Resource.Spec, r.Spec, text)
				}
				again, err := Encode(docs[0].Resource)
				if err != nil || string(again) != string(text) {
					rt.Fatalf("encoding twice differs (%v):\n%s\n%s", err, text, again)
				}
			})
		})
	}
}

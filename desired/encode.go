// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// value is a document as a tree: what Encode writes, Digest hashes and the splicer compares nodes with.
type value struct {
	kind valueKind
	text string   // of a text, flag or number
	keys []string // of a mapping
	list []value  // of a mapping (beside keys) or a list
	open bool     // a mapping whose keys are data: each of them counts, also with an empty value
}

type valueKind uint8

const (
	textValue valueKind = iota
	bareValue           // flags and numbers: never quoted
	listValue
	dictValue
)

// resourceValue is the tree of a resource. located says whether metadata.tenant and metadata.project are in it.
func resourceValue(r *Resource, located bool) value {
	m := r.Metadata
	if !located {
		m.Tenant, m.Project = "", ""
	}
	spec := reflect.ValueOf(r.Spec).Elem()
	return value{kind: dictValue, keys: []string{"apiVersion", "kind", "metadata", "spec"}, list: []value{
		{text: r.APIVersion},
		{text: string(r.Kind)},
		metadataShape.value(reflect.ValueOf(&m).Elem()),
		shapes[spec.Type()].value(spec),
	}}
}

// value is the tree of a struct. Optional fields that are empty are left out.
func (s *shape) value(v reflect.Value) value {
	out := value{kind: dictValue}
	for i := range s.fields {
		f := &s.fields[i]
		if x, ok := f.value(f.in(v)); ok || f.required {
			out.keys = append(out.keys, f.name)
			out.list = append(out.list, x)
		}
	}
	return out
}

// value is the tree of a field, and whether there is anything in it.
func (f *field) value(v reflect.Value) (value, bool) {
	switch f.kind {
	case textField:
		return value{text: v.String()}, v.Len() > 0
	case flagField:
		return value{kind: bareValue, text: strconv.FormatBool(v.Bool())}, v.Bool()
	case numberField:
		return value{kind: bareValue, text: strconv.FormatInt(v.Int(), 10)}, v.Int() != 0
	case objectField:
		if f.pointer {
			if v.IsNil() {
				return value{kind: dictValue}, false
			}
			v = v.Elem()
		}
		x := f.shape.value(v)
		return x, len(x.keys) > 0
	case listField:
		out := value{kind: listValue}
		for i := range v.Len() {
			if f.shape != nil {
				out.list = append(out.list, f.shape.value(v.Index(i)))
			} else {
				out.list = append(out.list, value{text: v.Index(i).String()})
			}
		}
		return out, v.Len() > 0
	}
	m, _ := v.Interface().(map[string]string)
	out := value{kind: dictValue, keys: sortedKeys(m), open: true}
	for _, k := range out.keys {
		out.list = append(out.list, value{text: m[k]})
	}
	return out, len(m) > 0
}

// get returns the value of a key of a mapping.
func (v value) get(key string) (value, bool) {
	if i := slices.Index(v.keys, key); i >= 0 {
		return v.list[i], true
	}
	return value{}, false
}

// invalid is the pointer of a text or key that is not valid UTF-8, "" when all are.
func (v value) invalid() string {
	if !utf8.ValidString(v.text) {
		return "/"
	}
	for i, x := range v.list {
		token := strconv.Itoa(i)
		if v.kind == dictValue {
			token = pointerToken(v.keys[i])
		}
		if !utf8.ValidString(token) {
			return "/"
		}
		if at := x.invalid(); at != "" {
			return "/" + token + strings.TrimSuffix(at, "/")
		}
	}
	return ""
}

// canonical appends the JSON of v with sorted keys and without white space.
func canonical(b []byte, v value) []byte {
	switch v.kind {
	case textValue:
		return appendJSON(b, v.text)
	case bareValue:
		return append(b, v.text...)
	case listValue:
		b = append(b, '[')
		for i, x := range v.list {
			if i > 0 {
				b = append(b, ',')
			}
			b = canonical(b, x)
		}
		return append(b, ']')
	}
	order := make([]int, len(v.keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, c int) int { return strings.Compare(v.keys[a], v.keys[c]) })
	b = append(b, '{')
	for n, i := range order {
		if n > 0 {
			b = append(b, ',')
		}
		b = appendJSON(b, v.keys[i])
		b = append(b, ':')
		b = canonical(b, v.list[i])
	}
	return append(b, '}')
}

const hexDigits = "0123456789abcdef"

// appendJSON appends a JSON string with as few escapes as JSON allows.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// writer writes values as YAML.
type writer struct {
	out  []byte
	eol  string
	step int // of indentation
}

func (w *writer) indent(n int) { w.out = append(w.out, strings.Repeat(" ", n)...) }
func (w *writer) add(s string) { w.out = append(w.out, s...) }
func (w *writer) newline()     { w.out = append(w.out, w.eol...) }

// block writes a mapping that is not empty as block lines, each beginning at column n and ended by a line break.
func (w *writer) block(v value, n int) {
	for i, k := range v.keys {
		w.indent(n)
		w.pair(k, v.list[i], n)
	}
}

// pair writes "key: value" and a line break, for a key at column n.
func (w *writer) pair(key string, v value, n int) {
	w.add(scalar(key))
	w.add(":")
	w.child(v, n, n+w.step)
}

// child writes the value of a key or list item whose line begins at column n; nested lines begin at inner.
func (w *writer) child(v value, n, inner int) {
	switch {
	case v.kind == textValue && literal(v.text):
		w.add(" ")
		w.literal(v.text, n+w.step)
	case v.kind == listValue && len(v.list) > 0:
		w.newline()
		for _, x := range v.list {
			w.indent(inner)
			w.item(x, inner)
		}
	case v.kind == dictValue && len(v.keys) > 0:
		w.newline()
		w.block(v, inner)
	default:
		w.add(" ")
		w.flow(v)
		w.newline()
	}
}

// item writes "- value" and a line break, for a dash at column n.
func (w *writer) item(v value, n int) {
	w.add("-")
	if v.kind == dictValue && len(v.keys) > 0 {
		w.add(" ")
		for i, k := range v.keys {
			if i > 0 {
				w.indent(n + 2)
			}
			w.pair(k, v.list[i], n+2)
		}
		return
	}
	w.child(v, n, n+w.step)
}

// literal writes a text as a literal block whose lines begin at column n, with the line break that ends it.
func (w *writer) literal(s string, n int) {
	w.add("|")
	if !strings.HasSuffix(s, "\n") {
		w.add("-")
	}
	w.newline()
	for line := range strings.SplitSeq(strings.TrimSuffix(s, "\n"), "\n") {
		if line != "" {
			w.indent(n)
			w.add(line)
		}
		w.newline()
	}
}

// flow writes a value on one line.
func (w *writer) flow(v value) {
	switch v.kind {
	case textValue:
		w.add(scalar(v.text))
	case bareValue:
		w.add(v.text)
	case listValue:
		w.add("[")
		for i, x := range v.list {
			if i > 0 {
				w.add(", ")
			}
			w.flow(x)
		}
		w.add("]")
	case dictValue:
		w.add("{")
		for i, k := range v.keys {
			if i > 0 {
				w.add(", ")
			}
			w.add(scalar(k))
			w.add(": ")
			w.flow(v.list[i])
		}
		w.add("}")
	}
}

// literal reports whether a text may be written as a literal block: several lines, none of which needs an escape,
// the first with content that is not white space, and at most one line break at the end.
func literal(s string) bool {
	body := strings.TrimSuffix(s, "\n")
	if !strings.Contains(s, "\n") || body == "" || strings.HasSuffix(body, "\n") || strings.ContainsAny(s[:1], " \t\n") {
		return false
	}
	for _, r := range s {
		if r != '\n' && r != '\t' && !printable(r) {
			return false
		}
	}
	return true
}

// printable reports characters that may stand in a file as they are.
func printable(r rune) bool {
	return !unprintable(r) && r != 0x2028 && r != 0x2029 && r != 0xfeff && r != 0xfffe && r != 0xffff && r != utf8.RuneError
}

// scalar writes a text on one line, in double quotes unless every parser reads it alike without.
func scalar(s string) string {
	if plain(s) {
		return s
	}
	return quoted(s)
}

// plain reports whether a text needs no quotes, neither in a block nor between brackets.
func plain(s string) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	if c := s[0]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '/' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		switch {
		case word || strings.IndexByte("_-./+@()=;", c) >= 0:
		case c == ' ' && i < len(s)-1 && s[i+1] != ' ':
		case c == ':' && i < len(s)-1 && s[i+1] != ' ':
		default:
			return false
		}
	}
	switch strings.ToLower(s) {
	case "null", "true", "false", "y", "n", "yes", "no", "on", "off", "inf", "nan":
		return false
	}
	return true
}

// quoted writes a text in double quotes with escapes that YAML and JSON share.
func quoted(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\t':
			b = append(b, '\\', 't')
		case r == '\r':
			b = append(b, '\\', 'r')
		case !printable(r) && r != utf8.RuneError:
			b = append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return string(append(b, '"'))
}

// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// shape is what decoding, encoding and checking know about a struct type: one reading of its tags for all of them.
type shape struct {
	fields []field // in the order of the type, embedded ones last
	sorted []int   // fields by name
	names  []string
}

type fieldKind uint8

const (
	textField   fieldKind = iota // string or a named string
	flagField                    // bool
	numberField                  // int, int64
	objectField                  // struct or pointer to one
	listField                    // slice of texts or objects
	dictField                    // map[string]string
)

type field struct {
	name     string
	index    []int
	kind     fieldKind
	required bool
	pointer  bool   // objectField behind a pointer: nil is absent
	shape    *shape // of the object, or of the list's elements; nil for texts
	check    check
}

// shapes holds the shape of every struct type of a document. It is never written after it was made.
var shapes = func() map[reflect.Type]*shape {
	m := map[reflect.Type]*shape{}
	shapeOf(m, reflect.TypeFor[Metadata]())
	for _, k := range Kinds() {
		shapeOf(m, reflect.TypeOf(k.newSpec()).Elem())
	}
	return m
}()

var metadataShape = shapes[reflect.TypeFor[Metadata]()]

func shapeOf(m map[reflect.Type]*shape, t reflect.Type) *shape {
	if s, ok := m[t]; ok {
		return s
	}
	s := new(shape)
	m[t] = s
	var embedded []field
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for _, e := range shapeOf(m, f.Type).fields {
				e.index = append([]int{i}, e.index...)
				embedded = append(embedded, e)
			}
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		s.fields = append(s.fields, fieldOf(m, f, name, i, !strings.Contains(options, "omitempty")))
	}
	s.fields = append(s.fields, embedded...)
	for i, f := range s.fields {
		s.sorted = append(s.sorted, i)
		s.names = append(s.names, f.name)
	}
	slices.SortFunc(s.sorted, func(a, b int) int { return strings.Compare(s.fields[a].name, s.fields[b].name) })
	return s
}

func fieldOf(m map[reflect.Type]*shape, f reflect.StructField, name string, i int, required bool) field {
	out := field{name: name, index: []int{i}, required: required, check: parseCheck(f.Tag.Get("check"))}
	t := f.Type
	switch t.Kind() {
	case reflect.String:
		out.kind = textField
	case reflect.Bool:
		out.kind = flagField
	case reflect.Int, reflect.Int64:
		out.kind = numberField
	case reflect.Map:
		out.kind = dictField
	case reflect.Slice:
		out.kind = listField
		if t.Elem().Kind() == reflect.Struct {
			out.shape = shapeOf(m, t.Elem())
		}
	case reflect.Pointer:
		out.kind, out.pointer, out.shape = objectField, true, shapeOf(m, t.Elem())
	default:
		out.kind, out.shape = objectField, shapeOf(m, t)
	}
	return out
}

// find returns the field of a key.
func (s *shape) find(name string) *field {
	for i := range s.fields {
		if s.fields[i].name == name {
			return &s.fields[i]
		}
	}
	return nil
}

// in returns the field's value in a struct.
func (f *field) in(v reflect.Value) reflect.Value {
	if len(f.index) == 1 {
		return v.Field(f.index[0])
	}
	return v.FieldByIndex(f.index)
}

// validate checks every field of a struct against its form. at is the pointer of the struct.
func (s *shape) validate(v reflect.Value, at string, report func(pointer, detail string)) {
	for i := range s.fields {
		f := &s.fields[i]
		x, p := f.in(v), at+"/"+f.name
		switch f.kind {
		case textField:
			if x.Len() > 0 {
				reportIf(report, p, f.check.fault(x.String()))
			}
		case numberField:
			if n := x.Int(); n < int64(f.check.min) || f.check.max > 0 && n > int64(f.check.max) {
				report(p, "must be a number from "+strconv.Itoa(f.check.min)+" to "+strconv.Itoa(f.check.max))
			}
		case objectField:
			if f.pointer && !x.IsNil() {
				f.shape.validate(x.Elem(), p, report)
			} else if !f.pointer {
				f.shape.validate(x, p, report)
			}
		case listField:
			f.validateList(x, p, report)
		case dictField:
			f.validateDict(x, p, report)
		}
		if f.required && (x.IsZero() || f.kind == listField && x.Len() == 0) {
			report(p, "is required: add it")
		}
	}
}

func reportIf(report func(pointer, detail string), pointer, fault string) {
	if fault != "" {
		report(pointer, fault)
	}
}

func (f *field) validateList(x reflect.Value, p string, report func(pointer, detail string)) {
	if x.Len() > f.check.items {
		report(p, "must not have more than "+strconv.Itoa(f.check.items)+" entries")
		return
	}
	seen := make(map[string]bool, x.Len())
	for i := range x.Len() {
		at := p + "/" + strconv.Itoa(i)
		if f.shape != nil {
			f.shape.validate(x.Index(i), at, report)
			continue
		}
		s := x.Index(i).String()
		switch {
		case s == "":
			report(at, "must not be empty")
		case seen[s]:
			report(at, "is in the list twice: remove one")
		default:
			reportIf(report, at, f.check.fault(s))
		}
		seen[s] = true
	}
}

func (f *field) validateDict(x reflect.Value, p string, report func(pointer, detail string)) {
	m, _ := x.Interface().(map[string]string)
	if len(m) > f.check.items {
		report(p, "must not have more than "+strconv.Itoa(f.check.items)+" entries")
		return
	}
	keys := formOf("key")
	for _, k := range sortedKeys(m) {
		at := p + "/" + pointerToken(shown(k))
		if fault := keys.test(k); fault != "" {
			report(at, fault)
		} else {
			reportIf(report, at, f.check.fault(m[k]))
		}
	}
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// pointerToken escapes a key for an RFC 6901 pointer.
func pointerToken(key string) string {
	if !strings.ContainsAny(key, "~/") {
		return key
	}
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}

// pointerKey is the inverse of pointerToken.
func pointerKey(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
}

// faults collects field errors for a Validate method.
type faults []FieldError

func (l *faults) add(pointer, detail string) {
	*l = append(*l, FieldError{Pointer: pointer, Detail: detail})
}

// checkForms checks the fields of a spec against their forms.
func checkForms(spec Spec) faults {
	v := reflect.ValueOf(spec).Elem()
	var l faults
	shapes[v.Type()].validate(v, "/spec", l.add)
	return l
}

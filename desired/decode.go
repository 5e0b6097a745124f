// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// err is the file's faults in the order of their places.
func (f *file) err() *Error {
	slices.SortStableFunc(f.faults, func(a, b FieldError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Error{Class: Invalid, Op: "decode file", Fields: f.faults[:min(len(f.faults), maxFaults)]}
}

// document decodes one chunk. On faults the result is not to be used but for its Ref and Line.
func (f *file) document(c chunk) Document {
	d := Document{Start: c.start, End: c.end, Line: c.line}
	root := f.tree(c)
	if root == nil {
		return d
	}
	before := len(f.faults)
	dec := decoder{file: f, root: root, line: c.line - 1}
	d.Line = dec.line + root.Line
	r, ref := dec.resource()
	dec.vet(root, nil, 0)
	if r == nil {
		return d
	}
	d.Ref = ref
	for _, fault := range r.Validate(ref) {
		if !dec.known(fault.Pointer, before) {
			line, column := dec.locate(fault.Pointer)
			f.report(line, column, fault.Pointer, fault.Detail)
		}
	}
	if len(f.faults) == before {
		d.Resource, d.Digest = r, Digest(r)
	}
	return d
}

// known reports whether a fault at or above a pointer was reported of this document already.
func (d *decoder) known(pointer string, since int) bool {
	for _, o := range d.file.faults[since:] {
		if rest, ok := strings.CutPrefix(pointer, o.Pointer); ok && o.Pointer != "" && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// tree parses one chunk to its root node, nil after a fault.
func (f *file) tree(c chunk) (root *yaml.Node) {
	doc, err := parseTree(f.data[c.lo:c.end])
	if err != nil {
		line, detail := syntaxFault(err)
		at, column := f.breaks(c, max(line, 1))
		f.report(c.line+at-1, column, "", detail)
		return nil
	}
	if doc.Kind != yaml.MappingNode {
		f.report(c.line+doc.Line-1, doc.Column, "", "a document must be a mapping with apiVersion, kind, metadata and spec")
		return nil
	}
	return doc
}

// breaks finds the line of a chunk that breaks its syntax, and the column of its first character. The parser names
// the line where it stood or where the part began that it could not finish; the line after the longest beginning
// that can be read is nearer to the cause. That is tried for small documents, and not too often: trying costs.
func (f *file) breaks(c chunk, told int) (line, column int) {
	const most, size = 200, 8 << 10
	text := f.data[c.lo:c.end]
	lines := bytes.SplitAfter(text, []byte("\n"))
	line = min(told, len(lines))
	if f.tries += len(lines); len(text) <= size && f.tries <= most {
		at := len(text)
		for i := len(lines) - 1; i > 0; i-- {
			at -= len(lines[i])
			if _, err := parseTree(text[:at]); err == nil {
				line = i + 1
				break
			}
		}
	}
	for line < len(lines) && len(bytes.TrimSpace(lines[line-1])) == 0 {
		line++
	}
	l := lines[line-1]
	return line, 1 + len(l) - len(bytes.TrimLeft(l, " \t"))
}

// parseTree reads exactly one YAML document. The parser is not ours and its input is hostile: a panic of it is a
// fault of the input.
func parseTree(text []byte) (root *yaml.Node, err error) {
	defer func() {
		if recover() != nil {
			root, err = nil, errors.New("yaml: unreadable")
		}
	}()
	var doc, more yaml.Node
	in := yaml.NewDecoder(bytes.NewReader(text))
	if err := in.Decode(&doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 {
		return nil, errors.New("yaml: unreadable")
	}
	switch err := in.Decode(&more); {
	case err == nil:
		return nil, errors.New("yaml: line " + strconv.Itoa(more.Line) + ": did not find expected <document start>")
	case err != io.EOF:
		return nil, err
	}
	return doc.Content[0], nil
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxFault turns the parser's error into a line of the chunk and a sentence of ours. The parser's own text is
// not shown: some of it quotes the input.
func syntaxFault(err error) (int, string) {
	text := err.Error()
	m := syntaxLine.FindStringSubmatch(text)
	line, _ := strconv.Atoi(m[1])
	for _, row := range []struct{ part, detail string }{
		{"mapping values are not allowed", "this is not valid YAML: a value that contains ': ' must be quoted, or the indentation is off"},
		{"did not find expected key", "this is not valid YAML: the indentation is off, or a quote or bracket is missing"},
		{"did not find expected '-' indicator", "this is not valid YAML: the indentation of the list is off"},
		{"did not find expected ',' or", "this is not valid YAML: a comma or closing bracket is missing"},
		{"did not find expected node content", "this is not valid YAML: a value or a closing bracket is missing"},
		{"did not find expected <document start>", "this is not valid YAML: the document has ended before this text; begin the next one with a line ---"},
		{"cannot start any token", "this is not valid YAML: indent with spaces, and quote values that begin with @, ` or %"},
		{"could not find expected ':'", "this is not valid YAML: a key needs ': ' and a value after it"},
		{"unexpected end of stream", "this is not valid YAML: a closing quote is missing"},
		{"unexpected document indicator", "this is not valid YAML: a closing quote is missing"},
		{"escape", "this is not valid YAML: an escape in double quotes is wrong"},
		{"unknown anchor", "aliases are not allowed: write the value out"},
		{"exceeded max depth", "the document is nested too deeply"},
		{"indentation", "this is not valid YAML: the indentation is off"},
	} {
		if strings.Contains(text, row.part) {
			return line, row.detail
		}
	}
	return line, "this is not valid YAML"
}

// decoder turns the nodes of one document into a resource.
type decoder struct {
	file *file
	root *yaml.Node
	line int // of the file, before the chunk's first
}

// step is where the decoder is, from the inside out.
type step struct {
	up    *step
	key   string
	index int // when key is ""
}

func (s *step) pointer() string {
	if s == nil {
		return ""
	}
	if s.key == "" {
		return s.up.pointer() + "/" + strconv.Itoa(s.index)
	}
	return s.up.pointer() + "/" + pointerToken(shown(s.key))
}

func (d *decoder) fault(n *yaml.Node, at *step, detail string) {
	d.file.report(d.line+n.Line, n.Column, at.pointer(), detail)
}

// vet refuses what no document may contain, wherever it stands: anchors, aliases, tags, merge keys, keys that are
// no texts, keys that are there twice, deep nesting.
func (d *decoder) vet(n *yaml.Node, at *step, depth int) {
	switch {
	case depth > maxDepth:
		d.fault(n, at, "the document is nested more than "+strconv.Itoa(maxDepth)+" levels deep")
		return
	case n.Kind == yaml.AliasNode:
		d.fault(n, at, "aliases are not allowed: write the value out")
		return
	case n.Anchor != "":
		d.fault(n, at, "anchors are not allowed: remove it and write the value out where it is used")
	case n.Style&yaml.TaggedStyle != 0:
		d.fault(n, at, "tags are not allowed: remove it")
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for i, c := range n.Content {
			d.vet(c, &step{up: at, index: i}, depth+1)
		}
	case yaml.MappingNode:
		d.vetKeys(n, at)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			d.vet(key, at, depth+1)
			d.vet(n.Content[i+1], &step{up: at, key: key.Value}, depth+1)
		}
	}
}

func (d *decoder) vetKeys(n *yaml.Node, at *step) {
	var seen map[string]*yaml.Node
	if len(n.Content) > 16 {
		seen = make(map[string]*yaml.Node, len(n.Content)/2)
	}
	for i := 0; i < len(n.Content) && !d.file.full(); i += 2 {
		k := n.Content[i]
		at := &step{up: at, key: k.Value}
		switch {
		case k.Kind != yaml.ScalarNode:
			d.fault(k, at, "a key must be text")
			continue
		case k.Tag == "!!merge":
			d.fault(k, at, "merge keys are not allowed: write the values out")
		case k.Style == 0 && (k.Tag != "!!str" || misread(k.Value)):
			d.fault(k, at, `the key "`+shown(k.Value)+`" is not read as text by every parser: put it in quotes`)
		case n.Style&yaml.FlowStyle == 0 && k.Column != n.Column:
			d.fault(k, at, "keys must be written as key: value, without '? '")
		}
		if o := twin(n, i, seen); o != nil {
			detail := `the key "` + shown(k.Value) + `" is there twice: first at line ` + strconv.Itoa(d.line+o.Line)
			if o.Value != k.Value {
				detail = `the key "` + shown(k.Value) + `" differs from "` + shown(o.Value) + `" at line ` + strconv.Itoa(d.line+o.Line) + " in letter case only"
			}
			d.fault(k, at, detail+"; remove one")
		}
	}
}

// twin finds an earlier key of a mapping that equals the i-th but for letter case. seen is nil for small mappings.
func twin(n *yaml.Node, i int, seen map[string]*yaml.Node) *yaml.Node {
	k := n.Content[i]
	if seen == nil {
		for j := 0; j < i; j += 2 {
			if strings.EqualFold(n.Content[j].Value, k.Value) {
				return n.Content[j]
			}
		}
		return nil
	}
	low := strings.ToLower(strings.ToUpper(k.Value))
	if o := seen[low]; o != nil {
		return o
	}
	seen[low] = k
	return nil
}

// resource decodes the root. It returns nil when the frame is so faulty that nothing more can be said.
func (d *decoder) resource() (*Resource, Ref) {
	r := new(Resource)
	var meta, spec *yaml.Node
	for i := 0; i+1 < len(d.root.Content) && !d.file.full(); i += 2 {
		k, v := d.root.Content[i], d.root.Content[i+1]
		at := &step{key: k.Value}
		switch k.Value {
		case "apiVersion":
			r.APIVersion, _ = d.text(v, at)
		case "kind":
			kind, _ := d.text(v, at)
			r.Kind = Kind(kind)
		case "metadata":
			meta = v
		case "spec":
			spec = v
		default:
			d.unknown(k, nil, []string{"apiVersion", "kind", "metadata", "spec"})
		}
	}
	if meta != nil {
		d.object(meta, reflect.ValueOf(&r.Metadata).Elem(), metadataShape, &step{key: "metadata"})
	}
	ok := d.frame(r, meta, spec)
	if info, known := kindTable[r.Kind]; known && spec != nil {
		r.Spec = info.newSpec()
		v := reflect.ValueOf(r.Spec).Elem()
		d.object(spec, v, shapes[v.Type()], &step{key: "spec"})
	}
	if !ok {
		return nil, Ref{}
	}
	return r, d.ref(r)
}

// frame checks what every document must have.
func (d *decoder) frame(r *Resource, meta, spec *yaml.Node) bool {
	before := len(d.file.faults)
	if version := d.find("/apiVersion"); version == nil {
		d.missing("apiVersion", "add apiVersion: "+APIVersion)
	} else if r.APIVersion != APIVersion {
		d.fault(version, &step{key: "apiVersion"}, "must be "+APIVersion)
	}
	_, known := kindTable[r.Kind]
	switch kind := d.find("/kind"); {
	case kind == nil:
		d.missing("kind", "add one of "+strings.Join(kindNames(), ", "))
	case !known:
		d.fault(kind, &step{key: "kind"}, "is no known kind"+didYouMean(string(r.Kind), kindNames())+"; known: "+strings.Join(kindNames(), ", "))
	}
	if meta == nil {
		d.missing("metadata", "add metadata with a name")
	}
	if spec == nil {
		d.missing("spec", "add it, or spec: {} where nothing is to be said")
	}
	return known && meta != nil && spec != nil && len(d.file.faults) == before
}

func (d *decoder) missing(key, remedy string) {
	d.fault(d.root, &step{key: key}, key+" is missing: "+remedy)
}

// ref is the identity of a document by its place, and checks that its kind may live there.
func (d *decoder) ref(r *Resource) Ref {
	p := d.file.place
	project := p.project()
	if p.Path == "" {
		project = r.Metadata.Project
		if project == "" && kindTable[r.Kind].Project {
			project = p.Project
		}
	}
	if fault := p.allows(kindTable[r.Kind], project); fault != "" {
		d.fault(d.find("/kind"), &step{key: "kind"}, fault)
	}
	return Ref{Tenant: p.Tenant, Project: project, Kind: r.Kind, Name: r.Metadata.Name}
}

func (d *decoder) unknown(k *yaml.Node, at *step, names []string) {
	d.fault(k, &step{up: at, key: k.Value}, `unknown key "`+shown(k.Value)+`"`+didYouMean(k.Value, names))
}

// object decodes a mapping into a struct.
func (d *decoder) object(n *yaml.Node, v reflect.Value, s *shape, at *step) {
	if n.Kind != yaml.MappingNode {
		d.kindFault(n, at, "a mapping")
		return
	}
	for i := 0; i+1 < len(n.Content) && !d.file.full(); i += 2 {
		k := n.Content[i]
		f := s.find(k.Value)
		if f == nil {
			d.unknown(k, at, s.names)
			continue
		}
		d.value(n.Content[i+1], f.in(v), f, &step{up: at, key: f.name})
	}
}

func (d *decoder) value(n *yaml.Node, v reflect.Value, f *field, at *step) {
	switch f.kind {
	case textField:
		switch s, ok := d.text(n, at); {
		case ok && s == "":
			d.fault(n, at, "is empty: give it a value, or remove the key")
		case ok:
			v.SetString(s)
		}
	case flagField:
		if n.Kind == yaml.ScalarNode && n.Style == 0 && n.Tag == "!!bool" {
			v.SetBool(n.Value[0] == 't' || n.Value[0] == 'T')
		} else {
			d.kindFault(n, at, "true or false, without quotes")
		}
	case numberField:
		if i, err := strconv.ParseInt(n.Value, 10, 64); n.Kind == yaml.ScalarNode && n.Style == 0 && err == nil && strconv.FormatInt(i, 10) == n.Value {
			v.SetInt(i)
		} else {
			d.kindFault(n, at, "a whole number in decimal digits, without quotes")
		}
	case objectField:
		if f.pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		d.object(n, v, f.shape, at)
	case listField:
		d.list(n, v, f, at)
	case dictField:
		d.dict(n, v, at)
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, f *field, at *step) {
	if n.Kind != yaml.SequenceNode {
		d.kindFault(n, at, "a list")
		return
	}
	if len(n.Content) == 0 {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		here := &step{up: at, index: i}
		if f.shape != nil {
			d.object(c, v.Index(i), f.shape, here)
		} else if s, ok := d.text(c, here); ok {
			v.Index(i).SetString(s)
		}
	}
}

func (d *decoder) dict(n *yaml.Node, v reflect.Value, at *step) {
	if n.Kind != yaml.MappingNode {
		d.kindFault(n, at, "a mapping")
		return
	}
	if len(n.Content) == 0 {
		return
	}
	m := make(map[string]string, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i].Value
		if s, ok := d.text(n.Content[i+1], &step{up: at, key: k}); ok {
			m[k] = s
		}
	}
	v.Set(reflect.ValueOf(m))
}

// text decodes a string. What parsers disagree about is refused without quotes; times are not: every parser keeps
// their text.
func (d *decoder) text(n *yaml.Node, at *step) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.kindFault(n, at, "text")
		return "", false
	}
	if n.Style&^yaml.TaggedStyle == 0 {
		var kind string
		switch {
		case n.Tag == "!!null":
			d.kindFault(n, at, "text")
			return "", false
		case n.Tag == "!!int" || n.Tag == "!!float" || sixties.MatchString(n.Value):
			kind = "a number"
		case n.Tag == "!!bool" || misread(n.Value):
			kind = "true or false"
		case n.Tag == "!!merge":
			kind = "a merge key"
		}
		if kind != "" {
			d.fault(n, at, "must be text, but without quotes this is read as "+kind+": put it in quotes")
			return "", false
		}
	}
	return n.Value, true
}

func (d *decoder) kindFault(n *yaml.Node, at *step, want string) {
	switch {
	case n.Kind == yaml.AliasNode: // reported by vet
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Style == 0:
		d.fault(n, at, "has no value: add one, or remove the key")
	default:
		d.fault(n, at, "must be "+want)
	}
}

// sixties matches what YAML 1.1 reads as a number to the base of 60, as in 12:30.
var sixties = regexp.MustCompile(`^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)

// misread reports a plain text that YAML 1.1 reads as a truth value or a default key, and YAML 1.2 as text.
func misread(s string) bool {
	if len(s) > 3 || s == "" {
		return false
	}
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "=":
		return true
	}
	return false
}

// find returns the node at a pointer, nil when it is not there.
func (d *decoder) find(pointer string) *yaml.Node {
	_, v := d.walk(pointer)
	return v
}

// walk follows a pointer: the key of the last step that is there (nil in a list), and the value when all are.
func (d *decoder) walk(pointer string) (key, value *yaml.Node) {
	key, value = nil, d.root
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		k, v := childOf(value, pointerKey(token))
		if v == nil {
			if key == nil {
				key = value // in a list, or at the root
			}
			return key, nil
		}
		key, value = k, v
	}
	return key, value
}

func childOf(n *yaml.Node, token string) (key, value *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == token {
				return n.Content[i], n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(n.Content) {
			return nil, n.Content[i]
		}
	}
	return nil, nil
}

// locate is where a fault of Validate is to be shown: at the value, or at the nearest key above a missing one.
func (d *decoder) locate(pointer string) (line, column int) {
	key, value := d.walk(pointer)
	if value == nil {
		value = key
	}
	return d.line + value.Line, value.Column
}

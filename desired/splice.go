// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A splice changes the text of one document so that it says something else, touching only the bytes of the nodes
// that differ. It is not trusted: whoever splices parses the result and compares (see rewrite).
type splice struct {
	src   *source
	eol   string
	edits []textEdit
	ended bool // the last line, which had no line break, got one
	lost  bool // the layout is one that it cannot handle
}

// textEdit replaces the bytes [lo, hi) of the text.
type textEdit struct {
	lo, hi int
	text   string
}

func newSplice(text []byte) *splice {
	p := &splice{src: newSource(text), eol: "\n"}
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		p.eol = "\r\n"
	}
	return p
}

func (p *splice) replace(lo, hi int, text string) {
	p.edits = append(p.edits, textEdit{lo, hi, text})
}

// apply is the text after the edits, nil when they contradict each other.
func (p *splice) apply() []byte {
	if p.lost {
		return nil
	}
	slices.SortStableFunc(p.edits, func(a, b textEdit) int {
		if a.lo != b.lo {
			return a.lo - b.lo
		}
		return a.hi - b.hi
	})
	var out []byte
	at := 0
	for _, e := range p.edits {
		if e.lo < at || e.hi < e.lo || e.hi > len(p.src.text) {
			return nil
		}
		out = append(out, p.src.text[at:e.lo]...)
		out = append(out, e.text...)
		at = e.hi
	}
	if out = append(out, p.src.text[at:]...); at == len(p.src.text) && !bytes.HasSuffix(out, []byte("\n")) {
		out = append(out, p.eol...) // a literal text at the end needs it
	}
	return out
}

// writer writes for a block whose lines begin at column n: nested lines are indented as the document does it.
func (p *splice) writer(n *yaml.Node) *writer {
	step := 2
	if n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle == 0 {
		for i := 1; i < len(n.Content); i += 2 {
			v := n.Content[i]
			if d := v.Column - n.Column; v.Kind == yaml.MappingNode && v.Style&yaml.FlowStyle == 0 && d > 0 {
				step = d
				break
			}
		}
	}
	return &writer{eol: p.eol, step: step}
}

// same reports whether a node says what a value says, but for what is empty and therefore not written.
func same(n *yaml.Node, v value) bool {
	switch v.kind {
	case textValue:
		return n.Kind == yaml.ScalarNode && n.Value == v.text
	case bareValue:
		return n.Kind == yaml.ScalarNode && n.Style == 0 && strings.EqualFold(n.Value, v.text)
	case listValue:
		if n.Kind != yaml.SequenceNode || len(n.Content) != len(v.list) {
			return false
		}
		for i := range v.list {
			if !same(n.Content[i], v.list[i]) {
				return false
			}
		}
		return true
	}
	if n.Kind != yaml.MappingNode {
		return false
	}
	found := 0
	for i := 0; i+1 < len(n.Content); i += 2 {
		x, ok := v.get(n.Content[i].Value)
		switch {
		case ok && same(n.Content[i+1], x):
			found++
		case ok || v.open || !empty(n.Content[i+1]):
			return false
		}
	}
	return found == len(v.keys)
}

// empty reports whether an optional field with this node is as good as absent.
func empty(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Value == "" || n.Style == 0 && (n.Value == "0" || strings.EqualFold(n.Value, "false"))
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			if !empty(n.Content[i]) {
				return false
			}
		}
		return true
	}
	return len(n.Content) == 0
}

// merge makes a node say v. indent is the column of the key or dash that the node belongs to, flow whether it
// stands between brackets.
func (p *splice) merge(n *yaml.Node, v value, indent int, flow bool) {
	inside := flow || n.Style&yaml.FlowStyle != 0
	switch {
	case same(n, v):
	case v.kind <= bareValue && n.Kind == yaml.ScalarNode:
		p.mergeScalar(n, v, indent, flow)
	case v.kind == dictValue && n.Kind == yaml.MappingNode && len(v.keys) > 0:
		p.mergeDict(n, v, indent, inside)
	case v.kind == listValue && n.Kind == yaml.SequenceNode && len(v.list) > 0 && len(n.Content) > 0:
		p.mergeList(n, v, indent, inside)
	default:
		p.whole(n, v, indent, flow)
	}
}

// whole writes a node anew, as block lines where it is a block, else on one line.
func (p *splice) whole(n *yaml.Node, v value, indent int, flow bool) {
	lo, hi := p.src.start(n), p.src.end(n, indent)
	w := p.writer(n)
	switch {
	case flow || n.Style&yaml.FlowStyle != 0 || len(v.list) == 0:
		w.flow(v)
	case v.kind == dictValue:
		w.block(v, n.Column-1)
	default:
		for _, x := range v.list {
			w.indent(n.Column - 1)
			w.item(x, n.Column-1)
		}
	}
	text := strings.TrimLeft(strings.TrimSuffix(string(w.out), p.eol), " ")
	if k := hi + bytes.IndexByte(p.src.text[hi:p.src.lineEnd(hi)], '#'); k >= hi && strings.Contains(text, p.eol) && endsLiteral(v) {
		// A comment behind the last line would become part of the literal text: it gets a line of its own.
		hi, text = k, text+p.eol+strings.Repeat(" ", n.Column-1)
	}
	p.replace(lo, hi, text)
}

// endsLiteral reports whether the last line of a block is that of a literal text.
func endsLiteral(v value) bool {
	if v.kind <= bareValue {
		return v.kind == textValue && literal(v.text)
	}
	return len(v.list) > 0 && endsLiteral(v.list[len(v.list)-1])
}

// mergeScalar writes another text, flag or number, in the style of the old one where that can hold it.
func (p *splice) mergeScalar(n *yaml.Node, v value, indent int, flow bool) {
	lo, hi := p.src.start(n), p.src.end(n, indent)
	rest := ""
	block := n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
	column := indent + 2
	if block {
		b := p.src.blockScalar(lo, indent)
		rest = b.rest
		if b.indent > 0 {
			column = b.indent
		}
	}
	alone := block || !flow && len(bytes.TrimSpace(p.src.text[hi:p.src.lineEnd(hi)])) == 0
	switch {
	case v.kind == bareValue:
		p.replace(lo, hi, v.text)
	case alone && literal(v.text) && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) == 0:
		w := writer{eol: p.eol, step: 2}
		w.literal(v.text, column)
		header, body, _ := strings.Cut(strings.TrimSuffix(string(w.out), p.eol), p.eol)
		p.replace(lo, hi, header+rest+p.eol+body)
	case n.Style&yaml.DoubleQuotedStyle != 0:
		p.replace(lo, hi, quoted(v.text))
	case n.Style&yaml.SingleQuotedStyle != 0 && quoted(v.text) == `"`+v.text+`"`:
		p.replace(lo, hi, "'"+strings.ReplaceAll(v.text, "'", "''")+"'")
	default:
		p.replace(lo, hi, scalar(v.text)+rest)
	}
}

// mergeDict changes, removes and adds the pairs of a mapping.
func (p *splice) mergeDict(n *yaml.Node, v value, indent int, flow bool) {
	column := n.Column - 1
	var kept []int // indexes of keys in n.Content
	place := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		if _, ok := v.get(name); ok || !v.open && empty(n.Content[i+1]) {
			place[name] = i
			kept = append(kept, i)
		}
	}
	if len(kept) == 0 {
		p.whole(n, v, indent, flow)
		return
	}
	at := 0 // keys that come before all others are put before the first that is kept
	added := map[int][]int{}
	last := -1
	for j, name := range v.keys {
		if i, ok := place[name]; ok {
			p.merge(n.Content[i+1], v.list[j], column, flow)
			last = i
		} else {
			added[last] = append(added[last], j)
		}
	}
	entries := make([]entry, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		e := entry{lo: p.src.start(n.Content[i]), hi: p.src.end(n.Content[i+1], column), kept: slices.Contains(kept, i)}
		if e.kept && len(added[-1]) > 0 && at == 0 {
			e.before, at = p.pairs(n, v, added[-1], flow), 1
		}
		e.after = p.pairs(n, v, added[i], flow)
		entries = append(entries, e)
	}
	p.entries(entries, column, flow)
}

// pairs writes pairs of v, each as lines of a block or as text between brackets.
func (p *splice) pairs(n *yaml.Node, v value, which []int, flow bool) []string {
	var out []string
	for _, j := range which {
		w := p.writer(n)
		if flow {
			w.add(scalar(v.keys[j]))
			w.add(": ")
			w.flow(v.list[j])
		} else {
			w.pair(v.keys[j], v.list[j], n.Column-1)
		}
		out = append(out, string(w.out))
	}
	return out
}

// entry is one pair of a mapping or one item of a list, and what comes before and after it.
type entry struct {
	lo, hi        int // hi is after the value
	kept          bool
	before, after []string // new entries: text between brackets, or lines without the first indentation
}

// entries carries out removals and additions. At least one entry is kept.
func (p *splice) entries(list []entry, column int, flow bool) {
	for i := 0; i < len(list); {
		if list[i].kept {
			p.additions(list[i], column, flow)
			i++
			continue
		}
		j := i
		for j < len(list) && !list[j].kept {
			j++
		}
		p.removeRun(list, i, j, flow)
		i = j
	}
}

func (p *splice) additions(e entry, column int, flow bool) {
	if flow {
		for _, text := range e.before {
			p.replace(e.lo, e.lo, text+", ")
		}
		for _, text := range e.after {
			p.replace(e.hi, e.hi, ", "+text)
		}
		return
	}
	margin := strings.Repeat(" ", column)
	if len(e.before) > 0 {
		p.replace(e.lo, e.lo, strings.Join(e.before, margin)+margin)
	}
	if len(e.after) == 0 {
		return
	}
	at := p.src.nextLine(e.hi)
	text := margin + strings.Join(e.after, margin)
	if at == len(p.src.text) && p.src.text[at-1] != '\n' && !p.ended {
		text, p.ended = p.eol+text, true
	}
	p.replace(at, at, text)
}

// removeRun removes the entries [i, j), which are followed or preceded by one that is kept.
func (p *splice) removeRun(list []entry, i, j int, flow bool) {
	switch first := list[i]; {
	case flow && j < len(list):
		p.replace(first.lo, list[j].lo, "")
	case flow:
		p.replace(list[i-1].hi, list[j-1].hi, "")
	case !p.src.leads(first.lo) && j < len(list):
		p.replace(first.lo, list[j].lo, "")
	case !p.src.leads(first.lo):
		p.lost = true
	default:
		for _, e := range list[i:j] {
			p.replace(p.src.lineStart(e.lo), p.src.nextLine(e.hi), "")
		}
	}
}

// mergeList changes, removes and adds the items of a list: equal ones at both ends are left alone, those between
// are changed one for one, and the rest is removed or added.
func (p *splice) mergeList(n *yaml.Node, v value, indent int, flow bool) {
	have, want := n.Content, v.list
	head := 0
	for head < len(have) && head < len(want) && same(have[head], want[head]) {
		head++
	}
	tail := 0
	for tail < len(have)-head && tail < len(want)-head && same(have[len(have)-1-tail], want[len(want)-1-tail]) {
		tail++
	}
	both := min(len(have), len(want)) - head - tail
	column := n.Column - 1
	for i := head; i < head+both; i++ {
		p.merge(have[i], want[i], column, flow)
	}
	entries := make([]entry, 0, len(have))
	last := p.src.start(n)
	for i, c := range have {
		e := entry{lo: p.src.start(c), hi: p.src.end(c, column), kept: i < head+both || i >= len(have)-tail}
		if !flow {
			if e.lo = p.dash(last, column, i == 0); e.lo < 0 {
				p.lost = true
				return
			}
			last = e.hi
		}
		entries = append(entries, e)
	}
	if fresh := p.items(n, want[head+both:len(want)-tail], flow); len(fresh) > 0 && head+both > 0 {
		entries[head+both-1].after = fresh
	} else if len(fresh) > 0 {
		entries[0].before = fresh
	}
	p.entries(entries, column, flow)
}

// dash finds the dash of a list item: the first stands where the list begins, the others at the beginning of a
// line, in the same column. It is -1 when there is none.
func (p *splice) dash(after, column int, first bool) int {
	if first {
		return after
	}
	for at := p.src.nextLine(after); at < len(p.src.text); at = p.src.nextLine(at) {
		i := at + column
		if i < len(p.src.text) && p.src.text[i] == '-' && p.src.leads(i) {
			return i
		}
	}
	return -1
}

func (p *splice) items(n *yaml.Node, list []value, flow bool) []string {
	var out []string
	for _, x := range list {
		w := p.writer(n)
		if flow {
			w.flow(x)
		} else {
			w.item(x, n.Column-1)
		}
		out = append(out, string(w.out))
	}
	return out
}

// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"strconv"
	"strings"

	"pgregory.net/rapid"
)

// layout writes a value as a person might: keys in any order, odd indentation, brackets here and there, quotes as
// it pleases, comments and blank lines everywhere. Every comment is unique and remembers what it is about.
type layout struct {
	rt    *rapid.T
	out   strings.Builder
	eol   string
	notes []note
	count int
}

type note struct{ text, pointer string }

func (l *layout) chance(what string, in int) bool { return rapid.IntRange(1, in).Draw(l.rt, what) == 1 }

func (l *layout) note(pointer string) string {
	n := note{fmt.Sprintf("# note %d: é {of} [%s]", l.count, strings.ReplaceAll(pointer, "/", " ")), pointer}
	l.notes = append(l.notes, n)
	l.count++
	return n.text
}

func (l *layout) add(s string) { l.out.WriteString(s) }

func (l *layout) pad(n int) { l.add(strings.Repeat(" ", n)) }

// between writes blank lines and comment lines before a key or item.
func (l *layout) between(at string, column int) {
	if l.chance("blank", 6) {
		l.add(l.eol)
	}
	if l.chance("comment", 4) {
		l.pad(column)
		l.add(l.note(at) + l.eol)
	}
}

func (l *layout) endLine(at string) {
	if l.chance("trailing", 4) {
		l.add(strings.Repeat(" ", rapid.IntRange(1, 5).Draw(l.rt, "gap")) + l.note(at))
	}
	l.add(l.eol)
}

func (l *layout) dict(v value, at string, column int, first bool) {
	for n, i := range rapid.Permutation(indexes(len(v.keys))).Draw(l.rt, "order") {
		here := at + "/" + pointerToken(v.keys[i])
		if n > 0 || !first {
			l.between(here, column)
			l.pad(column)
		}
		l.add(scalar(v.keys[i]) + ":")
		l.value(v.list[i], here, column)
	}
}

func indexes(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// value writes what follows "key:" or "-", up to the end of its last line.
func (l *layout) value(v value, at string, column int) {
	switch flow := l.chance("flow", 4); {
	case v.kind <= bareValue:
		l.scalar(v, at, column)
	case flow || len(v.list) == 0:
		l.add(" ")
		l.flow(v)
		l.endLine(at)
	case v.kind == dictValue:
		l.endLine(at)
		l.dict(v, at, column+rapid.IntRange(1, 5).Draw(l.rt, "step"), false)
	default:
		l.endLine(at)
		dash := column + rapid.IntRange(0, 4).Draw(l.rt, "step")
		if column < 0 || strings.HasSuffix(at, "-") {
			dash = column + 2
		}
		for i, x := range v.list {
			here := at + "/" + strconv.Itoa(i)
			l.between(here, dash)
			l.pad(dash)
			l.add("-")
			if gap := rapid.IntRange(1, 3).Draw(l.rt, "dash gap"); x.kind == dictValue && len(x.keys) > 0 && !l.chance("flow item", 4) {
				l.pad(gap)
				l.dict(x, here, dash+1+gap, true)
			} else {
				l.value(x, here, dash)
			}
		}
	}
}

func (l *layout) scalar(v value, at string, column int) {
	l.pad(rapid.IntRange(1, 3).Draw(l.rt, "gap"))
	if v.kind == textValue && literal(v.text) && l.chance("literal", 2) {
		w := writer{eol: l.eol, step: rapid.IntRange(1, 4).Draw(l.rt, "literal step")}
		w.literal(v.text, column+w.step)
		header, body, _ := strings.Cut(string(w.out), l.eol)
		l.add(header)
		l.endLine(at)
		l.add(body)
		if l.chance("blank after literal", 4) {
			l.add(l.eol)
		}
		return
	}
	if words := strings.Split(v.text, " "); len(words) > 1 && plain(v.text) && l.chance("over lines", 2) {
		margin := l.eol + strings.Repeat(" ", max(column, 0)+rapid.IntRange(1, 4).Draw(l.rt, "margin"))
		switch text := strings.Join(words, margin); rapid.IntRange(0, 3).Draw(l.rt, "style") {
		case 0:
			l.add(text)
		case 1:
			l.add(`"` + text + `"`)
		case 2:
			l.add("'" + text + "'")
		default:
			l.add(">-")
			l.endLine(at)
			l.add(strings.TrimPrefix(margin, l.eol) + text + l.eol)
			return
		}
		l.endLine(at)
		return
	}
	l.add(l.word(v))
	l.endLine(at)
}

func (l *layout) word(v value) string {
	switch {
	case v.kind == bareValue:
		return v.text
	case l.chance("single", 3) && quoted(v.text) == `"`+v.text+`"`:
		return "'" + strings.ReplaceAll(v.text, "'", "''") + "'"
	case l.chance("double", 3):
		return quoted(v.text)
	}
	return scalar(v.text)
}

func (l *layout) flow(v value) {
	open, end := "[", "]"
	if v.kind == dictValue {
		open, end = "{", "}"
	}
	l.add(open)
	l.space()
	for i, x := range v.list {
		if i > 0 {
			l.add(",")
			l.add(" ")
			l.space()
		}
		if v.kind == dictValue {
			l.add(scalar(v.keys[i]) + ": ")
		}
		if x.kind <= bareValue {
			l.add(l.word(x))
		} else {
			l.flow(x)
		}
		l.space()
	}
	if len(v.list) > 0 && l.chance("trailing comma", 8) {
		l.add(",")
	}
	l.add(end)
}

func (l *layout) space() {
	switch rapid.IntRange(0, 9).Draw(l.rt, "space") {
	case 0:
		l.add("  ")
	case 1:
		l.add(l.eol + "          ")
	}
}

// document writes a resource, with a marker before it when it is not the first.
func (l *layout) document(r *Resource, first bool) {
	if !first || l.chance("marker", 2) {
		l.add("---")
		if l.chance("marker comment", 4) {
			l.add(" # a document")
		}
		l.add(l.eol)
	}
	v := resourceValue(r, true)
	if l.chance("flow root", 12) {
		l.flow(v)
		l.add(l.eol)
	} else {
		l.dict(v, "", 0, false)
	}
	if l.chance("end marker", 8) {
		l.add("..." + l.eol)
	}
}

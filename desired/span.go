// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// source is the text of one document with the places of its nodes. The parser tells where a node begins, as line
// and character; where it ends is found here, from the text.
type source struct {
	text  []byte
	lines []int // byte offset of each line
}

func newSource(text []byte) *source {
	s := &source{text: text, lines: []int{0}}
	for i, c := range text {
		if c == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// start is the byte offset of a node.
func (s *source) start(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(s.lines) {
		return len(s.text)
	}
	at := s.lines[n.Line-1]
	for i := 1; i < n.Column && at < len(s.text); i++ {
		_, size := utf8.DecodeRune(s.text[at:])
		at += size
	}
	return at
}

// end is the byte offset after a node, without the line break, white space or comment that may follow. indent is
// the column (from 0) of the key or dash that the node belongs to.
func (s *source) end(n *yaml.Node, indent int) int {
	at := s.start(n)
	switch {
	case n.Kind == yaml.ScalarNode && n.Style&yaml.DoubleQuotedStyle != 0:
		return s.endQuoted(at, '"')
	case n.Kind == yaml.ScalarNode && n.Style&yaml.SingleQuotedStyle != 0:
		return s.endQuoted(at, '\'')
	case n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return s.blockScalar(at, indent).end
	case n.Kind == yaml.ScalarNode:
		return s.endPlain(at, n.Value)
	case n.Style&yaml.FlowStyle != 0:
		return s.endFlow(n, at)
	case len(n.Content) == 0:
		return at
	}
	last := n.Content[len(n.Content)-1]
	return s.end(last, n.Column-1)
}

// endQuoted finds the end of a quoted text. Within double quotes a backslash hides the next character, within
// single quotes two quotes stand for one.
func (s *source) endQuoted(at int, quote byte) int {
	for i := at + 1; i < len(s.text); i++ {
		switch {
		case s.text[i] == '\\' && quote == '"':
			i++
		case s.text[i] != quote:
		case quote == '\'' && i+1 < len(s.text) && s.text[i+1] == quote:
			i++
		default:
			return i + 1
		}
	}
	return len(s.text)
}

// endPlain follows the value of a plain text through its source: a line break in the source, with the white space
// around it, is a space or line breaks in the value; all else is the same.
func (s *source) endPlain(at int, value string) int {
	i := at
	for j := 0; j < len(value) && i < len(s.text); {
		gap := i
		for gap < len(s.text) && strings.IndexByte(" \t\r\n", s.text[gap]) >= 0 {
			gap++
		}
		if bytes.IndexByte(s.text[i:gap], '\n') < 0 {
			i++
			j++
			continue
		}
		i = gap
		for j < len(value) && (value[j] == ' ' || value[j] == '\n') {
			j++
		}
	}
	return i
}

// endFlow finds the closing bracket after the last entry.
func (s *source) endFlow(n *yaml.Node, at int) int {
	i := at + 1
	if len(n.Content) > 0 {
		i = s.end(n.Content[len(n.Content)-1], 0)
	}
	for i = s.skip(i); i < len(s.text); i = s.skip(i + 1) {
		if s.text[i] == ']' || s.text[i] == '}' {
			return i + 1
		}
	}
	return len(s.text)
}

// skip passes white space and comments.
func (s *source) skip(i int) int {
	for i < len(s.text) {
		switch c := s.text[i]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			i++
		case c == '#' && i > 0 && strings.IndexByte(" \t\n", s.text[i-1]) >= 0:
			i = s.lineEnd(i)
		default:
			return i
		}
	}
	return i
}

// blockScalar is where the parts of a literal or folded text lie.
type blockScalar struct {
	rest   string // what follows the indicators on their line: white space and a comment
	indent int    // column of the content, 0 when there is none
	end    int    // after the last line of content, before its line break
}

func (s *source) blockScalar(at, parent int) blockScalar {
	var b blockScalar
	i, explicit, keep := at+1, 0, false
	for ; i < len(s.text) && strings.IndexByte("+-123456789", s.text[i]) >= 0; i++ {
		switch c := s.text[i]; c {
		case '+':
			keep = true
		case '-':
		default:
			explicit = int(c - '0')
		}
	}
	eol := s.lineEnd(i)
	b.rest, b.end = strings.TrimRight(string(s.text[i:eol]), "\r"), trimCR(s.text, eol)
	if explicit > 0 {
		b.indent = max(parent, 0) + explicit
	}
	for pos := min(eol+1, len(s.text)); pos < len(s.text); {
		next := s.lineEnd(pos)
		line := s.text[pos:trimCR(s.text, next)]
		lead := len(line) - len(bytes.TrimLeft(line, " "))
		blank := lead == len(line)
		if !blank && b.indent == 0 && lead > parent {
			b.indent = lead
		}
		switch {
		case !blank && (b.indent == 0 || lead < b.indent):
			return b
		case !blank || keep || lead > b.indent && b.indent > 0:
			b.end = trimCR(s.text, next)
		}
		pos = next + 1
	}
	return b
}

// trimCR steps back over a carriage return that belongs to the line break at i.
func trimCR(text []byte, i int) int {
	if i > 0 && i <= len(text) && text[i-1] == '\r' {
		return i - 1
	}
	return i
}

// lineStart is the offset of the line that i lies in.
func (s *source) lineStart(i int) int { return bytes.LastIndexByte(s.text[:i], '\n') + 1 }

// lineEnd is the offset of the line break after i, or of the end of the text.
func (s *source) lineEnd(i int) int {
	if k := bytes.IndexByte(s.text[i:], '\n'); k >= 0 {
		return i + k
	}
	return len(s.text)
}

// nextLine is the offset of the line after i, or of the end of the text.
func (s *source) nextLine(i int) int { return min(s.lineEnd(i)+1, len(s.text)) }

// leads reports whether only white space stands before i on its line.
func (s *source) leads(i int) bool {
	return len(bytes.TrimLeft(s.text[s.lineStart(i):i], " ")) == 0
}

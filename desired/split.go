// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"unicode/utf8"
)

// chunk is what lies between two document markers. The chunks of a file cover every byte of it (but for a byte
// order mark): a chunk begins with its --- line, if it has one, and ends with its "..." line, if it has one.
type chunk struct {
	lo, hi     int  // the whole chunk
	start, end int  // its content, without --- and ...
	line       int  // 1-based line of lo
	marked     bool // begins with ---
	closed     bool // ends with ...
}

var bom = []byte("\xef\xbb\xbf")

// split cuts a file at its document markers. A marker stands at the beginning of a line and is followed by white
// space: the content of a block scalar is always indented, so a marker within one is text and does not split.
// Every byte is looked at once.
func split(data []byte) []chunk {
	pos := 0
	if bytes.HasPrefix(data, bom) {
		pos = len(bom)
	}
	var out []chunk
	cur := chunk{lo: pos, start: pos, line: 1}
	fresh := true // nothing of cur was read yet
	for line := 1; pos < len(data); line++ {
		next := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			next = pos + i + 1
		}
		switch marker(data[pos:next]) {
		case "---":
			if !fresh {
				cur.hi, cur.end = pos, pos
				out = append(out, cur)
			}
			cur = chunk{lo: pos, start: pos + 3, line: line, marked: true}
			fresh = false
			if rest := bytes.TrimSpace(data[pos+3 : next]); len(rest) == 0 || rest[0] == '#' {
				cur.start = next
			}
		case "...":
			cur.end, cur.hi, cur.closed = pos, next, true
			out = append(out, cur)
			cur = chunk{lo: next, start: next, line: line + 1}
			fresh = true
		default:
			fresh = false
		}
		pos = next
	}
	if !fresh {
		cur.hi, cur.end = len(data), len(data)
		out = append(out, cur)
	}
	return out
}

// marker returns "---" or "..." when a line is a document marker.
func marker(line []byte) string {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '\t' && line[3] != '\r' && line[3] != '\n' {
		return ""
	}
	if m := string(line[:3]); m == "---" || m == "..." {
		return m
	}
	return ""
}

// blank reports whether a chunk has white space and comments only.
func (c chunk) blank(data []byte) bool {
	atStart := true
	for i := c.start; i < c.end; i++ {
		switch b := data[i]; {
		case b == '\n':
			atStart = true
		case b == ' ' || b == '\t' || b == '\r':
		case b == '#' && (atStart || data[i-1] == ' ' || data[i-1] == '\t'):
			k := bytes.IndexByte(data[i:c.end], '\n')
			if k < 0 {
				return true
			}
			i += k
			atStart = true
		default:
			return false
		}
	}
	return true
}

// illegible finds the first character that no document may have: invalid UTF-8, control characters, a carriage
// return without line feed, line separators that only some parsers know, a byte order mark inside, a line that is
// indented with a tab, a directive. It returns the byte offset and what to do, or -1.
func illegible(data []byte) (int, string) {
	i := 0
	if bytes.HasPrefix(data, bom) {
		i = len(bom)
	}
	lineStart := true
	for i < len(data) {
		c := data[i]
		switch {
		case c == '\n':
			lineStart = true
			i++
			continue
		case c == '\t':
			if lineStart && len(bytes.TrimSpace(lineAt(data, i))) > 0 {
				return i, "a line must not begin with a tab: indent with spaces"
			}
		case c == '%' && lineStart:
			return i, "a line must not begin with '%': directives such as %YAML are not allowed, text must be quoted"
		case c == '\r':
			if i+1 >= len(data) || data[i+1] != '\n' {
				return i, "a carriage return must be followed by a line feed: save the file with LF or CRLF line ends"
			}
		case c < 0x20 || c == 0x7f:
			return i, "control characters are not allowed: remove it, or write it as an escape in double quotes"
		case c >= 0x80:
			r, n := utf8.DecodeRune(data[i:])
			if fault := strangeRune(r, n); fault != "" {
				return i, fault
			}
			i += n
			lineStart = false
			continue
		}
		lineStart = false
		i++
	}
	return -1, ""
}

func strangeRune(r rune, n int) string {
	switch {
	case r == utf8.RuneError && n <= 1:
		return "the file must be valid UTF-8: save it in that encoding"
	case r < 0xa0:
		return "control characters are not allowed: remove it, or write it as an escape in double quotes"
	case r == 0x2028 || r == 0x2029:
		return "line and paragraph separators are not allowed: remove it, or write it as an escape in double quotes"
	case r == 0xfeff:
		return "a byte order mark is allowed at the beginning of the file only: remove it"
	case r == 0xfffe || r == 0xffff:
		return "characters that Unicode leaves undefined are not allowed: remove it"
	}
	return ""
}

func lineAt(data []byte, i int) []byte {
	if k := bytes.IndexByte(data[i:], '\n'); k >= 0 {
		return data[i : i+k]
	}
	return data[i:]
}

// lineColumn gives the 1-based line and column, in characters, of a byte offset.
func lineColumn(data []byte, at int) (line, column int) {
	head := data[:at]
	line = 1 + bytes.Count(head, []byte{'\n'})
	tail := head[bytes.LastIndexByte(head, '\n')+1:]
	if line == 1 {
		tail = bytes.TrimPrefix(tail, bom)
	}
	return line, 1 + utf8.RuneCount(tail)
}

// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"strings"
)

// Trailer is one "Key: value" line.
type Trailer struct{ Key, Value string }

// Trailers parses the last paragraph of the message as git-interpret-trailers does (with --no-divider): it holds
// trailers when every line is one, or when a quarter of them are and one was made by git itself. The first
// paragraph is the title and never holds trailers. Lines that start with white space continue the one before.
func (c *Commit) Trailers() []Trailer {
	var out []Trailer
	open := false // the line before belongs to the last trailer
	for _, line := range trailerBlock(c.Message) {
		i := separator(line)
		switch {
		case isSpace(line[0]):
			if open {
				last := &out[len(out)-1]
				last.Value = strings.TrimSpace(last.Value + " " + strings.TrimSpace(line))
			}
		case line[0] == '#' || i < 1:
			open = false
		default:
			out = append(out, Trailer{Key: strings.TrimSpace(line[:i]), Value: strings.TrimSpace(line[i+1:])})
			open = true
		}
	}
	return out
}

// trailerBlock returns the lines of the last paragraph when that is a block of trailers.
func trailerBlock(message string) []string {
	lines := strings.Split(message, "\n")
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	title := 0 // lines of the first paragraph
	for title < len(lines) && (strings.HasPrefix(lines[title], "#") || strings.TrimSpace(lines[title]) != "") {
		title++
	}
	start := len(lines)
	for start > title && (strings.HasPrefix(lines[start-1], "#") || strings.TrimSpace(lines[start-1]) != "") {
		start--
	}
	if start <= title {
		return nil
	}
	block := lines[start:]
	if !isTrailerBlock(block) {
		return nil
	}
	return block
}

func isTrailerBlock(block []string) bool {
	trailers, others, byGit := 0, 0, false
	after := "" // what the line before was: continuation lines count with it
	for _, line := range block {
		switch {
		case line[0] == '#':
			after = "comment"
		case strings.HasPrefix(line, "Signed-off-by: ") || strings.HasPrefix(line, "(cherry picked from commit "):
			trailers, byGit, after = trailers+1, true, "trailer"
		case isSpace(line[0]):
			if after != "trailer" {
				others++
			}
		case separator(line) > 0:
			trailers, after = trailers+1, "trailer"
		default:
			others, after = others+1, "other"
		}
	}
	return trailers > 0 && (others == 0 || byGit && trailers*3 >= others)
}

// separator is the position of the colon after a trailer's key, or -1.
func separator(line string) int {
	blank := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == ':':
			return i
		case !blank && (c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'):
		case i > 0 && (c == ' ' || c == '\t'):
			blank = true
		default:
			return -1
		}
	}
	return -1
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f' }

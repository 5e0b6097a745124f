// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// badName says why a name must not be in a tree, "" when it may: it would leave the directory, or some file system
// would take it for git's own.
func badName(name string) string {
	switch {
	case name == "":
		return "a name is empty"
	case name == "." || name == "..":
		return "a name is . or .."
	case strings.ContainsAny(name, "/\x00"):
		return "a name holds a slash or a NUL"
	case isDotGit(name):
		return "a name stands for .git"
	case len(name) > 4096:
		return "a name is longer than 4096 bytes"
	}
	return ""
}

// isDotGit reports whether a file system may take name for ".git": without regard to case, with characters that
// HFS+ ignores, as its short name on NTFS, with trailing dots, spaces or a stream name, or behind a backslash.
func isDotGit(name string) bool {
	for part := range strings.SplitSeq(name, `\`) {
		if equalHFS(part, ".git") || equalNTFS(part, ".git") || equalNTFS(part, "git~1") {
			return true
		}
	}
	return false
}

// equalNTFS compares as NTFS does: without regard to case, trailing spaces and dots, and a stream name.
func equalNTFS(name, want string) bool {
	name, _, _ = strings.Cut(name, ":")
	return strings.EqualFold(strings.TrimRight(name, " ."), want)
}

// equalHFS compares as HFS+ does: without regard to case and to characters that it ignores.
func equalHFS(name, want string) bool {
	if !strings.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return strings.EqualFold(name, want)
	}
	name = strings.Map(func(r rune) rune {
		if r >= 0x200c && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x206a && r <= 0x206f || r == 0xfeff {
			return -1
		}
		return r
	}, name)
	return strings.EqualFold(name, want)
}

// checkObject applies the rules of git fsck --strict to an object from outside. It returns the blobs that are
// .gitmodules files, whose content must be checked too.
func checkObject(t Type, data []byte) (modules []Hash, err error) {
	switch t {
	case TreeObject:
		return checkTree(data)
	case CommitObject:
		return nil, checkCommit(data)
	case TagObject:
		return nil, checkTag(data)
	}
	return nil, nil
}

func checkTree(raw []byte) (modules []Hash, err error) {
	var seen []rawEntry
	for off := 0; off < len(raw); {
		e, ok := nextEntry(raw, off)
		if !ok {
			return nil, errors.New("the tree is malformed")
		}
		name := string(e.name)
		if why := badName(name); why != "" {
			return nil, fmt.Errorf("%q: %s", name, why)
		}
		if why := badMode(raw[off], e.mode); why != "" {
			return nil, fmt.Errorf("%q: %s", name, why)
		}
		if e.hash.IsZero() {
			return nil, fmt.Errorf("%q names no object", name)
		}
		if n := len(seen); n > 0 && compareEntries(seen[n-1].name, seen[n-1].isTree(), e.name, e.isTree()) >= 0 {
			return nil, fmt.Errorf("%q is out of order or twice in a directory", name)
		}
		for i := len(seen) - 1; i >= 0 && e.isTree() && bytes.HasPrefix(seen[i].name, e.name); i-- {
			if len(seen[i].name) == len(e.name) {
				return nil, fmt.Errorf("%q is twice in a directory", name)
			}
		}
		if isDotModules(name) {
			if e.mode != 0o100644 && e.mode != 0o100755 {
				return nil, fmt.Errorf("%q is no plain file", name)
			}
			modules = append(modules, e.hash)
		}
		seen = append(seen, e)
		off = e.end
	}
	return modules, nil
}

func badMode(first byte, mode uint32) string {
	switch mode {
	case 0o100644, 0o100755, 0o120000, modeLink, modeTree:
		if first == '0' {
			return "its mode is padded with zeros"
		}
		return ""
	}
	return fmt.Sprintf("it has the unknown mode %o", mode)
}

func isDotModules(name string) bool {
	return equalHFS(name, ".gitmodules") || equalNTFS(name, ".gitmodules") ||
		len(name) >= 8 && strings.EqualFold(name[:7], "gitmod~") && name[7] >= '1' && name[7] <= '4'
}

func checkCommit(raw []byte) error {
	head, rest, err := splitHeader(raw)
	if err != nil {
		return err
	}
	if bytes.IndexByte(rest, 0) >= 0 {
		return errors.New("the message holds a NUL")
	}
	var c Commit
	head, err = parseCommitIDs(&c, head)
	if err != nil {
		return errors.New("the tree or parent lines are malformed")
	}
	head, err = identLine(head, "author ")
	if err != nil {
		return err
	}
	if bytes.HasPrefix(head, []byte("author ")) {
		return errors.New("it has several authors")
	}
	_, err = identLine(head, "committer ")
	return err
}

func checkTag(raw []byte) error {
	head, _, err := splitHeader(raw)
	if err != nil {
		return err
	}
	_, head, ok := idLine(head, "object ")
	if !ok {
		return errors.New("the object line is malformed")
	}
	line, head, _ := bytes.Cut(head, []byte("\n"))
	name, ok := bytes.CutPrefix(line, []byte("type "))
	if _, known := parseType(string(name)); !ok || !known {
		return errors.New("the type line is malformed")
	}
	line, head, _ = bytes.Cut(head, []byte("\n"))
	if name, ok = bytes.CutPrefix(line, []byte("tag ")); !ok || len(name) == 0 {
		return errors.New("the tag line is malformed")
	}
	if bytes.HasPrefix(head, []byte("tagger ")) {
		_, err = identLine(head, "tagger ")
	}
	return err
}

// splitHeader cuts an object into header lines, each with its line feed, and message.
func splitHeader(raw []byte) (head, rest []byte, err error) {
	head = raw
	if i := bytes.Index(raw, []byte("\n\n")); i >= 0 {
		head, rest = raw[:i+1], raw[i+2:]
	}
	if !bytes.HasSuffix(head, []byte("\n")) || bytes.IndexByte(head, 0) >= 0 {
		return nil, nil, errors.New("the header is malformed")
	}
	return head, rest, nil
}

// identLine demands "key Name <mail> 1700000000 +0100\n" and returns what follows.
func identLine(head []byte, key string) ([]byte, error) {
	what := strings.TrimSpace(key)
	line, rest, _ := bytes.Cut(head, []byte("\n"))
	ident, ok := bytes.CutPrefix(line, []byte(key))
	if !ok {
		return nil, fmt.Errorf("the %s line is missing", what)
	}
	open := bytes.IndexAny(ident, "<>")
	if open < 1 || ident[open] != '<' || ident[open-1] != ' ' {
		return nil, fmt.Errorf("the %s line has no name before its address", what)
	}
	end := bytes.IndexAny(ident[open+1:], "<>")
	if end < 0 || ident[open+1+end] != '>' {
		return nil, fmt.Errorf("the %s line has a malformed address", what)
	}
	stamp, ok := bytes.CutPrefix(ident[open+end+2:], []byte(" "))
	date, zone, ok2 := bytes.Cut(stamp, []byte(" "))
	if _, err := strconv.ParseUint(string(date), 10, 63); err != nil || !ok || !ok2 || len(date) > 1 && date[0] == '0' {
		return nil, fmt.Errorf("the %s line has a malformed date", what)
	}
	if len(zone) != 5 || zone[0] != '+' && zone[0] != '-' || strings.Trim(string(zone[1:]), "0123456789") != "" {
		return nil, fmt.Errorf("the %s line has a malformed time zone", what)
	}
	return rest, nil
}

// badModules says why a .gitmodules file must not reach a git program that would follow it, "" when it may.
func badModules(data []byte) string {
	if len(data) > 1<<20 {
		return "it is larger than 1 MiB"
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "[submodule"); ok {
			name = strings.Trim(strings.TrimSpace(strings.TrimSuffix(name, "]")), `"`)
			for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '/' || r == '\\' }) {
				if part == ".." {
					return "the name of a submodule holds .."
				}
			}
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "url":
			if strings.HasPrefix(value, "-") || strings.Contains(strings.ToLower(value), "%0a") || strings.Contains(value, `\n`) {
				return "the address of a submodule is hostile"
			}
		case "path":
			if strings.HasPrefix(value, "-") {
				return "the path of a submodule is hostile"
			}
		case "update":
			if strings.HasPrefix(value, "!") {
				return "the update command of a submodule is hostile"
			}
		}
	}
	return ""
}

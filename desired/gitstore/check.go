// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
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

// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf8"
)

const (
	maxName    = 128
	maxTenant  = 63
	maxRefName = 255
)

// ValidName checks a resource name: [a-z0-9][a-z0-9._-]{0,127}.
func ValidName(s string) error {
	if !wordOf(s, maxName, "._-") {
		return errors.New("must be 1 to 128 characters of a-z, 0-9, '.', '_', '-' and begin with a letter or digit")
	}
	return nil
}

// ValidTenant checks a tenant or project name: [a-z0-9][a-z0-9-]{0,62}.
func ValidTenant(s string) error {
	if !wordOf(s, maxTenant, "-") {
		return errors.New("must be 1 to 63 characters of a-z, 0-9, '-' and begin with a letter or digit")
	}
	return nil
}

// wordOf reports whether s has 1 to limit characters of a-z, 0-9 and extra, the first of them a letter or digit.
func wordOf(s string, limit int, extra string) bool {
	if s == "" || len(s) > limit || strings.IndexByte(extra, s[0]) >= 0 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return true
}

// ValidRefName checks a git branch name (without refs/heads/) by git-check-ref-format's rules, and refuses names
// that begin with "-" or contain control characters, and the name HEAD.
func ValidRefName(s string) error {
	switch {
	case s == "":
		return errors.New("a branch name must not be empty")
	case len(s) > maxRefName:
		return errors.New("a branch name must not be longer than 255 bytes")
	case !utf8.ValidString(s):
		return errors.New("a branch name must be valid UTF-8")
	case s == "HEAD" || s == "@":
		return errors.New("a branch must not be named HEAD or @")
	case s[0] == '-':
		return errors.New("a branch name must not begin with '-'")
	case strings.Contains(s, "..") || strings.Contains(s, "@{"):
		return errors.New("a branch name must not contain '..' or '@{'")
	case strings.HasSuffix(s, "."):
		return errors.New("a branch name must not end with '.'")
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == 0x7f || strings.IndexByte(` ~^:?*[\`, c) >= 0 {
			return errors.New(`a branch name must not contain spaces, control characters or any of ~^:?*[\`)
		}
	}
	for part := range strings.SplitSeq(s, "/") {
		switch {
		case part == "":
			return errors.New("a branch name must not begin or end with '/' or contain '//'")
		case part[0] == '.' || strings.HasSuffix(part, ".lock"):
			return errors.New("no part of a branch name may begin with '.' or end with '.lock'")
		}
	}
	for _, r := range s {
		if unprintable(r) {
			return errors.New("a branch name must not contain control characters")
		}
	}
	return nil
}

// unprintable reports control characters: C0, DEL, C1.
func unprintable(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }

// Path is where the API puts the document of ref: projects/<p>/<plural>/<2 hex>/<name>.yaml, or <root>/<name>.yaml
// for kinds outside projects. It is "" for a ref that has no place: an unknown kind, or a kind that needs a project
// without one.
func Path(ref Ref) string {
	info, ok := ref.Kind.Info()
	switch {
	case !ok || ref.Name == "":
		return ""
	case ref.Project != "" && info.Project:
		sum := sha256.Sum256([]byte(ref.Name))
		return projectsRoot + "/" + ref.Project + "/" + info.Plural + "/" + hex.EncodeToString(sum[:1]) + "/" + ref.Name + ".yaml"
	case ref.Project == "" && info.Root != "":
		return info.Root + "/" + ref.Name + ".yaml"
	}
	return ""
}

// AttachedPath is where a blob lies that a document at docPath refers to by digest ("sha256:<hex>" or "<hex>"):
// beside the document, in <name>.d/.
func AttachedPath(docPath, name, digest string) string {
	return docPath[:strings.LastIndexByte(docPath, '/')+1] + name + ".d/" + strings.TrimPrefix(digest, "sha256:")
}

// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Every string and number of a document has a form, named by the check tag of its field: Validate and the JSON
// Schemas both come from that one word. The tag is `check:"form,min=N,max=N,items=N"`, where form is a name from
// formOf or an enumeration a|b|c, max counts characters (or is the largest number), and items bounds a list or map.
type check struct {
	form  form
	enum  []string
	max   int // characters, or the largest number
	min   int // the smallest number
	items int // entries of a list or map
}

// form is one kind of text.
type form struct {
	name    string
	pattern string // what a JSON Schema can say of it; may allow more than test
	max     int    // characters
	test    func(string) string
}

const (
	maxLine  = 256
	maxText  = 64 << 10
	maxItems = 1000
)

func parseCheck(tag string) check {
	c := check{items: maxItems}
	for i, part := range strings.Split(tag, ",") {
		key, value, _ := strings.Cut(part, "=")
		n, _ := strconv.Atoi(value)
		switch {
		case i == 0 && strings.Contains(part, "|"):
			c.enum = strings.Split(part, "|")
		case i == 0:
			c.form = formOf(part)
			c.max = c.form.max
		case key == "max":
			c.max = n
		case key == "min":
			c.min = n
		case key == "items":
			c.items = n
		}
	}
	return c
}

// formOf finds a form by its name; the zero form tests nothing.
func formOf(name string) form {
	f := form{name: name, max: maxLine, test: func(string) string { return "" }}
	switch name {
	case "name":
		f.max, f.pattern, f.test = maxName, `^[a-z0-9][a-z0-9._-]*$`, detail(ValidName)
	case "tenant":
		f.max, f.pattern, f.test = maxTenant, `^[a-z0-9][a-z0-9-]*$`, detail(ValidTenant)
	case "branch":
		f.max, f.pattern, f.test = maxRefName, `^[^ ~^:?*\[\\\x00-\x1f\x7f-][^ ~^:?*\[\\\x00-\x1f\x7f]*$`, branchFault
	case "commit":
		f.max, f.pattern, f.test = 40, `^[0-9a-f]{40}$`, func(s string) string {
			return unless(len(s) == 40 && isHex(s), "must be a full commit id: 40 characters of 0-9, a-f")
		}
	case "digest":
		f.max, f.pattern, f.test = 71, `^sha256:[0-9a-f]{64}$`, func(s string) string {
			return unless(len(s) == 71 && s[:7] == "sha256:" && isHex(s[7:]), "must be sha256: followed by 64 characters of 0-9, a-f")
		}
	case "word":
		f.max, f.pattern, f.test = maxName, `^[A-Za-z0-9][A-Za-z0-9._-]*$`, func(s string) string {
			return unless(wordOf(strings.ToLower(s), maxName, "._-") && isASCII(s), "must be 1 to 128 characters of A-Z, a-z, 0-9, '.', '_', '-' and begin with a letter or digit")
		}
	case "key":
		f.max, f.pattern, f.test = maxName, `^[A-Za-z0-9][A-Za-z0-9._/-]*$`, func(s string) string {
			return unless(wordOf(strings.ToLower(s), maxName, "._/-") && isASCII(s), "a key must be 1 to 128 characters of A-Z, a-z, 0-9, '.', '_', '-', '/' and begin with a letter or digit")
		}
	case "name*":
		f.max, f.pattern, f.test = maxName, `^[a-z0-9._-]*\*?$`, namePatternFault
	case "branch*":
		f.max, f.test = maxRefName, branchPatternFault
	case "host":
		f.pattern, f.test = `^[A-Za-z0-9.:\[\]-]+$`, hostFault
	case "url":
		f.max, f.pattern, f.test = 2048, `^(https?|ssh)://[^@\s?#]+$`, urlFault
	case "time":
		f.max, f.pattern, f.test = 64, `^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d`, timeFault
	case "env":
		f.pattern, f.test = `^[A-Za-z_][A-Za-z0-9_]*$`, func(s string) string {
			return unless(isIdentifier(s), "must be the name of an environment variable: letters, digits and '_'")
		}
	case "line":
		f.pattern, f.test = `^[^\x00-\x1f\x7f]*$`, lineFault
	case "text":
		f.max, f.test = maxText, textFault
	case "path":
		f.max, f.pattern, f.test = 4096, `^[^/\\\x00-\x1f\x7f][^\\\x00-\x1f\x7f]*$`, pathFault
	case "person":
		f.pattern, f.test = `^[^<>\x00-\x1f\x7f]*$`, personFault
	}
	return f
}

// fault says what is wrong with a non-empty text, "" when nothing is. It never quotes the text.
func (c *check) fault(s string) string {
	if c.enum != nil {
		for _, e := range c.enum {
			if e == s {
				return ""
			}
		}
		return "must be one of " + strings.Join(c.enum, ", ") + didYouMean(s, c.enum)
	}
	if !utf8.ValidString(s) {
		return "must be valid UTF-8"
	}
	if len(s) > c.max && utf8.RuneCountInString(s) > c.max {
		return "must not be longer than " + strconv.Itoa(c.max) + " characters"
	}
	return c.form.test(s)
}

func unless(ok bool, fault string) string {
	if ok {
		return ""
	}
	return fault
}

func detail(f func(string) error) func(string) string {
	return func(s string) string {
		if err := f(s); err != nil {
			return err.Error()
		}
		return ""
	}
}

func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func isIdentifier(s string) bool {
	return s != "" && (s[0] < '0' || s[0] > '9') && wordOf("a"+strings.ToLower(s), maxLine, "_") && isASCII(s)
}

func lineFault(s string) string {
	for _, r := range s {
		if unprintable(r) || r == '\u2028' || r == '\u2029' {
			return "must be one line without control characters"
		}
	}
	return unless(s == "" || strings.TrimSpace(s) != "", "must not be blank")
}

func textFault(s string) string {
	for _, r := range s {
		if unprintable(r) && r != '\n' && r != '\t' && r != '\r' {
			return "must not contain control characters other than tab and line break"
		}
	}
	return unless(s == "" || strings.TrimSpace(s) != "", "must not be blank")
}

func personFault(s string) string {
	if strings.ContainsAny(s, "<>") {
		return "must not contain '<' or '>'"
	}
	return lineFault(s)
}

func timeFault(s string) string {
	_, err := time.Parse(time.RFC3339, s)
	return unless(err == nil, "must be a time as in 2026-12-31T18:00:00Z (RFC 3339)")
}

func branchFault(s string) string {
	if strings.HasPrefix(s, "refs/heads/") {
		return "must be the branch's name without refs/heads/"
	}
	return detail(ValidRefName)(s)
}

func branchPatternFault(s string) string {
	head, star := strings.CutSuffix(s, "*")
	if star {
		head += "x" // stands for what the star matches
	}
	return unless(ValidRefName(head) == nil, "must be a branch name, or a part of one with a '*' at its end")
}

func namePatternFault(s string) string {
	head, star := strings.CutSuffix(s, "*")
	ok := head == "" && star || ValidName(head) == nil
	return unless(ok, "must be a resource name, or a part of one with a '*' at its end")
}

var hostPattern = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

func hostFault(s string) string {
	return unless(len(s) <= 253 && hostPattern.MatchString(s), "must be a host name or address, with :port if need be, without scheme or path")
}

func urlFault(s string) string {
	const want = "must be an https, http or ssh URL with a host"
	if strings.ContainsAny(s, "@") {
		return "must not contain user names or passwords: name them by a credential"
	}
	if strings.ContainsAny(s, "?#\\ ") || lineFault(s) != "" {
		return want + ", without query, fragment, spaces or backslashes"
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" || u.User != nil || hostFault(u.Host) != "" {
		return want
	}
	return unless(u.Scheme == "https" || u.Scheme == "http" || u.Scheme == "ssh", want)
}

// pathFault checks the path of a file in a git tree: relative, and nothing that git, NTFS or HFS+ takes for .git.
func pathFault(s string) string {
	if s[0] == '/' || strings.ContainsRune(s, '\\') || lineFault(s) != "" {
		return "must be a relative path with '/' between its parts and without control characters or backslashes"
	}
	for part := range strings.SplitSeq(s, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return "must not have empty parts or parts named '.' or '..'"
		case len(part) > 255:
			return "no part of the path may be longer than 255 bytes"
		case isDotGit(part):
			return "must not name .git or what a file system may take for it"
		}
	}
	return ""
}

// isDotGit recognises .git in the spellings that Windows and macOS file systems fold onto it.
func isDotGit(part string) bool {
	part, _, _ = strings.Cut(part, ":")
	part = strings.TrimRight(part, ". ")
	part = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1 // HFS+ ignores these
		}
		return r
	}, part)
	return strings.EqualFold(part, ".git") || strings.EqualFold(part, "git~1")
}

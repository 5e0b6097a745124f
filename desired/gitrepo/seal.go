// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/connectsoft/plumbline/desired/gitstore"
)

// Trailers that Plumbline writes. They count only in a sealed commit.
const (
	trailerRequest = "Plumbline-Request"
	trailerSubject = "Plumbline-Subject"
	trailerKey     = "Idempotency-Key" // "<key hash> <fingerprint>"
	trailerSeal    = "Plumbline-Seal"
)

// reserved reports whether a trailer key is one that only Plumbline may write.
func reserved(key string) bool {
	return strings.EqualFold(key, trailerKey) || (len(key) > 10 && strings.EqualFold(key[:10], "Plumbline-"))
}

// message renders the commit message of a write, without the seal.
func message(q *Request) (string, error) {
	var b strings.Builder
	b.WriteString(oneLine(q.Message, "change desired state"))
	b.WriteString("\n\n")
	for _, t := range []gitstore.Trailer{
		{Key: trailerRequest, Value: q.RequestID},
		{Key: trailerSubject, Value: q.Subject},
		{Key: trailerKey, Value: strings.TrimSpace(q.Key + " " + q.Fingerprint)},
	} {
		if t.Value == "" {
			continue
		}
		if strings.ContainsFunc(t.Value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return "", fmt.Errorf("trailer %s holds a control character", t.Key)
		}
		fmt.Fprintf(&b, "%s: %s\n", t.Key, t.Value)
	}
	return b.String(), nil
}

// oneLine keeps the first line of s without control characters, so that nothing after it can read as a trailer.
func oneLine(s, empty string) string {
	s, _, _ = strings.Cut(s, "\n")
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s)
	if s = strings.TrimSpace(s); s == "" {
		return empty
	}
	return s
}

var sealLine = []byte(trailerSeal + ": ")

// seal appends the seal line to the bytes of a commit object.
func seal(key, raw []byte) []byte {
	out := make([]byte, 0, len(raw)+len(sealLine)+2*sha256.Size+1)
	out = append(out, raw...)
	out = append(out, sealLine...)
	out = hex.AppendEncode(out, mac(key, raw))
	return append(out, '\n')
}

// sealed reports whether the last line of a commit object is the seal of all before it.
func sealed(key, raw []byte) bool {
	i := bytes.LastIndex(raw, sealLine)
	if i <= 0 || raw[i-1] != '\n' || len(raw) != i+len(sealLine)+2*sha256.Size+1 || raw[len(raw)-1] != '\n' {
		return false
	}
	want, err := hex.DecodeString(string(raw[i+len(sealLine) : len(raw)-1]))
	return err == nil && hmac.Equal(want, mac(key, raw[:i]))
}

func mac(key, raw []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(raw)
	return h.Sum(nil)
}

// sealedFacts is what a sealed commit says about the write behind it.
type sealedFacts struct {
	ok          bool
	subject     string
	key         string
	fingerprint string
}

// facts reads the trailers of a commit; unsealed ones say nothing.
func facts(key []byte, c *gitstore.Commit) sealedFacts {
	if !sealed(key, c.Raw) {
		return sealedFacts{}
	}
	f := sealedFacts{ok: true}
	for _, t := range c.Trailers() {
		switch t.Key {
		case trailerSubject:
			f.subject = t.Value
		case trailerKey:
			f.key, f.fingerprint, _ = strings.Cut(t.Value, " ")
		}
	}
	return f
}

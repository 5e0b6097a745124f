// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/connectsoft/plumbline/desired"
)

// ifMatch checks If-Match against the stored document; e is nil when there is none.
func (c *call) ifMatch(e *desired.Entry) error {
	headers := c.r.Header.Values("If-Match")
	if len(headers) == 0 {
		return nil
	}
	if e != nil {
		for _, h := range headers {
			for _, tag := range strings.Split(h, ",") {
				if tag = strings.TrimSpace(tag); tag == "*" || tag == `"`+e.Digest+`"` {
					return nil
				}
			}
		}
	}
	return faultf(CodePrecondition, "check If-Match", "the document is no longer the one that If-Match names: read it again, then decide")
}

// idempotency is the key of a write and the fingerprint of its request, both "" without an Idempotency-Key. It may be
// asked for once the body was read.
func (c *call) idempotency() (key, fingerprint string, err error) {
	values := c.r.Header.Values("Idempotency-Key")
	if len(values) == 0 || c.key != "" {
		return c.key, c.fingerprint, nil
	}
	v := values[0]
	if len(values) > 1 || v == "" || len(v) > 256 || strings.ContainsFunc(v, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return "", "", faultf(CodeMalformed, "read Idempotency-Key", "the Idempotency-Key must be one header of 1 to 256 printable ASCII characters")
	}
	c.key = hash(c.who.Tenant, c.who.Subject, v)
	c.fingerprint = hash(c.r.Method, c.r.URL.Path, c.r.URL.Query().Encode(), string(canonicalBody(c.body)))
	return c.key, c.fingerprint, nil
}

// hash is over the parts with their lengths apart, as hex.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		n := sha256.Sum256([]byte(p))
		h.Write(n[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// canonicalBody makes JSON bodies that say the same equal; others are taken byte for byte.
func canonicalBody(body []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return body
	}
	out, err := json.Marshal(v)
	if err != nil {
		return body
	}
	return out
}

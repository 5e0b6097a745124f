// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"

	"github.com/connectsoft/plumbline/desired"
)

// Limits of an access token.
const (
	MaxTokenBytes = 16 << 10
	Leeway        = 60 * time.Second // of clocks, for exp, nbf and iat
	maxSubject    = 256              // characters of a sub or client id
	maxScopes     = 256
)

// algorithms is the allow-list: asymmetric ones only.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.ES256, jose.ES384, jose.ES512, jose.RS256, jose.RS384, jose.RS512,
		jose.PS256, jose.PS384, jose.PS512, jose.EdDSA,
	}
}

// strictObject decodes a JSON object and refuses duplicate keys at any depth, so that no two readers of a token can
// see different claims.
func strictObject(data []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := uniqueKeys(d, 0); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("data after the object")
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil || m == nil {
		return nil, errors.New("not an object")
	}
	return m, nil
}

// uniqueKeys reads one value and checks that no object in it names a key twice.
func uniqueKeys(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return errors.New("not JSON")
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth > 16 {
		return errors.New("nested too deeply")
	}
	seen := map[string]bool{}
	for d.More() {
		if delim == '{' {
			k, err := d.Token()
			if err != nil {
				return errors.New("not JSON")
			}
			name, _ := k.(string)
			if seen[name] {
				return errors.New("a name appears twice")
			}
			seen[name] = true
		}
		if err := uniqueKeys(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// checkHeader judges a token's protected header. Keys that a token brings along or points at are refused outright.
func checkHeader(h map[string]json.RawMessage) error {
	for _, k := range []string{"jku", "x5u", "jwk", "x5c", "crit", "b64", "zip", "enc"} {
		if _, ok := h[k]; ok {
			return errors.New("its header has a member that is not accepted: " + k)
		}
	}
	typ, ok := text(h["typ"])
	typ = strings.TrimPrefix(strings.ToLower(typ), "application/")
	if !ok || typ != "at+jwt" {
		return errors.New("it is not an access token: typ must be at+jwt")
	}
	return nil
}

// claims are what a token says, after the checks that need no key.
type claims struct {
	subject, client string
	tenant          string
	scopes          []string
	expires         time.Time
}

// readClaims judges the claims of a verified payload.
func (i *issuer) readClaims(payload []byte, tenantClaim string, now time.Time) (claims, error) {
	m, err := strictObject(payload)
	if err != nil {
		return claims{}, errors.New("its claims cannot be read: " + err.Error())
	}
	if iss, ok := text(m["iss"]); !ok || iss != i.name {
		return claims{}, errors.New("it was issued by another issuer")
	}
	if !audienceHas(m["aud"], i.audience) {
		return claims{}, errors.New("it is meant for another audience")
	}
	var c claims
	if c.expires, err = times(m, now); err != nil {
		return claims{}, err
	}
	if c.subject, c.client, err = identity(m); err != nil {
		return claims{}, err
	}
	if c.scopes, err = scopes(m); err != nil {
		return claims{}, err
	}
	if raw, ok := m[tenantClaim]; ok {
		if c.tenant, ok = text(raw); !ok || desired.ValidTenant(c.tenant) != nil {
			return claims{}, errors.New("its tenant claim is not one tenant name")
		}
	}
	return c, nil
}

// text decodes a JSON string; other types are not taken for one.
func text(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

func texts(raw json.RawMessage) ([]string, bool) {
	if s, ok := text(raw); ok {
		return []string{s}, true
	}
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		return nil, false
	}
	out := make([]string, 0, len(items))
	for _, it := range items {
		s, ok := text(it)
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

func audienceHas(raw json.RawMessage, want string) bool {
	all, ok := texts(raw)
	if !ok || want == "" {
		return false
	}
	for _, a := range all {
		if a == want {
			return true
		}
	}
	return false
}

// times checks exp, nbf and iat, and returns the moment from which the token is no longer accepted.
func times(m map[string]json.RawMessage, now time.Time) (time.Time, error) {
	exp, ok, err := moment(m, "exp")
	switch {
	case err != nil:
		return time.Time{}, err
	case !ok:
		return time.Time{}, errors.New("it has no expiry")
	case !now.Before(exp.Add(Leeway)):
		return time.Time{}, errors.New("it has expired: get a new one")
	}
	for _, name := range []string{"nbf", "iat"} {
		t, ok, err := moment(m, name)
		if err != nil {
			return time.Time{}, err
		}
		if ok && now.Add(Leeway).Before(t) {
			return time.Time{}, errors.New("it is not valid yet: check the clocks")
		}
	}
	return exp.Add(Leeway), nil
}

func moment(m map[string]json.RawMessage, name string) (time.Time, bool, error) {
	raw, ok := m[name]
	if !ok {
		return time.Time{}, false, nil
	}
	var f float64
	if err := json.Unmarshal(raw, &f); err != nil || raw[0] == 'n' || math.IsNaN(f) || f < 0 || f > 253402300799 {
		return time.Time{}, false, errors.New("its " + name + " is not a time")
	}
	return time.Unix(int64(f), 0), true, nil
}

// identity reads sub and the client id (client_id, or azp).
func identity(m map[string]json.RawMessage) (sub, client string, err error) {
	for _, f := range []struct {
		name string
		into *string
	}{{"sub", &sub}, {"azp", &client}, {"client_id", &client}} {
		raw, ok := m[f.name]
		if !ok {
			continue
		}
		s, ok := text(raw)
		if !ok || !printable(s) {
			return "", "", errors.New("its " + f.name + " is not a plain name")
		}
		*f.into = s
	}
	if sub == "" && client == "" {
		return "", "", errors.New("it names neither a subject nor a client")
	}
	return sub, client, nil
}

// printable refuses what could forge a log line, a trailer or an author line.
func printable(s string) bool {
	if s == "" || utf8.RuneCountInString(s) > maxSubject || strings.TrimSpace(s) != s || strings.ContainsAny(s, "<>") {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// scopes reads scope and scp, each a space-separated string or an array.
func scopes(m map[string]json.RawMessage) ([]string, error) {
	var out []string
	for _, name := range []string{"scope", "scp"} {
		raw, ok := m[name]
		if !ok {
			continue
		}
		all, ok := texts(raw)
		if !ok {
			return nil, errors.New("its " + name + " is neither a string nor a list of strings")
		}
		for _, s := range all {
			out = append(out, strings.Fields(s)...)
		}
	}
	if len(out) > maxScopes {
		return nil, errors.New("it lists too many scopes")
	}
	return out, nil
}

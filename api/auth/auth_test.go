// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/connectsoft/plumbline/desired"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testIssuer is a real issuer over HTTP whose keys can be rotated.
type testIssuer struct {
	*httptest.Server
	mu      sync.Mutex
	keys    []jose.JSONWebKey // private
	fetches atomic.Int64
	broken  atomic.Bool
}

func newTestIssuer(t *testing.T) *testIssuer {
	i := &testIssuer{}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		if i.broken.Load() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		i.mu.Lock()
		defer i.mu.Unlock()
		var set jose.JSONWebKeySet
		for _, k := range i.keys {
			set.Keys = append(set.Keys, k.Public())
		}
		json.NewEncoder(w).Encode(set)
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	i.rotate("k1", jose.ES256, ecKey(t, elliptic.P256()))
	return i
}

func ecKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// rotate replaces the keys by one.
func (i *testIssuer) rotate(kid string, alg jose.SignatureAlgorithm, key any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = []jose.JSONWebKey{{Key: key, KeyID: kid, Algorithm: string(alg), Use: "sig"}}
}

func (i *testIssuer) key() jose.JSONWebKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[0]
}

func (i *testIssuer) claims(now time.Time) map[string]any {
	return map[string]any{
		"iss": i.URL, "aud": "plumbline", "sub": "alice", "client_id": "studio", "tenantId": "acme",
		"scope": "a.read a.write", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
}

// sign signs a payload as it stands, with header members on top of alg, kid and typ.
func sign(t *testing.T, key jose.JSONWebKey, header map[jose.HeaderKey]any, payload []byte) string {
	t.Helper()
	o := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"typ": "at+jwt", "kid": key.KeyID}}
	maps.Copy(o.ExtraHeaders, header)
	if o.ExtraHeaders["typ"] == nil {
		delete(o.ExtraHeaders, "typ")
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key.Key}, o)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newAuthorizer(t *testing.T, i *testIssuer, now func() time.Time) *Authorizer {
	t.Helper()
	a, err := New(Config{
		Issuers: []Issuer{{URL: i.URL, Audience: "plumbline"}}, PlatformTenant: "operators", Now: now,
		Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestClaims(t *testing.T) {
	i := newTestIssuer(t)
	now := time.Now()
	a := newAuthorizer(t, i, func() time.Time { return now })
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, c := range []struct {
		name string
		set  map[string]any // nil value removes
		want string         // part of the refusal, "" = accepted
	}{
		{"as issued", nil, ""},
		{"other issuer", map[string]any{"iss": "https://evil.example"}, "issuer is not trusted"},
		{"issuer list", map[string]any{"iss": []string{i.URL}}, "issuer is not trusted"},
		{"no issuer", map[string]any{"iss": nil}, "issuer is not trusted"},
		{"other audience", map[string]any{"aud": "billing"}, "another audience"},
		{"no audience", map[string]any{"aud": nil}, "another audience"},
		{"empty audience", map[string]any{"aud": ""}, "another audience"},
		{"audience among others", map[string]any{"aud": []string{"billing", "plumbline"}}, ""},
		{"audience object", map[string]any{"aud": map[string]any{"plumbline": true}}, "another audience"},
		{"no expiry", map[string]any{"exp": nil}, "no expiry"},
		{"expiry as text", map[string]any{"exp": "tomorrow"}, "exp is not a time"},
		{"expiry null", map[string]any{"exp": json.RawMessage("null")}, "exp is not a time"},
		{"expiry far out of range", map[string]any{"exp": 1e300}, "exp is not a time"},
		{"expired within leeway", map[string]any{"exp": at(-59 * time.Second)}, ""},
		{"expired", map[string]any{"exp": at(-60 * time.Second)}, "expired"},
		{"not yet, within leeway", map[string]any{"nbf": at(59 * time.Second)}, ""},
		{"not yet", map[string]any{"nbf": at(2 * time.Minute)}, "not valid yet"},
		{"issued in the future", map[string]any{"iat": at(2 * time.Minute)}, "not valid yet"},
		{"no subject, a client", map[string]any{"sub": nil}, ""},
		{"neither", map[string]any{"sub": nil, "client_id": nil}, "neither a subject nor a client"},
		{"subject with newline", map[string]any{"sub": "alice\nPlumbline-Seal: x"}, "not a plain name"},
		{"subject with escape", map[string]any{"sub": "a\x1b[31m"}, "not a plain name"},
		{"subject reversed", map[string]any{"sub": "a\u202eb"}, "not a plain name"},
		{"subject number", map[string]any{"sub": 7}, "not a plain name"},
		{"subject too long", map[string]any{"sub": strings.Repeat("a", 257)}, "not a plain name"},
		{"scope list", map[string]any{"scope": []string{"a.read", "b"}}, ""},
		{"scope number", map[string]any{"scope": 1}, "scope is neither"},
		{"scope list of numbers", map[string]any{"scp": []int{1}}, "scp is neither"},
		{"no tenant", map[string]any{"tenantId": nil}, ""},
		{"tenant list", map[string]any{"tenantId": []string{"acme"}}, "tenant claim"},
		{"tenant number", map[string]any{"tenantId": 1}, "tenant claim"},
		{"tenant upper case", map[string]any{"tenantId": "Acme"}, "tenant claim"},
		{"tenant path", map[string]any{"tenantId": "../acme"}, "tenant claim"},
		{"tenant look-alike", map[string]any{"tenantId": "аcme"}, "tenant claim"}, // Cyrillic a
		{"tenant empty", map[string]any{"tenantId": ""}, "tenant claim"},
	} {
		t.Run(c.name, func(t *testing.T) {
			claims := i.claims(now)
			for k, v := range c.set {
				claims[k] = v
				if v == nil {
					delete(claims, k)
				}
			}
			_, err := a.Verify(t.Context(), sign(t, i.key(), nil, marshal(t, claims)))
			expect(t, err, c.want)
		})
	}
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && err == nil:
		t.Errorf("accepted, want a refusal with %q", want)
	case want != "" && (!strings.Contains(err.Error(), want) || !Unauthenticated(err) || desired.ClassOf(err) != desired.Denied):
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}

func TestHeaderAndSignature(t *testing.T) {
	i := newTestIssuer(t)
	now := time.Now()
	a := newAuthorizer(t, i, func() time.Time { return now })
	good := marshal(t, i.claims(now))
	other := jose.JSONWebKey{Key: ecKey(t, elliptic.P256()), KeyID: "k1", Algorithm: "ES256"}
	hmac := jose.JSONWebKey{Key: []byte(strings.Repeat("k", 64)), KeyID: "k1", Algorithm: "HS256"}
	token := sign(t, i.key(), nil, good)
	parts := strings.Split(token, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	for _, c := range []struct{ name, token, want string }{
		{"good", token, ""},
		{"full media type", sign(t, i.key(), map[jose.HeaderKey]any{"typ": "application/AT+jwt"}, good), ""},
		{"ID token", sign(t, i.key(), map[jose.HeaderKey]any{"typ": "JWT"}, good), "typ must be at+jwt"},
		{"no type", sign(t, i.key(), map[jose.HeaderKey]any{"typ": nil}, good), "typ must be at+jwt"},
		{"key address", sign(t, i.key(), map[jose.HeaderKey]any{"jku": "https://evil.example"}, good), "jku"},
		{"certificate address", sign(t, i.key(), map[jose.HeaderKey]any{"x5u": "https://evil.example"}, good), "x5u"},
		{"own key", sign(t, other, map[jose.HeaderKey]any{"jwk": other.Public()}, good), "jwk"},
		{"unknown critical", sign(t, i.key(), map[jose.HeaderKey]any{"crit": []string{"x"}, "x": 1}, good), "crit"},
		{"another key of the same name", sign(t, other, nil, good), "signature"},
		{"symmetric", sign(t, hmac, nil, good), "accepted signature algorithm"},
		{"none", b64([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + b64(good) + ".", "accepted signature algorithm"},
		{"none in capitals", b64([]byte(`{"alg":"NONE","typ":"at+jwt"}`)) + "." + b64(good) + ".", "accepted signature algorithm"},
		{"two algorithms", b64([]byte(`{"alg":"ES256","alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + "." + parts[2], "twice"},
		{"payload swapped", parts[0] + "." + b64([]byte(`{"iss":"`+i.URL+`"}`)) + "." + parts[2], "signature"},
		{"signature cut", parts[0] + "." + parts[1] + "." + parts[2][:20], "signature"},
		{"no signature", parts[0] + "." + parts[1], "accepted signature algorithm"},
		{"five parts", "a.b.c.d.e", "signed JWT"},
		{"not a token", "hello", "signed JWT"},
		{"JSON form", `{"payload":"x"}`, "signed JWT"},
		{"duplicate claim", sign(t, i.key(), nil, []byte(strings.Replace(string(good), `{`, `{"tenantId":"umbrella",`, 1))), "twice"},
		{"payload no object", sign(t, i.key(), nil, []byte(`[]`)), "claims cannot be read"},
		{"too long", token + strings.Repeat("A", MaxTokenBytes), "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := a.Verify(t.Context(), c.token)
			expect(t, err, c.want)
			if err != nil && len(c.token) > 8 && strings.Contains(err.Error(), c.token[:8]) {
				t.Errorf("the refusal echoes the token: %v", err)
			}
		})
	}
}

func TestAlgorithms(t *testing.T) {
	now := time.Now()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for alg, key := range map[jose.SignatureAlgorithm]any{
		jose.ES384: ecKey(t, elliptic.P384()), jose.RS256: rsaKey, jose.PS512: rsaKey, jose.EdDSA: ed,
	} {
		i := newTestIssuer(t)
		i.rotate("k", alg, key)
		a := newAuthorizer(t, i, func() time.Time { return now })
		if _, err := a.Verify(t.Context(), sign(t, i.key(), nil, marshal(t, i.claims(now)))); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

func TestPrincipal(t *testing.T) {
	i := newTestIssuer(t)
	now := time.Now().Truncate(time.Second)
	a := newAuthorizer(t, i, func() time.Time { return now })
	for _, c := range []struct {
		set  map[string]any
		want Principal
	}{
		{map[string]any{}, Principal{Subject: "user:alice", ClientID: "studio", Tenant: "acme"}},
		{map[string]any{"sub": "studio"}, Principal{Subject: "agent:studio", ClientID: "studio", Tenant: "acme"}},
		{map[string]any{"sub": nil}, Principal{Subject: "agent:studio", ClientID: "studio", Tenant: "acme"}},
		{map[string]any{"client_id": nil, "azp": "alice"}, Principal{Subject: "agent:alice", ClientID: "alice", Tenant: "acme"}},
		{map[string]any{"tenantId": "operators"}, Principal{Subject: "user:alice", ClientID: "studio", Tenant: "operators", Platform: true}},
	} {
		claims := i.claims(now)
		for k, v := range c.set {
			if claims[k] = v; v == nil {
				delete(claims, k)
			}
		}
		p, err := a.Verify(t.Context(), sign(t, i.key(), nil, marshal(t, claims)))
		if err != nil {
			t.Fatal(err)
		}
		if p.Subject != c.want.Subject || p.ClientID != c.want.ClientID || p.Tenant != c.want.Tenant || p.Platform != c.want.Platform {
			t.Errorf("%v: got %+v, want %+v", c.set, *p, c.want)
		}
		if !p.Has("a.read") || !p.Has("a.write") || p.Has("a") || p.Has("") {
			t.Errorf("scopes: %v", p.Scopes)
		}
		if want := now.Add(time.Hour + Leeway); !p.Expires.Equal(want) {
			t.Errorf("expires %v, want %v", p.Expires, want)
		}
	}
}

func TestCacheEndsWithTheToken(t *testing.T) {
	i := newTestIssuer(t)
	now := time.Now().Truncate(time.Second)
	a := newAuthorizer(t, i, func() time.Time { return now })
	claims := i.claims(now)
	claims["exp"] = now.Add(time.Minute).Unix()
	token := sign(t, i.key(), nil, marshal(t, claims))
	p1, err := a.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if p2, _ := a.Verify(t.Context(), token); p1 != p2 {
		t.Error("the second look did not come from the cache")
	}
	now = now.Add(time.Minute + Leeway)
	if _, err := a.Verify(t.Context(), token); !Unauthenticated(err) {
		t.Errorf("after its end: got %v, want a refusal", err)
	}
}

func TestKeyRotation(t *testing.T) {
	i := newTestIssuer(t)
	now := time.Now()
	a := newAuthorizer(t, i, func() time.Time { return now })
	old := sign(t, i.key(), nil, marshal(t, i.claims(now)))
	if _, err := a.Verify(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	i.rotate("k2", jose.ES256, ecKey(t, elliptic.P256()))
	fresh := sign(t, i.key(), nil, marshal(t, i.claims(now)))
	if _, err := a.Verify(t.Context(), fresh); err == nil {
		t.Error("keys were fetched twice within the retry interval")
	}
	now = now.Add(keysRetry)
	if _, err := a.Verify(t.Context(), fresh); err != nil {
		t.Errorf("new key: %v", err)
	}
	if _, err := a.Verify(t.Context(), old); !Unauthenticated(err) {
		t.Errorf("a token of the withdrawn key: got %v, want a refusal", err)
	}
	if n := i.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

func TestUnknownKeysDoNotHammerTheIssuer(t *testing.T) {
	i := newTestIssuer(t)
	now := time.Now()
	a := newAuthorizer(t, i, func() time.Time { return now })
	key := jose.JSONWebKey{Key: ecKey(t, elliptic.P256()), Algorithm: "ES256"}
	var wg sync.WaitGroup
	for n := range 50 {
		key.KeyID = fmt.Sprint("unknown-", n)
		token := sign(t, key, nil, marshal(t, i.claims(now)))
		wg.Go(func() {
			if _, err := a.Verify(t.Context(), token); !Unauthenticated(err) {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
	wg.Wait()
	if n := i.fetches.Load(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

func TestIssuerDown(t *testing.T) {
	i := newTestIssuer(t)
	i.broken.Store(true)
	now := time.Now()
	a := newAuthorizer(t, i, func() time.Time { return now })
	token := sign(t, i.key(), nil, marshal(t, i.claims(now)))
	if _, err := a.Verify(t.Context(), token); desired.ClassOf(err) != desired.Transient {
		t.Errorf("down: got %v, want transient", err)
	}
	i.broken.Store(false)
	now = now.Add(keysRetry)
	if _, err := a.Verify(t.Context(), token); err != nil {
		t.Errorf("up again: %v", err)
	}
	i.broken.Store(true)
	now = now.Add(keysFresh)
	claims := i.claims(now)
	if _, err := a.Verify(t.Context(), sign(t, i.key(), nil, marshal(t, claims))); err != nil {
		t.Errorf("down again, keys still fresh enough: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	now = now.Add(keysStale)
	if _, err := a.Verify(ctx, sign(t, i.key(), nil, marshal(t, i.claims(now)))); desired.ClassOf(err) != desired.Transient {
		t.Errorf("stale keys: got %v, want transient", err)
	}
}

func TestConfigurationIsRefused(t *testing.T) {
	for name, c := range map[string]Config{
		"nothing":        {},
		"plain http":     {Issuers: []Issuer{{URL: "http://id.example", Audience: "x"}}},
		"no audience":    {Issuers: []Issuer{{URL: "https://id.example"}}},
		"credentials":    {Issuers: []Issuer{{URL: "https://u:p@id.example", Audience: "x"}}},
		"listed twice":   {Issuers: []Issuer{{URL: "https://id.example", Audience: "x"}, {URL: "https://id.example", Audience: "y"}}},
		"not an address": {Issuers: []Issuer{{URL: "id", Audience: "x"}}},
	} {
		if _, err := New(c); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
	}
}

func TestAuthorizationHeader(t *testing.T) {
	i := newTestIssuer(t)
	a := newAuthorizer(t, i, time.Now)
	token := sign(t, i.key(), nil, marshal(t, i.claims(time.Now())))
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+token))
	for _, c := range []struct {
		name         string
		values       []string
		bearer, door bool // accepted
	}{
		{"bearer", []string{"Bearer " + token}, true, true},
		{"lower case", []string{"bearer " + token}, true, true},
		{"basic", []string{basic}, false, true},
		{"none", nil, false, false},
		{"empty", []string{""}, false, false},
		{"only the scheme", []string{"Bearer"}, false, false},
		{"two", []string{"Bearer " + token, "Bearer " + token}, false, false},
		{"bare", []string{token}, false, false},
		{"basic garbage", []string{"Basic !!!"}, false, false},
		{"basic without colon", []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(token))}, false, false},
		{"trailing", []string{"Bearer " + token + " x"}, false, false},
	} {
		if _, err := a.Bearer(t.Context(), c.values); (err == nil) != c.bearer {
			t.Errorf("%s: bearer: %v", c.name, err)
		}
		if _, err := a.BearerOrBasic(t.Context(), c.values); (err == nil) != c.door {
			t.Errorf("%s: door: %v", c.name, err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	d, err := OpenDevIssuer(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	a, err := New(Config{Dev: d})
	if err != nil {
		b.Fatal(err)
	}
	token, err := d.Mint(MintRequest{Subject: "alice", Tenant: "acme", Scopes: []string{"a"}}, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	header := []string{"Bearer " + token}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Bearer(b.Context(), header); err != nil {
			b.Fatal(err)
		}
	}
}

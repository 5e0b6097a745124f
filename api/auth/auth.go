// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/connectsoft/plumbline/desired"
)

// Issuer is one trusted token issuer.
type Issuer struct {
	URL      string // its name, and where its discovery document is; https, or http on loopback
	Audience string // what the aud claim must hold; required
}

// Config of an Authorizer.
type Config struct {
	// Issuers are trusted. Empty means the development issuer, which Dev must then be.
	Issuers []Issuer
	Dev     *DevIssuer
	// TenantClaim names the claim that holds the tenant. Default "tenantId".
	TenantClaim string
	// PlatformTenant is the tenant whose tokens may carry platform.* scopes; "" = none.
	PlatformTenant string
	// Client fetches discovery documents and keys. Default: 10 s timeout, no redirects.
	Client *http.Client
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Authorizer turns bearer tokens into Principals and judges them by the operation table. Safe for concurrent use.
type Authorizer struct {
	issuers        map[string]*issuer
	tenantClaim    string
	platformTenant string
	now            func() time.Time
	cache          *tokenCache
	algorithms     []jose.SignatureAlgorithm
	rpcs           map[string]*Operation
	doors          map[Door][2]*Operation // [read, write]
	operations     []Operation
	dev            *DevIssuer
}

type issuer struct {
	name     string
	audience string
	source   keySource
}

// New checks the configuration. It does not need the issuers to be up.
func New(c Config) (*Authorizer, error) {
	a := &Authorizer{
		issuers: map[string]*issuer{}, tenantClaim: c.TenantClaim, platformTenant: c.PlatformTenant, now: c.Now,
		cache: newTokenCache(cacheSize), algorithms: algorithms(), operations: Operations(),
		rpcs: map[string]*Operation{}, doors: map[Door][2]*Operation{},
	}
	if a.tenantClaim == "" {
		a.tenantClaim = "tenantId"
	}
	if a.now == nil {
		a.now = time.Now
	}
	if err := a.trust(c); err != nil {
		return nil, err
	}
	for i := range a.operations {
		op := &a.operations[i]
		if op.RPC != "" {
			a.rpcs[op.RPC] = op
		}
		if op.Door != NoDoor {
			d := a.doors[op.Door]
			d[index(op.Write)] = op
			a.doors[op.Door] = d
		}
	}
	return a, nil
}

func index(write bool) int {
	if write {
		return 1
	}
	return 0
}

func (a *Authorizer) trust(c Config) error {
	refuse := func(format string, args ...any) error {
		return desired.Errorf("configure authorization", desired.Ref{}, desired.Invalid, format, args...)
	}
	if len(c.Issuers) == 0 {
		if c.Dev == nil {
			return refuse("no token issuer is configured: set one, or serve on a loopback address to use the development issuer")
		}
		a.dev, a.tenantClaim = c.Dev, devTenantClaim
		a.issuers[DevIssuerName] = &issuer{DevIssuerName, DevAudience, c.Dev.source()}
		return nil
	}
	client := c.Client
	if client == nil {
		client = &http.Client{
			Timeout:       keysTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	for _, i := range c.Issuers {
		u, err := url.Parse(i.URL)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return refuse("issuer: not a plain URL")
		}
		if u.Scheme != "https" && !(u.Scheme == "http" && loopbackName(u.Hostname())) {
			return refuse("issuer %s: must use https", u.Redacted())
		}
		if i.Audience == "" {
			return refuse("issuer %s: an audience is required, or tokens made for other services would be accepted", u.Redacted())
		}
		if a.issuers[i.URL] != nil {
			return refuse("issuer %s: listed twice", u.Redacted())
		}
		a.issuers[i.URL] = &issuer{i.URL, i.Audience, &remoteKeys{issuer: i.URL, client: client, now: a.now}}
	}
	return nil
}

// Dev is the development issuer in use, nil when real ones are configured.
func (a *Authorizer) Dev() *DevIssuer { return a.dev }

// Operations is the table that this authorizer judges by.
func (a *Authorizer) Operations() []Operation { return a.operations }

// RPC finds the row of a full gRPC method name; nil means that the method does not exist.
func (a *Authorizer) RPC(fullMethod string) *Operation { return a.rpcs[fullMethod] }

// DoorOperation finds the row of a clone or push at a door.
func (a *Authorizer) DoorOperation(d Door, write bool) *Operation { return a.doors[d][index(write)] }

// Bearer authenticates by the values of the Authorization header or metadata entry: exactly one bearer token.
func (a *Authorizer) Bearer(ctx context.Context, values []string) (*Principal, error) {
	return a.authenticate(ctx, values, false)
}

// BearerOrBasic is Bearer that also takes Basic with the token as password: for the git doors only.
func (a *Authorizer) BearerOrBasic(ctx context.Context, values []string) (*Principal, error) {
	return a.authenticate(ctx, values, true)
}

func (a *Authorizer) authenticate(ctx context.Context, values []string, basic bool) (*Principal, error) {
	switch len(values) {
	case 0:
		return nil, deny(NoToken, "", "an access token is needed: send Authorization: Bearer with one")
	case 1:
	default:
		return nil, deny(BadToken, "", "there is more than one Authorization header: send one")
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	rest = strings.TrimLeft(rest, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return a.Verify(ctx, rest)
	case basic && strings.EqualFold(scheme, "Basic"):
		if len(rest) > 2*MaxTokenBytes {
			return nil, deny(BadToken, "", "the access token is too long")
		}
		raw, err := base64.StdEncoding.DecodeString(rest)
		_, password, ok := strings.Cut(string(raw), ":")
		if err != nil || !ok {
			return nil, deny(BadToken, "", "the Basic credentials cannot be read: send the access token as password")
		}
		return a.Verify(ctx, password)
	}
	return nil, deny(BadToken, "", "the Authorization header must be a bearer token")
}

// Verify judges one access token. The error is Denied (Unauthenticated), or Transient while an issuer's keys cannot
// be fetched.
func (a *Authorizer) Verify(ctx context.Context, token string) (*Principal, error) {
	if token == "" {
		return nil, deny(NoToken, "", "an access token is needed: send Authorization: Bearer with one")
	}
	if len(token) > MaxTokenBytes {
		return nil, deny(BadToken, "", "the access token is too long")
	}
	now := a.now()
	sum := sha256.Sum256([]byte(token))
	if p, ok := a.cache.get(sum, now); ok {
		return p, nil
	}
	p, v, err := a.verify(ctx, token, now)
	if err != nil {
		return nil, err
	}
	v.principal, v.until = p, p.Expires
	if limit := now.Add(recheckAll); v.until.After(limit) {
		v.until = limit
	}
	a.cache.put(sum, v)
	return p, nil
}

func (a *Authorizer) verify(ctx context.Context, token string, now time.Time) (*Principal, verified, error) {
	bad := func(why string) (*Principal, verified, error) {
		return nil, verified{}, deny(BadToken, "", "the access token is not accepted: "+why)
	}
	jws, err := a.parse(token)
	if err != nil {
		return bad(err.Error())
	}
	i, err := a.issuerOf(jws.UnsafePayloadWithoutVerification())
	if err != nil {
		return bad(err.Error())
	}
	header := jws.Signatures[0].Protected
	gen := i.source.generation()
	keys, err := i.source.keys(ctx, header.KeyID)
	if err != nil {
		return nil, verified{}, err
	}
	payload, ok := check(jws, keys, header.Algorithm)
	if !ok {
		return bad("its signature does not match a key of its issuer")
	}
	c, err := i.readClaims(payload, a.tenantClaim, now)
	if err != nil {
		return bad(err.Error())
	}
	p := &Principal{
		Subject: a.subject(i, c), Issuer: i.name, ClientID: c.client, Tenant: c.tenant, Scopes: c.scopes,
		Platform: c.tenant != "" && c.tenant == a.platformTenant, Expires: c.expires,
	}
	return p, verified{source: i.source, gen: gen}, nil
}

// parse reads the compact form and judges the header; nothing is trusted yet.
func (a *Authorizer) parse(token string) (*jose.JSONWebSignature, error) {
	head, _, ok := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(head)
	if !ok || err != nil {
		return nil, errors.New("it is not a signed JWT")
	}
	h, err := strictObject(raw)
	if err != nil {
		return nil, errors.New("its header cannot be read: " + err.Error())
	}
	if err := checkHeader(h); err != nil {
		return nil, err
	}
	jws, err := jose.ParseSignedCompact(token, a.algorithms)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, errors.New("it is not a JWT with an accepted signature algorithm")
	}
	return jws, nil
}

// issuerOf finds the trusted issuer that a payload names; the claim is checked again once the signature holds.
func (a *Authorizer) issuerOf(payload []byte) (*issuer, error) {
	var c struct {
		Iss json.RawMessage `json:"iss"`
	}
	if json.Unmarshal(payload, &c) != nil {
		return nil, errors.New("its claims cannot be read")
	}
	name, _ := text(c.Iss)
	if i := a.issuers[name]; i != nil {
		return i, nil
	}
	return nil, errors.New("its issuer is not trusted here")
}

func check(jws *jose.JSONWebSignature, keys []jose.JSONWebKey, alg string) ([]byte, bool) {
	for i := range keys {
		if keys[i].Algorithm != "" && keys[i].Algorithm != alg {
			continue
		}
		if payload, err := jws.Verify(&keys[i]); err == nil {
			return payload, true
		}
	}
	return nil, false
}

// subject names the caller: an agent when the token speaks for a client alone, a user otherwise. With several
// issuers the name says which one vouches for it.
func (a *Authorizer) subject(i *issuer, c claims) string {
	s := "user:" + c.subject
	if c.subject == "" || c.subject == c.client {
		s = "agent:" + c.client
	}
	if len(a.issuers) > 1 {
		s += "@" + i.name
	}
	return s
}

// Allow judges a caller against a row of the table. No row, no permission.
func (a *Authorizer) Allow(p *Principal, op *Operation) error {
	switch {
	case op == nil:
		return deny(NoOperation, "", "there is no such operation")
	case op.Public:
		return nil
	case p == nil:
		return deny(NoToken, "", "an access token is needed: send Authorization: Bearer with one")
	case p.Tenant == "":
		return deny(WrongTenant, "", "the access token has no tenant claim ("+a.tenantClaim+")")
	case op.Tenant == PlatformClaim && !p.Platform:
		return deny(WrongTenant, "", "only the platform's own tenant may do this")
	case op.Scope == "" && op.Derived:
		return nil
	}
	return NeedScope(p, op.Scope)
}

// NeedScope demands one scope, as Derived operations do once they know what they touch.
func NeedScope(p *Principal, scope string) error {
	if p.Has(scope) {
		return nil
	}
	return deny(NoScope, scope, "the access token lacks the scope "+scope)
}

// NeedTenant demands that a tenant named in a request is the caller's own; an empty name is filled by the claim.
func NeedTenant(p *Principal, named string) error {
	if named == "" || named == p.Tenant {
		return nil
	}
	return deny(WrongTenant, "", "tenantId names another tenant than the access token")
}

// loopbackName reports whether a host name or address can only be this machine.
func loopbackName(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/oklog/ulid/v2"

	"github.com/connectsoft/plumbline/desired"
)

// What the development issuer puts into every token, and the name of its key file in the state directory.
const (
	DevIssuerName = "https://plumbline.localhost/dev"
	DevAudience   = "plumbline"
	DevKeyFile    = "dev-issuer.key"

	devTenantClaim = "tenantId"
)

// DevIssuer issues tokens for a daemon on a loopback address without a configured issuer. It has no token endpoint:
// whoever can read its key file may mint. Its tokens pass the same verification as any other.
type DevIssuer struct {
	key *ecdsa.PrivateKey
	kid string
}

// OpenDevIssuer reads the key in the state directory and creates it (0600) when there is none yet.
func OpenDevIssuer(stateDir string) (*DevIssuer, error) {
	path := filepath.Join(stateDir, DevKeyFile)
	d, err := ReadDevIssuer(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, devError(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, devError(err)
	}
	if err := createKey(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return nil, devError(err)
	}
	return ReadDevIssuer(path)
}

// createKey puts the file in place whole or not at all; the first of two creators wins.
func createKey(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".dev-issuer-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// ReadDevIssuer opens an existing key file, which must be readable by its owner only.
func ReadDevIssuer(keyFile string) (*DevIssuer, error) {
	info, err := os.Stat(keyFile)
	if err != nil {
		return nil, devError(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, devError(errors.New(keyFile + ": others may read the key: chmod 600 it, or remove it to have a new one made"))
	}
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, devError(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, devError(errors.New(keyFile + ": not a PEM key: remove it to have a new one made"))
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := k.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, devError(errors.New(keyFile + ": not a P-256 key: remove it to have a new one made"))
	}
	thumb, err := (&jose.JSONWebKey{Key: &key.PublicKey}).Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, devError(err)
	}
	return &DevIssuer{key: key, kid: base64.RawURLEncoding.EncodeToString(thumb[:12])}, nil
}

func devError(err error) error {
	return desired.E("open development issuer", desired.Ref{}, desired.Invalid, err)
}

// MintRequest says what a token shall hold.
type MintRequest struct {
	// Subject is "user:<name>", "agent:<client id>", or a bare user name.
	Subject string
	// ClientID is the client a user's token was issued to. Default "plumbline-cli".
	ClientID string
	Tenant   string
	Scopes   []string
	TTL      time.Duration // default 1 h
}

// Mint signs an access token as of now.
func (d *DevIssuer) Mint(m MintRequest, now time.Time) (string, error) {
	invalid := func(why string) (string, error) {
		return "", desired.E("mint token", desired.Ref{}, desired.Invalid, errors.New(why))
	}
	sub, client := strings.TrimPrefix(m.Subject, "user:"), m.ClientID
	if agent, ok := strings.CutPrefix(m.Subject, "agent:"); ok {
		sub, client = agent, agent
	} else if client == "" {
		client = "plumbline-cli"
	}
	switch {
	case !printable(sub) || !printable(client):
		return invalid("the subject is a name like user:alice or agent:ReleaseManager")
	case sub == client && !strings.HasPrefix(m.Subject, "agent:"):
		return invalid("a user cannot bear the name of the client: write agent:" + client + " for the client itself")
	case m.Tenant != "" && desired.ValidTenant(m.Tenant) != nil:
		return invalid("the tenant is not a tenant name: lower-case letters, digits and -, at most 63")
	case m.TTL < 0:
		return invalid("the lifetime cannot be negative")
	}
	ttl := m.TTL
	if ttl == 0 {
		ttl = time.Hour
	}
	c := map[string]any{
		"iss": DevIssuerName, "aud": DevAudience, "sub": sub, "client_id": client, "scope": strings.Join(m.Scopes, " "),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(ttl).Unix(), "jti": ulid.Make().String(),
	}
	if m.Tenant != "" {
		c[devTenantClaim] = m.Tenant
	}
	return d.sign(c)
}

func (d *DevIssuer) sign(c map[string]any) (string, error) {
	o := (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", d.kid)
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: d.key}, o)
	if err != nil {
		return "", devError(err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", devError(err)
	}
	jws, err := s.Sign(payload)
	if err != nil {
		return "", devError(err)
	}
	return jws.CompactSerialize()
}

func (d *DevIssuer) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: &d.key.PublicKey, KeyID: d.kid, Algorithm: string(jose.ES256), Use: "sig"}
}

func (d *DevIssuer) source() keySource { return fixedKeys{d.public()} }

// Discovery is the discovery document, as seen from a request. It is nil unless the request's Host is this machine:
// a page on another origin must not be able to use the development issuer by DNS rebinding.
func (d *DevIssuer) Discovery(r *http.Request) map[string]any {
	if !LoopbackHost(r) {
		return nil
	}
	return map[string]any{
		"issuer":                                DevIssuerName,
		"jwks_uri":                              "http://" + r.Host + "/oauth/keys",
		"response_types_supported":              []string{},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{string(jose.ES256)},
	}
}

// Keys is the public key set; nil under the same condition as Discovery.
func (d *DevIssuer) Keys(r *http.Request) *jose.JSONWebKeySet {
	if !LoopbackHost(r) {
		return nil
	}
	return &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{d.public()}}
}

// LoopbackHost reports whether the Host of a request names this machine by a loopback address or as localhost.
func LoopbackHost(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return loopbackName(host)
}

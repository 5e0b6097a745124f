// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

func TestDevIssuerMintsWhatTheVerifierAccepts(t *testing.T) {
	dir := t.TempDir()
	d, err := OpenDevIssuer(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(Config{Dev: d, PlatformTenant: "operators", TenantClaim: "org"})
	if err != nil {
		t.Fatal(err)
	}
	cli, err := ReadDevIssuer(filepath.Join(dir, DevKeyFile)) // as another process does
	if err != nil {
		t.Fatal(err)
	}
	for subject, want := range map[string]string{
		"alice": "user:alice", "user:alice": "user:alice", "agent:ReleaseManager": "agent:ReleaseManager",
	} {
		token, err := cli.Mint(MintRequest{Subject: subject, Tenant: "acme", Scopes: []string{"a", "b"}}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		p, err := a.Verify(t.Context(), token)
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		if p.Subject != want || p.Tenant != "acme" || !p.Has("a") || !p.Has("b") || p.Platform {
			t.Errorf("%s: got %+v", subject, *p)
		}
	}
}

func TestDevIssuerKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, DevKeyFile)
	if _, err := ReadDevIssuer(path); !os.IsNotExist(errorCause(err)) {
		t.Errorf("without a key file: got %v, want one that says it is missing", err)
	}
	kids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range kids {
		wg.Go(func() {
			d, err := OpenDevIssuer(dir)
			if err != nil {
				t.Error(err)
				return
			}
			kids[i] = d.kid
		})
	}
	wg.Wait()
	for _, k := range kids {
		if k != kids[0] {
			t.Fatalf("two creators made two keys: %v", kids)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v, want 0600", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".dev-issuer-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for name, damage := range map[string]func() error{
		"readable by others": func() error { return os.Chmod(path, 0o640) },
		"empty":              func() error { return os.WriteFile(path, nil, 0o600) },
		"not a key":          func() error { return os.WriteFile(path, []byte("-----BEGIN X-----\n-----END X-----\n"), 0o600) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenDevIssuer(dir); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func errorCause(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		if os.IsNotExist(err) {
			return err
		}
		err = u.Unwrap()
	}
}

func TestMintRefusesBadNames(t *testing.T) {
	d, err := OpenDevIssuer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]MintRequest{
		"no subject":            {Tenant: "acme"},
		"newline":               {Subject: "a\nb", Tenant: "acme"},
		"user posing as client": {Subject: "user:studio", ClientID: "studio", Tenant: "acme"},
		"tenant":                {Subject: "a", Tenant: "Acme"},
		"lifetime":              {Subject: "a", Tenant: "acme", TTL: -time.Second},
	} {
		if _, err := d.Mint(m, time.Now()); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
	}
}

func TestDevKeysAreDeadWithARealIssuer(t *testing.T) {
	d, err := OpenDevIssuer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(Config{Issuers: []Issuer{{URL: "https://id.example", Audience: DevAudience}}, Dev: d})
	if err != nil {
		t.Fatal(err)
	}
	token, err := d.Mint(MintRequest{Subject: "alice", Tenant: "acme"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Verify(t.Context(), token); !Unauthenticated(err) || a.Dev() != nil {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestDiscoveryOnlyForThisMachine(t *testing.T) {
	d, err := OpenDevIssuer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"127.0.0.1:8080": true, "localhost": true, "LOCALHOST:1": true, "[::1]:8080": true, "127.9.9.9": true,
		"plumbline.example": false, "127.0.0.1.nip.io": false, "localhost.evil.example:80": false, "": false, "0.0.0.0": false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		doc, keys := d.Discovery(r), d.Keys(r)
		if (doc != nil) != want || (keys != nil) != want {
			t.Errorf("%q: served %v, want %v", host, doc != nil, want)
		}
		if want && !strings.HasPrefix(doc["jwks_uri"].(string), "http://"+host+"/") {
			t.Errorf("%q: keys at %v", host, doc["jwks_uri"])
		}
		if want && !keys.Keys[0].IsPublic() {
			t.Error("the private key is served")
		}
	}
}

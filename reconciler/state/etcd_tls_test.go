// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/connectsoft/plumbline/desired"
)

// selfSigned writes a certificate that is its own authority, for both sides of a connection.
func selfSigned(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// TestMutualTLS: an external cluster that demands client certificates takes ours and refuses whoever has none.
func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	pair := selfSigned(t, dir)
	c, err := embeddedConfig(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	secure := []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
	c.ListenClientUrls, c.AdvertiseClientUrls = secure, secure
	c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = c.ClientTLSInfo.CertFile, true
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	<-server.Server.ReadyNotify()

	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	dial := func(certs ...tls.Certificate) (*Etcd, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return OpenEtcd(ctx, EtcdConfig{
			Endpoints: []string{"https://" + server.Clients[0].Addr().String()},
			TLS:       &tls.Config{RootCAs: roots, Certificates: certs, MinVersion: tls.VersionTLS13},
		})
	}
	s, err := dial(pair)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, put(key(t, "k"), "1"))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := dial(); desired.ClassOf(err) != desired.Transient {
		t.Errorf("without a certificate: %v", err)
	}
}

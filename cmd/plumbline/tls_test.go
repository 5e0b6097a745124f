// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificate writes a self-signed certificate for 127.0.0.1 and its key.
func certificate(t *testing.T, dir, name string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	return certFile, keyFile, pool
}

// handshake connects to a listener with the given material and returns the error of the first byte read.
func handshake(t *testing.T, s *serverTLS, client *tls.Config) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := tls.NewListener(l, s.config("h2")).Accept()
		if err == nil {
			c.Write([]byte("x"))
			c.Close()
		}
	}()
	defer func() { l.Close(); <-served }()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Read(make([]byte, 1)) // a refused client certificate shows only here
	return err
}

func TestListenersEndTLSAndReadTheirFilesAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, pool := certificate(t, dir, "server")
	clientCert, clientKey, _ := certificate(t, dir, "client")
	s, err := newServerTLS(TLSConfig{CertFile: certFile, KeyFile: keyFile})
	if err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, s, &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}}); err != nil {
		t.Errorf("a client that trusts the certificate: %v", err)
	}
	s.files.ClientCAFile = clientCert
	if err := s.load(); err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, s, &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}}); err == nil {
		t.Error("a client without certificate was let in")
	}
	pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, s, &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{pair}}); err != nil {
		t.Errorf("a client with its certificate: %v", err)
	}
	_, _, renewed := certificate(t, dir, "server") // the files were replaced
	if err := s.load(); err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, s, &tls.Config{RootCAs: renewed, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{pair}}); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	if err := os.WriteFile(keyFile, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.load(); err == nil {
		t.Error("a torn key was taken")
	}
	if err := handshake(t, s, &tls.Config{RootCAs: renewed, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{pair}}); err != nil {
		t.Errorf("a failed reload took the old material out of force: %v", err)
	}
}

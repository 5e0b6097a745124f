// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync/atomic"
)

// serverTLS is what the listeners show and ask for. load replaces it for the handshakes that come after.
type serverTLS struct {
	files   TLSConfig
	current atomic.Pointer[tlsMaterial]
}

type tlsMaterial struct {
	certificate tls.Certificate
	clients     *x509.CertPool // nil: no client certificate is asked for
}

func newServerTLS(files TLSConfig) (*serverTLS, error) {
	t := &serverTLS{files: files}
	return t, t.load()
}

// load reads the files; on an error the material in force stays.
func (t *serverTLS) load() error {
	var m tlsMaterial
	var err error
	if m.certificate, err = tls.LoadX509KeyPair(t.files.CertFile, t.files.KeyFile); err != nil {
		return fmt.Errorf("listeners.tls.certFile: %w", err)
	}
	if t.files.ClientCAFile != "" {
		if m.clients, err = certPool(t.files.ClientCAFile); err != nil {
			return fmt.Errorf("listeners.tls.clientCAFile: %w", err)
		}
	}
	t.current.Store(&m)
	return nil
}

// config is the configuration of a listener that speaks one application protocol.
func (t *serverTLS) config(protocol string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m := t.current.Load()
		c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{protocol}, Certificates: []tls.Certificate{m.certificate}}
		if m.clients != nil {
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, m.clients
		}
		return c, nil
	}}
}

// clientTLS is how the daemon shows itself to an external etcd.
func clientTLS(c EtcdConfig) (*tls.Config, error) {
	if c.CAFile == "" && c.CertFile == "" {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if c.CAFile != "" {
		if out.RootCAs, err = certPool(c.CAFile); err != nil {
			return nil, fmt.Errorf("etcd.caFile: %w", err)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("etcd.certFile: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

func certPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}

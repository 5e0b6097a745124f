// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func TestDefaultConfigurationIsTheDocumentedOne(t *testing.T) {
	c, origins, err := LoadConfig(ConfigInput{Environ: []string{"HOME=/home/alice"}})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		APIVersion: "plumbline.dev/v1alpha1", Kind: "ServerConfiguration",
		StateDir:      "/home/alice/.local/state/plumbline",
		Listeners:     ListenersConfig{HTTP: "127.0.0.1:8080", GRPC: "127.0.0.1:9090", Admin: "127.0.0.1:9091"},
		Etcd:          EtcdConfig{Endpoints: []string{}},
		Auth:          AuthConfig{Audience: "plumbline", TenantClaim: "tenantId", PlatformTenant: "platform"},
		Tenants:       TenantsConfig{AutoCreate: true, AutoCreateLimit: 100},
		Limits:        LimitsConfig{ArtifactBytes: 256 << 20, PushBytes: 512 << 20, StreamsPerTenant: 2000},
		Reconcile:     ReconcileConfig{Resync: 3 * time.Minute, Workers: 4, CallTimeout: 10 * time.Second},
		Log:           LogConfig{Level: "info", Format: "auto"},
		ShutdownGrace: 30 * time.Second,
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	// Every key is in the file, has a setting, and no setting is for nothing.
	var keys []string
	walkConfig(reflect.ValueOf(&c).Elem(), "", func(key string, _ reflect.Value) { keys = append(keys, key) })
	if got := slices.Sorted(maps.Keys(origins)); !slices.Equal(got, slices.Sorted(slices.Values(keys))) {
		t.Errorf("default.yaml sets %q, Config has %q", got, keys)
	}
	var bound []string
	for _, s := range settings() {
		bound = append(bound, s.key)
	}
	if !slices.Equal(bound, keys[2:]) {
		t.Errorf("settings() binds %q, Config has %q", bound, keys[2:])
	}
}

func TestConfigurationPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	write(t, file, "apiVersion: plumbline.dev/v1alpha1\nkind: ServerConfiguration\nlisteners:\n  http: 127.0.0.1:1\n  grpc: 127.0.0.1:1\n  admin: 127.0.0.1:1\nreconcile: {resync: 1m}\n")
	c, origins, err := LoadConfig(ConfigInput{
		Flags:   map[string]string{"admin-addr": "127.0.0.1:3", "etcd-endpoints": "http://a:1,http://b:2"},
		Environ: []string{"PLUMBLINE_CONFIG=" + file, "PLUMBLINE_GRPC_ADDR=127.0.0.1:2", "PLUMBLINE_ADMIN_ADDR=127.0.0.1:2", "PLUMBLINE_LOG_LEVEL=", "STATE_DIRECTORY=/var/lib/a:/var/lib/b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct{ key, got, want, origin string }{
		{"listeners.http", c.Listeners.HTTP, "127.0.0.1:1", "file " + file + ":4"},
		{"listeners.grpc", c.Listeners.GRPC, "127.0.0.1:2", "variable PLUMBLINE_GRPC_ADDR"},
		{"listeners.admin", c.Listeners.Admin, "127.0.0.1:3", "flag --admin-addr"},
		{"reconcile.resync", c.Reconcile.Resync.String(), "1m0s", "file " + file + ":7"},
		{"etcd.endpoints", strings.Join(c.Etcd.Endpoints, " "), "http://a:1 http://b:2", "flag --etcd-endpoints"},
		{"log.level", c.Log.Level, "info", "default"},
		{"stateDir", c.StateDir, "/var/lib/a", "variable STATE_DIRECTORY"},
	}
	for _, r := range rows {
		if r.got != r.want || origins[r.key] != r.origin {
			t.Errorf("%s: got %q from %q, want %q from %q", r.key, r.got, origins[r.key], r.want, r.origin)
		}
	}
}

func TestBadConfiguration(t *testing.T) {
	const head = "apiVersion: plumbline.dev/v1alpha1\nkind: ServerConfiguration\n"
	rows := []struct {
		story string
		file  string
		flags map[string]string
		want  string
	}{
		{"unknown key", head + "listeners:\n  htp: x\n", nil, `c.yaml:4:3: unknown key listeners.htp; did you mean "http"?`},
		{"unknown section", head + "recncile: {}\n", nil, `c.yaml:3:1: unknown key recncile; did you mean "reconcile"?`},
		{"key twice", head + "stateDir: a\nstateDir: b\n", nil, "c.yaml:4:1: key stateDir is there twice"},
		{"wrong type", head + "reconcile:\n  workers: many\n", nil, "c.yaml:4:12: reconcile.workers: must be a whole number"},
		{"a list for a value", head + "stateDir: [a]\n", nil, "c.yaml:3:11: stateDir: must be a single value"},
		{"a value for a list", head + "etcd: {endpoints: http://a}\n", nil, "etcd.endpoints: must be a list"},
		{"a value for a section", head + "listeners: x\n", nil, "c.yaml:3:12: listeners must be a mapping"},
		{"an anchor", head + "stateDir: &a x\n", nil, "anchors and aliases"},
		{"another kind", "apiVersion: plumbline.dev/v1alpha1\nkind: Repository\n", nil, "must begin with apiVersion: plumbline.dev/v1alpha1 and kind: ServerConfiguration"},
		{"two documents", head + "---\n" + head, nil, "a second document"},
		{"no YAML", "a: [", nil, "c.yaml: yaml: line 1"},
		{"bad flag", head, map[string]string{"resync": "soon"}, "flag --resync: must be a duration such as 30s or 5m"},
		{"bad address", head, map[string]string{"http-addr": "8080"}, "listeners.http (flag --http-addr): must be host:port"},
		{"beyond loopback without an issuer", head + "listeners: {http: '0.0.0.0:80'}\n", nil, "only a loopback address goes with the development issuer"},
		{"beyond loopback in plain text", head + "listeners: {http: '0.0.0.0:80'}\nauth: {issuer: 'https://id.example.org'}\n", nil, "put a proxy that ends TLS in front"},
		{"plain issuer", head + "auth: {issuer: 'http://id.example.org'}\n", nil, "auth.issuer (file c.yaml:3): must be an https URL"},
		{"half a certificate", head + "etcd: {certFile: a}\n", nil, "needs both certFile and keyFile"},
		{"zero", head + "limits: {pushBytes: 0}\n", nil, "limits.pushBytes (file c.yaml:3): must be greater than zero"},
		{"unknown level", head + "log: {level: loud}\n", nil, "log.level (file c.yaml:3): must be debug, info, warn or error"},
	}
	t.Chdir(t.TempDir())
	for _, r := range rows {
		t.Run(r.story, func(t *testing.T) {
			write(t, "c.yaml", r.file)
			_, _, err := LoadConfig(ConfigInput{File: "c.yaml", Flags: r.flags, Environ: []string{"HOME=/home/alice"}})
			if err == nil || !strings.Contains(err.Error(), r.want) {
				t.Fatalf("got %v, want an error with %q", err, r.want)
			}
			if got := exitCode(t.Context(), err); got != 78 {
				t.Errorf("exit code: got %d, want 78", got)
			}
		})
	}
	_, _, err := LoadConfig(ConfigInput{File: "none.yaml"})
	if !errors.Is(err, os.ErrNotExist) || exitCode(t.Context(), err) != 78 {
		t.Errorf("missing file: got %v", err)
	}
}

func TestPlainListenersBehindAProxy(t *testing.T) {
	_, _, err := LoadConfig(ConfigInput{Environ: []string{
		"HOME=/h", "PLUMBLINE_HTTP_ADDR=0.0.0.0:8080", "PLUMBLINE_GRPC_ADDR=[::]:9090",
		"PLUMBLINE_ISSUER=https://id.example.org", "PLUMBLINE_PROXY_ENDS_TLS=true",
	}})
	if err != nil {
		t.Errorf("got %v, want it accepted", err)
	}
}

func TestConfigViewPrintsAFileThatGivesTheSame(t *testing.T) {
	want, origins, err := LoadConfig(ConfigInput{
		Flags:   map[string]string{"etcd-endpoints": "http://a:1", "log-format": "json", "resync": "90s"},
		Environ: []string{"HOME=/home/alice", `PLUMBLINE_AUDIENCE=a "quoted": one # not a comment`},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, showOrigin := range []bool{false, true} {
		var out bytes.Buffer
		if err := writeConfig(&out, &want, origins, showOrigin); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "view.yaml")
		write(t, file, out.String())
		got, _, err := LoadConfig(ConfigInput{File: file})
		if err != nil {
			t.Fatalf("%v in:\n%s", err, out.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("show-origin %v: (-want +got):\n%s", showOrigin, diff)
		}
	}
}

func TestConfigurationSchemaAcceptsTheDefaultFileAndRefusesOthers(t *testing.T) {
	var doc any
	if err := yaml.Unmarshal(defaultConfig, &doc); err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	var out bytes.Buffer
	if err := writeJSON(&out, configSchema()); err != nil {
		t.Fatal(err)
	}
	schemaDoc, err := jsonschema.UnmarshalJSON(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := compiler.AddResource("config.json", schemaDoc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Errorf("the default file: %v", err)
	}
	doc.(map[string]any)["stateDirectory"] = "x"
	if err := schema.Validate(doc); err == nil {
		t.Error("an unknown key was accepted")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

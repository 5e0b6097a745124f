// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/connectsoft/plumbline/desired"
)

// Config is the whole configuration of the daemon. default.yaml documents every key; the two agree by test.
type Config struct {
	APIVersion    string          `json:"apiVersion"`
	Kind          string          `json:"kind"`
	StateDir      string          `json:"stateDir"`
	Listeners     ListenersConfig `json:"listeners"`
	Etcd          EtcdConfig      `json:"etcd"`
	Auth          AuthConfig      `json:"auth"`
	Tenants       TenantsConfig   `json:"tenants"`
	Limits        LimitsConfig    `json:"limits"`
	Reconcile     ReconcileConfig `json:"reconcile"`
	Log           LogConfig       `json:"log"`
	ShutdownGrace time.Duration   `json:"shutdownGrace"`
}

// ListenersConfig says where the daemon listens; port 0 lets the system choose.
type ListenersConfig struct {
	HTTP         string `json:"http"`
	GRPC         string `json:"grpc"`
	Admin        string `json:"admin"`
	ProxyEndsTLS bool   `json:"proxyEndsTLS"`
	Pprof        bool   `json:"pprof"`

	TLS TLSConfig `json:"tls"`
}

// TLSConfig ends TLS at the HTTP and gRPC listeners; no certificate means plain text.
type TLSConfig struct {
	CertFile     string `json:"certFile"`
	KeyFile      string `json:"keyFile"`
	ClientCAFile string `json:"clientCAFile"`
}

// EtcdConfig names an external cluster; no endpoints means the embedded one.
type EtcdConfig struct {
	Endpoints []string `json:"endpoints"`
	CAFile    string   `json:"caFile"`
	CertFile  string   `json:"certFile"`
	KeyFile   string   `json:"keyFile"`
}

// AuthConfig says whose access tokens count; an empty issuer means the development issuer.
type AuthConfig struct {
	Issuer         string `json:"issuer"`
	Audience       string `json:"audience"`
	TenantClaim    string `json:"tenantClaim"`
	PlatformTenant string `json:"platformTenant"`
}

// TenantsConfig says whether tenants may come to be without a Tenant document.
type TenantsConfig struct {
	AutoCreate      bool `json:"autoCreate"`
	AutoCreateLimit int  `json:"autoCreateLimit"`
}

// LimitsConfig caps what one request or tenant may ask for.
type LimitsConfig struct {
	ArtifactBytes    int64 `json:"artifactBytes"`
	PushBytes        int64 `json:"pushBytes"`
	StreamsPerTenant int   `json:"streamsPerTenant"`
}

// ReconcileConfig paces the loop.
type ReconcileConfig struct {
	Resync      time.Duration `json:"resync"`
	Workers     int           `json:"workers"`
	CallTimeout time.Duration `json:"callTimeout"`
}

// LogConfig shapes the log on stderr.
type LogConfig struct {
	Level  string `json:"level"`
	Format string `json:"format"`
}

// DevIssuer reports whether the daemon issues its own tokens.
func (c *Config) DevIssuer() bool { return c.Auth.Issuer == "" }

// Origins says of each key ("listeners.http") where its value comes from: "default", "file x.yaml:12",
// "variable PLUMBLINE_HTTP_ADDR", "flag --http-addr".
type Origins map[string]string

// ConfigInput is everything that LoadConfig looks at.
type ConfigInput struct {
	File    string            // path of a configuration file; "" = $PLUMBLINE_CONFIG, or none
	Flags   map[string]string // the flags that were given, by name
	Environ []string          // "KEY=value", as os.Environ gives it
}

//go:embed default.yaml
var defaultConfig []byte

const (
	configAPIVersion = "plumbline.dev/v1alpha1"
	configKind       = "ServerConfiguration"
)

// setting binds one key of the configuration to its flag. The variable is PLUMBLINE_ and the flag's name.
type setting struct {
	key, flag, usage string
}

// settings is the table of all keys; a test holds it against Config.
func settings() []setting {
	return []setting{
		{"stateDir", "state-dir", "directory of everything that must survive"},
		{"listeners.http", "http-addr", "address of REST, SSE and git over HTTP"},
		{"listeners.grpc", "grpc-addr", "address of gRPC"},
		{"listeners.admin", "admin-addr", "address of health and metrics"},
		{"listeners.proxyEndsTLS", "proxy-ends-tls", "allow plain listeners beyond loopback: a proxy ends TLS"},
		{"listeners.pprof", "pprof", "serve profiles at /debug/pprof on the admin port"},
		{"listeners.tls.certFile", "tls-cert-file", "certificate chain of the HTTP and gRPC listeners"},
		{"listeners.tls.keyFile", "tls-key-file", "key of that certificate"},
		{"listeners.tls.clientCAFile", "tls-client-ca-file", "ask for client certificates of this authority"},
		{"etcd.endpoints", "etcd-endpoints", "external etcd, comma-separated URLs; none runs it embedded"},
		{"etcd.caFile", "etcd-ca-file", "certificate authority of etcd"},
		{"etcd.certFile", "etcd-cert-file", "client certificate for etcd"},
		{"etcd.keyFile", "etcd-key-file", "key of the client certificate"},
		{"auth.issuer", "issuer", "OIDC issuer; none means the development issuer"},
		{"auth.audience", "audience", "audience that access tokens must name"},
		{"auth.tenantClaim", "tenant-claim", "claim that names the tenant"},
		{"auth.platformTenant", "platform-tenant", "tenant whose platform.* scopes count"},
		{"tenants.autoCreate", "tenants-auto-create", "let tenants come to be at their first write (development issuer only)"},
		{"tenants.autoCreateLimit", "tenants-auto-create-limit", "at most so many of them"},
		{"limits.artifactBytes", "limit-artifact-bytes", "size of an artifact"},
		{"limits.pushBytes", "limit-push-bytes", "size of a git push"},
		{"limits.streamsPerTenant", "limit-streams-per-tenant", "open streams of a tenant"},
		{"reconcile.resync", "resync", "everything is looked at again after this time"},
		{"reconcile.workers", "workers", "concurrent reconciles of a tenant"},
		{"reconcile.callTimeout", "call-timeout", "deadline of one driver call"},
		{"log.level", "log-level", "debug, info, warn, error"},
		{"log.format", "log-format", "auto, text, json"},
		{"shutdownGrace", "shutdown-grace", "time for steps in flight after SIGTERM"},
	}
}

func (s setting) variable() string {
	return "PLUMBLINE_" + strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_"))
}

// LoadConfig puts the layers together: embedded default, file, variables, flags, each over the one before. Every
// fault of the result is reported, with its place; the error maps to exit code 78.
func LoadConfig(in ConfigInput) (Config, Origins, error) {
	var c Config
	origins := Origins{}
	if err := applyFile(&c, origins, defaultConfig, "default.yaml", func(int) string { return "default" }); err != nil {
		return c, origins, badConfig(err)
	}
	env := environment(in.Environ)
	file := in.File
	if file == "" {
		file = env["PLUMBLINE_CONFIG"]
	}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return c, origins, badConfig(fmt.Errorf("read configuration: %w", err))
		}
		place := func(line int) string { return fmt.Sprintf("file %s:%d", file, line) }
		if err := applyFile(&c, origins, data, file, place); err != nil {
			return c, origins, badConfig(err)
		}
	}
	if err := applyStrings(&c, origins, env, in.Flags); err != nil {
		return c, origins, badConfig(err)
	}
	resolveStateDir(&c, origins, env)
	if err := c.validate(origins); err != nil {
		return c, origins, badConfig(err)
	}
	return c, origins, nil
}

// applyStrings sets what variables and flags say. An empty variable counts as not set.
func applyStrings(c *Config, origins Origins, env, flags map[string]string) error {
	var errs []error
	leaves := configLeaves(c)
	for _, s := range settings() {
		set := func(value, origin string) {
			if err := setLeaf(leaves[s.key], value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", origin, err))
			}
			origins[s.key] = origin
		}
		if v := env[s.variable()]; v != "" {
			set(v, "variable "+s.variable())
		}
		if v, ok := flags[s.flag]; ok {
			set(v, "flag --"+s.flag)
		}
	}
	return errors.Join(errs...)
}

// resolveStateDir finds the state directory where nothing names it.
func resolveStateDir(c *Config, origins Origins, env map[string]string) {
	if c.StateDir == "" {
		c.StateDir, origins["stateDir"] = defaultStateDir(env)
	}
	if abs, err := filepath.Abs(c.StateDir); err == nil && c.StateDir != "" {
		c.StateDir = abs
	}
}

func defaultStateDir(env map[string]string) (dir, origin string) {
	first, _, _ := strings.Cut(env["STATE_DIRECTORY"], ":")
	switch {
	case first != "":
		return first, "variable STATE_DIRECTORY"
	case env["XDG_STATE_HOME"] != "":
		return filepath.Join(env["XDG_STATE_HOME"], "plumbline"), "variable XDG_STATE_HOME"
	case env["HOME"] != "":
		return filepath.Join(env["HOME"], ".local", "state", "plumbline"), "default"
	}
	return "", "default"
}

func environment(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	return env
}

// applyFile reads a file over c. Unknown, repeated and misplaced keys are faults with their line.
func applyFile(c *Config, origins Origins, data []byte, name string, origin func(line int) string) error {
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	if err := dec.Decode(&doc); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := dec.Decode(new(yaml.Node)); err == nil {
		return fmt.Errorf("%s: a second document: a configuration file holds one", name)
	}
	var errs []error
	fault := func(n *yaml.Node, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s:%d:%d: %s", name, n.Line, n.Column, fmt.Sprintf(format, args...)))
	}
	root := reflect.ValueOf(c).Elem()
	applyNode(root, doc.Content[0], "", fault, func(key string, line int) { origins[key] = origin(line) })
	if len(errs) == 0 && (c.APIVersion != configAPIVersion || c.Kind != configKind) {
		fault(doc.Content[0], "must begin with apiVersion: %s and kind: %s", configAPIVersion, configKind)
	}
	return errors.Join(errs...)
}

func applyNode(v reflect.Value, n *yaml.Node, prefix string, fault func(*yaml.Node, string, ...any), set func(string, int)) {
	if n.Kind != yaml.MappingNode {
		fault(n, "%s must be a mapping of keys to values", orRoot(prefix))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		key := strings.TrimPrefix(prefix+"."+k.Value, ".")
		field, ok := fieldByKey(v, k.Value)
		switch {
		case seen[k.Value]:
			fault(k, "key %s is there twice", key)
		case !ok:
			fault(k, "unknown key %s%s", key, desired.Suggest(k.Value, fieldKeys(v)))
		case field.Kind() == reflect.Struct:
			applyNode(field, val, key, fault, set)
		default:
			if err := decodeLeaf(field, val); err != nil {
				fault(val, "%s: %v", key, err)
			}
			set(key, val.Line)
		}
		seen[k.Value] = true
	}
}

func orRoot(prefix string) string {
	if prefix == "" {
		return "the configuration"
	}
	return prefix
}

func decodeLeaf(field reflect.Value, n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return errors.New("anchors and aliases are not allowed here")
	}
	if field.Kind() == reflect.Slice {
		if n.Kind != yaml.SequenceNode {
			return errors.New("must be a list")
		}
		return n.Decode(field.Addr().Interface())
	}
	if n.Kind != yaml.ScalarNode {
		return errors.New("must be a single value")
	}
	return setLeaf(field, n.Value)
}

// setLeaf gives a leaf its value from text.
func setLeaf(v reflect.Value, s string) error {
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = s
	case *bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("must be true or false")
		}
		*p = b
	case *time.Duration:
		d, err := time.ParseDuration(s)
		if err != nil {
			return errors.New("must be a duration such as 30s or 5m")
		}
		*p = d
	case *int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return errors.New("must be a whole number")
		}
		*p = n
	case *int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return errors.New("must be a whole number")
		}
		*p = n
	case *[]string:
		*p = strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
	default:
		return fmt.Errorf("cannot be set from text (%s)", v.Type())
	}
	return nil
}

// configLeaves are the settable values of a Config by key.
func configLeaves(c *Config) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	walkConfig(reflect.ValueOf(c).Elem(), "", func(key string, v reflect.Value) { out[key] = v })
	return out
}

// walkConfig visits every leaf in the order of the types.
func walkConfig(v reflect.Value, prefix string, visit func(key string, v reflect.Value)) {
	for i := range v.NumField() {
		key := strings.TrimPrefix(prefix+"."+v.Type().Field(i).Tag.Get("json"), ".")
		if f := v.Field(i); f.Kind() == reflect.Struct {
			walkConfig(f, key, visit)
		} else {
			visit(key, f)
		}
	}
}

func fieldByKey(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("json") == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func fieldKeys(v reflect.Value) []string {
	var keys []string
	for i := range v.NumField() {
		keys = append(keys, v.Type().Field(i).Tag.Get("json"))
	}
	return keys
}

// validate reports everything that is wrong with the values, each with its key and origin.
func (c *Config) validate(origins Origins) error {
	var errs []error
	fault := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s (%s): %s", key, origins[key], fmt.Sprintf(format, args...)))
	}
	if c.StateDir == "" {
		fault("stateDir", "no state directory: give --state-dir, or set STATE_DIRECTORY, XDG_STATE_HOME or HOME")
	}
	c.validateListeners(fault)
	if t := c.Listeners.TLS; (t.CertFile == "") != (t.KeyFile == "") || t.ClientCAFile != "" && t.CertFile == "" {
		fault("listeners.tls.certFile", "TLS needs both certFile and keyFile")
	}
	if (c.Etcd.CertFile == "") != (c.Etcd.KeyFile == "") {
		fault("etcd.certFile", "a client certificate needs both certFile and keyFile")
	}
	if c.Auth.Issuer != "" && !strings.HasPrefix(c.Auth.Issuer, "https://") && !strings.HasPrefix(c.Auth.Issuer, "http://127.0.0.1") && !strings.HasPrefix(c.Auth.Issuer, "http://localhost") {
		fault("auth.issuer", "must be an https URL")
	}
	for key, v := range map[string]string{"auth.audience": c.Auth.Audience, "auth.tenantClaim": c.Auth.TenantClaim, "auth.platformTenant": c.Auth.PlatformTenant} {
		if v == "" {
			fault(key, "must not be empty")
		}
	}
	for key, n := range map[string]int64{
		"limits.artifactBytes": c.Limits.ArtifactBytes, "limits.pushBytes": c.Limits.PushBytes,
		"limits.streamsPerTenant": int64(c.Limits.StreamsPerTenant),
		"reconcile.workers":       int64(c.Reconcile.Workers), "reconcile.resync": int64(c.Reconcile.Resync),
		"reconcile.callTimeout": int64(c.Reconcile.CallTimeout), "tenants.autoCreateLimit": int64(c.Tenants.AutoCreateLimit),
	} {
		if n <= 0 {
			fault(key, "must be greater than zero")
		}
	}
	if c.ShutdownGrace < 0 {
		fault("shutdownGrace", "must not be negative")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		fault("log.level", "must be debug, info, warn or error")
	}
	if !slices.Contains([]string{"auto", "text", "json"}, c.Log.Format) {
		fault("log.format", "must be auto, text or json")
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func (c *Config) validateListeners(fault func(key, format string, args ...any)) {
	for _, l := range []struct{ key, addr string }{
		{"listeners.http", c.Listeners.HTTP}, {"listeners.grpc", c.Listeners.GRPC}, {"listeners.admin", c.Listeners.Admin},
	} {
		host, port, err := net.SplitHostPort(l.addr)
		if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
			fault(l.key, "must be host:port with a port from 0 to 65535")
			continue
		}
		if loopback(host) {
			continue
		}
		switch {
		case l.key != "listeners.admin" && c.DevIssuer():
			fault(l.key, "only a loopback address goes with the development issuer: set auth.issuer, or listen on 127.0.0.1")
		case l.key != "listeners.admin" && !c.Listeners.ProxyEndsTLS && c.Listeners.TLS.CertFile == "":
			fault(l.key, "plain text beyond loopback: set listeners.tls.certFile and keyFile, or put a proxy that ends TLS in front and set listeners.proxyEndsTLS, or listen on 127.0.0.1")
		}
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

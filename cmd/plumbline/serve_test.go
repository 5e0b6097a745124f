// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// externalEtcd runs an etcd with a client port on loopback and returns its URL.
func externalEtcd(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client := url.URL{Scheme: "http", Host: l.Addr().String()}
	l.Close()
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls = nil
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		t.Fatal("etcd is not ready after 20 s")
	}
	return client.String()
}

func TestServeOnAnExternalEtcd(t *testing.T) {
	t.Parallel() // most of it is waiting for a claim that is not given up
	endpoint := externalEtcd(t)
	d := newDaemon(t)
	d.args = []string{"--etcd-endpoints", endpoint}
	d.start()
	token := d.token("alice", "acme", "control.write devops.drift-rules.write")
	doc := "apiVersion: plumbline.dev/v1\nkind: DriftRule\nmetadata: {name: calm, project: shop}\nspec: {action: report}\n"
	if _, err := applyOnce(t.Context(), http.DefaultClient, d.addr.HTTP, token, "", doc); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(d.bin, "wait", "acme/shop/DriftRule/calm", "--for=synced", "--timeout", "20s", "-n", "acme", "--state-dir", d.state).CombinedOutput()
	if err != nil {
		t.Errorf("wait: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(d.state, "etcd")); err == nil {
		t.Error("an embedded etcd was made beside the external one")
	}

	// A second daemon with repositories of its own must not write into the same state.
	second := newDaemon(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	refused, err := exec.CommandContext(ctx, second.bin, "serve", "--state-dir", second.state, "--http-addr", "127.0.0.1:0",
		"--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--etcd-endpoints", endpoint).CombinedOutput()
	if err == nil || !strings.Contains(string(refused), "another plumbline with control repositories of its own") {
		t.Errorf("a second daemon on the same etcd: %v\n%s", err, refused)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, d.out)
	}
	if _, err := os.Stat(filepath.Join(d.state, addressesFile)); err == nil {
		t.Error("the addresses of a stopped daemon are still there")
	}
}

func TestAdminPort(t *testing.T) {
	d := newDaemon(t)
	d.start()
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + d.addr.Admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for path, want := range map[string]string{"/livez": "ok", "/readyz": "ok", "/readyz?verbose": "[+] state ok", "/version": version, "/loglevel": "WARN"} {
		if code, body := get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q, want %q", path, code, body, want)
		}
	}
	if code, _ := get("/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("profiles are served without being asked for: %d", code)
	}
	_, text := get("/metrics")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plumbline_build_info", "plumbline_leases_held", "plumbline_sync_lag_seconds", "plumbline_control_repo_heads_total", "go_goroutines", "process_open_fds"} {
		if families[name] == nil {
			t.Errorf("metric %s is missing", name)
		}
	}
	var all []*dto.MetricFamily
	for _, f := range families {
		all = append(all, f)
	}
	problems, err := promlint.NewWithMetricFamilies(all).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "go_") {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/connectsoft/plumbline/api/auth"
)

// metrics are the server's. No label grows with tenants, repositories or commits: routes and methods come from the
// operation table.
type metrics struct {
	httpActive   prometheus.Gauge
	httpDuration *prometheus.HistogramVec
	rpcStarted   *prometheus.CounterVec
	rpcHandled   *prometheus.CounterVec
	rpcDuration  *prometheus.HistogramVec
	rpcSent      *prometheus.CounterVec
	streams      *prometheus.GaugeVec
	events       *prometheus.CounterVec
	resets       *prometheus.CounterVec
	routes       map[string]string // route by operation
}

// newMetrics makes the metrics and registers them; without a registerer they are counted and never read.
func newMetrics(r prometheus.Registerer, ops []auth.Operation) (*metrics, error) {
	rpc := []string{"grpc_type", "grpc_service", "grpc_method"}
	seconds := func(name, help string, labels []string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		httpActive: prometheus.NewGauge(prometheus.GaugeOpts{Name: "http_server_active_requests", Help: "HTTP requests being served, streams included."}),
		httpDuration: seconds("http_server_request_duration_seconds", "Time to serve an HTTP request; for streams, until they end.",
			[]string{"http_request_method", "http_route", "http_response_status_code"}),
		rpcStarted:  counter("grpc_server_started_total", "RPCs started.", rpc...),
		rpcHandled:  counter("grpc_server_handled_total", "RPCs completed, by code.", append(rpc[:3:3], "grpc_code")...),
		rpcDuration: seconds("grpc_server_handling_seconds", "Time to serve an RPC; for streams, until they end.", rpc),
		rpcSent:     counter("grpc_server_msg_sent_total", "Messages sent by the server.", rpc...),
		streams:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "plumbline_watch_streams", Help: "Open watch streams."}, []string{"transport"}),
		events:      counter("plumbline_watch_events_total", "Events delivered to watch streams.", "transport"),
		resets:      counter("plumbline_watch_resets_total", "Lists sent to watch streams, by reason.", "reason"),
		routes:      map[string]string{"": "none"},
	}
	for _, op := range ops {
		switch {
		case op.Path != "":
			m.routes[op.ID] = op.Path
		case op.Door != auth.NoDoor:
			m.routes[op.ID] = "/git/" + string(op.Door)
		}
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.httpActive, m.httpDuration, m.rpcStarted, m.rpcHandled, m.rpcDuration, m.rpcSent, m.streams, m.events, m.resets} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	m.streams.WithLabelValues(grpcTransport).Set(0)
	m.streams.WithLabelValues(sseTransport).Set(0)
	return m, nil
}

// The transports of watch streams.
const (
	grpcTransport = "grpc"
	sseTransport  = "sse"
)

func (m *metrics) http(operation, method, code string, took time.Duration) {
	m.httpDuration.WithLabelValues(method, m.routes[operation], code).Observe(took.Seconds())
}

// method splits a full gRPC method into the known labels.
func method(kind, full string) []string {
	service, name, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	return []string{kind, service, name}
}

func (m *metrics) rpc(labels []string, code string, took time.Duration) {
	m.rpcHandled.WithLabelValues(append(labels[:3:3], code)...).Inc()
	m.rpcDuration.WithLabelValues(labels...).Observe(took.Seconds())
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
	"github.com/connectsoft/plumbline/reconciler"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// observer turns what the rooms tell about themselves into log lines and metrics.
type observer struct {
	log      *slog.Logger
	registry *prometheus.Registry

	reconciles  *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	remediation *prometheus.CounterVec
	batches     prometheus.Histogram
	batchTime   prometheus.Histogram
	heads       prometheus.Counter
	frozen      prometheus.Counter
	leases      prometheus.Gauge
	background  *prometheus.CounterVec
}

// newLogger writes JSON lines, or text where stderr is a terminal and the format is auto.
func newLogger(w io.Writer, c LogConfig, level *slog.LevelVar) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Level)); err == nil {
		level.Set(l)
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "text" || (c.Format == "auto" && isTerminal(w)) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

func newObserver(log *slog.Logger, version string) *observer {
	o := &observer{
		log:      log,
		registry: prometheus.NewRegistry(),
		reconciles: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "plumbline_reconcile_total",
			Help: "Reconciles of one resource, by domain and outcome.",
		}, []string{"domain", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "plumbline_reconcile_duration_seconds",
			Help: "Time of one reconcile.", NativeHistogramBucketFactor: 1.1,
		}, []string{"domain"}),
		remediation: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "plumbline_remediation_total",
			Help: "Findings that ended, by domain and what ended them.",
		}, []string{"domain", "outcome"}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "plumbline_control_repo_batch_commits",
			Help: "Commits landed by one group commit.", NativeHistogramBucketFactor: 1.1,
		}),
		batchTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "plumbline_control_repo_batch_seconds",
			Help: "Time of one group commit, from its first member to durability.", NativeHistogramBucketFactor: 1.1,
		}),
		heads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plumbline_control_repo_heads_total",
			Help: "Accepted heads of control repositories.",
		}),
		frozen: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plumbline_control_repo_frozen_total",
			Help: "Times that a control repository was frozen because its history moved backwards.",
		}),
		leases: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "plumbline_leases_held",
			Help: "Units of work this process owns.",
		}),
		background: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "plumbline_background_errors_total",
			Help: "Background work that failed and is tried again.",
		}, []string{"operation"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "plumbline_build_info", Help: "Always 1; the version is the label.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	o.registry.MustRegister(o.reconciles, o.duration, o.remediation, o.batches, o.batchTime, o.heads, o.frozen, o.leases, o.background, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return o
}

// domain is the family a kind belongs to, for metrics and logs.
func domain(k desired.Kind) string {
	switch k {
	case desired.KindRepository, desired.KindBranch, desired.KindCommit, desired.KindPullRequest:
		return "githost"
	}
	return "control"
}

// repo is what control repositories tell.
func (o *observer) repo(broken func(error)) gitrepo.Events {
	return gitrepo.Events{
		Accepted: func(h *desired.Head, _ desired.Changes) {
			o.heads.Inc()
			o.log.Debug("head accepted", "tenant", h.Snapshot.Tenant(), "commit", h.Commit, "seq", h.Seq)
		},
		Frozen: func(tenant, why string) {
			o.frozen.Inc()
			o.log.Error("control repository frozen", "tenant", tenant, "err", why)
		},
		Batch: func(n int, took time.Duration) {
			o.batches.Observe(float64(n))
			o.batchTime.Observe(took.Seconds())
		},
		Broken: broken,
		Error:  o.failed,
	}
}

// failed reports background work that failed and will be tried again.
func (o *observer) failed(op string, err error) {
	o.background.WithLabelValues(op).Inc()
	o.log.Warn("background work failed", "op", op, "err", err)
}

// engine is what the loop tells.
func (o *observer) engine() reconciler.Events {
	return reconciler.Events{
		Turn:    o.turn,
		Finding: o.finding,
		Loaded: func(tenant string, seq uint64, commit string, refs int, took time.Duration) {
			o.log.Debug("head loaded", "tenant", tenant, "commit", commit, "seq", seq, "refs", refs, "ms", took.Milliseconds())
		},
		Owner: func(unit string, held bool) {
			if held {
				o.leases.Inc()
			} else {
				o.leases.Dec()
			}
		},
		Error: o.failed,
	}
}

func (o *observer) finding(f plan.Finding) {
	attrs := []any{
		"tenant", f.Ref.Tenant, "domain", domain(f.Ref.Kind), "kind", string(f.Ref.Kind), "name", f.Ref.Name,
		"finding", f.ID, "difference", f.Kind, "severity", string(f.Severity), "cause", string(f.Cause),
	}
	if f.Open() {
		o.log.Warn("finding opened", attrs...)
		return
	}
	o.remediation.WithLabelValues(domain(f.Ref.Kind), f.ResolvedBy).Inc()
	o.log.Info("finding closed", append(attrs, "resolvedBy", f.ResolvedBy)...)
}

func (o *observer) turn(t reconciler.TurnEvent) {
	d := domain(t.Ref.Kind)
	o.reconciles.WithLabelValues(d, t.Outcome).Inc()
	o.duration.WithLabelValues(d).Observe(t.Took.Seconds())
	attrs := []any{
		"tenant", t.Ref.Tenant, "domain", d, "kind", string(t.Ref.Kind), "name", t.Ref.Name, "commit", t.Commit,
		"phase", t.Phase, "outcome", t.Outcome, "changes", t.Changes, "ms", t.Took.Milliseconds(),
	}
	if t.Err != nil {
		o.log.Warn("reconciled", append(attrs, "class", string(desired.ClassOf(t.Err)), "err", t.Err)...)
		return
	}
	o.log.Info("reconciled", attrs...)
}

// watchHub adds the figures that are read off the latest states at scrape time.
func (o *observer) watchHub(h *state.Hub, tenants func() []string, now func() time.Time) {
	o.registry.MustRegister(&hubCollector{
		hub: h, tenants: tenants, now: now,
		findings: prometheus.NewDesc("plumbline_drift_findings", "Open findings, by domain, kind and severity.", []string{"domain", "kind", "severity"}, nil),
		lag:      prometheus.NewDesc("plumbline_sync_lag_seconds", "Age of the oldest resource that is still being made true, over all tenants.", nil, nil),
	})
}

type hubCollector struct {
	hub           *state.Hub
	tenants       func() []string
	now           func() time.Time
	findings, lag *prometheus.Desc
}

func (c *hubCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.findings
	ch <- c.lag
}

func (c *hubCollector) Collect(ch chan<- prometheus.Metric) {
	open := map[[3]string]int{}
	lag := 0.0
	for _, tenant := range c.tenants() {
		items, _ := c.hub.List(tenant, state.Findings)
		for _, i := range items {
			if f := i.Finding; f != nil && f.Open() {
				open[[3]string{domain(f.Ref.Kind), f.Kind, string(f.Severity)}]++
			}
		}
		items, _ = c.hub.List(tenant, state.States)
		for _, i := range items {
			if s := i.State; s != nil && (s.Phase == plan.Pending || s.Phase == plan.Progressing) {
				lag = max(lag, c.now().Sub(s.Since).Seconds())
			}
		}
	}
	for k, n := range open {
		ch <- prometheus.MustNewConstMetric(c.findings, prometheus.GaugeValue, float64(n), k[0], k[1], k[2])
	}
	ch <- prometheus.MustNewConstMetric(c.lag, prometheus.GaugeValue, lag)
}

// api is what the outside face tells. Requests that went well are counted by the API itself and logged at debug.
func (o *observer) api() api.Events {
	return api.Events{
		Request: func(e api.RequestEvent) {
			attrs := []any{
				"operation", e.Operation, "method", e.Method, "code", e.Code, "tenant", e.Tenant, "subject", e.Subject,
				"traceId", e.TraceID, "ms", e.Took.Milliseconds(),
			}
			if e.Err != nil {
				o.log.Error("request failed", append(attrs, "err", e.Err)...)
				return
			}
			o.log.Debug("request", attrs...)
		},
		Panic: func(op string, value any, stack []byte) {
			o.log.Error("panic", "op", op, "err", fmt.Sprint(value), "stack", string(stack))
		},
	}
}

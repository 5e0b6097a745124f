// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// admin is the port for operators: health, metrics, the log level. It has no authentication and belongs on loopback.
type admin struct {
	s    *server
	http *http.Server
}

func newAdmin(s *server) *admin {
	a := &admin{s: s}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", a.ready)
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{"version": version})
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.obs.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /loglevel", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, s.level.Level()) })
	mux.HandleFunc("PUT /loglevel/{level}", func(w http.ResponseWriter, r *http.Request) {
		if err := s.level.UnmarshalText([]byte(r.PathValue("level"))); err != nil {
			http.Error(w, "the level is debug, info, warn or error", http.StatusBadRequest)
			return
		}
		fmt.Fprintln(w, s.level.Level())
	})
	if s.cfg.Listeners.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	a.http = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	return a
}

// check is one condition of readiness.
type check struct {
	name string
	ok   func(context.Context) error
}

// ready answers /readyz?verbose&exclude=name: 200 when every check passes, 503 else.
func (a *admin) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	excluded := r.URL.Query()["exclude"]
	var lines []string
	failed := false
	for _, c := range []check{{"state", a.s.store.Ready}, {"api", a.s.api.Ready}} {
		switch err := c.ok(ctx); {
		case slices.Contains(excluded, c.name):
			lines = append(lines, "[ ] "+c.name+" excluded")
		case err != nil:
			failed = true
			lines = append(lines, "[-] "+c.name+" "+err.Error())
		default:
			lines = append(lines, "[+] "+c.name+" ok")
		}
	}
	if failed {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if failed || r.URL.Query().Has("verbose") {
		for _, l := range lines {
			fmt.Fprintln(w, l)
		}
		return
	}
	fmt.Fprintln(w, "ok")
}

// serve answers until shutdown.
func (a *admin) serve() error {
	if err := a.http.Serve(a.s.listeners.admin); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *admin) shutdown(ctx context.Context) error {
	if err := a.http.Shutdown(ctx); err != nil {
		return errors.Join(err, a.http.Close())
	}
	return nil
}

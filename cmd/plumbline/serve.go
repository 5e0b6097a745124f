// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/connectsoft/plumbline/adapters/feed"
	"github.com/connectsoft/plumbline/adapters/githost"
	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
	"github.com/connectsoft/plumbline/reconciler"
	"github.com/connectsoft/plumbline/reconciler/state"
)

func newServeCommand(sh *shell) *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the daemon", Args: exactly(),
		Long: `Run the daemon until SIGTERM or SIGINT. With nothing configured it runs whole on this machine: control repositories,
etcd and a local git host in the state directory, and a development issuer whose tokens "plumbline token" prints. Once
it is ready the chosen addresses are in addresses.json in the state directory. SIGHUP reads the log level and the TLS
files again; a second SIGTERM ends the process at once.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := loadConfig(cmd, sh)
			if err != nil {
				return err
			}
			reload := func() (Config, error) { c, _, err := loadConfig(cmd, sh); return c, err }
			return serve(cmd.Context(), c, sh, reload)
		},
	}
	addConfigFlags(cmd)
	return cmd
}

// server is a running daemon. The stages of serve fill it in order; what each opens is closed in the reverse order.
type server struct {
	cfg    Config
	level  *slog.LevelVar
	log    *slog.Logger
	obs    *observer
	dir    *stateDir
	fail   context.CancelCauseFunc // ends the daemon with an error
	closes []func() error

	listeners struct{ http, grpc, admin net.Listener }
	tls       *serverTLS // nil: plain text

	store     state.Store
	hub       *state.Hub
	artifacts *feed.Artifacts
	host      *githost.Local
	engine    *reconciler.Engine
	platform  *gitrepo.Repo
	tenants   *tenants
	api       *api.Server
	admin     *admin
}

// serve runs the daemon until ctx ends (nil when everything was put down in order) or something essential fails.
func serve(ctx context.Context, cfg Config, sh *shell, reload func() (Config, error)) (err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if os.Getenv("GOGC") == "" {
		// Most of the heap is snapshots that live long: collecting it at every doubling costs a tenth of the writes.
		debug.SetGCPercent(300)
	}
	s := &server{cfg: cfg, level: new(slog.LevelVar), fail: fail}
	s.log = newLogger(sh.stderr, cfg.Log, s.level)
	s.obs = newObserver(s.log, version)
	defer func() { err = errors.Join(err, s.close()) }()
	for _, stage := range []func(context.Context) error{
		s.openDirectory, s.listen, s.openState, s.openHosts, s.openEngine, s.openRepositories, s.openAPI,
	} {
		if err := stage(ctx); err != nil {
			return err
		}
	}
	return s.run(ctx, reload)
}

// onClose registers what close undoes, last first.
func (s *server) onClose(fn func() error) { s.closes = append(s.closes, fn) }

func (s *server) close() error {
	var errs []error
	for i := len(s.closes) - 1; i >= 0; i-- {
		errs = append(errs, s.closes[i]())
	}
	return errors.Join(errs...)
}

func (s *server) openDirectory(context.Context) (err error) {
	if s.dir, err = openStateDir(s.cfg.StateDir); err != nil {
		return err
	}
	s.onClose(s.dir.Close)
	s.onClose(s.dir.removeAddresses)
	return s.dir.removeAddresses() // those of an earlier life must not be taken for ours
}

// listen takes the addresses first, so that a taken port is known before anything is opened.
func (s *server) listen(ctx context.Context) error {
	var lc net.ListenConfig
	for _, l := range []struct {
		key, addr string
		into      *net.Listener
	}{
		{"listeners.http", s.cfg.Listeners.HTTP, &s.listeners.http},
		{"listeners.grpc", s.cfg.Listeners.GRPC, &s.listeners.grpc},
		{"listeners.admin", s.cfg.Listeners.Admin, &s.listeners.admin},
	} {
		got, err := lc.Listen(ctx, "tcp", l.addr)
		if err != nil {
			return fmt.Errorf("%s: %w: choose another address, or port 0 for any free one", l.key, err)
		}
		*l.into = got
		s.onClose(func() error { return ignoreClosed(got.Close()) })
	}
	s.admin = newAdmin(s)
	if s.cfg.Listeners.TLS.CertFile == "" {
		return nil
	}
	var err error
	if s.tls, err = newServerTLS(s.cfg.Listeners.TLS); err != nil {
		return err
	}
	s.listeners.http = tls.NewListener(s.listeners.http, s.tls.config("http/1.1"))
	s.listeners.grpc = tls.NewListener(s.listeners.grpc, s.tls.config("h2"))
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *server) openState(ctx context.Context) error {
	var store *state.Etcd
	var err error
	log := s.log.With("part", "etcd")
	if e := s.cfg.Etcd; len(e.Endpoints) == 0 {
		store, err = state.OpenEmbedded(ctx, s.dir.join("etcd"), log)
	} else {
		tlsConfig, terr := clientTLS(e)
		if terr != nil {
			return terr
		}
		store, err = state.OpenEtcd(ctx, state.EtcdConfig{Endpoints: e.Endpoints, TLS: tlsConfig, Log: log})
	}
	if err != nil {
		return err
	}
	s.store = store
	s.onClose(store.Close)
	if err := s.claimRepositories(ctx); err != nil {
		return err
	}
	s.hub, err = state.NewHub(state.HubConfig{Store: store})
	return err
}

// claimRepositories makes this process the one that holds embedded control repositories against this state store: a
// second one would write the same tenants' states from other repositories.
func (s *server) claimRepositories(ctx context.Context) error {
	const patience = 20 * time.Second // a claim outlives the process that crashed with it by 15 s
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, lost, release, err := s.store.Claim(limited, "~/control-repositories")
	if err != nil {
		if ctx.Err() == nil && limited.Err() != nil {
			return desired.Errorf("claim the control repositories", desired.Ref{}, desired.Throttled,
				"another plumbline with control repositories of its own uses this etcd: stop it, or give this one another cluster")
		}
		return err
	}
	watched, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-lost:
			if watched.Err() == nil {
				s.fail(errors.New("the claim on the control repositories was lost: another process may hold it now"))
			}
		case <-watched.Done():
		}
	})
	s.onClose(func() error { stop(); release(); watching.Wait(); return nil })
	return nil
}

func (s *server) openHosts(context.Context) (err error) {
	if s.artifacts, err = feed.OpenArtifacts(s.dir.join("artifacts"), s.cfg.Limits.ArtifactBytes); err != nil {
		return err
	}
	s.host, err = githost.NewLocal(githost.LocalConfig{
		Dir:       s.dir.join("hosted"),
		PublicURL: s.publicURL,
		Now:       time.Now,
		MaxPush:   s.cfg.Limits.PushBytes,
	})
	if err != nil {
		return err
	}
	s.onClose(s.host.Close)
	return nil
}

// publicURL is where people reach the HTTP listener, as far as this machine can tell.
func (s *server) publicURL() string {
	scheme := "http://"
	if s.tls != nil {
		scheme = "https://"
	}
	return scheme + s.listeners.http.Addr().String()
}

func (s *server) openEngine(context.Context) error {
	drivers, err := s.drivers()
	if err != nil {
		return err
	}
	s.engine, err = reconciler.New(reconciler.Config{
		Store:      s.store,
		Drivers:    drivers,
		Credential: s.credential,
		Artifacts:  s.artifacts.File,
		Workers:    s.cfg.Reconcile.Workers,
		Resync:     s.cfg.Reconcile.Resync,
		CallLimit:  s.cfg.Reconcile.CallTimeout,
		Now:        time.Now,
		Events:     s.obs.engine(),
	})
	return err
}

// openRepositories opens the platform repository and every tenant's, and attaches them to the loop.
func (s *server) openRepositories(ctx context.Context) error {
	key, err := s.dir.installationKey()
	if err != nil {
		return err
	}
	base := gitrepo.Config{SealKey: key, Now: time.Now, MaxPush: s.cfg.Limits.PushBytes, Events: s.obs.repo(func(err error) {
		s.log.Error("storage failed; nothing is acknowledged any more", "err", err)
		s.fail(fmt.Errorf("a control repository can no longer be written: %w", err))
	})}
	if s.platform, err = openPlatform(ctx, s.dir.path, base); err != nil {
		return err
	}
	s.onClose(s.platform.Close)
	s.tenants = &tenants{
		dir: s.dir.join("control"), base: base, platform: s.platform,
		attach: func(tenant string, r *gitrepo.Repo) { s.engine.Attach(tenant, r) },
		detach: s.engine.Detach, report: s.obs.failed, now: time.Now,
	}
	if s.cfg.Tenants.AutoCreate && s.cfg.DevIssuer() {
		s.tenants.autoCreate = s.cfg.Tenants.AutoCreateLimit
	}
	if err := openTenants(ctx, s.tenants); err != nil {
		return err
	}
	s.onClose(s.tenants.Close)
	s.obs.watchHub(s.hub, s.tenants.names, time.Now)
	return nil
}

func (s *server) openAPI(context.Context) error {
	authorizer, err := s.authorizer()
	if err != nil {
		return err
	}
	s.api, err = api.New(api.Config{
		Auth: authorizer, Repo: s.tenants.Repo, Hub: s.hub, Engine: s.engine, Artifacts: artifactStore{s.artifacts},
		Doors:   api.Doors{Control: s.controlDoor, Platform: s.platformDoor, Hosted: s.hostedDoor},
		Metrics: s.obs.registry, Events: s.obs.api(), Now: time.Now,
		MaxStreams: s.cfg.Limits.StreamsPerTenant, MaxArtifactBytes: s.cfg.Limits.ArtifactBytes,
	})
	return err
}

func (s *server) authorizer() (*auth.Authorizer, error) {
	c := auth.Config{TenantClaim: s.cfg.Auth.TenantClaim, PlatformTenant: s.cfg.Auth.PlatformTenant, Now: time.Now}
	if !s.cfg.DevIssuer() {
		c.Issuers = []auth.Issuer{{URL: s.cfg.Auth.Issuer, Audience: s.cfg.Auth.Audience}}
		return auth.New(c)
	}
	dev, err := auth.OpenDevIssuer(s.dir.path)
	if err != nil {
		return nil, err
	}
	c.Dev = dev
	return auth.New(c)
}

// The git doors. A repository that is not there has no handler: the API answers for all of them alike.

func (s *server) controlDoor(ctx context.Context, tenant string) http.Handler {
	r, err := s.tenants.Repo(ctx, tenant)
	if err != nil {
		return nil
	}
	return r.Door(pusher)
}

func (s *server) platformDoor(context.Context) http.Handler { return s.platform.Door(pusher) }

func (s *server) hostedDoor(_ context.Context, tenant, project, name string) http.Handler {
	h, err := s.host.Door(tenant, project, name)
	if err != nil {
		return nil
	}
	return h
}

// pusher is the caller that the API verified before it handed a request to a door.
func pusher(r *http.Request) string {
	if p, ok := auth.From(r.Context()); ok {
		return p.Subject
	}
	return "unknown"
}

// run works until ctx ends, then puts everything down: streams first, then the loop, then the hub.
func (s *server) run(ctx context.Context, reload func() (Config, error)) error {
	life := context.WithoutCancel(ctx)
	hubCtx, stopHub := context.WithCancel(life)
	loopCtx, stopLoop := context.WithCancel(life)
	defer stopHub()
	defer stopLoop()
	var hub, loop, faces errgroup.Group
	essential := func(what string, fn func() error) func() error {
		return func() error {
			err := fn()
			if err != nil {
				s.fail(fmt.Errorf("%s: %w", what, err))
			}
			return err
		}
	}
	hub.Go(essential("follow the state store", func() error { return ended(hubCtx, s.hub.Run(hubCtx)) }))
	loop.Go(essential("reconcile", func() error { return ended(loopCtx, s.engine.Run(loopCtx)) }))
	loop.Go(func() error { s.tenants.follow(loopCtx, s.obs.failed); return nil })
	loop.Go(func() error { s.onHangup(loopCtx, reload); return nil })
	faces.Go(essential("serve HTTP", func() error { return s.api.HTTP(s.listeners.http) }))
	faces.Go(essential("serve gRPC", func() error { return s.api.GRPC(s.listeners.grpc) }))
	faces.Go(essential("serve the admin port", func() error { return s.admin.serve() }))

	if err := s.announce(ctx); err != nil && ctx.Err() == nil {
		s.fail(err)
	}
	<-ctx.Done()
	cause := context.Cause(ctx)
	s.log.Info("stopping", "grace", s.cfg.ShutdownGrace.String())
	grace, cancel := context.WithTimeout(life, s.cfg.ShutdownGrace)
	defer cancel()
	err := s.api.Shutdown(grace)
	stopLoop()
	err = errors.Join(err, ignoreCanceled(loop.Wait()))
	stopHub()
	err = errors.Join(err, ignoreCanceled(hub.Wait()), s.admin.shutdown(grace), faces.Wait())
	if !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	s.log.Info("stopped")
	return err
}

// ended tells an end that was asked for from a failure.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ignoreCanceled(err)
	}
	return err
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// announce waits until the daemon can answer and then says where.
func (s *server) announce(ctx context.Context) error {
	if err := s.api.Ready(ctx); err != nil {
		return err
	}
	http, grpc, admin := s.listeners.http.Addr().String(), s.listeners.grpc.Addr().String(), s.listeners.admin.Addr().String()
	if err := s.dir.writeAddresses(http, grpc, admin); err != nil {
		return err
	}
	s.log.Info("ready", "http", http, "grpc", grpc, "admin", admin, "state", s.dir.path, "version", version)
	return nil
}

// onHangup reads the configuration again at SIGHUP; what can change while running does.
func (s *server) onHangup(ctx context.Context, reload func() (Config, error)) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		c, err := reload()
		if err == nil {
			err = s.level.UnmarshalText([]byte(c.Log.Level))
		}
		if err == nil && s.tls != nil {
			err = s.tls.load()
		}
		if err != nil {
			s.log.Error("configuration not reloaded; the old one stays in force", "err", err)
			continue
		}
		s.log.Info("configuration reloaded", "log.level", c.Log.Level)
	}
}

var _ reconciler.Source = (*gitrepo.Repo)(nil)

// noSuchCredential is the error of a credential reference that leads nowhere. It names the reference, never a value.
func noSuchCredential(ref desired.Ref, format string, args ...any) error {
	return desired.Errorf("open credential", ref, desired.Stalled, format, args...)
}

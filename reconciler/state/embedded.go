// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/connectsoft/plumbline/desired"
)

// startLimit is how long the embedded etcd may take to answer; replaying a full log takes a few seconds.
const startLimit = time.Minute

// OpenEmbedded starts etcd in this process, with its data in dir and no socket, and waits until it answers. One
// process can use a directory; a second one gets an error at once. log gets etcd's warnings; nil = nothing.
func OpenEmbedded(ctx context.Context, dir string, log *slog.Logger) (*Etcd, error) {
	const op = "open state store"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, desired.E(op, desired.Ref{}, desired.Stalled, err)
	}
	// etcd would wait for its own lock without end.
	lock, err := fileutil.TryLockFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, desired.Errorf(op, desired.Ref{}, desired.Stalled, "another process uses the state directory %s; stop it, or give this one a directory of its own", dir)
	}
	if err != nil {
		return nil, desired.E(op, desired.Ref{}, desired.Stalled, err)
	}
	server, err := startEmbedded(ctx, dir, log)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s, err := open(ctx, v3client.New(server.Server), func() error {
		server.Close()
		return lock.Close()
	})
	if err != nil {
		return nil, err
	}
	// The lock says that no other process lives, so claims of earlier ones need not run out.
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if _, err := s.client.Delete(call, unitRoot, clientv3.WithPrefix()); err != nil {
		s.Close()
		return nil, etcdError(op, err)
	}
	return s, nil
}

func embeddedConfig(dir string, log *slog.Logger) (*embed.Config, error) {
	c := embed.NewConfig()
	c.Name = "plumbline"
	c.Dir = filepath.Join(dir, "etcd")
	c.ListenClientUrls, c.ListenPeerUrls = nil, nil
	// Never listened on; it only names the single member, and an address needs no name service.
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	c.AdvertisePeerUrls, c.AdvertiseClientUrls = []url.URL{peer}, nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	c.QuotaBackendBytes = 2 << 30
	// A single member elects itself; these only say how long it waits before: 0.13 s instead of 0.6 s.
	c.TickMs, c.ElectionMs = 50, 250
	c.WatchProgressNotifyInterval = progressEvery
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(log))
	gates, ok := c.ServerFeatureGate.(interface{ Set(string) error })
	if !ok {
		return nil, errors.New("etcd's feature gates cannot be set")
	}
	return c, gates.Set("InitialCorruptCheck=true,CompactHashCheck=true")
}

func startEmbedded(ctx context.Context, dir string, log *slog.Logger) (*embed.Etcd, error) {
	const op = "start embedded etcd"
	c, err := embeddedConfig(dir, log)
	if err != nil {
		return nil, desired.E(op, desired.Ref{}, desired.Internal, err)
	}
	server, err := embed.StartEtcd(c)
	if err != nil {
		return nil, desired.Errorf(op, desired.Ref{}, desired.Stalled, "%w; when the data in %s is damaged, move it away: all but run history and first-seen times is rebuilt", err, c.Dir)
	}
	late := time.NewTimer(startLimit)
	defer late.Stop()
	select {
	case <-server.Server.ReadyNotify():
		return server, nil
	case <-server.Server.StopNotify():
		err = errors.New("etcd stopped while it started")
	case <-late.C:
		err = errors.New("etcd did not get ready")
	case <-ctx.Done():
		err = ctx.Err()
	}
	server.Close()
	return nil, desired.E(op, desired.Ref{}, desired.Transient, err)
}

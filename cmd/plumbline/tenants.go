// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
)

// tenants opens the control repositories that exist and keeps the set true to the platform repository: a Tenant
// document brings a repository into being, its removal retires it (read only, not reconciled, nothing deleted).
type tenants struct {
	dir        string // <state>/control
	base       gitrepo.Config
	autoCreate int // how many tenants may come to be without a document; 0 = none
	platform   *gitrepo.Repo
	attach     func(tenant string, r *gitrepo.Repo) // starts reconciling
	detach     func(tenant string)                  // stops it

	report func(op string, err error) // is told why a tenant's repository could not be opened
	now    func() time.Time

	mu      sync.Mutex
	repos   map[string]*gitrepo.Repo
	broken  map[string]time.Time // when opening a repository that is there failed
	retired map[string]bool
	closed  bool
}

// retiredFile marks, inside a control repository, that the tenant's document was removed.
const retiredFile = "plumbline/tenant-removed"

// openPlatform opens the platform repository below the state directory.
func openPlatform(ctx context.Context, stateDir string, base gitrepo.Config) (*gitrepo.Repo, error) {
	base.Dir, base.Tenant = filepath.Join(stateDir, "platform.git"), ""
	return gitrepo.Open(ctx, base)
}

// retryBroken is how often a request may try to open a repository again that could not be opened.
const retryBroken = 2 * time.Second

// openTenants opens every control repository on disk and those that the platform declares. One that cannot be opened
// is reported and costs its own tenant only; requests of that tenant try again.
func openTenants(ctx context.Context, t *tenants) error {
	t.repos, t.retired, t.broken = map[string]*gitrepo.Repo{}, map[string]bool{}, map[string]time.Time{}
	found, err := os.ReadDir(t.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list control repositories: %w", err)
	}
	for _, d := range found {
		name, ok := strings.CutSuffix(d.Name(), ".git")
		if !ok || desired.ValidTenant(name) != nil {
			continue
		}
		_, _ = t.open(ctx, name) // reported there
	}
	if err := t.settle(ctx, desired.Changes{}); err != nil {
		t.report("open the tenants", err)
	}
	return context.Cause(ctx)
}

// follow keeps the set true to the platform repository until ctx ends.
func (t *tenants) follow(ctx context.Context, report func(op string, err error)) {
	moved, release := t.platform.Watch()
	defer release()
	seq := t.platform.Head().Seq
	for {
		select {
		case <-ctx.Done():
			return
		case <-moved:
		}
		changes, _ := t.platform.Changes(seq)
		seq = t.platform.Head().Seq
		if err := t.settle(ctx, changes); err != nil && ctx.Err() == nil {
			report("follow the platform repository", err)
		}
	}
}

// settle opens declared tenants, retires those whose document went away, and hands everyone the platform snapshot.
func (t *tenants) settle(ctx context.Context, changes desired.Changes) error {
	p := t.platform.Head().Snapshot
	var errs []error
	declared := map[string]bool{}
	for e := range p.List(desired.KindTenant, "", "") {
		declared[e.Ref.Name] = true
		_, _ = t.open(ctx, e.Ref.Name) // reported there
	}
	for _, ref := range changes.Removed {
		if ref.Kind == desired.KindTenant && !declared[ref.Name] {
			errs = append(errs, t.retire(ref.Name))
		}
	}
	for _, r := range t.all() {
		name := r.Tenant()
		if declared[name] {
			errs = append(errs, t.reinstate(name))
		} else if t.autoCreate == 0 {
			errs = append(errs, t.retire(name))
		}
		if r.Head().Snapshot.Platform() != p {
			errs = append(errs, r.SetPlatform(ctx, p))
		}
	}
	return errors.Join(errs...)
}

// Repo returns the control repository of a tenant; "" is the platform's. A tenant that nothing declares comes to be
// here where that is allowed, else it is NotFound.
func (t *tenants) Repo(ctx context.Context, tenant string) (*gitrepo.Repo, error) {
	if tenant == "" {
		return t.platform, nil
	}
	t.mu.Lock()
	r, ok := t.repos[tenant]
	n := len(t.repos)
	failed, isBroken := t.broken[tenant]
	t.mu.Unlock()
	switch {
	case ok:
		return r, nil
	case isBroken && t.now().Sub(failed) < retryBroken:
		return nil, brokenFault(tenant)
	case isBroken:
		return t.open(ctx, tenant)
	}
	if err := desired.ValidTenant(tenant); err != nil || t.autoCreate == 0 {
		return nil, desired.Errorf("find tenant", desired.Ref{}, desired.NotFound, "there is no such tenant: an operator declares it with a Tenant document in the platform repository")
	}
	if n >= t.autoCreate {
		return nil, desired.Errorf("create tenant", desired.Ref{}, desired.Denied, "%d tenants came to be without a Tenant document, which is the limit (tenants.autoCreateLimit): declare them in the platform repository", n)
	}
	return t.open(ctx, tenant)
}

// Existing returns the control repository of a tenant if there is one, without bringing it into being.
func (t *tenants) Existing(tenant string) (*gitrepo.Repo, bool) {
	if tenant == "" {
		return t.platform, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.repos[tenant]
	return r, ok
}

func (t *tenants) open(ctx context.Context, tenant string) (*gitrepo.Repo, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.repos[tenant]; ok {
		return r, nil
	}
	if t.closed {
		return nil, desired.Errorf("open tenant", desired.Ref{}, desired.Transient, "the server is stopping: try again")
	}
	c := t.base
	c.Dir, c.Tenant, c.Platform = filepath.Join(t.dir, tenant+".git"), tenant, t.platform.Head().Snapshot
	r, err := gitrepo.Open(context.WithoutCancel(ctx), c)
	if err != nil {
		t.broken[tenant] = t.now()
		t.report("open a tenant", err)
		return nil, brokenFault(tenant)
	}
	delete(t.broken, tenant)
	t.repos[tenant] = r
	if _, err := os.Stat(filepath.Join(c.Dir, retiredFile)); err == nil {
		t.retired[tenant] = true
		r.Hold(retiredReason)
		return r, nil
	}
	t.attach(tenant, r)
	return r, nil
}

// brokenFault is what callers are told; what is wrong on this machine's disk is for the log.
func brokenFault(tenant string) error {
	return desired.Errorf("open tenant", desired.Ref{}, desired.Stalled,
		"the control repository of tenant %s cannot be opened: an operator has to repair it, the daemon's log says what is wrong", tenant)
}

const retiredReason = "its Tenant document was removed from the platform repository; nothing is deleted, an operator decides"

// retire makes a tenant read only and stops reconciling it, across restarts.
func (t *tenants) retire(tenant string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.repos[tenant]
	if !ok || t.retired[tenant] {
		return nil
	}
	mark, err := os.Create(filepath.Join(t.dir, tenant+".git", retiredFile))
	if err != nil {
		return fmt.Errorf("retire tenant %s: %w", tenant, err)
	}
	if err := errors.Join(mark.Sync(), mark.Close()); err != nil {
		return fmt.Errorf("retire tenant %s: %w", tenant, err)
	}
	t.retired[tenant] = true
	r.Hold(retiredReason)
	t.detach(tenant)
	return nil
}

// reinstate undoes retire when the document is back.
func (t *tenants) reinstate(tenant string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.repos[tenant]
	if !ok || !t.retired[tenant] {
		return nil
	}
	if err := os.Remove(filepath.Join(t.dir, tenant+".git", retiredFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reinstate tenant %s: %w", tenant, err)
	}
	delete(t.retired, tenant)
	r.Hold("")
	t.attach(tenant, r)
	return nil
}

func (t *tenants) all() []*gitrepo.Repo {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*gitrepo.Repo, 0, len(t.repos))
	for _, r := range t.repos {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *gitrepo.Repo) int { return strings.Compare(a.Tenant(), b.Tenant()) })
	return out
}

// Close closes every control repository but the platform's.
func (t *tenants) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	var errs []error
	for _, r := range t.all() {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

// names lists the tenants that are open.
func (t *tenants) names() []string {
	var out []string
	for _, r := range t.all() {
		out = append(out, r.Tenant())
	}
	return out
}

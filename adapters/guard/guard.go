// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// Config says how All guards a driver.
type Config struct {
	Meter    *Meter        // nil = not counted
	Deadline time.Duration // of one try of one call; 0 = 10 s
	Tries    int           // of one call, the first included; 0 = 3
	Rate     float64       // calls a second for each credential; 0 = no limit, throttling by the host is kept
	Burst    int           // 0 = 100
}

// All puts every decorator but DryRun around a driver of a provider type, in the order that makes them right: each
// try is limited and has its own deadline, what is retried is counted once, and nothing comes out unredacted.
func All(providerType string, d adapters.Driver, c Config) adapters.Driver {
	d = Deadline(d, c.Deadline)
	d = Limit(d, c.Rate, c.Burst)
	d = Retry(d, c.Tries)
	d = Redact(d)
	if c.Meter != nil {
		d = c.Meter.Driver(providerType, d)
	}
	return d
}

// layer is a decorated driver. Each member handles one call, and calls the driver inside as it sees fit; list,
// watch and check are only asked for when the driver inside has them.
type layer struct {
	inner   adapters.Driver
	observe func(context.Context, []adapters.Subject) ([]adapters.Observation, error)
	apply   func(context.Context, adapters.Change) (adapters.Outcome, error)
	list    func(context.Context, desired.Kind, adapters.Provider, *adapters.Subject) ([]adapters.Listed, error)
	check   func(context.Context, adapters.Subject, adapters.Check) error
}

// inside is a layer that only passes on. Decorators replace what they change.
func inside(d adapters.Driver) *layer {
	l := &layer{inner: d, observe: d.Observe, apply: d.Apply}
	if x, ok := d.(adapters.Lister); ok {
		l.list = x.List
	}
	if x, ok := d.(adapters.Checker); ok {
		l.check = x.PostCheck
	}
	return l
}

// call is what a decorator that treats all methods alike knows of one.
type call struct {
	op       string // "observe", "list", "post check", or the operation of a change
	ref      desired.Ref
	provider adapters.Provider
}

// around is a layer that treats all methods alike: fn gets each call and runs it as do.
func around(d adapters.Driver, fn func(ctx context.Context, c call, do func(context.Context) error) error) adapters.Driver {
	l, in := inside(d), inside(d)
	l.observe = func(ctx context.Context, s []adapters.Subject) (out []adapters.Observation, err error) {
		c := call{op: "observe"}
		if len(s) > 0 {
			c.ref, c.provider = s[0].Ref, s[0].Provider
		}
		err = fn(ctx, c, func(ctx context.Context) (err error) {
			out, err = in.observe(ctx, s)
			return err
		})
		return out, err
	}
	l.apply = func(ctx context.Context, x adapters.Change) (out adapters.Outcome, err error) {
		err = fn(ctx, call{op: string(x.Op), ref: x.Ref, provider: x.Provider}, func(ctx context.Context) (err error) {
			out, err = in.apply(ctx, x)
			return err
		})
		return out, err
	}
	l.list = func(ctx context.Context, k desired.Kind, p adapters.Provider, parent *adapters.Subject) (out []adapters.Listed, err error) {
		err = fn(ctx, call{op: "list", provider: p}, func(ctx context.Context) (err error) {
			out, err = in.list(ctx, k, p, parent)
			return err
		})
		return out, err
	}
	l.check = func(ctx context.Context, pr adapters.Subject, x adapters.Check) error {
		return fn(ctx, call{op: "post check", ref: pr.Ref, provider: pr.Provider}, func(ctx context.Context) error { return in.check(ctx, pr, x) })
	}
	return l.driver()
}

type (
	base    struct{ l *layer }
	lister  struct{ l *layer }
	checker struct{ l *layer }
)

func (b base) Kinds() []desired.Kind { return b.l.inner.Kinds() }

func (b base) Observe(ctx context.Context, s []adapters.Subject) ([]adapters.Observation, error) {
	return b.l.observe(ctx, s)
}

func (b base) Apply(ctx context.Context, c adapters.Change) (adapters.Outcome, error) {
	return b.l.apply(ctx, c)
}

func (x lister) List(ctx context.Context, k desired.Kind, p adapters.Provider, parent *adapters.Subject) ([]adapters.Listed, error) {
	return x.l.list(ctx, k, p, parent)
}

func (x checker) PostCheck(ctx context.Context, pr adapters.Subject, c adapters.Check) error {
	return x.l.check(ctx, pr, c)
}

// driver gives the layer the capabilities of the driver inside, no more: code asks for them by type assertion.
func (l *layer) driver() adapters.Driver {
	b := base{l}
	_, lists := l.inner.(adapters.Lister)
	_, checks := l.inner.(adapters.Checker)
	w, watches := l.inner.(adapters.Watcher)
	switch {
	case lists && checks && watches:
		return struct {
			base
			lister
			checker
			adapters.Watcher
		}{b, lister{l}, checker{l}, w}
	case lists && checks:
		return struct {
			base
			lister
			checker
		}{b, lister{l}, checker{l}}
	case lists && watches:
		return struct {
			base
			lister
			adapters.Watcher
		}{b, lister{l}, w}
	case checks && watches:
		return struct {
			base
			checker
			adapters.Watcher
		}{b, checker{l}, w}
	case lists:
		return struct {
			base
			lister
		}{b, lister{l}}
	case checks:
		return struct {
			base
			checker
		}{b, checker{l}}
	case watches:
		return struct {
			base
			adapters.Watcher
		}{b, w}
	}
	return b
}

// ended is the error of a call whose ctx is over; such a call never reaches the driver.
func ended(ctx context.Context, c call) error {
	if ctx.Err() == nil {
		return nil
	}
	return desired.E(c.op, c.ref, desired.Transient, context.Cause(ctx))
}

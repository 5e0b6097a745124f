// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// Meter counts driver calls as plumbline_provider_requests_total{provider,code}: provider is the type the driver is
// registered for, code the class of the error, or "ok". Neither grows with tenants or repositories.
type Meter struct{ requests *prometheus.CounterVec }

// NewMeter registers the metric.
func NewMeter(r prometheus.Registerer) (*Meter, error) {
	m := &Meter{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plumbline_provider_requests_total",
		Help: "Calls of drivers, by provider type and by the class of the error or ok.",
	}, []string{"provider", "code"})}
	return m, r.Register(m.requests)
}

// Driver counts the calls of d. An Observe counts as failed when it fails, or when nothing that it was asked about
// could be seen.
func (m *Meter) Driver(providerType string, d adapters.Driver) adapters.Driver {
	for _, code := range []string{"ok", string(desired.Transient), string(desired.Throttled)} {
		m.requests.WithLabelValues(providerType, code) // series that alerts watch begin at zero
	}
	count := func(err error) {
		code := "ok"
		if err != nil {
			code = string(desired.ClassOf(err))
		}
		m.requests.WithLabelValues(providerType, code).Inc()
	}
	counted := around(d, func(ctx context.Context, _ call, do func(context.Context) error) error {
		err := do(ctx)
		count(err)
		return err
	})
	l := inside(counted)
	l.observe = func(ctx context.Context, s []adapters.Subject) ([]adapters.Observation, error) {
		out, err := d.Observe(ctx, s)
		seen := err
		for i, o := range out {
			if o.Presence != adapters.Unknown {
				seen = err
				break
			}
			if i == 0 && err == nil {
				seen = o.Err
			}
		}
		count(seen)
		return out, err
	}
	return l.driver()
}

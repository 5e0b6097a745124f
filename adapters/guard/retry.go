// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// Retry repeats calls that failed with a Transient error, up to tries in all (0 = 3), with growing, jittered
// pauses. Of an Observe only the subjects that are unknown for a transient reason are asked about again. Apply may
// be repeated because the contract makes it safe; PostCheck because the last of several equal checks stands. No
// try begins under a cancelled ctx. Over time retries stay below a tenth of the calls, so that a host in trouble is
// not finished off.
func Retry(d adapters.Driver, tries int) adapters.Driver {
	r := &retrier{tries: cmp.Or(tries, 3), budget: budgetMax}
	all := around(d, r.repeat)
	l := inside(all)
	l.observe = func(ctx context.Context, s []adapters.Subject) ([]adapters.Observation, error) {
		out, err := all.Observe(ctx, s)
		if err != nil || len(out) != len(s) {
			return out, err
		}
		return out, r.again(ctx, d, s, out)
	}
	return l.driver()
}

const (
	budgetMax   = 10.0 // retries in a row
	budgetEarns = 0.1  // a call
	firstPause  = 50 * time.Millisecond
)

type retrier struct {
	tries int

	mu     sync.Mutex
	budget float64
}

func (r *retrier) earn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.budget = min(budgetMax, r.budget+budgetEarns)
}

// pause waits before the n-th retry. It reports false when there is to be none.
func (r *retrier) pause(ctx context.Context, n int) bool {
	if n >= r.tries || ctx.Err() != nil {
		return false
	}
	r.mu.Lock()
	if r.budget < 1 {
		r.mu.Unlock()
		return false
	}
	r.budget--
	r.mu.Unlock()
	d := firstPause << (2 * (n - 1))
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *retrier) repeat(ctx context.Context, c call, do func(context.Context) error) error {
	if err := ended(ctx, c); err != nil {
		return err
	}
	r.earn()
	for n := 1; ; n++ {
		err := do(ctx)
		if desired.ClassOf(err) != desired.Transient || !r.pause(ctx, n) {
			return err
		}
	}
}

// again asks about the subjects that are unknown for a transient reason, and puts what it hears into out. What is
// still unknown after that stays as it is; that is not an error of the call.
func (r *retrier) again(ctx context.Context, d adapters.Driver, s []adapters.Subject, out []adapters.Observation) error {
	for n := 1; ; n++ {
		var which []int
		for i, o := range out {
			if o.Presence == adapters.Unknown && desired.ClassOf(o.Err) == desired.Transient {
				which = append(which, i)
			}
		}
		if len(which) == 0 || !r.pause(ctx, n) {
			return nil
		}
		ask := make([]adapters.Subject, 0, len(which))
		for _, i := range which {
			ask = append(ask, s[i])
		}
		heard, err := d.Observe(ctx, ask)
		if err != nil || len(heard) != len(ask) {
			continue
		}
		for j, i := range slices.All(which) {
			out[i] = heard[j]
		}
	}
}

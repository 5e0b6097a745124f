// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// Limit keeps the calls of each credential below perSecond (0 = no limit) with bursts (0 = 100), and keeps the
// pauses that hosts ask for: after a Throttled answer that credential is parked until its After, plus some jitter,
// and calls are answered Throttled at once, without reaching the host. Other credentials go on.
func Limit(d adapters.Driver, perSecond float64, burst int) adapters.Driver {
	k := &keeper{rate: rate.Limit(perSecond), burst: cmp.Or(burst, 100), lanes: map[laneKey]*lane{}}
	if perSecond == 0 {
		k.rate = rate.Inf
	}
	all := around(d, k.call)
	l := inside(all)
	l.observe = func(ctx context.Context, s []adapters.Subject) ([]adapters.Observation, error) {
		return k.observe(ctx, all, s)
	}
	return l.driver()
}

// patience is how long a call may wait for its turn; beyond it the caller had better do something else.
const patience = 2 * time.Second

// laneKey names a credential without holding it.
type laneKey struct {
	typ        string
	ref        desired.Ref
	credential [sha256.Size]byte
}

func keyOf(p adapters.Provider) laneKey {
	return laneKey{p.Type, p.Ref, sha256.Sum256([]byte(p.Credential.Reveal()))}
}

// lane is what one credential may do.
type lane struct {
	limiter *rate.Limiter
	parked  time.Time
	used    time.Time
}

type keeper struct {
	rate  rate.Limit
	burst int

	mu    sync.Mutex // guards lanes and the times in them
	lanes map[laneKey]*lane
}

// enter gives the lane of a credential, or the time until it is free again.
func (k *keeper) enter(key laneKey) (*lane, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	x := k.lanes[key]
	if x == nil {
		if len(k.lanes) > 10_000 {
			k.sweep(now)
		}
		x = &lane{limiter: rate.NewLimiter(k.rate, k.burst)}
		k.lanes[key] = x
	}
	x.used = now
	return x, x.parked.Sub(now)
}

// sweep forgets lanes that were not used for an hour: their credential was replaced.
func (k *keeper) sweep(now time.Time) {
	for key, x := range k.lanes {
		if now.Sub(x.used) > time.Hour && now.After(x.parked) {
			delete(k.lanes, key)
		}
	}
}

// park keeps everybody out of a lane.
func (k *keeper) park(x *lane, d time.Duration) {
	d = max(d, time.Second)
	until := time.Now().Add(d + rand.N(d/10+1))
	k.mu.Lock()
	defer k.mu.Unlock()
	if until.After(x.parked) {
		x.parked = until
	}
}

func throttled(c call, after time.Duration, why string) error {
	return &desired.Error{Class: desired.Throttled, Op: c.op, Ref: c.ref, After: after, Err: fmt.Errorf("%s: looking again in %v", why, after.Round(time.Millisecond))}
}

func (k *keeper) call(ctx context.Context, c call, do func(context.Context) error) error {
	if err := ended(ctx, c); err != nil {
		return err
	}
	x, parked := k.enter(keyOf(c.provider))
	if parked > 0 {
		return throttled(c, parked, "the host asked for a pause")
	}
	turn := x.limiter.Reserve()
	if wait := turn.Delay(); wait > patience {
		turn.Cancel()
		return throttled(c, wait, "too many calls with this credential")
	} else if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			turn.Cancel()
			return ended(ctx, c)
		}
	}
	err := do(ctx)
	if after, ok := throttle(err); ok {
		k.park(x, after)
	}
	return err
}

func throttle(err error) (time.Duration, bool) {
	if desired.ClassOf(err) != desired.Throttled {
		return 0, false
	}
	e, _ := asError(err)
	return e.After, true
}

// observe asks about each credential's subjects in a call of their own: one that is parked does not keep the others
// from being seen.
func (k *keeper) observe(ctx context.Context, d adapters.Driver, s []adapters.Subject) ([]adapters.Observation, error) {
	var order []laneKey
	groups := map[laneKey][]int{}
	for i := range s {
		key := keyOf(s[i].Provider)
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], i)
	}
	if len(order) < 2 {
		out, err := d.Observe(ctx, s)
		k.heed(order, out)
		return out, err
	}
	out := make([]adapters.Observation, len(s))
	for _, key := range order {
		var ask []adapters.Subject
		for _, i := range groups[key] {
			ask = append(ask, s[i])
		}
		heard, err := d.Observe(ctx, ask)
		if err == nil && len(heard) != len(ask) {
			err = desired.Errorf("observe", ask[0].Ref, desired.Internal, "the driver gave %d answers to %d questions", len(heard), len(ask))
		}
		k.heed([]laneKey{key}, heard)
		for j, i := range groups[key] {
			if err != nil {
				out[i] = adapters.Observation{Presence: adapters.Unknown, Reason: err.Error(), Err: err, At: time.Now()}
				continue
			}
			out[i] = heard[j]
		}
	}
	return out, nil
}

// heed parks a credential that was throttled in the middle of a call.
func (k *keeper) heed(keys []laneKey, out []adapters.Observation) {
	for _, o := range out {
		if after, ok := throttle(o.Err); ok && len(keys) > 0 {
			x, _ := k.enter(keys[0])
			k.park(x, after)
		}
	}
}

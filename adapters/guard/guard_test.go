// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/adapters/adaptertest"
	"github.com/connectsoft/plumbline/desired"
)

// Each decorator, and all of them together, leave a driver as good as it was.
func TestDecoratedDriversPassTheSuite(t *testing.T) {
	for name, decorate := range map[string]func(t *testing.T, d adapters.Driver) adapters.Driver{
		"deadline": func(_ *testing.T, d adapters.Driver) adapters.Driver { return Deadline(d, time.Minute) },
		"limit":    func(_ *testing.T, d adapters.Driver) adapters.Driver { return Limit(d, 1e6, 1e6) },
		"redact":   func(_ *testing.T, d adapters.Driver) adapters.Driver { return Redact(d) },
		"meter": func(t *testing.T, d adapters.Driver) adapters.Driver {
			m, err := NewMeter(prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			return m.Driver("fake", d)
		},
		"retry": func(_ *testing.T, d adapters.Driver) adapters.Driver { return Retry(d, 2) },
		"all": func(t *testing.T, d adapters.Driver) adapters.Driver {
			m, err := NewMeter(prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			return All("fake", d, Config{Meter: m, Tries: 2})
		},
	} {
		t.Run(name, func(t *testing.T) {
			adaptertest.Suite(t, adaptertest.Harness{Open: func(t *testing.T) adaptertest.World {
				w := adaptertest.NewFake().World()
				w.Driver = decorate(t, w.Driver)
				w.Restart = func() adapters.Driver { return w.Driver }
				if name == "retry" || name == "all" {
					w.LoseReply, w.Interrupt = nil, nil // a lost reply is made good: the caller never hears of it
				}
				return w
			}})
		})
	}
}

// plain is a driver with no optional capability.
type plain struct{ d adapters.Driver }

func (p plain) Kinds() []desired.Kind { return p.d.Kinds() }
func (p plain) Observe(ctx context.Context, s []adapters.Subject) ([]adapters.Observation, error) {
	return p.d.Observe(ctx, s)
}

func (p plain) Apply(ctx context.Context, c adapters.Change) (adapters.Outcome, error) {
	return p.d.Apply(ctx, c)
}

func TestCapabilitiesAreThoseOfTheDriverInside(t *testing.T) {
	f := adaptertest.NewFake()
	for _, d := range []adapters.Driver{
		f,
		plain{f},
		struct {
			plain
			adapters.Lister
		}{plain{f}, f},
		struct {
			plain
			adapters.Checker
		}{plain{f}, f},
		struct {
			plain
			adapters.Watcher
		}{plain{f}, f},
		struct {
			plain
			adapters.Lister
			adapters.Checker
		}{plain{f}, f, f},
		struct {
			plain
			adapters.Lister
			adapters.Watcher
		}{plain{f}, f, f},
		struct {
			plain
			adapters.Checker
			adapters.Watcher
		}{plain{f}, f, f},
	} {
		if got, want := capabilities(All("fake", d, Config{})), capabilities(d); got != want {
			t.Errorf("decorated: got %s, want %s", got, want)
		}
		if got, want := capabilities(DryRun(d, nil)), capabilities(d); got != want {
			t.Errorf("dry run: got %s, want %s", got, want)
		}
	}
}

func capabilities(d adapters.Driver) string {
	_, l := d.(adapters.Lister)
	_, c := d.(adapters.Checker)
	_, w := d.(adapters.Watcher)
	return fmt.Sprintf("kinds %v lister %t checker %t watcher %t", d.Kinds(), l, c, w)
}

func repository(name, credential string) adapters.Subject {
	return adapters.Subject{
		Ref: desired.Ref{Tenant: "acme", Project: "shop", Kind: desired.KindRepository, Name: name}, Spec: &desired.RepositorySpec{},
		Provider: adapters.Provider{Type: "fake", Credential: adapters.NewSecret(credential)},
	}
}

func create(s adapters.Subject) adapters.Change {
	return adapters.Change{Subject: s, Op: adapters.Create, Tag: "tag", Log: io.Discard}
}

func wantClass(t *testing.T, what string, err error, want desired.Class) {
	t.Helper()
	if got := desired.ClassOf(err); got != want {
		t.Errorf("%s: got class %q (%v), want %q", what, got, err, want)
	}
}

func TestDeadlineEndsACallWithItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := adaptertest.NewFake()
		d := Deadline(f, time.Minute)
		f.Script(adaptertest.Fault{Hang: true, Times: 2})
		began := time.Now()
		_, err := d.Apply(t.Context(), create(repository("r", "")))
		wantClass(t, "apply", err, desired.Transient)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1m0s") || time.Since(began) != time.Minute {
			t.Errorf("after %v: got %v, want the limit of a minute named", time.Since(began), err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errors.New("the lease is lost")) })
		_, err = d.Observe(ctx, []adapters.Subject{repository("r", "")})
		if err == nil || !strings.Contains(err.Error(), "the lease is lost") {
			t.Errorf("the caller's own end: got %v, want its cause", err)
		}
	})
}

func TestRetryRepeatsWhatIsTransientOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			class desired.Class
			fails int
			calls int
			ok    bool
		}{
			{desired.Transient, 1, 2, true},
			{desired.Transient, 2, 3, true},
			{desired.Transient, 3, 3, false},
			{desired.Throttled, 1, 1, false},
			{desired.Denied, 1, 1, false},
			{desired.Internal, 1, 1, false},
			{desired.Conflict, 1, 1, false},
		} {
			f := adaptertest.NewFake()
			d := Retry(f, 3)
			f.Script(adaptertest.Fault{Method: adaptertest.Apply, Times: row.fails, Err: desired.Errorf("create", desired.Ref{}, row.class, "no")})
			_, err := d.Apply(t.Context(), create(repository("r", "")))
			if got := len(f.Applies()); got != row.calls || (err == nil) != row.ok {
				t.Errorf("%s %d times: got %d calls and %v, want %d calls and ok %t", row.class, row.fails, got, err, row.calls, row.ok)
			}
		}
	})
}

func TestRetryAsksAgainForWhatIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := adaptertest.NewFake()
		d := Retry(f, 3)
		a, b, c := repository("a", ""), repository("b", ""), repository("c", "")
		for _, s := range []adapters.Subject{a, b, c} {
			if _, err := d.Apply(t.Context(), create(s)); err != nil {
				t.Fatal(err)
			}
		}
		f.ForgetCalls()
		f.Script(adaptertest.Fault{Method: adaptertest.Observe, Name: "b", Times: 2, Err: desired.Errorf("observe", b.Ref, desired.Transient, "reset")},
			adaptertest.Fault{Method: adaptertest.Observe, Name: "c", Times: -1, Err: desired.Errorf("observe", c.Ref, desired.Denied, "no")})
		got, err := d.Observe(t.Context(), []adapters.Subject{a, b, c})
		if err != nil || got[0].Presence != adapters.Known || got[1].Presence != adapters.Known || got[2].Presence != adapters.Unknown {
			t.Errorf("got %v and %v, want known, known, unknown", got, err)
		}
		asked := ""
		for _, x := range f.Calls() {
			asked += x.Ref.Name
		}
		if asked != "abcbb" {
			t.Errorf("asked about %s, want abcbb", asked)
		}
	})
}

func TestRetryKeepsItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := adaptertest.NewFake()
		d := Retry(f, 5)
		f.Script(adaptertest.Fault{Times: -1, Err: desired.Errorf("create", desired.Ref{}, desired.Transient, "down")})
		const calls = 500
		for range calls {
			_, _ = d.Apply(t.Context(), create(repository("r", "")))
		}
		if retries := len(f.Applies()) - calls; retries > calls/10+10 || retries < calls/20 {
			t.Errorf("%d retries of %d calls, want about a tenth", retries, calls)
		}
	})
}

func TestACancelledCallNeverReachesTheDriver(t *testing.T) {
	f := adaptertest.NewFake()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, d := range map[string]adapters.Driver{"retry": Retry(f, 3), "limit": Limit(f, 10, 10), "all": All("fake", f, Config{})} {
		_, err := d.Apply(ctx, create(repository("r", "")))
		wantClass(t, name, err, desired.Transient)
	}
	if calls := f.Calls(); len(calls) > 0 {
		t.Errorf("the driver was called: %v", calls)
	}
	synctest.Test(t, func(t *testing.T) { // cancelled between tries: no further one
		f := adaptertest.NewFake()
		f.Script(adaptertest.Fault{Times: -1, Err: desired.Errorf("create", desired.Ref{}, desired.Transient, "down")})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := Retry(f, 3).Apply(ctx, create(repository("r", "")))
		wantClass(t, "cancelled in a pause", err, desired.Transient)
		if got := len(f.Applies()); got != 1 {
			t.Errorf("got %d tries, want 1", got)
		}
	})
}

func TestLimitSpreadsCallsOfOneCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := Limit(adaptertest.NewFake(), 10, 5)
		began := time.Now()
		for range 15 {
			if _, err := d.Observe(t.Context(), []adapters.Subject{repository("r", "one")}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 900*time.Millisecond || took > 1100*time.Millisecond {
			t.Errorf("15 calls at 10/s with a burst of 5 took %v, want about 1 s", took)
		}
		began = time.Now()
		if _, err := d.Observe(t.Context(), []adapters.Subject{repository("r", "two")}); err != nil || time.Since(began) > 0 {
			t.Errorf("another credential waited %v (%v)", time.Since(began), err)
		}
	})
}

func TestLimitDoesNotHoldItsCallerForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := Limit(adaptertest.NewFake(), 0.1, 1)
		s := []adapters.Subject{repository("r", "one")}
		if _, err := d.Observe(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err := d.Observe(t.Context(), s)
		wantClass(t, "second call", err, desired.Throttled)
		if e, ok := asError(err); !ok || e.After < 9*time.Second || time.Since(began) > 0 {
			t.Errorf("got %v after %v, want to be told to come back in 10 s, at once", err, time.Since(began))
		}
	})
}

func TestThrottledCredentialIsParkedAndOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := adaptertest.NewFake()
		d := Limit(f, 0, 0)
		slow := &desired.Error{Class: desired.Throttled, Op: "observe", After: time.Minute, Err: errors.New("429")}
		one, two := repository("one", "first"), repository("two", "second")
		for what, fault := range map[string]adaptertest.Fault{"the whole call": {Method: adaptertest.Observe, Err: slow}, "one subject": {Method: adaptertest.Observe, Name: "one", Err: slow}} {
			f.Script(fault)
			_, _ = d.Observe(t.Context(), []adapters.Subject{one})
			f.ForgetCalls()
			_, err := d.Apply(t.Context(), create(one))
			wantClass(t, what+": parked", err, desired.Throttled)
			got, err := d.Observe(t.Context(), []adapters.Subject{one, two})
			if err != nil || got[0].Presence != adapters.Unknown || desired.ClassOf(got[0].Err) != desired.Throttled || got[1].Presence != adapters.Absent {
				t.Errorf("%s: got %v and %v, want the parked one unknown and the other one absent", what, got, err)
			}
			for _, c := range f.Calls() {
				if c.Ref == one.Ref {
					t.Errorf("%s: the host was called while parked: %v", what, c)
				}
			}
			time.Sleep(67 * time.Second) // a minute, and a tenth for jitter
			if _, err := d.Apply(t.Context(), create(one)); err != nil {
				t.Errorf("%s: after the pause: %v", what, err)
			}
		}
	})
}

func TestLanesOfReplacedCredentialsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{rate: 1, burst: 1, lanes: map[laneKey]*lane{}}
		for i := range 10_001 {
			k.enter(laneKey{typ: fmt.Sprint(i)})
		}
		time.Sleep(2 * time.Hour)
		k.enter(laneKey{typ: "new"})
		if len(k.lanes) != 1 {
			t.Errorf("%d lanes, want 1", len(k.lanes))
		}
	})
}

// leaky is a driver that gives its credential away in every way it can.
type leaky struct{ plain }

func (l leaky) Observe(_ context.Context, s []adapters.Subject) ([]adapters.Observation, error) {
	secret := s[0].Provider.Credential.Reveal()
	return []adapters.Observation{
		{Reason: "GET https://x:" + url.QueryEscape(secret) + "@host failed", Err: leak(secret)},
		{Presence: adapters.Known, Actual: &adapters.RepositoryActual{RemoteURL: "https://" + secret + "@host", DefaultBranch: "main"}, Handle: []byte(`{"url":"` + secret + `"}`)},
	}, nil
}

func (l leaky) Apply(_ context.Context, c adapters.Change) (adapters.Outcome, error) {
	secret := c.Provider.Credential.Reveal()
	for _, part := range []string{"curl -u :", secret[:3], secret[3:], "\n", "basic " + base64.StdEncoding.EncodeToString([]byte(":"+secret))} {
		_, _ = io.WriteString(c.Log, part)
	}
	if c.Op == adapters.Create {
		return adapters.Outcome{Message: "made with " + secret, Done: true}, nil
	}
	return adapters.Outcome{}, leak(secret)
}

func (l leaky) List(_ context.Context, _ desired.Kind, p adapters.Provider, _ *adapters.Subject) ([]adapters.Listed, error) {
	return []adapters.Listed{{Name: p.Credential.Reveal()}}, fmt.Errorf("list: %w", leak(p.Credential.Reveal()))
}

func (l leaky) PostCheck(_ context.Context, pr adapters.Subject, _ adapters.Check) error {
	return errors.New(pr.Provider.Credential.Reveal())
}

// leak hides the secret below an error whose own text is clean, and in a field.
func leak(secret string) error {
	return &desired.Error{
		Class: desired.Throttled, Op: "get", After: time.Minute, Err: quiet{errors.New("Authorization: " + secret)},
		Fields: []desired.FieldError{{Pointer: "/x", Detail: "not " + secret}},
	}
}

type quiet struct{ err error }

func (q quiet) Error() string { return "something failed" }
func (q quiet) Unwrap() error { return q.err }

func TestRedactHidesTheCredential(t *testing.T) {
	const secret = `p@ss/w"rd+1`
	d := Redact(leaky{plain{adaptertest.NewFake()}})
	s := repository("r", secret)
	var said []any
	obs, err := d.Observe(t.Context(), []adapters.Subject{s, s})
	said = append(said, err)
	for _, o := range obs {
		said = append(said, o.Reason, o.Err, errors.Unwrap(o.Err), o.Actual, string(o.Handle))
	}
	if a, ok := obs[1].Actual.(*adapters.RepositoryActual); !ok || a.RemoteURL != "https://***@host" || a.DefaultBranch != "main" {
		t.Errorf("actual: got %+v, want the rest of it kept", obs[1].Actual)
	}
	if e, ok := asError(obs[0].Err); !ok || e.Class != desired.Throttled || e.After != time.Minute || e.Op != "get" || e.Fields[0].Detail != "not ***" {
		t.Errorf("error: got %#v, want class, time, operation and fields kept", obs[0].Err)
	}
	var log strings.Builder
	for _, op := range []adapters.Op{adapters.Create, adapters.Update} {
		c := create(s)
		c.Op, c.Log = op, &log
		out, err := d.Apply(t.Context(), c)
		said = append(said, out.Message, err)
	}
	if want := "curl -u :***\nbasic ***"; log.String() != want+want {
		t.Errorf("log: got %q, want %q twice", log.String(), want)
	}
	listed, err := d.(adapters.Lister).List(t.Context(), desired.KindRepository, s.Provider, nil)
	said = append(said, listed, err, d.(adapters.Checker).PostCheck(t.Context(), s, adapters.Check{}))
	for _, x := range said {
		for e := x; e != nil; {
			if text := fmt.Sprintf("%+v %#v", e, e); strings.Contains(text, secret) || strings.Contains(text, "w%22rd") {
				t.Errorf("the credential is in %s", strings.ReplaceAll(text, secret, "<credential>"))
			}
			inner, ok := e.(error)
			if !ok {
				break
			}
			if e = nil; errors.Unwrap(inner) != nil {
				e = errors.Unwrap(inner)
			}
		}
	}
}

func TestRedactWritesLongLines(t *testing.T) {
	var log strings.Builder
	w := &maskWriter{to: &log, m: maskOf(repository("r", "the-secret").Provider)}
	long := strings.Repeat("x", longestLine-5)
	for _, part := range []string{long, "the-se", "cret", long} {
		if n, err := io.WriteString(w, part); n != len(part) || err != nil {
			t.Fatalf("wrote %d and %v", n, err)
		}
	}
	w.flush()
	if want := long + "***" + long; log.String() != want {
		t.Errorf("got %d characters, want %d with the secret starred", log.Len(), len(want))
	}
}

func TestRedactLeavesCleanThingsAlone(t *testing.T) {
	f := adaptertest.NewFake()
	sentinel := desired.Errorf("observe", desired.Ref{}, desired.Transient, "away: %w", io.ErrUnexpectedEOF)
	f.Script(adaptertest.Fault{Method: adaptertest.Observe, Err: sentinel})
	if _, err := Redact(f).Observe(t.Context(), []adapters.Subject{repository("r", "x-secret")}); !errors.Is(err, io.ErrUnexpectedEOF) || err != error(sentinel) {
		t.Errorf("got %v, want the error itself", err)
	}
}

func TestMeterCountsByProviderAndCode(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m, err := NewMeter(reg)
	if err != nil {
		t.Fatal(err)
	}
	f := adaptertest.NewFake()
	d := m.Driver("fake", f)
	a, b := repository("a", ""), repository("b", "")
	denied := desired.Errorf("x", desired.Ref{}, desired.Denied, "no")
	f.Script(adaptertest.Fault{Method: adaptertest.Observe, Name: "a", Err: denied}, adaptertest.Fault{Method: adaptertest.Apply, Err: denied})
	_, _ = d.Observe(t.Context(), []adapters.Subject{a})
	_, _ = d.Observe(t.Context(), []adapters.Subject{a, b})
	_, _ = d.Observe(t.Context(), nil)
	_, _ = d.Apply(t.Context(), create(a))
	_, _ = d.Apply(t.Context(), create(a))
	_, _ = d.(adapters.Lister).List(t.Context(), desired.KindBranch, a.Provider, nil)
	_ = d.(adapters.Checker).PostCheck(t.Context(), a, adapters.Check{})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, f := range families {
		for _, x := range f.GetMetric() {
			got += f.GetName()
			for _, l := range x.GetLabel() {
				got += " " + l.GetName() + "=" + l.GetValue()
			}
			got += fmt.Sprintln("", x.GetCounter().GetValue())
		}
	}
	want := `plumbline_provider_requests_total code=denied provider=fake 2
plumbline_provider_requests_total code=invalid provider=fake 1
plumbline_provider_requests_total code=not-found provider=fake 1
plumbline_provider_requests_total code=ok provider=fake 3
plumbline_provider_requests_total code=throttled provider=fake 0
plumbline_provider_requests_total code=transient provider=fake 0
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
	if _, err := NewMeter(reg); err == nil {
		t.Error("the metric was registered twice")
	}
}

func TestDryRunTouchesNothing(t *testing.T) {
	f := adaptertest.NewFake()
	var recorded []adapters.Op
	d := DryRun(f, func(c adapters.Change) { recorded = append(recorded, c.Op) })
	s := repository("r", "")
	_, err := d.Apply(t.Context(), create(s))
	wantClass(t, "apply", err, desired.Denied)
	wantClass(t, "check", d.(adapters.Checker).PostCheck(t.Context(), s, adapters.Check{}), desired.Denied)
	if !slices.Equal(recorded, []adapters.Op{adapters.Create}) || len(f.Calls()) != 0 {
		t.Errorf("recorded %v, called %v: want the change recorded and nothing called", recorded, f.Calls())
	}
	got, err := d.Observe(t.Context(), []adapters.Subject{s})
	if err != nil || got[0].Presence != adapters.Absent {
		t.Errorf("observe: got %v and %v, want absent", got, err)
	}
}

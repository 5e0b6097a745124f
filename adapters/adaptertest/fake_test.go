// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func TestFakePassesTheSuite(t *testing.T) {
	Suite(t, Harness{Parallel: true, Open: func(*testing.T) World { return NewFake().World() }})
}

// script is a fake with one repository and one branch, and no calls logged yet.
func script(t *testing.T) (*Fake, *scene, *adapters.Subject, *adapters.Subject) {
	t.Helper()
	f := NewFake()
	s := &scene{T: t, World: World{Driver: f, Wait: func(time.Duration) {}}}
	r := s.made("r")
	b := s.branch(r, desired.BranchSpec{Name: "b"})
	s.do(b, adapters.Create)
	f.ForgetCalls()
	return f, s, r, b
}

func TestFakeFailsAsScripted(t *testing.T) {
	f, s, r, b := script(t)
	limited := &desired.Error{Class: desired.Throttled, Op: "create branch", After: time.Minute, Err: errors.New("slow down")}
	f.Script(Fault{Method: Apply, Kind: desired.KindBranch, Times: 2, Err: limited})
	n := s.branch(r, desired.BranchSpec{Name: "n"})
	for range 2 {
		s.refused(s.change(n, adapters.Create), desired.Throttled)
	}
	s.do(n, adapters.Create)
	f.Script(Fault{Method: Observe, Name: b.Ref.Name, Err: limited})
	equal(s, "one subject of two", []adapters.Presence{s.look(b, r)[0].Presence, s.look(b, r)[0].Presence}, []adapters.Presence{adapters.Unknown, adapters.Known})
	f.Script(Fault{Method: Observe, Err: limited})
	equal(s, "the whole call", s.look(b, r)[1].Presence, adapters.Unknown)
	equal(s, "and then no more", s.look(b, r)[1].Presence, adapters.Known)
	f.Script(Fault{Times: -1, Err: limited})
	s.want(r, adapters.Unknown)
	f.Heal()
	s.want(r, adapters.Known)
}

func TestFakeLogsItsCalls(t *testing.T) {
	f, s, r, b := script(t)
	s.do(b, adapters.Create)
	r.Spec.(*desired.RepositorySpec).Visibility = "public"
	s.do(r, adapters.Update, "spec.visibility")
	got := ""
	for _, c := range f.Applies() {
		got += c.String() + "\n"
	}
	equal(s, "calls", got, "apply create suite/proj/Branch/r.b\napply update suite/proj/Repository/r [spec.visibility] changed\n")
}

func TestFakeLags(t *testing.T) {
	f, s, r, b := script(t)
	head := see[*adapters.BranchActual](s, b).Head
	now := f.Push(r.Ref, "b", map[string]string{"x": "x"})
	f.Script(Fault{Method: Observe, Kind: desired.KindBranch, Stale: true})
	equal(s, "stale head", see[*adapters.BranchActual](s, b).Head, head)
	equal(s, "head", see[*adapters.BranchActual](s, b).Head, now)
}

func TestFakeHangsUntilTheContextEnds(t *testing.T) {
	f, s, _, b := script(t)
	for _, m := range []Method{Observe, Apply} {
		f.Script(Fault{Method: m, Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		var err error
		if m == Observe {
			_, err = f.Observe(ctx, []adapters.Subject{*b})
		} else {
			_, err = f.Apply(ctx, s.change(b, adapters.Remove))
		}
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want the deadline", m, err)
		}
	}
	s.want(b, adapters.Known)
}

func TestFakeTakesItsTime(t *testing.T) {
	f, s, r, _ := script(t)
	f.Script(Fault{Method: Apply, Pending: time.Minute, Times: 3})
	waited := time.Duration(0)
	s.Wait = func(d time.Duration) { waited += d }
	s.do(s.branch(r, desired.BranchSpec{Name: "slow"}), adapters.Create)
	equal(s, "waited", waited, 3*time.Minute)
}

func TestFakeCountsOverlaps(t *testing.T) {
	f, s, _, b := script(t)
	f.Script(Fault{Method: Apply, Hang: true, Times: 2})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	for range 2 {
		c := s.change(b, adapters.Create)
		go func() {
			_, _ = f.Apply(ctx, c)
			done <- struct{}{}
		}()
	}
	for f.Overlaps() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	<-done
	equal(s, "overlaps", f.Overlaps(), 1)
}

// SPDX-License-Identifier: Apache-2.0

package adaptertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// bad is a driver with one thing wrong. Members that are nil behave.
type bad struct {
	*Fake
	observe func([]adapters.Observation, error) ([]adapters.Observation, error)
	before  func(context.Context, adapters.Change) (context.Context, adapters.Change)
	after   func(adapters.Change, adapters.Outcome, error) (adapters.Outcome, error)
	list    func([]adapters.Listed, error) ([]adapters.Listed, error)
	check   func() error
}

func (b bad) Observe(ctx context.Context, s []adapters.Subject) ([]adapters.Observation, error) {
	out, err := b.Fake.Observe(ctx, s)
	if b.observe != nil {
		return b.observe(out, err)
	}
	return out, err
}

func (b bad) Apply(ctx context.Context, c adapters.Change) (adapters.Outcome, error) {
	if b.before != nil {
		ctx, c = b.before(ctx, c)
	}
	out, err := b.Fake.Apply(ctx, c)
	if b.after != nil {
		return b.after(c, out, err)
	}
	return out, err
}

func (b bad) List(ctx context.Context, k desired.Kind, p adapters.Provider, parent *adapters.Subject) ([]adapters.Listed, error) {
	out, err := b.Fake.List(ctx, k, p, parent)
	if b.list != nil {
		return b.list(out, err)
	}
	return out, err
}

func (b bad) PostCheck(ctx context.Context, pr adapters.Subject, c adapters.Check) error {
	if b.check != nil {
		return b.check()
	}
	return b.Fake.PostCheck(ctx, pr, c)
}

// mutants are ways to get the contract wrong.
func mutants() map[string]func(*bad) {
	swap := func(from, to adapters.Op) func(*bad) {
		return func(b *bad) {
			b.before = func(ctx context.Context, c adapters.Change) (context.Context, adapters.Change) {
				if c.Op == from {
					c.Op = to
				}
				return ctx, c
			}
		}
	}
	ignore := func(op adapters.Op) func(*bad) {
		return func(b *bad) {
			b.after = func(c adapters.Change, out adapters.Outcome, err error) (adapters.Outcome, error) {
				if c.Op == op {
					return adapters.Outcome{Done: true, Handle: out.Handle, Actual: out.Actual}, nil
				}
				return out, err
			}
		}
	}
	var tags atomic.Int64
	return map[string]func(*bad){
		"what cannot be read is absent": func(b *bad) {
			b.observe = func(out []adapters.Observation, err error) ([]adapters.Observation, error) {
				for i := range out {
					if out[i].Presence == adapters.Unknown {
						out[i] = adapters.Observation{Presence: adapters.Absent, At: out[i].At}
					}
				}
				return out, err
			}
		},
		"answers in another order": func(b *bad) {
			b.observe = func(out []adapters.Observation, err error) ([]adapters.Observation, error) {
				slices.Reverse(out)
				return out, err
			}
		},
		"an answer without a time": func(b *bad) {
			b.observe = func(out []adapters.Observation, err error) ([]adapters.Observation, error) {
				for i := range out {
					out[i].At = time.Time{}
				}
				return out, err
			}
		},
		"forgets what it did": func(b *bad) {
			b.before = func(ctx context.Context, c adapters.Change) (context.Context, adapters.Change) {
				c.Tag = fmt.Sprint(c.Tag, tags.Add(1))
				return ctx, c
			}
		},
		"works on after it was cancelled": func(b *bad) {
			b.before = func(ctx context.Context, c adapters.Change) (context.Context, adapters.Change) {
				return context.WithoutCancel(ctx), c
			}
		},
		"changes fields that were not listed": func(b *bad) {
			b.before = func(ctx context.Context, c adapters.Change) (context.Context, adapters.Change) {
				c.Fields = nil
				return ctx, c
			}
		},
		"says everything twice to its credential's harm": func(b *bad) {
			b.after = func(c adapters.Change, out adapters.Outcome, err error) (adapters.Outcome, error) {
				if err != nil {
					err = desired.Errorf("apply", c.Ref, desired.ClassOf(err), "%w (token %s)", err, c.Provider.Credential.Reveal())
				}
				return out, err
			}
		},
		"writes its credential into the run log": func(b *bad) {
			b.after = func(c adapters.Change, out adapters.Outcome, err error) (adapters.Outcome, error) {
				fmt.Fprintln(c.Log, "using", c.Provider.Credential.Reveal())
				return out, err
			}
		},
		"every error is internal": func(b *bad) {
			b.after = func(c adapters.Change, out adapters.Outcome, err error) (adapters.Outcome, error) {
				if err != nil {
					err = fmt.Errorf("%v", err)
				}
				return out, err
			}
		},
		"the outcome is not what is there": func(b *bad) {
			b.after = func(c adapters.Change, out adapters.Outcome, err error) (adapters.Outcome, error) {
				if a, ok := out.Actual.(*adapters.BranchActual); ok && a != nil {
					out.Actual = &adapters.BranchActual{Name: a.Name, Head: a.Head}
				}
				return out, err
			}
		},
		"a list that is too short": func(b *bad) {
			b.list = func(out []adapters.Listed, err error) ([]adapters.Listed, error) {
				return out[:max(0, len(out)-1)], err
			}
		},
		"a list that failed is empty": func(b *bad) {
			b.list = func(out []adapters.Listed, _ error) ([]adapters.Listed, error) { return out, nil }
		},
		"checks go nowhere":             func(b *bad) { b.check = func() error { return nil } },
		"restores where the default is": swap(adapters.Restore, adapters.Create),
		"closes instead of merging":     swap(adapters.Merge, adapters.Close),
		"does not remove":               swap(adapters.Remove, adapters.Rename),
		"claims every merge":            ignore(adapters.Merge),
		"claims every update":           ignore(adapters.Update),
		"claims every run":              ignore(adapters.Run),
	}
}

const mutantEnv = "ADAPTERTEST_MUTANT"

// TestMutant runs the suite over one mutant; TestSuiteCatchesMutants starts it in a process of its own.
func TestMutant(t *testing.T) {
	spoil := mutants()[os.Getenv(mutantEnv)]
	if spoil == nil {
		t.Skip("started by TestSuiteCatchesMutants")
	}
	Suite(t, Harness{Open: func(*testing.T) World {
		f := NewFake()
		b := bad{Fake: f}
		spoil(&b)
		w := f.World()
		w.Driver, w.Restart = b, func() adapters.Driver { return b }
		return w
	}})
}

// A suite that no driver can fail proves nothing: each mutant must fail it.
func TestSuiteCatchesMutants(t *testing.T) {
	for name := range mutants() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMutant$", "-test.failfast")
			c.Env = append(os.Environ(), mutantEnv+"="+name)
			out, err := c.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestMutant/") {
				t.Errorf("the suite lets it pass: %v\n%s", err, out)
			}
		})
	}
}

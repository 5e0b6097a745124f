// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// DryRun lets a driver look and never touch: each Apply is handed to record (nil = nobody) and refused as Denied,
// PostCheck is refused. It goes around all other decorators.
func DryRun(d adapters.Driver, record func(adapters.Change)) adapters.Driver {
	l := inside(d)
	l.apply = func(ctx context.Context, c adapters.Change) (adapters.Outcome, error) {
		if record != nil && ctx.Err() == nil {
			record(c)
		}
		return adapters.Outcome{}, desired.Errorf(string(c.Op), c.Ref, desired.Denied, "this is a dry run: nothing is changed")
	}
	l.check = func(_ context.Context, pr adapters.Subject, _ adapters.Check) error {
		return desired.Errorf("post check", pr.Ref, desired.Denied, "this is a dry run: nothing is changed")
	}
	return l.driver()
}

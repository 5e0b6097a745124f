// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// Deadline ends every call after limit (0 = 10 s), with a cause that says so. Watch is not a call: it runs until
// its ctx ends.
func Deadline(d adapters.Driver, limit time.Duration) adapters.Driver {
	limit = cmp.Or(limit, 10*time.Second)
	return around(d, func(ctx context.Context, c call, do func(context.Context) error) error {
		cause := fmt.Errorf("no answer within %v: %w", limit, context.DeadlineExceeded)
		limited, cancel := context.WithTimeoutCause(ctx, limit, cause)
		defer cancel()
		err := do(limited)
		over := err != nil && ctx.Err() == nil && limited.Err() != nil
		switch class := desired.ClassOf(err); {
		case over && errors.Is(err, cause) && class == desired.Transient:
			return err
		case over && (class == desired.Transient || class == desired.Internal):
			return desired.E(c.op, c.ref, desired.Transient, fmt.Errorf("%w (%w)", cause, err))
		}
		return err
	})
}

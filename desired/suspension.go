// SPDX-License-Identifier: Apache-2.0

package desired

import "time"

// SuspensionSpec stops changes to the matching resources: they are still observed, findings are still reported.
type SuspensionSpec struct {
	CommonSpec `json:",inline"`
	// Match selects the resources; left out, all.
	Match Match `json:"match,omitempty"`
	// Reason for the suspension.
	Reason string `json:"reason" check:"text,max=4096"`
	// Until is when the suspension ceases to have effect (RFC 3339).
	Until string `json:"until,omitempty" check:"time"`
}

// Validate implements Spec.
func (s *SuspensionSpec) Validate(ref Ref) []FieldError {
	l := checkForms(s)
	s.Match.validate(&l)
	return l
}

// InForce reports whether the suspension has effect at now.
func (s *SuspensionSpec) InForce(now time.Time) bool { return before(now, s.Until) }

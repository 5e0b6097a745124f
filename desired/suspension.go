// SPDX-License-Identifier: Apache-2.0

package desired

// SuspensionSpec stops changes to the matching resources: they are still observed, findings are still reported.
type SuspensionSpec struct {
	CommonSpec `json:",inline"`
	Match      Match  `json:"match,omitempty"`
	Reason     string `json:"reason"`
	Until      string `json:"until,omitempty"` // RFC 3339; enforced: afterwards the suspension has no effect
}

// Validate implements Spec.
func (s *SuspensionSpec) Validate(ref Ref) []FieldError { return nil }

// SPDX-License-Identifier: Apache-2.0

package desired

// DriftRuleSpec decides what becomes of differences. Rules are judged in name order; the first that matches wins.
type DriftRuleSpec struct {
	CommonSpec `json:",inline"`
	Match      Match    `json:"match,omitempty"`
	Findings   []string `json:"findings,omitempty"` // finding kinds ("BranchMissing"); empty = all
	Fields     []string `json:"fields,omitempty"`   // field paths, exact or with a trailing *; empty = all
	Action     string   `json:"action"`             // report | revert | ignore
	Severity   string   `json:"severity,omitempty"` // Low | Medium | High | Critical: overrides the default
	Reason     string   `json:"reason,omitempty"`
	Until      string   `json:"until,omitempty"` // RFC 3339; afterwards the rule has no effect
}

// Match selects resources. Empty fields match all; set fields must all hold.
type Match struct {
	Kinds  []Kind            `json:"kinds,omitempty"`
	Names  []string          `json:"names,omitempty"` // exact or with a trailing *
	Labels map[string]string `json:"labels,omitempty"`
}

// Validate implements Spec.
func (s *DriftRuleSpec) Validate(ref Ref) []FieldError { return nil }

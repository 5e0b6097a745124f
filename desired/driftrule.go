// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"strconv"
	"strings"
	"time"
)

// DriftRuleSpec decides what becomes of differences. Rules are judged in name order; the first that matches wins.
type DriftRuleSpec struct {
	CommonSpec `json:",inline"`
	// Match selects the resources; left out, all.
	Match Match `json:"match,omitempty"`
	// Findings are the kinds of findings, as in BranchMissing; none listed means all.
	Findings []string `json:"findings,omitempty" check:"word"`
	// Fields are field paths, exact or with a '*' at their end; none listed means all.
	Fields []string `json:"fields,omitempty" check:"line"`
	// Action that is taken.
	Action string `json:"action" check:"report|revert|ignore"`
	// Severity overrides that of the findings.
	Severity string `json:"severity,omitempty" check:"Low|Medium|High|Critical"`
	// Reason for the rule.
	Reason string `json:"reason,omitempty" check:"text,max=4096"`
	// Until is when the rule ceases to have effect (RFC 3339).
	Until string `json:"until,omitempty" check:"time"`
}

// The actions of a DriftRule.
const (
	ActionReport = "report"
	ActionRevert = "revert"
	ActionIgnore = "ignore"
)

// Match selects resources. Empty fields match all; set fields must all hold.
type Match struct {
	// Kinds of the resources.
	Kinds []Kind `json:"kinds,omitempty" check:"line"`
	// Names of the resources, exact or with a '*' at their end.
	Names []string `json:"names,omitempty" check:"name*"`
	// Labels that the resources must have.
	Labels map[string]string `json:"labels,omitempty" check:"line,items=64"`
}

// Matches reports whether a resource with these labels is selected.
func (m Match) Matches(ref Ref, labels map[string]string) bool {
	ok := len(m.Kinds) == 0
	for _, k := range m.Kinds {
		ok = ok || k == ref.Kind
	}
	if !ok {
		return false
	}
	ok = len(m.Names) == 0
	for _, n := range m.Names {
		ok = ok || matchStar(n, ref.Name)
	}
	for k, v := range m.Labels {
		got, there := labels[k]
		ok = ok && there && got == v
	}
	return ok
}

func (m *Match) validate(l *faults) {
	for i, k := range m.Kinds {
		if _, known := kindTable[k]; !known && k != "" {
			l.add("/spec/match/kinds/"+strconv.Itoa(i), "is no known kind"+didYouMean(string(k), kindNames()))
		}
	}
}

// Validate implements Spec.
func (s *DriftRuleSpec) Validate(ref Ref) []FieldError {
	l := checkForms(s)
	s.Match.validate(&l)
	for i, f := range s.Fields {
		if k := strings.IndexByte(f, '*'); k >= 0 && k < len(f)-1 {
			l.add("/spec/fields/"+strconv.Itoa(i), "may have a '*' at its end only")
		}
	}
	return l
}

// InForce reports whether the rule has effect at now.
func (s *DriftRuleSpec) InForce(now time.Time) bool { return before(now, s.Until) }

// Covers reports whether the rule speaks about a kind of finding at a field path ("" = the whole resource).
func (s *DriftRuleSpec) Covers(finding, fieldPath string) bool {
	ok := len(s.Findings) == 0
	for _, f := range s.Findings {
		ok = ok || f == finding
	}
	if !ok || len(s.Fields) == 0 {
		return ok
	}
	for _, f := range s.Fields {
		if matchStar(f, fieldPath) {
			return true
		}
	}
	return false
}

// before reports whether now lies before a document's time; an empty time never comes. A time that cannot be read
// has come: a rule must not last longer because it was written wrongly.
func before(now time.Time, until string) bool {
	if until == "" {
		return true
	}
	t, err := time.Parse(time.RFC3339, until)
	return err == nil && now.Before(t)
}

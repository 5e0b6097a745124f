// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"time"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

// Phase says where one resource stands.
type Phase string

// The phases.
const (
	Pending          Phase = "Pending"          // accepted, not yet looked at for this seq
	Progressing      Phase = "Progressing"      // being made true, or waiting for something that moves
	Synced           Phase = "Synced"           // observed equal to the document
	OutOfSync        Phase = "OutOfSync"        // different, and not being changed: a finding says why
	AwaitingApproval Phase = "AwaitingApproval" // a guard wants an approval
	Suspended        Phase = "Suspended"
	Stalled          Phase = "Stalled" // stuck: a person has to act; the cause and the next action are named
	Failed           Phase = "Failed"  // a one-shot ended badly; terminal
	Deleting         Phase = "Deleting"
	Unknown          Phase = "Unknown" // could not be observed
)

// Terminal reports whether a phase ends a wait for the seq it was reached at.
func (p Phase) Terminal() bool {
	switch p {
	case Synced, Stalled, Failed, AwaitingApproval, Suspended, OutOfSync:
		return true
	}
	return false
}

// Cause says why desired and actual differ.
type Cause string

// The causes.
const (
	CauseDrift         Cause = "drift"           // the outside moved
	CauseNotYetApplied Cause = "not-yet-applied" // the document moved and was not applied yet
	CauseQuarantined   Cause = "quarantined"     // the document is bad; its last good version is in force
)

// Severity orders findings.
type Severity string

// The severities.
const (
	Low      Severity = "Low"
	Medium   Severity = "Medium"
	High     Severity = "High"
	Critical Severity = "Critical"
)

// Finding is one difference between desired and actual. Its ID is derived from ref, kind, subject and field path,
// never from values, so the same difference is the same finding when it returns.
type Finding struct {
	V           int          `json:"v"`
	ID          string       `json:"id"`
	Ref         desired.Ref  `json:"ref"`
	ResourceID  string       `json:"resourceId"`
	Kind        string       `json:"kind"`              // "BranchMissing", "VisibilityMismatch", …
	Subject     string       `json:"subject,omitempty"` // what inside the resource
	Field       string       `json:"field,omitempty"`   // field path: "spec.visibility"
	Desired     string       `json:"desired,omitempty"`
	Actual      string       `json:"actual,omitempty"`
	Severity    Severity     `json:"severity"`
	Cause       Cause        `json:"cause"`
	Message     string       `json:"message"` // what, why, and what to do next
	Source      FindingPlace `json:"source,omitzero"`
	FirstSeen   time.Time    `json:"firstSeen"`
	ClosedAt    time.Time    `json:"closedAt,omitzero"`
	ResolvedBy  string       `json:"resolvedBy,omitempty"` // revert | outside | document | rule
	Occurrences int          `json:"occurrences"`
	Contested   bool         `json:"contested,omitempty"`
	Reverts     int          `json:"reverts,omitempty"`
	// RevertedAt are the last reverts, newest last: three within a day make a finding Contested.
	RevertedAt []time.Time `json:"revertedAt,omitempty"`
	// Reverting is set, and recorded, before the change that undoes the difference is made.
	Reverting bool `json:"reverting,omitempty"`
}

// FindingPlace is the desired side: which commit, file and line wants it so, and whose change that was.
type FindingPlace struct {
	Commit string `json:"commit,omitempty"`
	Path   string `json:"path,omitempty"`
	Line   int    `json:"line,omitempty"`
	Author string `json:"author,omitempty"`
}

// Open reports whether the difference still stands.
func (f *Finding) Open() bool { return f.ClosedAt.IsZero() }

// Applied is the record of what was last applied for a ref. Without it nothing is ever deleted.
type Applied struct {
	V              int                    `json:"v"`
	Ref            desired.Ref            `json:"ref"`
	Digest         string                 `json:"digest"` // of the document that was applied; "" while not all of the first one is
	Spec           json.RawMessage        `json:"spec"`
	Provider       string                 `json:"provider,omitempty"` // as resolved at that time
	Handle         json.RawMessage        `json:"handle,omitempty"`
	DeletionPolicy desired.DeletionPolicy `json:"deletionPolicy"`
	Seq            uint64                 `json:"seq"`
	Commit         string                 `json:"commit"`
	Actual         json.RawMessage        `json:"actual,omitempty"`   // last observed value; a lost Branch returns to it
	Terminal       bool                   `json:"terminal,omitempty"` // a one-shot that ran, a pull request that ended
	Decision       string                 `json:"decision,omitempty"` // what allowed the last change: "allow (no policy)"
	At             time.Time              `json:"at"`                 // when the first document of the ref was applied
	EndedAt        time.Time              `json:"endedAt,omitzero"`   // when it was first seen to be terminal
}

// Run journals one execution that must happen exactly once.
type Run struct {
	V        int             `json:"v"`
	ID       string          `json:"id"`
	Ref      desired.Ref     `json:"ref"`
	Op       adapters.Op     `json:"op"`
	Tag      string          `json:"tag"`
	Stage    RunStage        `json:"stage"`
	Handle   json.RawMessage `json:"handle,omitempty"`
	Attempts int             `json:"attempts"`
	Message  string          `json:"message,omitempty"`
	Seq      uint64          `json:"seq"`
	Commit   string          `json:"commit"`
	Started  time.Time       `json:"started"`
	Ended    time.Time       `json:"ended,omitzero"`
}

// RunStage moves forward only: intent → posted → done | failed.
type RunStage string

// The stages of a run.
const (
	RunIntent RunStage = "intent" // recorded before the first call
	RunPosted RunStage = "posted" // the call may have reached the outside
	RunDone   RunStage = "done"
	RunFailed RunStage = "failed"
)

// Role says why one resource has to wait for another.
type Role string

// The roles.
const (
	RoleExplicit  Role = ""          // metadata.dependsOn: wanted Synced at its document's seq
	RoleParent    Role = "parent"    // the Repository of a Branch, Commit or PullRequest: wanted applied and there
	RoleBranch    Role = "branch"    // the document of a branch that is worked on: wanted applied
	RoleOrder     Role = "order"     // an earlier one-shot on the same branch: wanted at its end
	RoleSeen      Role = "seen"      // something that says whether this one is still of use: wanted looked at
	RoleChild     Role = "child"     // for a deletion: something inside that has to go first
	RoleSuccessor Role = "successor" // for a deletion: the ref that takes over by metadata.formerName
)

// Dependency is something that must be there first.
type Dependency struct {
	Ref     desired.Ref
	Role    Role
	Exists  bool   // a document is in the snapshot
	Phase   Phase  // of its sync state; "" when it has none
	Reason  string // of its sync state
	Current bool   // applied at its desired seq
	Applied bool   // an applied record is there
}

// Input is everything Diff looks at.
type Input struct {
	Now     time.Time
	Ref     desired.Ref
	Want    *desired.Entry // nil: the document is gone
	Have    adapters.Observation
	Applied *Applied // nil: never applied
	Run     *Run     // nil: no run recorded
	// Findings are the open findings of the ref; recently closed ones (24 h) are included so that a return reopens.
	Findings   []Finding
	DependsOn  []Dependency
	Rules      []*desired.DriftRuleSpec
	Suspension *desired.Entry // in force, nil otherwise
	Frozen     string         // why the control repository is frozen: nothing is applied
	Stage      string
	Provider   string              // as resolved now
	Quarantine *desired.Quarantine // the file of the ref is bad; Want is its last good version
	// RetiredBy is the ended PullRequest that took the branch with it; zero otherwise.
	RetiredBy       desired.Ref
	DeletionAllowed bool   // the owner of the root unit judged this deletion and listed it
	DeletionReason  string // why not; "" with DeletionAllowed false: not judged yet
	Parent          *desired.Entry
	// Former is the applied record of metadata.formerName, whose document is gone; RenamedTo is, on the other side,
	// the ref whose document took this one over.
	Former    *Applied
	RenamedTo desired.Ref
	// Attempted: a change may have reached the outside although nothing was recorded as applied.
	Attempted bool
	// Birth is when the state store's data began. A one-shot that is older and has no journal entry never runs.
	Birth time.Time
	// Active is since when the document's seq is being worked on, zero when it is not; Limit is how long that may
	// take before it is called Stalled (0 = no limit).
	Active time.Time
	Limit  time.Duration
	// Was is the recorded standing for this very document; what a failed attempt left there stays while it is tried
	// again, so that trying writes nothing.
	Was Standing
	// Reverted: a change that puts differences back was just made.
	Reverted bool
}

// Standing is a phase with its reason and message.
type Standing struct {
	Phase   Phase
	Reason  string
	Message string
}

// Wait says what a plan waits for.
type Wait struct {
	On     desired.Ref
	Reason string
}

// Plan is the answer of Diff.
type Plan struct {
	Ref      desired.Ref
	Desired  string          // digest of the wanted document, "" when it is gone
	Phase    Phase           // before apply; the engine records it before it applies Changes
	Reason   string          // one CamelCase word
	Message  string          // a sentence: what, why, what next
	Changes  []Step          // at most one is applied a turn, in order
	Findings []Finding       // every difference that stands after rules; FirstSeen etc. carried over
	Closed   []Finding       // findings that ended with this look
	Waits    []Wait          // non-empty: nothing is applied
	Next     time.Duration   // look again then; 0 = the resync interval
	Backoff  bool            // look again after the caller's own backoff, not before Next
	Settled  bool            // all that the document asks for is applied; what still differs is drift
	Ended    bool            // nothing will change any more: a one-shot that ran, a pull request that ended
	FailRun  bool            // the run of the one-shot ends here, for good
	Forget   bool            // drop state and applied record: nothing is managed any more
	Actual   adapters.Actual // what to show as outputs; nil: unknown or absent

	looked looked // what block needs to judge again
}

// Step is one change of a plan, without what only the engine knows (subject, credential, tag).
type Step struct {
	Op     adapters.Op
	Fields []string
	Why    Cause
	Reason string // a few words for the log line and the transcript
}

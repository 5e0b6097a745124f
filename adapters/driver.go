// SPDX-License-Identifier: Apache-2.0

package adapters

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// Driver observes and applies one family of kinds at one type of provider. It is safe for concurrent use; the
// reconciler never calls it twice at once for the same ref.
type Driver interface {
	// Kinds lists what the driver handles.
	Kinds() []desired.Kind
	// Observe answers for every subject, in order: known, absent or unknown. It never changes anything. A failure
	// to read one subject is that observation's Unknown, with Err; the error return is for failures that concern
	// all of them (they are then all unknown). A partial list is unknown, never absent.
	Observe(ctx context.Context, subjects []Subject) ([]Observation, error)
	// Apply makes at most one transition. It is safe to repeat with the same Change after a crash or a lost reply:
	// it finds what was already done (by Change.Tag or Handle) and adopts it. A ctx that was cancelled before the
	// call means nothing was modified. Outcome.Done false means: call again with the returned Handle.
	Apply(ctx context.Context, c Change) (Outcome, error)
}

// Lister is implemented by drivers that can say what exists, managed or not.
type Lister interface {
	// List returns the handles and names of everything of a kind below a parent (nil = the provider). An error or
	// a partial answer is an error: never a short list.
	List(ctx context.Context, kind desired.Kind, provider Provider, parent *Subject) ([]Listed, error)
}

// Listed is one existing outside object.
type Listed struct {
	Name   string
	Handle json.RawMessage
}

// Watcher is implemented by drivers that notice outside changes themselves. Watch calls nudge with the parent
// (or own) ref's outside name until ctx ends; it is a hint, never data.
type Watcher interface {
	Watch(ctx context.Context, nudge func(desired.Ref)) error
}

// Hook verifies and reads a webhook. The answer only says what to look at.
type Hook interface {
	Verify(r *http.Request, body []byte, secret Secret) (repositories []string, err error)
}

// Provider is a resolved Provider document with its credential opened.
type Provider struct {
	Ref        desired.Ref // zero for the built-in "local"
	Type       string
	Spec       desired.ProviderSpec
	Credential Secret
}

// Subject is what a driver is asked about.
type Subject struct {
	Ref      desired.Ref
	Spec     desired.Spec // the wanted spec, or the last applied one when the document is gone
	Provider Provider
	Handle   json.RawMessage // opaque, from the last Outcome; nil before the first
	// Parent is the Repository of a Branch, Commit or PullRequest, nil otherwise.
	Parent *Subject
	// Content opens a blob by digest ("sha256:…"), or with an empty digest the file at path of the artifact that
	// the spec names. Nil for kinds without content.
	Content func(ctx context.Context, path, digest string) ([]byte, error)
}

// Presence is what an observation found.
type Presence uint8

// Unknown is never absent.
const (
	Unknown Presence = iota
	Absent
	Known
)

func (p Presence) String() string {
	switch p {
	case Known:
		return "known"
	case Absent:
		return "absent"
	}
	return "unknown"
}

// Observation is what a driver saw of one subject.
type Observation struct {
	Presence Presence
	Actual   Actual          // set when Known: one of the *Actual types of this package
	Handle   json.RawMessage // when known: how to find it again; nil = keep the old one
	Reason   string          // why unknown, or a remark
	Err      error           // the *desired.Error behind Unknown
	At       time.Time
}

// Actual is the observed value of one kind: a pointer to RepositoryActual, BranchActual, CommitActual or
// PullRequestActual. It is plain data that survives a JSON round trip; it is what the API shows as outputs.
type Actual interface{ ActualKind() desired.Kind }

// RepositoryActual is an observed Repository.
type RepositoryActual struct {
	RemoteURL     string                     `json:"remoteUrl"`
	DefaultBranch string                     `json:"defaultBranch"`
	Visibility    string                     `json:"visibility"`
	Description   string                     `json:"description,omitempty"`
	Archived      bool                       `json:"archived,omitempty"`
	Protection    []desired.BranchProtection `json:"protection,omitempty"` // sorted by pattern
	Empty         bool                       `json:"empty,omitempty"`      // no commit yet
}

// BranchActual is an observed Branch.
type BranchActual struct {
	Name       string `json:"name"`
	Head       string `json:"head"`                 // full commit id
	FromCommit string `json:"fromCommit,omitempty"` // where it was created, when recorded
}

// CommitActual is an authored commit that exists in history.
type CommitActual struct {
	SHA    string `json:"sha"`
	Branch string `json:"branch"`
}

// PullRequestActual is an observed PullRequest.
type PullRequestActual struct {
	Number       int64    `json:"number"`
	State        string   `json:"state"` // open | merged | closed
	URL          string   `json:"url,omitempty"`
	Title        string   `json:"title"`
	Description  string   `json:"description,omitempty"`
	SourceBranch string   `json:"sourceBranch"`
	TargetBranch string   `json:"targetBranch"`
	HeadCommit   string   `json:"headCommit,omitempty"`
	MergeCommit  string   `json:"mergeCommit,omitempty"`
	Mergeable    string   `json:"mergeable"` // yes | no | unknown
	Conflicts    []string `json:"conflicts,omitempty"`
	Checks       []Check  `json:"checks,omitempty"`
	Reviewers    []string `json:"reviewers,omitempty"`
	ClosedBy     string   `json:"closedBy,omitempty"`
}

// Check is one status on a pull request's head commit.
type Check struct {
	Name    string `json:"name"`
	Status  string `json:"status"` // Pending | Running | Succeeded | Failed
	URL     string `json:"url,omitempty"`
	Summary string `json:"summary,omitempty"`
}

// ActualKind implements Actual.
func (*RepositoryActual) ActualKind() desired.Kind { return desired.KindRepository }

// ActualKind implements Actual.
func (*BranchActual) ActualKind() desired.Kind { return desired.KindBranch }

// ActualKind implements Actual.
func (*CommitActual) ActualKind() desired.Kind { return desired.KindCommit }

// ActualKind implements Actual.
func (*PullRequestActual) ActualKind() desired.Kind { return desired.KindPullRequest }

// Checker is implemented by git host drivers: it posts a check on a pull request (operation 4c).
type Checker interface {
	PostCheck(ctx context.Context, pr Subject, c Check) error
}

// Op is what a Change does.
type Op string

// The operations.
const (
	Create  Op = "create"  // make it; adopt what exists and is ours
	Update  Op = "update"  // bring the listed fields to the wanted values
	Restore Op = "restore" // bring back what vanished, at its last observed value; loses nothing
	Run     Op = "run"     // execute a one-shot exactly once
	Merge   Op = "merge"   // merge a pull request
	Close   Op = "close"   // close a pull request
	Remove  Op = "remove"  // delete the outside object
	Rename  Op = "rename"  // carry over from FormerRef
)

// Change is one thing to do.
type Change struct {
	Subject
	Op     Op
	Fields []string    // for Update: field paths, e.g. "spec.visibility"
	Former desired.Ref // for Rename
	Actual Actual      // what was observed, nil when absent
	Tag    string      // stable per run: put where the outside keeps it, search for it before repeating
	Author desired.Person
	Epoch  int64     // the lease revision that fences this call
	Log    io.Writer // run log; never nil
}

// Outcome is what a transition led to.
type Outcome struct {
	Handle  json.RawMessage // replaces the recorded handle when not nil
	Actual  Actual          // what is there now, as an Observe would say; nil = observe again
	Done    bool
	After   time.Duration // when not done: look again then
	Message string
}

// Secret is an opened credential. It prints as stars everywhere.
type Secret struct{ value string }

// NewSecret wraps a value.
func NewSecret(v string) Secret { return Secret{v} }

// Reveal returns the value; call it only where it goes onto the wire.
func (s Secret) Reveal() string { return s.value }

func (s Secret) String() string               { return "***" }
func (s Secret) GoString() string             { return "***" }
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

func newExplainCommand(c *connection) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "explain FINDING", Short: "Say what differs, who wants it, since when, and what to do next", Args: exactly("FINDING"),
		Long: `Explain a finding, open or closed: what differs, which commit and line want it otherwise and whose change that was,
since when it stands, what happened to it so far, where the resource is now, and what to do next. The ids of findings
are those of "plumbline get findings -o name".`,
		Example: `  plumbline explain drift-2c7h4qz5m3k6w8xa
  plumbline get findings -o name | xargs -n 1 plumbline explain`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			r, err := c.rest()
			if err != nil {
				return err
			}
			var f api.Finding
			if err := r.get(cmd.Context(), "/findings/"+url.PathEscape(args[0]), nil, &f); err != nil {
				return err
			}
			var res *api.Resource
			if f.ResourceID != "" {
				var found api.Resource
				err := r.get(cmd.Context(), "/resources/"+url.PathEscape(f.ResourceID), nil, &found)
				switch {
				case err == nil:
					res = &found
				case desired.ClassOf(err) != desired.NotFound: // a document that is gone has findings, too
					return err
				}
			}
			switch output {
			case "name":
				fmt.Fprintln(c.sh.stdout, f.FindingID)
				return nil
			case "table":
				return writeExplanation(c.sh.stdout, f, res, time.Now())
			}
			return writeObject(c.sh.stdout, output, map[string]any{"finding": f, "resource": res, "next": nextSteps(f, res)})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", outputs)
	return cmd
}

// writeExplanation prints one finding from what differs to what to do.
func writeExplanation(w io.Writer, f api.Finding, r *api.Resource, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s:\t%s\n", name, oneLine(value))
		}
	}
	what := f.Kind
	if f.Field != "" {
		what += " " + f.Field
	}
	if f.Subject != "" {
		what += " of " + f.Subject
	}
	line("Finding", f.FindingID+" ("+f.Severity+", "+f.Status+")")
	line("What", what)
	line("Resource", f.Ref)
	if f.Desired != "" || f.Actual != "" {
		line("Desired", orDash(f.Desired))
		line("Actual", orDash(f.Actual))
	}
	line("Cause", causeText(f.Cause))
	place := f.Source.Path
	if place != "" && f.Source.Line > 0 {
		place += fmt.Sprintf(":%d", f.Source.Line)
	}
	line("Wanted by", place)
	line("Commit", f.Source.Commit)
	line("Author", f.Source.Author)
	if r != nil && r.Source.Commit == f.Source.Commit {
		line("Caller", r.Source.Principal)
	}
	line("Since", f.DetectedAt.UTC().Format(time.RFC3339)+" ("+age(now, f.DetectedAt)+" ago)")
	line("So far", soFar(f, now))
	if r != nil {
		line("Phase", withReason(r.Sync.Phase, r.Sync.Reason))
	} else {
		line("Phase", "the document is not there")
	}
	line("Message", f.Message)
	if err := t.Flush(); err != nil {
		return err
	}
	for i, step := range nextSteps(f, r) {
		name := "Next:"
		if i > 0 {
			name = "  or:"
		}
		fmt.Fprintf(w, "%s %s\n", name, oneLine(step))
	}
	return nil
}

func causeText(cause string) string {
	switch cause {
	case "drift":
		return "drift: the outside was changed behind the document's back"
	case "not-yet-applied":
		return "not-yet-applied: the document was changed and that is not true outside yet"
	case "quarantined":
		return "quarantined: the file is bad, and its last good version is in force"
	}
	return cause
}

// soFar is what happened to a finding.
func soFar(f api.Finding, now time.Time) string {
	text := "seen " + times(f.Occurrences)
	if f.Reverts > 0 {
		text += ", put back " + times(f.Reverts)
	}
	if f.Contested {
		text += "; contested: something outside keeps changing it, so it is no longer put back"
	}
	if !f.ClosedAt.IsZero() {
		text += "; closed " + age(now, f.ClosedAt) + " ago by " + firstOf(f.ResolvedBy, "unknown")
	}
	return text
}

func times(n int) string {
	if n <= 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// nextSteps is what a person can do about a finding now.
func nextSteps(f api.Finding, r *api.Resource) []string {
	switch {
	case f.Status == "Closed":
		return []string{"nothing: it is closed; it opens again under the same id when the difference returns"}
	case f.Cause == "quarantined":
		return []string{"mend " + firstOf(f.Source.Path, "the file") + " and push; plumbline validate DIR says what is wrong before"}
	case r == nil:
		return []string{"add the document again, or let a DriftRule with action ignore close the finding"}
	case r.Sync.Phase == "Suspended":
		return []string{"plumbline resume, with the suspension that the message names; until then nothing is changed"}
	case r.Sync.Phase == "Progressing" || r.Sync.Phase == "Pending":
		return []string{"wait: it is being worked on (plumbline wait " + f.Ref + ")"}
	}
	revert := "let the daemon put it back: spec.sync.drift: revert in the document, or a DriftRule with action revert"
	if f.Contested {
		revert = "find what keeps changing it outside and stop that"
	}
	return []string{
		revert,
		"take the outside over: change the document to what is there (" + firstOf(f.Source.Path, f.Ref) + ")",
		"accept it: a DriftRule with action ignore for " + f.Kind,
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

// scopeOptions say what suspend and resume are about.
type scopeOptions struct {
	kinds   []string
	names   []string
	project string
	output  string
	dryRun  bool
}

func (o *scopeOptions) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&o.kinds, "kind", nil, "everything of these kinds")
	flags.StringSliceVar(&o.names, "name", nil, "everything of these names; a * may end one")
	flags.StringVar(&o.project, "project", "", "everything of this project; or the project of a ref that names none")
	flags.StringVarP(&o.output, "output", "o", "table", outputs)
	flags.BoolVar(&o.dryRun, "dry-run", false, "say what would be committed and done, and commit nothing")
}

// scope is what a suspension of these verbs matches. The same scope has the same document, so that suspending twice
// changes reason and end, and resuming finds what suspending wrote.
type scope struct {
	project string
	match   desired.Match
	ref     desired.Ref // when it is about one resource
}

// read makes a scope of the arguments and flags.
func (o *scopeOptions) read(c *connection, args []string) (scope, error) {
	s := scope{project: o.project}
	if len(args) == 1 {
		if len(o.kinds)+len(o.names) > 0 {
			return s, usage("name one resource, or give --kind and --name, not both")
		}
		_, ref, err := resolve(args[0], c.tenant, o.project)
		switch {
		case err != nil:
			return s, err
		case ref.IsZero():
			return s, usage("%q is an id: write Kind/name with --project, or project/Kind/name", args[0])
		case !managedKind(ref.Kind):
			return s, usage("a %s takes effect by being loaded: there is nothing to suspend", ref.Kind)
		}
		s.ref, s.project = ref, ref.Project
		s.match = desired.Match{Kinds: []desired.Kind{ref.Kind}, Names: []string{ref.Name}}
		return s, nil
	}
	if o.project == "" && len(o.kinds)+len(o.names) == 0 {
		return s, usage("say what: a resource, or --project, --kind, --name")
	}
	for _, word := range o.kinds {
		info, err := findKind(word)
		if err != nil {
			return s, err
		}
		s.match.Kinds = append(s.match.Kinds, info.Kind)
	}
	slices.Sort(s.match.Kinds)
	s.match.Names = slices.Sorted(slices.Values(o.names))
	return s, nil
}

func managedKind(k desired.Kind) bool {
	info, _ := k.Info()
	return info.Managed
}

// document is the ref of the Suspension for a scope.
func (s scope) document(tenant string) desired.Ref {
	name := ""
	if !s.ref.IsZero() {
		name = "manual." + strings.ToLower(string(s.ref.Kind)) + "." + s.ref.Name
	}
	if name == "" || len(name) > 100 {
		raw, _ := json.Marshal(s.match) // plain strings always encode
		sum := sha256.Sum256(raw)
		name = "manual." + hex.EncodeToString(sum[:6])
	}
	return desired.Ref{Tenant: tenant, Project: s.project, Kind: desired.KindSuspension, Name: name}
}

// String is how people name a scope.
func (s scope) String() string {
	if !s.ref.IsZero() {
		return string(s.ref.Kind) + "/" + s.ref.Name
	}
	kinds := make([]string, len(s.match.Kinds))
	for i, k := range s.match.Kinds {
		kinds[i] = string(k)
	}
	return firstOf(strings.Join(kinds, ","), "*") + "/" + firstOf(strings.Join(s.match.Names, ","), "*")
}

func newSuspendCommand(c *connection) *cobra.Command {
	var o scopeOptions
	var reason, until string
	cmd := &cobra.Command{
		Use: "suspend [KIND/NAME]", Short: "Stop changes to resources, with a reason", Args: between(0, 1),
		Long: `Stop changes to a resource, or to everything of a project, of kinds or of names: it is still looked at, findings are
still reported, and nothing is changed. This commits a Suspension document with the reason, and the end where one is
given; done again, it changes them. "plumbline resume" with the same words removes it.`,
		Example: `  plumbline suspend shop/Branch/cart.next --reason "release freeze" --until 48h
  plumbline suspend --project shop --kind branches --name 'cart.*' --reason "moving house"
  plumbline suspend --project shop --reason audit --until 2026-12-31T18:00:00Z --dry-run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSuspend(cmd.Context(), c, o, args, reason, until)
		},
	}
	o.bind(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why (required)")
	cmd.Flags().StringVar(&until, "until", "", "when it ends by itself: a time (RFC 3339), or how long from now, such as 48h")
	return cmd
}

func runSuspend(ctx context.Context, c *connection, o scopeOptions, args []string, reason, until string) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	if strings.TrimSpace(reason) == "" {
		return usage("suspend needs --reason: whoever finds it suspended wants to know why")
	}
	end, err := readUntil(until, time.Now())
	if err != nil {
		return err
	}
	s, err := o.read(c, args)
	if err != nil {
		return err
	}
	r, err := c.rest()
	if err != nil {
		return err
	}
	if !s.ref.IsZero() { // a slip of the pen would suspend nothing
		if _, err := r.do(ctx, request{method: http.MethodGet, path: "/resources/" + s.ref.ID()}); err != nil {
			return err
		}
	}
	ref := s.document(c.tenant)
	metadata := map[string]any{"name": ref.Name}
	if ref.Project != "" {
		metadata["project"] = ref.Project
	}
	spec := map[string]any{"match": s.match, "reason": reason}
	if end != "" {
		spec["until"] = end
	}
	body, err := json.Marshal(map[string]any{"documents": []any{
		map[string]any{"apiVersion": desired.APIVersion, "kind": desired.KindSuspension, "metadata": metadata, "spec": spec},
	}})
	if err != nil {
		return err
	}
	q := request{method: http.MethodPost, path: "/resources/apply", body: body, query: url.Values{}, header: map[string]string{"Content-Type": "application/json", "Prefer": "wait=0"}}
	if o.dryRun {
		return showDryRun(ctx, c, r, q, o.output)
	}
	a, err := r.do(ctx, q)
	if err != nil {
		return err
	}
	var answer api.ApplyResponse
	if err := decodeAnswer(q.path, a.body, &answer); err != nil {
		return err
	}
	if o.output == "table" {
		t := newTable(c.sh.stdout, "PROJECT", "SUSPENSION", "STOPS", "UNTIL", "REASON", "OUTCOME", "COMMIT")
		for _, d := range answer.Results {
			t.row(d.Project, d.Name, s.String(), firstOf(end, "resumed"), reason, d.Operation, short(answer.Commit))
		}
		return t.flush()
	}
	return writeApplied(c.sh.stdout, o.output, answer)
}

// readUntil reads a time or a duration from now as RFC 3339; "" stays "".
func readUntil(word string, now time.Time) (string, error) {
	if word == "" {
		return "", nil
	}
	end, err := time.Parse(time.RFC3339, word)
	if d, notDuration := time.ParseDuration(word); notDuration == nil {
		end, err = now.Add(d), nil
	}
	switch {
	case err != nil:
		return "", usage("--until: %q is neither a time such as 2026-12-31T18:00:00Z nor a duration such as 48h", word)
	case !end.After(now):
		return "", usage("--until: it is over already")
	}
	return end.UTC().Format(time.RFC3339), nil
}

func showDryRun(ctx context.Context, c *connection, r *rest, q request, output string) error {
	if q.query == nil {
		q.query = url.Values{}
	}
	q.query.Set("dryRun", "plan")
	a, err := r.do(ctx, q)
	if err != nil {
		return err
	}
	var out api.WhatIf
	if err := decodeAnswer(q.path, a.body, &out); err != nil {
		return err
	}
	warnAll(c.sh, out.Warnings)
	return writeWhatIfs(c.sh, output, []api.WhatIf{out})
}

func newResumeCommand(c *connection) *cobra.Command {
	var o scopeOptions
	var suspension string
	cmd := &cobra.Command{
		Use: "resume [KIND/NAME]", Short: "Let changes be made again", Args: between(0, 1),
		Long: `Remove what "plumbline suspend" with the same words wrote, or, with --suspension, a Suspension by its name. When
another suspension holds the resource, that is said and the command fails: nothing is resumed behind the back of who
wrote it.`,
		Example: `  plumbline resume shop/Branch/cart.next
  plumbline resume --project shop --kind branches --name 'cart.*' --dry-run
  plumbline resume --suspension release-freeze --project shop`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runResume(cmd.Context(), c, o, args, suspension)
		},
	}
	o.bind(cmd)
	cmd.Flags().StringVar(&suspension, "suspension", "", "name of the Suspension to remove, in --project or the tenant's own")
	return cmd
}

func runResume(ctx context.Context, c *connection, o scopeOptions, args []string, suspension string) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	if c.tenant == "" {
		return usage("no tenant: give -n TENANT or PLUMBLINE_TENANT")
	}
	var s scope
	doc := desired.Ref{Tenant: c.tenant, Project: o.project, Kind: desired.KindSuspension, Name: suspension}
	if suspension == "" {
		var err error
		if s, err = o.read(c, args); err != nil {
			return err
		}
		doc = s.document(c.tenant)
	} else if len(args)+len(o.kinds)+len(o.names) > 0 {
		return usage("--suspension names one: take the other words away")
	}
	r, err := c.rest()
	if err != nil {
		return err
	}
	q := request{method: http.MethodDelete, path: "/resources/" + doc.ID(), header: map[string]string{"Prefer": "wait=0"}}
	if o.dryRun {
		err = showDryRun(ctx, c, r, q, o.output)
	} else {
		err = removeSuspension(ctx, c, r, q, o.output)
	}
	missing := desired.ClassOf(err) == desired.NotFound
	if err != nil && !missing || suspension != "" {
		return err
	}
	holders, held := holding(ctx, r, s, doc)
	switch {
	case held != nil:
		return held
	case len(holders) > 0:
		return desired.Errorf("resume "+s.String(), desired.Ref{}, desired.Conflict, "held by %s", strings.Join(holders, "; and by "))
	case missing:
		return desired.Errorf("resume "+s.String(), desired.Ref{}, desired.NotFound, "no suspension of these words is there; plumbline get suspensions lists them")
	}
	return nil
}

func removeSuspension(ctx context.Context, c *connection, r *rest, q request, output string) error {
	a, err := r.do(ctx, q)
	if err != nil {
		return err
	}
	var out api.DeleteResponse
	if err := decodeAnswer(q.path, a.body, &out); err != nil {
		return err
	}
	switch output {
	case "name":
		_, err = fmt.Fprintln(c.sh.stdout, out.Ref)
		return err
	case "table":
		t := newTable(c.sh.stdout, "SUSPENSION", "OUTCOME", "COMMIT")
		t.row(out.Ref, "removed", short(out.Commit))
		return t.flush()
	}
	return writeObject(c.sh.stdout, output, out)
}

// holding names the other suspensions in force that hold the one resource of a scope, with how to end each.
func holding(ctx context.Context, r *rest, s scope, except desired.Ref) ([]string, error) {
	if s.ref.IsZero() {
		return nil, nil
	}
	var target api.Resource
	if err := r.get(ctx, "/resources/"+s.ref.ID(), nil, &target); err != nil {
		return nil, err
	}
	items, err := listAll[api.Resource](ctx, r, "/suspensions", url.Values{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, i := range items {
		var spec desired.SuspensionSpec
		raw, err := json.Marshal(i.Spec)
		if err == nil {
			err = json.Unmarshal(raw, &spec)
		}
		if err != nil {
			return nil, err
		}
		if i.ID == except.ID() || i.Project != "" && i.Project != s.project || !spec.InForce(time.Now()) || !spec.Match.Matches(s.ref, target.Labels) {
			continue
		}
		text := "Suspension " + i.Ref + " (" + oneLine(spec.Reason)
		if spec.Until != "" {
			text += ", until " + spec.Until
		}
		how := "plumbline resume --suspension " + i.Name
		if i.Project != "" {
			how += " --project " + i.Project
		}
		out = append(out, text+"): "+how)
	}
	return out, nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

// getOptions are the flags of get.
type getOptions struct {
	output  string
	project string
	phases  []string
	watch   bool
	closed  bool
}

func newGetCommand(c *connection) *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use: "get KIND [NAME|ID]", Short: "Show resources or findings, and where they stand", Args: between(1, 2),
		Long: `Show the resources of a kind, or one of them, with the commit of the control repository that wants it so, and the
phase. KIND is a kind in any spelling (repositories, repo, pull-requests…), "all", or "findings". With -w, go on with
every change from there.`,
		Example: `  plumbline get repositories
  plumbline get branch shop/Branch/cart.next -o yaml
  plumbline get findings --closed
  plumbline get all -o jsonpath='{.items[*].ref}'`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return append(kindNames(), "all", "findings"), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runGet(cmd.Context(), c, o, args) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.output, "output", "o", "table", outputs)
	flags.StringVar(&o.project, "project", "", "only this project")
	flags.StringSliceVar(&o.phases, "phase", nil, "only these phases")
	flags.BoolVarP(&o.watch, "watch", "w", false, "go on with every change")
	flags.BoolVar(&o.closed, "closed", false, "of findings: closed ones too")
	return cmd
}

func runGet(ctx context.Context, c *connection, o getOptions, args []string) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	word := strings.ToLower(args[0])
	if word == "findings" || word == "finding" {
		if len(args) > 1 || o.watch {
			return usage("get findings takes neither a name nor -w; the API streams findings at /findings/watch")
		}
		return getFindings(ctx, c, o)
	}
	var kind desired.Kind
	if word != "all" {
		info, err := findKind(args[0])
		if err != nil {
			return err
		}
		kind = info.Kind
	}
	if o.watch {
		f := watchFilter{project: o.project, output: o.output}
		if kind != "" {
			f.kinds = []string{string(kind)}
		}
		if len(args) > 1 {
			id, err := c.identify(args[1], kind, o.project)
			if err != nil {
				return err
			}
			f.ids = []string{id}
		}
		return runWatch(ctx, c, f)
	}
	r, err := c.rest()
	if err != nil {
		return err
	}
	if len(args) > 1 {
		return getOne(ctx, c, r, o, kind, args[1])
	}
	query := url.Values{}
	setIf(query, "kind", string(kind))
	setIf(query, "project", o.project)
	setIf(query, "phase", strings.Join(o.phases, ","))
	items, err := listAll[api.Resource](ctx, r, "/resources", query)
	if err != nil {
		return err
	}
	return writeResources(c.sh, o.output, items, map[string]any{"items": items})
}

func getOne(ctx context.Context, c *connection, r *rest, o getOptions, kind desired.Kind, word string) error {
	id, err := c.identify(word, kind, o.project)
	if err != nil {
		return err
	}
	var item api.Resource
	if err := r.get(ctx, "/resources/"+url.PathEscape(id), nil, &item); err != nil {
		return err
	}
	return writeResources(c.sh, o.output, []api.Resource{item}, item)
}

// identify is the id of what was typed: an id, a ref, or a bare name of the kind that was asked for.
func (c *connection) identify(word string, kind desired.Kind, project string) (string, error) {
	id, _, err := resolve(word, c.tenant, project)
	if err == nil || kind == "" || strings.Contains(word, "/") {
		return id, err
	}
	info, _ := kind.Info()
	if project == "" && info.Root == "" {
		return "", usage("%q alone does not say which project: write project/%s/%s, or give --project", word, kind, word)
	}
	if c.tenant == "" && !info.Platform {
		return "", usage("no tenant: give -n TENANT or PLUMBLINE_TENANT")
	}
	return desired.Ref{Tenant: c.tenant, Project: project, Kind: kind, Name: word}.ID(), nil
}

// writeResources prints resources; whole is what the forms other than table and name print.
func writeResources(sh *shell, output string, items []api.Resource, whole any) error {
	switch output {
	case "name":
		for _, i := range items {
			fmt.Fprintln(sh.stdout, i.Ref)
		}
		return nil
	case "table":
		return writeResourceTable(sh.stdout, items, time.Now())
	}
	return writeObject(sh.stdout, output, whole)
}

func writeResourceTable(w io.Writer, items []api.Resource, now time.Time) error {
	t := newTable(w, "PROJECT", "KIND", "NAME", "PHASE", "COMMIT", "AGE", "MESSAGE")
	for _, i := range items {
		t.row(i.Project, i.Kind, i.Name, i.Sync.Phase, short(firstOf(i.Sync.DesiredCommit, i.Source.Commit)), age(now, i.Source.At), message(i.Sync.Phase, i.Sync.Message))
	}
	return t.flush()
}

// message leaves out what a healthy resource has to say.
func message(phase, text string) string {
	if phase == "Synced" {
		return ""
	}
	return text
}

func getFindings(ctx context.Context, c *connection, o getOptions) error {
	r, err := c.rest()
	if err != nil {
		return err
	}
	query := url.Values{}
	setIf(query, "project", o.project)
	if o.closed {
		query.Set("open", "all")
	}
	items, err := listAll[api.Finding](ctx, r, "/findings", query)
	if err != nil {
		return err
	}
	switch o.output {
	case "name":
		for _, f := range items {
			fmt.Fprintln(c.sh.stdout, f.FindingID)
		}
		return nil
	case "table":
		return writeFindingTable(c.sh.stdout, items, time.Now())
	}
	return writeObject(c.sh.stdout, o.output, map[string]any{"items": items})
}

func writeFindingTable(w io.Writer, items []api.Finding, now time.Time) error {
	t := newTable(w, "FINDING", "SEVERITY", "STATUS", "CAUSE", "RESOURCE", "AGE", "MESSAGE")
	for _, f := range items {
		t.row(f.Kind, f.Severity, f.Status, f.Cause, f.Ref, age(now, f.DetectedAt), f.Message)
	}
	return t.flush()
}

func setIf(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

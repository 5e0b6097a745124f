// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
)

// node is one resource with what is inside it.
type node struct {
	ID       string  `json:"id,omitempty"`
	Ref      string  `json:"ref,omitempty"`
	Kind     string  `json:"kind"`
	Name     string  `json:"name"`
	Phase    string  `json:"phase,omitempty"`
	Message  string  `json:"message,omitempty"`
	Findings int     `json:"findings,omitempty"`
	Commit   string  `json:"commit,omitempty"`
	Inside   []*node `json:"inside,omitempty"`
}

func newTreeCommand(c *connection) *cobra.Command {
	var output, project string
	cmd := &cobra.Command{
		Use: "tree", Short: "Show the resources of a project as a tree, with their phases", Args: exactly(),
		Long: `Show the resources of a project, or of all projects, as a tree: what is in a repository below it, everything with its
phase, the commit that wants it so and, where it is not synced, why.`,
		Example: `  plumbline tree --project shop
  plumbline tree -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			r, err := c.rest()
			if err != nil {
				return err
			}
			query := url.Values{}
			setIf(query, "project", project)
			items, err := listAll[api.Resource](cmd.Context(), r, "/resources", query)
			if err != nil {
				return err
			}
			roots := growTree(items)
			switch output {
			case "name":
				return writeTreeNames(c.sh.stdout, roots)
			case "table":
				return writeTree(c.sh.stdout, roots)
			}
			return writeObject(c.sh.stdout, output, map[string]any{"items": roots})
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "table", outputs)
	flags.StringVar(&project, "project", "", "only this project")
	return cmd
}

// growTree puts what is inside a repository below it, and all of that below its project. What names a repository that
// is not there stands for itself.
func growTree(items []api.Resource) []*node {
	projects, repos := map[string]*node{}, map[string]*node{}
	var roots []*node
	project := func(name string) *node {
		p := projects[name]
		if p == nil {
			p = &node{Kind: "Project", Name: orDash(name)}
			projects[name] = p
			roots = append(roots, p)
		}
		return p
	}
	type child struct {
		at   *node
		repo string
		in   string
	}
	var children []child
	for _, i := range items {
		n := &node{
			ID: i.ID, Ref: i.Ref, Kind: i.Kind, Name: i.Name, Phase: i.Sync.Phase, Findings: i.Sync.Findings,
			Message: message(i.Sync.Phase, i.Sync.Message), Commit: firstOf(i.Sync.DesiredCommit, i.Source.Commit),
		}
		repo := insideOf(i)
		if i.Kind == "Repository" {
			repos[i.Project+"/"+i.Name] = n
		}
		children = append(children, child{n, i.Project + "/" + repo, i.Project})
	}
	for _, c := range children {
		above := repos[c.repo]
		if above == nil || above == c.at {
			above = project(c.in)
		}
		above.Inside = append(above.Inside, c.at)
	}
	sortNodes(roots)
	return roots
}

// insideOf names the repository that a resource is in.
func insideOf(r api.Resource) string {
	var spec struct{ Repository string }
	raw, err := json.Marshal(r.Spec)
	if err != nil || json.Unmarshal(raw, &spec) != nil {
		return ""
	}
	return spec.Repository
}

func sortNodes(nodes []*node) {
	slices.SortFunc(nodes, func(a, b *node) int {
		return cmp.Or(cmp.Compare(kindRank(a.Kind), kindRank(b.Kind)), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	for _, n := range nodes {
		sortNodes(n.Inside)
	}
}

// kindRank puts what has an outside before what only governs.
func kindRank(kind string) int {
	if i := slices.Index([]string{"Repository", "Branch", "Commit", "PullRequest"}, kind); i >= 0 {
		return i
	}
	return 100
}

func writeTreeNames(w io.Writer, nodes []*node) error {
	for _, n := range nodes {
		if n.Ref != "" {
			if _, err := fmt.Fprintln(w, n.Ref); err != nil {
				return err
			}
		}
		if err := writeTreeNames(w, n.Inside); err != nil {
			return err
		}
	}
	return nil
}

func writeTree(w io.Writer, roots []*node) error {
	t := newTable(w, "RESOURCE", "PHASE", "FINDINGS", "COMMIT", "MESSAGE")
	for _, n := range roots {
		treeRows(t, n, "", "")
	}
	return t.flush()
}

// treeRows writes a node and what is inside it; lead is what stands before its own line, below before the others.
func treeRows(t *table, n *node, lead, below string) {
	findings := ""
	if n.Findings > 0 {
		findings = fmt.Sprint(n.Findings)
	}
	t.row(lead+n.Kind+"/"+n.Name, n.Phase, findings, short(n.Commit), n.Message)
	for i, c := range n.Inside {
		if i == len(n.Inside)-1 {
			treeRows(t, c, below+"└─ ", below+"   ")
		} else {
			treeRows(t, c, below+"├─ ", below+"│  ")
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
)

func newHistoryCommand(c *connection) *cobra.Command {
	var output, project string
	var limit int
	cmd := &cobra.Command{
		Use: "history REF|ID", Short: "List the commits that changed a document", Args: exactly("REF|ID"),
		Long: `List the commits of the control repository that changed a document, newest first, with who asked for each. Moves to
another file are followed. The document has to be there now; what git knows of removed ones, "git log" in a clone
tells.`,
		Example: `  plumbline history shop/Branch/cart.next
  plumbline history --project shop Repository/cart --limit 0 -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if limit < 0 {
				return usage("--limit must not be negative; 0 is all of them")
			}
			id, _, err := resolve(args[0], c.tenant, project)
			if err != nil {
				return err
			}
			r, err := c.rest()
			if err != nil {
				return err
			}
			items, err := readHistory(cmd.Context(), r, id, limit)
			if err != nil {
				return err
			}
			return writeHistory(c.sh, output, items)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "table", outputs)
	flags.StringVar(&project, "project", "", "project of a ref that names none")
	flags.IntVar(&limit, "limit", 20, "commits at most; 0 is all of them")
	return cmd
}

// readHistory reads as many pages as it takes for limit versions; each page looks at a bounded number of commits.
func readHistory(ctx context.Context, r *rest, id string, limit int) ([]api.ResourceVersion, error) {
	items, query := []api.ResourceVersion{}, url.Values{}
	if limit > 0 { // the same for all pages
		query.Set("pageSize", strconv.Itoa(limit))
	}
	for {
		var page api.ResourceHistory
		if err := r.get(ctx, "/resources/"+url.PathEscape(id)+"/history", query, &page); err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		switch {
		case limit > 0 && len(items) >= limit:
			return items[:limit], nil
		case page.NextPageToken == "":
			return items, nil
		}
		query.Set("pageToken", page.NextPageToken)
	}
}

func writeHistory(sh *shell, output string, items []api.ResourceVersion) error {
	switch output {
	case "name":
		for _, v := range items {
			fmt.Fprintln(sh.stdout, v.Commit)
		}
		return nil
	case "table":
		return writeHistoryTable(sh.stdout, items, time.Now())
	}
	return writeObject(sh.stdout, output, map[string]any{"items": items})
}

func writeHistoryTable(w io.Writer, items []api.ResourceVersion, now time.Time) error {
	t := newTable(w, "COMMIT", "AGE", "CHANGE", "CALLER", "AUTHOR", "MESSAGE")
	for _, v := range items {
		change := v.Operation
		if v.From != "" {
			change += " from " + v.From
		}
		t.row(short(v.Commit), age(now, v.At), change, v.Principal, v.Author, v.Message)
	}
	return t.flush()
}

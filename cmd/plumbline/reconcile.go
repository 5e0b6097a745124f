// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
)

func newReconcileCommand(c *connection) *cobra.Command {
	var q api.ReconcileRequest
	var output string
	var wait, quiet bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "reconcile [REF|ID...]", Short: "Look at resources again, now", Args: between(0, -1),
		Long: `Have the daemon look at resources again, now, instead of at the next change or resync: the named ones, or all of a
project or of kinds, or everything of the tenant.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			for i, word := range q.Kinds {
				info, err := findKind(word)
				if err != nil {
					return err
				}
				q.Kinds[i] = string(info.Kind)
			}
			for _, a := range args {
				id, _, err := resolve(a, c.tenant, q.Project)
				if err != nil {
					return err
				}
				q.Ids = append(q.Ids, id)
			}
			if len(args) > 0 {
				q.Project = "" // it only completed the refs
			}
			r, err := c.rest()
			if err != nil {
				return err
			}
			answer, err := postReconcile(cmd, r, q)
			if err != nil {
				return err
			}
			if err := writeNudged(c.sh, output, quiet, answer); err != nil || !wait {
				return err
			}
			var ids []string
			for _, n := range answer.Refs {
				ids = append(ids, n.ID)
			}
			return waitFor(cmd.Context(), c, r, waitOptions{phase: "Synced", timeout: timeout, quiet: quiet}, ids)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Project, "project", "", "everything of this project; or the project of refs that name none")
	flags.StringSliceVar(&q.Kinds, "kind", nil, "everything of these kinds")
	flags.StringVarP(&output, "output", "o", "table", outputs)
	flags.BoolVar(&wait, "wait", false, "wait until all of them are synced")
	flags.DurationVar(&timeout, "timeout", time.Minute, "of --wait")
	flags.BoolVarP(&quiet, "quiet", "q", false, "print nothing when all went well")
	return cmd
}

func postReconcile(cmd *cobra.Command, r *rest, q api.ReconcileRequest) (api.ReconcileResponse, error) {
	var answer api.ReconcileResponse
	body, err := json.Marshal(q)
	if err != nil {
		return answer, err
	}
	call := request{method: http.MethodPost, path: "/gitops/reconcile", body: body, header: map[string]string{"Content-Type": "application/json"}}
	a, err := r.do(cmd.Context(), call)
	if err != nil {
		return answer, err
	}
	return answer, decodeAnswer(call.path, a.body, &answer)
}

func writeNudged(sh *shell, output string, quiet bool, a api.ReconcileResponse) error {
	switch {
	case quiet:
		return nil
	case output == "name" || output == "table":
		for _, n := range a.Refs {
			fmt.Fprintln(sh.stdout, n.Ref)
		}
		if more := a.Count - len(a.Refs); more > 0 {
			fmt.Fprintf(sh.stderr, "and %d more\n", more)
		}
		return nil
	}
	return writeObject(sh.stdout, output, a)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

// applyOptions are the flags of apply.
type applyOptions struct {
	files   []string
	project string
	output  string
	key     string
	wait    bool
	timeout time.Duration
	quiet   bool
	dryRun  bool
}

func newApplyCommand(c *connection) *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Commit documents to the control repository", Args: exactly(),
		Long: `Commit the documents of the files to the tenant's control repository: all of them in one commit, or none. A
document that is there already is edited where it lives, and its comments stay. The commit is durable when the
command ends; with --wait it also waits until the documents are in force.`,
		Example: `  plumbline apply --project shop -f branch.yaml
  plumbline apply --project shop --wait -f - < documents.yaml
  plumbline apply --project shop --dry-run -f branch.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runApply(cmd.Context(), c, o) },
	}
	flags := cmd.Flags()
	flags.StringSliceVarP(&o.files, "file", "f", nil, "files with documents, - for stdin")
	flags.StringVar(&o.project, "project", "", "project of documents that name none")
	flags.StringVarP(&o.output, "output", "o", "table", outputs)
	flags.StringVar(&o.key, "idempotency-key", "", "the same key and documents are applied once")
	flags.BoolVar(&o.dryRun, "dry-run", false, "say what would be committed and done, and commit nothing")
	flags.BoolVar(&o.wait, "wait", false, "wait until every document is in force")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "of --wait")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing when all went well")
	return cmd
}

func runApply(ctx context.Context, c *connection, o applyOptions) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	if len(o.files) == 0 {
		return usage("apply needs -f FILE (- for stdin)")
	}
	body, err := readFiles(c.sh, o.files)
	if err != nil {
		return err
	}
	r, err := c.rest()
	if err != nil {
		return err
	}
	if o.dryRun {
		return dryApply(ctx, c, r, body, o)
	}
	q := request{method: http.MethodPost, path: "/resources/apply", body: body, query: url.Values{}, header: map[string]string{"Content-Type": "application/yaml", "Prefer": "wait=0"}}
	setIf(q.query, "project", o.project)
	if o.key != "" {
		q.header["Idempotency-Key"] = o.key
	}
	a, err := r.do(ctx, q)
	if err != nil {
		return namePlaces(err, o.files)
	}
	var answer api.ApplyResponse
	if err := decodeAnswer(q.path, a.body, &answer); err != nil {
		return err
	}
	warnAll(c.sh, answer.Warnings)
	if !o.quiet {
		if err := writeApplied(c.sh.stdout, o.output, answer); err != nil {
			return err
		}
	}
	if !o.wait {
		return nil
	}
	w := waitOptions{phase: "Synced", commit: answer.Commit, timeout: o.timeout, quiet: o.quiet}
	var ids []string
	for _, a := range answer.Results {
		ids = append(ids, a.ID)
	}
	return waitFor(ctx, c, r, w, ids)
}

// dryApply says what the apply would come to.
func dryApply(ctx context.Context, c *connection, r *rest, body []byte, o applyOptions) error {
	a, err := whatIf(ctx, r, body, o.project)
	if err != nil {
		return namePlaces(err, o.files)
	}
	warnAll(c.sh, a.Warnings)
	if o.quiet {
		return nil
	}
	if err := writeWhatIfs(c.sh, o.output, []api.WhatIf{a}); err != nil {
		return err
	}
	if a.Unchanged {
		fmt.Fprintln(c.sh.stderr, "everything is so already")
	}
	return nil
}

// namePlaces puts the file's name before the server's line and column, where there is only one file.
func namePlaces(err error, files []string) error {
	var e *desired.Error
	if errors.As(err, &e) && len(files) == 1 && files[0] != "-" {
		for i := range e.Fields {
			e.Fields[i].File = firstOf(e.Fields[i].File, files[0])
		}
	}
	return err
}

func writeApplied(w io.Writer, output string, a api.ApplyResponse) error {
	switch output {
	case "name":
		for _, d := range a.Results {
			fmt.Fprintln(w, d.Ref)
		}
		return nil
	case "table":
		t := newTable(w, "PROJECT", "KIND", "NAME", "OUTCOME", "COMMIT")
		for _, d := range a.Results {
			t.row(d.Project, d.Kind, d.Name, firstOf(d.Operation, "replayed"), short(a.Commit))
		}
		return t.flush()
	}
	return writeObject(w, output, a)
}

// readFiles joins the files as documents of one stream.
func readFiles(sh *shell, names []string) ([]byte, error) {
	var out bytes.Buffer
	for i, name := range names {
		in := sh.stdin
		if name != "-" {
			f, err := os.Open(name)
			if err != nil {
				return nil, desired.E("apply", desired.Ref{}, desired.NotFound, err)
			}
			defer f.Close()
			in = f
		}
		if i > 0 {
			out.WriteString("\n---\n")
		}
		if _, err := io.Copy(&out, io.LimitReader(in, 16<<20)); err != nil {
			return nil, desired.Errorf("apply", desired.Ref{}, desired.Internal, "read %s: %w", name, err)
		}
	}
	return out.Bytes(), nil
}

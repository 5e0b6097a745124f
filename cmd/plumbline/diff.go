// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

// exitDifferences is the exit code of a verb that found what it was asked to look for.
const exitDifferences = 2

// diffOptions are the flags of diff.
type diffOptions struct {
	files   []string
	project string
	output  string
	quiet   bool
}

func newDiffCommand(c *connection) *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use: "diff -f FILE|DIR", Short: "Say what applying documents would change, and do nothing", Args: exactly(),
		Long: `Compare documents with the control repository as "apply" would, and print what the commit would change and what the
daemon would then do, judged by a fresh look at the outside. Nothing is committed. Of a directory every .yaml and
.yml file is taken; a file below projects/NAME/ belongs to that project. Documents that are in the control repository
and not in the files are left alone. Large directories are compared in several parts.

It exits with 0 when everything is so already, with 2 when something would change, otherwise as every command.`,
		Example: `  plumbline diff --project shop -f branch.yaml
  plumbline diff -f . || test $? = 2
  plumbline diff --project shop -f - -o json < documents.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDiff(cmd.Context(), c, o) },
	}
	flags := cmd.Flags()
	flags.StringSliceVarP(&o.files, "file", "f", nil, "files or directories with documents, - for stdin")
	flags.StringVar(&o.project, "project", "", "project of documents that name none")
	flags.StringVarP(&o.output, "output", "o", "table", outputs)
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "print no differences, only exit with 2")
	return cmd
}

func runDiff(ctx context.Context, c *connection, o diffOptions) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	if len(o.files) == 0 {
		return usage("diff needs -f FILE or -f DIR (- for stdin)")
	}
	parts, err := readParts(c.sh, o.files, o.project)
	if err != nil {
		return err
	}
	r, err := c.rest()
	if err != nil {
		return err
	}
	answers := []api.WhatIf{}
	for _, p := range parts {
		a, err := whatIf(ctx, r, p.body.Bytes(), p.project)
		if err != nil {
			return namePlaces(err, p.files)
		}
		answers = append(answers, a)
	}
	differ := 0
	for _, a := range answers {
		differ += len(a.Files)
		warnAll(c.sh, a.Warnings)
	}
	if !o.quiet {
		if err := writeWhatIfs(c.sh, o.output, answers); err != nil {
			return err
		}
	}
	if differ > 0 {
		return &exitError{exitDifferences, fmt.Errorf("%s of the control repository would change", count(differ, "file"))}
	}
	return nil
}

// whatIf asks what an apply would come to.
func whatIf(ctx context.Context, r *rest, body []byte, project string) (api.WhatIf, error) {
	q := request{method: http.MethodPost, path: "/resources/apply", body: body, query: url.Values{"dryRun": {"plan"}}, header: map[string]string{"Content-Type": "application/yaml"}}
	setIf(q.query, "project", project)
	var out api.WhatIf
	a, err := r.do(ctx, q)
	if err != nil {
		return out, err
	}
	return out, decodeAnswer(q.path, a.body, &out)
}

func warnAll(sh *shell, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(sh.stderr, "warning: "+oneLine(w))
	}
}

// writeWhatIfs prints what would be committed and done: for people as a diff with the plan behind it.
func writeWhatIfs(sh *shell, output string, answers []api.WhatIf) error {
	switch output {
	case "name":
		for _, a := range answers {
			for _, p := range a.Plan {
				fmt.Fprintln(sh.stdout, p.Ref)
			}
		}
		return nil
	case "table":
		for _, a := range answers {
			for _, f := range a.Files {
				if f.Diff == "" {
					fmt.Fprintf(sh.stdout, "%s %s (%d bytes)\n", f.Operation, oneLine(f.Path), f.Bytes)
				}
				fmt.Fprint(sh.stdout, lines(f.Diff))
			}
		}
		for _, a := range answers {
			if !a.Unchanged {
				fmt.Fprint(sh.stdout, "\n"+lines(a.PlanText))
			}
		}
		return nil
	}
	if len(answers) == 1 {
		return writeObject(sh.stdout, output, answers[0])
	}
	return writeObject(sh.stdout, output, map[string]any{"items": answers})
}

// lines is oneLine for text of several lines.
func lines(s string) string {
	parts := strings.Split(s, "\n")
	for i := range parts {
		parts[i] = strings.ReplaceAll(oneLine(strings.ReplaceAll(parts[i], "\t", "    ")), "\r", " ")
	}
	return strings.Join(parts, "\n")
}

// part is what is compared in one request.
type part struct {
	project string
	files   []string
	body    bytes.Buffer
	docs    int // at most
}

// Bounds of one request of the API.
const (
	partBytes = 1 << 20
	partDocs  = desired.MaxFileDocuments
)

// readParts reads files and directories into as few requests as the API takes.
func readParts(sh *shell, names []string, project string) ([]*part, error) {
	var parts []*part
	add := func(name, project string, data []byte) {
		docs := 1 + bytes.Count(data, []byte("\n---"))
		var p *part
		if n := len(parts); n > 0 {
			p = parts[n-1]
		}
		if p == nil || p.project != project || p.docs+docs > partDocs || p.body.Len()+len(data)+8 > partBytes {
			p = &part{project: project}
			parts = append(parts, p)
		}
		if p.body.Len() > 0 {
			p.body.WriteString("\n---\n")
		}
		p.body.Write(data)
		p.docs, p.files = p.docs+docs, append(p.files, name)
	}
	for _, name := range names {
		if info, err := os.Stat(name); name == "-" || err != nil || !info.IsDir() {
			data, err := readFiles(sh, []string{name})
			if err != nil {
				return nil, err
			}
			add(name, project, data)
			continue
		}
		err := filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == ".git":
				return fs.SkipDir
			case !d.Type().IsRegular() || filepath.Ext(path) != ".yaml" && filepath.Ext(path) != ".yml":
				return nil
			}
			data, err := readFiles(sh, []string{path})
			if err == nil {
				add(path, firstOf(projectOf(name, path), project), data)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(parts) == 0 {
		return nil, usage("there is no .yaml file in %s", strings.Join(names, ", "))
	}
	return parts, nil
}

// projectOf is the project that a file of a control repository belongs to by its path, "" for none.
func projectOf(root, path string) string {
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return ""
	}
	steps := strings.Split(filepath.ToSlash(rel), "/")
	if len(steps) < 3 || steps[0] != "projects" {
		return ""
	}
	return steps[1]
}

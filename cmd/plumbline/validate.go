// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/desired"
)

// validation is one run of validate.
type validation struct {
	dir      string
	tenant   string // "" = platform repository
	files    int
	entries  int
	faults   []desired.FieldError
	warnings []string
}

func newValidateCommand(sh *shell) *cobra.Command {
	var output, tenant string
	var platform, quiet bool
	cmd := &cobra.Command{
		Use: "validate DIR", Short: "Judge the files of a control repository as the server would", Args: exactly("DIR"),
		Long: `Judge every document below DIR, which looks like a control repository (projects/, providers/, policies/) or, with
--platform or a folder tenants/, like the platform repository. It is the server's own code: what passes here is
accepted there. Faults are printed as file:line:column, and the exit code is 1.`,
		RunE: func(_ *cobra.Command, args []string) error {
			write, ok := validationWriters()[output]
			if !ok {
				return usage("unknown output %q: validate knows text, github, sarif, json", output)
			}
			v, err := validateTree(args[0], tenant, platform)
			if err != nil {
				return err
			}
			for _, w := range v.warnings {
				fmt.Fprintln(sh.stderr, w)
			}
			if err := write(sh.stdout, v); err != nil {
				return err
			}
			return v.verdict(sh, quiet)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, github, sarif, json")
	cmd.Flags().StringVarP(&tenant, "tenant", "n", "", "tenant whose repository this is (default: the name of DIR)")
	cmd.Flags().BoolVar(&platform, "platform", false, "DIR is the platform repository")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "say nothing when all is well")
	return cmd
}

// verdict is the last line, and the error that makes the exit code 1.
func (v *validation) verdict(sh *shell, quiet bool) error {
	if n := len(v.faults); n > 0 {
		return desired.Errorf("validate "+v.dir, desired.Ref{}, desired.Invalid, "%s in %s: mend the places above", count(n, "fault"), count(v.files, "file"))
	}
	if v.files == 0 {
		fmt.Fprintf(sh.stderr, "nothing to judge below %s: control repositories have projects/, providers/, policies/; the platform's has tenants/\n", v.dir)
		return nil
	}
	if !quiet {
		fmt.Fprintf(sh.stderr, "%s in %s: all good\n", count(v.entries, "document"), count(v.files, "file"))
	}
	return nil
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// validateTree loads a directory into a snapshot, as a push of all its files would.
func validateTree(dir, tenant string, platform bool) (*validation, error) {
	v := &validation{dir: dir, tenant: tenant}
	if tenant != "" && platform {
		return nil, usage("--tenant and --platform exclude each other: the platform repository belongs to no tenant")
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, desired.Errorf("validate "+dir, desired.Ref{}, desired.NotFound, "there is no such directory")
	}
	if platform || (tenant == "" && isDir(dir, "tenants") && !isDir(dir, "projects")) {
		v.tenant = ""
	} else if err := v.nameTenant(); err != nil {
		return nil, err
	}
	delta := desired.Delta{Commit: strings.Repeat("0", 40)}
	if err := v.collect(&delta); err != nil {
		return nil, desired.E("validate "+dir, desired.Ref{}, desired.Internal, err)
	}
	snapshot, changes := desired.Empty(v.tenant).Advance(delta, nil)
	v.entries = snapshot.Len()
	for _, q := range changes.Quarantined {
		v.addFaults(q)
	}
	return v, nil
}

func (v *validation) addFaults(q desired.Quarantine) {
	if len(q.Err.Fields) == 0 {
		v.faults = append(v.faults, desired.FieldError{File: q.Path, Detail: q.Err.Detail()})
	}
	for _, f := range q.Err.Fields {
		if f.File == "" {
			f.File = q.Path
		}
		v.faults = append(v.faults, f)
	}
}

// nameTenant settles whose repository this is: the flag, or the name of the directory.
func (v *validation) nameTenant() error {
	if v.tenant == "" {
		abs, err := filepath.Abs(v.dir)
		if err != nil {
			return err
		}
		v.tenant = strings.ToLower(strings.TrimSuffix(filepath.Base(abs), ".git"))
		if desired.ValidTenant(v.tenant) != nil {
			v.tenant = "tenant"
		}
	}
	if err := desired.ValidTenant(v.tenant); err != nil {
		return usage("--tenant: %w", err)
	}
	return nil
}

// collect reads every file that the loader would read. What is no regular file is not in force on the server
// either; that is said, because it is rarely meant.
func (v *validation) collect(delta *desired.Delta) error {
	root := os.DirFS(v.dir)
	return fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.IsDir() || !(desired.Place{Tenant: v.tenant, Path: path}).Managed():
			return nil
		case !d.Type().IsRegular():
			v.warnings = append(v.warnings, path+": ignored: not a regular file")
			return nil
		}
		data, err := readCapped(root, path, desired.MaxFileBytes+1) // one more, so that the limit is seen
		if err != nil {
			return err
		}
		v.files++
		delta.Files = append(delta.Files, desired.File{Path: path, Blob: fmt.Sprintf("%040x", v.files), Data: data})
		return nil
	})
}

func readCapped(root fs.FS, path string, limit int64) ([]byte, error) {
	f, err := root.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

func isDir(parts ...string) bool {
	info, err := os.Stat(filepath.Join(parts...))
	return err == nil && info.IsDir()
}

func validationWriters() map[string]func(io.Writer, *validation) error {
	return map[string]func(io.Writer, *validation) error{
		"text": writeText, "github": writeGitHub, "sarif": writeSARIF, "json": writeFaultsJSON,
	}
}

func writeText(w io.Writer, v *validation) error {
	for _, f := range v.faults {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	return nil
}

func writeFaultsJSON(w io.Writer, v *validation) error {
	return writeJSON(w, map[string]any{"files": v.files, "documents": v.entries, "errors": append([]desired.FieldError{}, v.faults...)})
}

// writeGitHub prints workflow commands that GitHub shows at the changed lines.
func writeGitHub(w io.Writer, v *validation) error {
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	text := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	for _, f := range v.faults {
		place := "file=" + property.Replace(f.File)
		if f.Line > 0 {
			place += fmt.Sprintf(",line=%d", f.Line)
		}
		if f.Column > 0 {
			place += fmt.Sprintf(",col=%d", f.Column)
		}
		if _, err := fmt.Fprintf(w, "::error %s::%s\n", place, text.Replace(withPointer(f))); err != nil {
			return err
		}
	}
	return nil
}

func withPointer(f desired.FieldError) string {
	if f.Pointer == "" {
		return f.Detail
	}
	return f.Pointer + ": " + f.Detail
}

// writeSARIF prints a SARIF 2.1.0 log, for code scanning.
func writeSARIF(w io.Writer, v *validation) error {
	results := []any{}
	for _, f := range v.faults {
		location := map[string]any{"artifactLocation": map[string]any{"uri": f.File}}
		if f.Line > 0 {
			region := map[string]any{"startLine": f.Line}
			if f.Column > 0 {
				region["startColumn"] = f.Column
			}
			location["region"] = region
		}
		results = append(results, map[string]any{
			"ruleId": "invalid-document", "level": "error",
			"message":   map[string]any{"text": withPointer(f)},
			"locations": []any{map[string]any{"physicalLocation": location}},
		})
	}
	rule := map[string]any{"id": "invalid-document", "shortDescription": map[string]any{"text": "a document that the server would refuse"}}
	driver := map[string]any{"name": "plumbline", "version": version, "rules": []any{rule}}
	return writeJSON(w, map[string]any{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
		"runs": []any{map[string]any{"tool": map[string]any{"driver": driver}, "results": results}},
	})
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

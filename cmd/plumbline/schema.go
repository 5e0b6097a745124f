// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/desired"
)

func newSchemaCommand(sh *shell) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "schema [KIND]", Short: "Print the JSON Schema of a kind, or list the kinds", Args: between(0, 1),
		Long: `Print the JSON Schema (2020-12) by which editors and the server judge a document of a kind. Without a kind, list
them. ServerConfiguration is the schema of the daemon's configuration file.`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return kindNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listKinds(sh, output)
			}
			if strings.EqualFold(args[0], configKind) {
				return writeJSON(sh.stdout, configSchema())
			}
			info, err := findKind(args[0])
			if err != nil {
				return err
			}
			schema, err := desired.Schema(info.Kind)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(sh.stdout, "%s\n", strings.TrimRight(string(schema), "\n"))
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "of the list: table, name")
	return cmd
}

func listKinds(sh *shell, output string) error {
	switch output {
	case "name":
		for _, k := range desired.Kinds() {
			fmt.Fprintln(sh.stdout, k.Kind)
		}
	case "table":
		t := newTable(sh.stdout, "KIND", "PLURAL", "LIVES IN")
		for _, k := range desired.Kinds() {
			t.row(string(k.Kind), k.Plural, strings.Join(livesIn(k), ", "))
		}
		return t.flush()
	default:
		return usage("unknown output %q: the list of kinds knows table and name", output)
	}
	return nil
}

func livesIn(k desired.KindInfo) []string {
	var in []string
	if k.Project {
		in = append(in, "projects/<project>/")
	}
	if k.Root != "" && k.Control {
		in = append(in, k.Root+"/")
	}
	if k.Platform {
		in = append(in, k.Root+"/ of the platform repository")
	}
	return in
}

func kindNames() []string {
	var names []string
	for _, k := range desired.Kinds() {
		names = append(names, string(k.Kind))
	}
	return names
}

// findKind accepts what people type for a kind: Repository, repository, repositories, repo.
func findKind(word string) (desired.KindInfo, error) {
	w := strings.ToLower(word)
	var names []string
	for _, k := range desired.Kinds() {
		name := strings.ToLower(string(k.Kind))
		if w == name || w == k.Plural || w == strings.ReplaceAll(k.Plural, "-", "") || w == k.IDPrefix || w == k.IDPrefix+"s" {
			return k, nil
		}
		names = append(names, name, k.Plural)
	}
	return desired.KindInfo{}, usage("unknown kind %q%s; plumbline schema lists them", word, desired.Suggest(w, names))
}

// configSchema is the JSON Schema of the configuration file, from the type that decodes it.
func configSchema() map[string]any {
	s := objectSchema(reflect.TypeFor[Config]())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = "https://plumbline.dev/schemas/v1alpha1/ServerConfiguration.json"
	s["title"] = configKind
	s["required"] = []string{"apiVersion", "kind"}
	properties := s["properties"].(map[string]any)
	properties["apiVersion"] = map[string]any{"const": configAPIVersion}
	properties["kind"] = map[string]any{"const": configKind}
	return s
}

func objectSchema(t reflect.Type) map[string]any {
	properties := map[string]any{}
	for i := range t.NumField() {
		f := t.Field(i)
		properties[f.Tag.Get("json")] = valueSchema(f.Type)
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}

func valueSchema(t reflect.Type) map[string]any {
	if t == reflect.TypeFor[time.Duration]() {
		return map[string]any{"type": "string", "pattern": `^([0-9.]+(ns|us|µs|ms|s|m|h))+$`}
	}
	switch t.Kind() {
	case reflect.Struct:
		return objectSchema(t)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": valueSchema(t.Elem())}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	default:
		return map[string]any{"type": "string"}
	}
}

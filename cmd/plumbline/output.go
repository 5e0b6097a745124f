// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	sigsyaml "sigs.k8s.io/yaml"
)

// outputs are the forms that a verb which shows objects can print.
const outputs = "table, json, yaml, name, jsonpath=TEMPLATE"

// checkOutput refuses an unknown form before anything is asked of the server.
func checkOutput(o string) error {
	switch o {
	case "table", "json", "yaml", "name":
		return nil
	}
	if t, ok := strings.CutPrefix(o, "jsonpath="); ok {
		_, err := parseTemplate(t)
		return err
	}
	return usage("unknown output %q: there are %s", o, outputs)
}

// writeObject prints v as JSON, YAML or by a template; the other forms are the caller's.
func writeObject(w io.Writer, o string, v any) error {
	switch t, isTemplate := strings.CutPrefix(o, "jsonpath="); {
	case isTemplate:
		return writeTemplate(w, t, v)
	case o == "yaml":
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		b, err = sigsyaml.JSONToYAML(b)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	return writeJSON(w, v)
}

// writeTemplate prints v by a template: text, and paths in braces, such as {.items[*].name} or {.status['phase']}.
// It is the small part of kubectl's JSONPath that scripts use: fields, indexes and [*]; several values of one path
// are separated by blanks; \n and \t in the text are understood.
func writeTemplate(w io.Writer, template string, v any) error {
	parts, err := parseTemplate(template)
	if err != nil {
		return err
	}
	plain, err := plainJSON(v)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, p := range parts {
		if p.steps == nil {
			b.WriteString(p.text)
			continue
		}
		var words []string
		for _, value := range follow([]any{plain}, p.steps) {
			words = append(words, scalarText(value))
		}
		b.WriteString(strings.Join(words, " "))
	}
	_, err = fmt.Fprintln(w, b.String())
	return err
}

func plainJSON(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.UseNumber()
	var plain any
	err = dec.Decode(&plain)
	return plain, err
}

// templatePart is text, or the steps of a path.
type templatePart struct {
	text  string
	steps []string // ".name", "[3]", "[*]"; not nil for a path
}

func parseTemplate(t string) ([]templatePart, error) {
	var parts []templatePart
	for t != "" {
		text, rest, found := strings.Cut(t, "{")
		if text != "" {
			text = strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(text)
			parts = append(parts, templatePart{text: text})
		}
		if !found {
			return parts, nil
		}
		path, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, usage("jsonpath: a { is not closed")
		}
		steps, err := parsePath(path)
		if err != nil {
			return nil, err
		}
		parts, t = append(parts, templatePart{steps: steps}), after
	}
	return parts, nil
}

func parsePath(path string) ([]string, error) {
	steps := []string{}
	rest := strings.TrimPrefix(strings.TrimSpace(path), "$")
	for rest != "" && rest != "." {
		switch {
		case rest[0] == '[':
			inside, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				return nil, usage("jsonpath: a [ is not closed in {%s}", path)
			}
			if name := strings.Trim(inside, `'"`); name != inside {
				inside = name
				steps = append(steps, "."+name)
			} else if _, err := strconv.Atoi(inside); err == nil || inside == "*" {
				steps = append(steps, "["+inside+"]")
			} else {
				return nil, usage("jsonpath: [%s] is neither an index, * nor a quoted name in {%s}", inside, path)
			}
			rest = after
		case rest[0] == '.' && len(rest) > 1 && rest[1] != '.':
			end := strings.IndexAny(rest[1:], ".[")
			if end < 0 {
				end = len(rest) - 1
			}
			steps, rest = append(steps, rest[:end+1]), rest[end+1:]
		default:
			return nil, usage("jsonpath: cannot read {%s}: paths look like {.items[*].name}", path)
		}
	}
	return steps, nil
}

// follow walks the steps from each value; what is not there is left out.
func follow(values []any, steps []string) []any {
	for _, s := range steps {
		var next []any
		for _, v := range values {
			next = append(next, step(v, s)...)
		}
		values = next
	}
	return values
}

func step(v any, s string) []any {
	if name, ok := strings.CutPrefix(s, "."); ok {
		m, _ := v.(map[string]any)
		if x, ok := m[name]; ok {
			return []any{x}
		}
		return nil
	}
	list, _ := v.([]any)
	if s == "[*]" {
		return list
	}
	i, _ := strconv.Atoi(strings.Trim(s, "[]"))
	if i < 0 {
		i += len(list)
	}
	if i < 0 || i >= len(list) {
		return nil
	}
	return list[i : i+1]
}

func scalarText(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case json.Number:
		return x.String()
	case bool:
		return strconv.FormatBool(x)
	case nil:
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// addConfigFlags gives a command the flags of the configuration, and --config.
func addConfigFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("config", "", "configuration file (or PLUMBLINE_CONFIG)")
	var defaults Config
	// The embedded file is decoded by a test: a fault in it cannot reach here.
	_ = applyFile(&defaults, Origins{}, defaultConfig, "default.yaml", func(int) string { return "" })
	leaves := configLeaves(&defaults)
	for _, s := range settings() {
		flags.String(s.flag, leafText(leaves[s.key]), s.usage)
		if leaves[s.key].Kind() == reflect.Bool {
			flags.Lookup(s.flag).NoOptDefVal = "true"
		}
	}
}

// loadConfig is LoadConfig over the flags that a command was given.
func loadConfig(cmd *cobra.Command, sh *shell) (Config, Origins, error) {
	in := ConfigInput{Environ: sh.environ, Flags: map[string]string{}}
	flags := cmd.Flags()
	in.File = flags.Lookup("config").Value.String()
	for _, s := range settings() {
		if flags.Changed(s.flag) {
			in.Flags[s.flag] = flags.Lookup(s.flag).Value.String()
		}
	}
	return LoadConfig(in)
}

func newConfigCommand(sh *shell) *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Look at the configuration of the daemon", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var showOrigin bool
	view := &cobra.Command{
		Use: "view", Short: "Print the configuration that serve would use", Args: exactly(),
		Long: `Print the configuration that "plumbline serve" would use with the same flags, variables and file. The output is a
configuration file itself. With --show-origin each value tells where it comes from. Nothing in it is a secret: keys
that end in File name the file that holds one.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, origins, err := loadConfig(cmd, sh)
			if err != nil {
				return err
			}
			return writeConfig(sh.stdout, &c, origins, showOrigin)
		},
	}
	view.Flags().BoolVar(&showOrigin, "show-origin", false, "say where each value comes from")
	addConfigFlags(view)
	cmd.AddCommand(view)
	return cmd
}

// writeConfig prints a configuration as the file that would give it.
func writeConfig(w io.Writer, c *Config, origins Origins, showOrigin bool) error {
	var open []string // the sections that the last line was in
	var err error
	walkConfig(reflect.ValueOf(c).Elem(), "", func(key string, v reflect.Value) {
		path := strings.Split(key, ".")
		sections, name := path[:len(path)-1], path[len(path)-1]
		for i, section := range sections {
			if err == nil && (i >= len(open) || open[i] != section) {
				_, err = fmt.Fprintf(w, "%s%s:\n", strings.Repeat("  ", i), section)
				open = open[:min(i, len(open))]
			}
		}
		open = sections
		line := strings.Repeat("  ", len(sections)) + name + ": " + yamlText(v)
		if showOrigin {
			line = fmt.Sprintf("%-44s # %s", line, origins[key])
		}
		if err == nil {
			_, err = fmt.Fprintln(w, line)
		}
	})
	return err
}

// leafText is a value as a flag would spell it.
func leafText(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case []string:
		return strings.Join(x, ",")
	case time.Duration:
		return shortDuration(x)
	default:
		return fmt.Sprint(x)
	}
}

// yamlText is a value as a YAML scalar or flow list.
func yamlText(v reflect.Value) string {
	var x any = v.Interface()
	switch val := x.(type) {
	case time.Duration:
		x = shortDuration(val)
	case []string:
		if len(val) == 0 {
			return "[]"
		}
		quoted := make([]string, len(val))
		for i, s := range val {
			quoted[i] = fmt.Sprintf("%q", s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	b, err := yaml.Marshal(x)
	if err != nil {
		return fmt.Sprintf("%q", fmt.Sprint(x))
	}
	return strings.TrimSpace(string(b))
}

// shortDuration drops the zero parts that time.Duration prints: 3m, not 3m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

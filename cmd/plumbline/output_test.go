// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestTemplates(t *testing.T) {
	value := map[string]any{
		"items": []any{
			map[string]any{"name": "a", "seq": 9007199254740993, "sync": map[string]any{"phase": "Synced"}},
			map[string]any{"name": "b", "ok": true, "none": nil},
		},
		"odd.name": "c",
	}
	rows := []struct{ template, want string }{
		{"{.items[*].name}", "a b"},
		{"{.items[0].name}", "a"},
		{"{.items[-1].name}", "b"},
		{"{.items[7].name}", ""},
		{"{$.items[0].sync.phase}", "Synced"},
		{"{['odd.name']}", "c"},
		{`{.items[0]["name"]}`, "a"},
		{`{.items[0].name}\t{.items[1].name}\n!`, "a\tb\n!"},
		{"{.items[0].seq}", "9007199254740993"}, // no float in between
		{"{.items[1].ok}{.items[1].none}", "true"},
		{"{.items[0].sync}", `{"phase":"Synced"}`},
		{"plain", "plain"},
		{"{.nothing.at.all}", ""},
	}
	for _, r := range rows {
		var out bytes.Buffer
		if err := writeTemplate(&out, r.template, value); err != nil {
			t.Errorf("%s: %v", r.template, err)
		} else if got := strings.TrimSuffix(out.String(), "\n"); got != r.want {
			t.Errorf("%s: got %q, want %q", r.template, got, r.want)
		}
	}
	for _, bad := range []string{"{.a", "{.a[0}", "{.a[x]}", "{..a}", "{a}"} {
		if _, err := parseTemplate(bad); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestAges(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for want, ago := range map[string]time.Duration{
		"0s": -time.Hour, "3s": 3 * time.Second, "119s": 119 * time.Second, "2m": 2 * time.Minute, "119m": 119 * time.Minute,
		"2h": 2 * time.Hour, "47h": 47 * time.Hour, "2d": 48 * time.Hour, "400d": 400 * 24 * time.Hour,
	} {
		if got := age(now, now.Add(-ago)); got != want {
			t.Errorf("%s ago: got %q, want %q", ago, got, want)
		}
	}
	if got := age(now, time.Time{}); got != "" {
		t.Errorf("never: got %q, want nothing", got)
	}
}

func TestTablesCannotBeSteeredFromOutside(t *testing.T) {
	var out bytes.Buffer
	tab := newTable(&out, "A", "B")
	tab.row("x\x1b[2J\ny", "")
	if err := tab.flush(); err != nil {
		t.Fatal(err)
	}
	if want := "A         B\nx [2J y   -\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

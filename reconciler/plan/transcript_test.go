// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

var rewrite = flag.Bool("rewrite", false, "write what was printed into the transcripts; read the difference, and commit it only if you understand and want it")

// TestTranscripts runs testdata/plan/*.txt: a command, its body, "----", what it prints, an empty line. Every file is
// one story of one ref; what a diff found is carried into the next one, as the engine does.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("../../testdata/plan/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts found: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			old, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(old))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(old) {
				t.Errorf("%s differs; got:\n%s", file, got)
			}
		})
	}
}

// play runs a transcript and renders it again with what it printed now.
func play(t *testing.T, text string) string {
	w := newWorld()
	var out strings.Builder
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		out.WriteString(lines[i])
		if lines[i] == "" || strings.HasPrefix(lines[i], "#") {
			if i < len(lines)-1 {
				out.WriteByte('\n')
			}
			continue
		}
		start := i
		for lines[i] != "----" {
			if i++; i == len(lines) {
				t.Fatalf("line %d: command without ----", start+1)
			}
			out.WriteString("\n" + lines[i])
		}
		body := strings.Join(lines[start+1:i], "\n")
		for i+1 < len(lines) && lines[i+1] != "" {
			i++ // what was printed before
		}
		printed, err := w.run(lines[start], body)
		if err != nil {
			t.Fatalf("line %d: %s: %v", start+1, lines[start], err)
		}
		out.WriteString("\n" + strings.TrimRight(printed, "\n") + "\n")
	}
	return out.String()
}

// world is what a transcript has said so far.
type world struct {
	in   Input
	last Plan
	seq  uint64
}

func newWorld() *world {
	return &world{in: Input{Now: time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC), Provider: "local"}}
}

func (w *world) ref(s string) desired.Ref {
	kind, name, _ := strings.Cut(s, "/")
	return desired.Ref{Tenant: "acme", Project: "booking", Kind: desired.Kind(kind), Name: name}
}

// args splits "a b key=value" into words and pairs; the words come back joined too, for sentences.
func args(line string) (words []string, pairs map[string]string, sentence string) {
	pairs = map[string]string{}
	for _, f := range strings.Fields(line) {
		if k, v, ok := strings.Cut(f, "="); ok {
			pairs[k] = v
			continue
		}
		words = append(words, f)
	}
	if len(words) > 1 {
		sentence = strings.Join(words[1:], " ")
	}
	return words, pairs, sentence
}

func (w *world) run(line, body string) (string, error) {
	words, pairs, sentence := args(line)
	switch words[0] {
	case "diff":
		w.last = Diff(w.in)
		w.record(w.last)
		return w.last.String(), nil
	case "want":
		return "ok", w.want(words[1], pairs, body)
	case "have":
		return "ok", w.have(words[1], strings.TrimSpace(strings.TrimPrefix(sentence, words[1])), pairs, body)
	case "fail":
		class := desired.Class(words[1])
		err := &desired.Error{Class: class, Op: "apply", Ref: w.in.Ref, Err: errors.New(strings.Join(words[2:], " "))}
		err.After, _ = time.ParseDuration(pairs["after"])
		w.last = AfterError(w.in, w.last, err)
		w.record(w.last)
		return w.last.String(), nil
	case "deny":
		w.last = Await(w.in, w.last, Decision{Reason: sentence})
		w.record(w.last)
		return w.last.String(), nil
	case "digest":
		return Digest(w.last)[:19], nil
	case "judge":
		return w.judgeDeletions(pairs, body), nil
	}
	return "ok", w.set(words, pairs, sentence, body)
}

// set changes one fact.
func (w *world) set(words []string, pairs map[string]string, sentence, body string) (err error) {
	in := &w.in
	switch words[0] {
	case "now":
		d, err := time.ParseDuration(strings.TrimPrefix(words[1], "+"))
		if err != nil {
			return err
		}
		in.Now = in.Now.Add(d)
	case "gone":
		in.Want = nil
	case "stage":
		in.Stage = words[1]
	case "rule":
		if sentence == "none" {
			in.Rules = nil
			return nil
		}
		r := &desired.DriftRuleSpec{}
		in.Rules = append(in.Rules, r)
		return yaml.UnmarshalStrict([]byte(body), r)
	case "suspend":
		in.Suspension = &desired.Entry{Ref: w.ref("Suspension/freeze"), Resource: &desired.Resource{Spec: &desired.SuspensionSpec{Reason: sentence, Until: pairs["until"]}}}
	case "resume":
		in.Suspension = nil
	case "frozen":
		in.Frozen = sentence
	case "dep":
		return w.dep(words[1:], pairs)
	case "retired":
		in.RetiredBy = w.ref(words[1])
	case "run":
		in.Run = &Run{Stage: RunStage(words[1]), Op: adapters.Run, Message: strings.TrimSpace(strings.TrimPrefix(sentence, words[1]))}
	case "quarantine":
		line, _ := strconv.Atoi(pairs["line"])
		in.Quarantine = &desired.Quarantine{
			Path: words[1], Blob: "bad1", LastGood: "good1", Since: desired.Provenance{Commit: "c9", Author: "Bob <bob@example.com>"},
			Err: &desired.Error{Class: desired.Invalid, Fields: []desired.FieldError{{File: words[1], Line: line, Column: 3, Detail: strings.Join(words[2:], " ")}}},
		}
	case "release":
		in.Quarantine = nil
	case "verdict":
		in.DeletionAllowed, in.DeletionReason = words[1] == "allow", strings.TrimSpace(strings.TrimPrefix(sentence, words[1]))
	case "provider":
		in.Provider = words[1]
	case "birth":
		in.Birth, err = time.Parse(time.RFC3339, words[1])
	case "attempted":
		in.Attempted = true
	case "working":
		in.Active = in.Now
		in.Limit, err = time.ParseDuration(words[1])
	case "forget-applied":
		in.Applied = nil
	case "terminal":
		in.Applied.Terminal = true
	case "former":
		in.Former = &Applied{Ref: w.ref(words[1])}
	case "renamed-to":
		in.RenamedTo = w.ref(words[1])
	default:
		return fmt.Errorf("unknown command")
	}
	return err
}

func (w *world) want(ref string, pairs map[string]string, body string) error {
	w.in.Ref = w.ref(ref)
	spec := w.in.Ref.Kind.NewSpec()
	if err := yaml.UnmarshalStrict([]byte(body), spec); err != nil {
		return err
	}
	w.seq++
	w.in.Was = Standing{}
	r := &desired.Resource{Kind: w.in.Ref.Kind, Metadata: desired.Metadata{Name: w.in.Ref.Name, FormerName: pairs["former"]}, Spec: spec}
	w.in.Want = &desired.Entry{
		Ref: w.in.Ref, ID: w.in.Ref.ID(), Resource: r, Digest: encode(r), Line: 1, Path: "projects/booking/" + w.in.Ref.Name + ".yaml",
		Changed: desired.Provenance{Seq: w.seq, Commit: fmt.Sprint("c", w.seq), Author: "Ann <ann@example.com>", At: w.in.Now},
	}
	return nil
}

func (w *world) have(presence, reason string, pairs map[string]string, body string) error {
	w.in.Have = adapters.Observation{Reason: reason}
	if c := pairs["class"]; c != "" {
		w.in.Have.Err = desired.Errorf("observe", w.in.Ref, desired.Class(c), "%s", reason)
	}
	switch presence {
	case "unknown":
		return nil
	case "absent":
		w.in.Have.Presence = adapters.Absent
		return nil
	}
	var a adapters.Actual
	switch w.in.Ref.Kind {
	case desired.KindRepository:
		a = &adapters.RepositoryActual{DefaultBranch: "main", Visibility: "private"}
	case desired.KindBranch:
		a = &adapters.BranchActual{}
	case desired.KindCommit:
		a = &adapters.CommitActual{}
	case desired.KindPullRequest:
		a = &adapters.PullRequestActual{State: "open", Mergeable: "yes"}
	}
	w.in.Have.Presence, w.in.Have.Actual = adapters.Known, a
	return yaml.UnmarshalStrict([]byte(body), a)
}

func (w *world) dep(words []string, pairs map[string]string) error {
	if words[0] == "none" {
		w.in.DependsOn = nil
		return nil
	}
	d := Dependency{Ref: w.ref(words[0]), Role: Role(pairs["role"]), Phase: Phase(pairs["phase"]), Reason: pairs["reason"], Exists: true}
	for _, flag := range words[1:] {
		switch flag {
		case "nodocument":
			d.Exists = false
		case "applied":
			d.Applied = true
		case "current":
			d.Current = true
		default:
			return fmt.Errorf("unknown flag %s", flag)
		}
	}
	for i := range w.in.DependsOn {
		if w.in.DependsOn[i].Ref == d.Ref {
			w.in.DependsOn[i] = d
			return nil
		}
	}
	w.in.DependsOn = append(w.in.DependsOn, d)
	return nil
}

// record carries over what the engine would store.
func (w *world) record(p Plan) {
	w.in.Findings = carry(w.in.Findings, p)
	w.in.Was = Standing{Phase: p.Phase, Reason: p.Reason, Message: p.Message}
	if p.FailRun {
		w.in.Run = &Run{Stage: RunFailed, Message: p.Message}
	}
	if p.Forget {
		w.in.Applied = nil
		return
	}
	if !p.Settled || w.in.Want == nil {
		return
	}
	old := w.in.Applied
	a := &Applied{Ref: w.in.Ref, Digest: w.in.Want.Digest, Provider: w.in.Provider, Terminal: p.Ended}
	a.Spec, _ = json.Marshal(w.in.Want.Resource.Spec)
	a.DeletionPolicy = w.in.Want.Resource.Spec.Common().DeletionPolicy
	if old != nil {
		a.Actual = old.Actual
	}
	if p.Actual != nil {
		a.Actual, _ = json.Marshal(p.Actual)
	}
	w.in.Applied = a
}

func carry(list []Finding, p Plan) []Finding {
	byID := map[string]int{}
	for i, f := range list {
		byID[f.ID] = i
	}
	for _, f := range append(append([]Finding(nil), p.Findings...), p.Closed...) {
		if i, ok := byID[f.ID]; ok {
			list[i] = f
			continue
		}
		list = append(list, f)
	}
	return list
}

func (w *world) judgeDeletions(pairs map[string]string, body string) string {
	in := DeletionInput{Totals: map[desired.Kind]int{}}
	for _, l := range strings.Split(body, "\n") {
		words, p, _ := args(l)
		if len(words) == 0 {
			continue
		}
		n, _ := strconv.Atoi(p["n"])
		for i := range n {
			in.Pending = append(in.Pending, PendingDeletion{Ref: w.ref(fmt.Sprintf("%s/x%d", words[0], i)), Stage: p["stage"]})
		}
		in.Totals[desired.Kind(words[0])], _ = strconv.Atoi(p["of"])
	}
	if pairs["approved"] != "" {
		in.Approved = []string{JudgeDeletions(in).Digest}
	}
	j := JudgeDeletions(in)
	var b bytes.Buffer
	fmt.Fprintf(&b, "allowed %d, stopped %d\n", len(j.Allowed), len(j.Stopped))
	if j.Reason != "" {
		fmt.Fprintln(&b, j.Reason)
	}
	return b.String()
}

// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestWire plays testdata/wire/*.txtar against a server: requests as written, answers field for field.
//
// A file begins with a comment; a line "loop: scripted" in it asks for the scripted loop, else the real reconciler and
// the local git host work behind the API. Sections come in pairs, "<name> request" and "<name> answer". A request is
// a request line, headers, an empty line and a body; the header "As: subject tenant [scope …]" says who asks (default:
// agent:PullRequestCreator of connectsoft with all scopes; "As: nobody" sends no token), and "Until: yes" repeats the
// request until the answer fits. An answer is a status, headers, an empty line and JSON.
//
// Every member of the written answer must be in the real one and fit; others may be there too. Ids, commits, addresses
// and times fit by shape, and ids and commits are remembered: where they appear again, in requests too, they stand for
// what they stood for before. "<any>" fits every value, "~part" a text that has the part, "<absent>" a member that is not there.
// Each exchange is also judged by openapi.yaml with an independent implementation.
func TestWire(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "testdata", "wire", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no wire files: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			a := txtar.Parse(data)
			w := newWorldFor(t, string(a.Comment))
			p := &wirePlayer{t: t, w: w, contract: loadContract(t), known: map[string]string{}}
			for i := 0; i+1 < len(a.Files); i += 2 {
				name, ok := strings.CutSuffix(a.Files[i].Name, " request")
				if !ok || a.Files[i+1].Name != name+" answer" {
					t.Fatalf("%s: sections come in pairs of request and answer", a.Files[i].Name)
				}
				p.play(name, string(a.Files[i].Data), string(a.Files[i+1].Data))
			}
		})
	}
}

func newWorldFor(t *testing.T, comment string) *world {
	if strings.Contains(comment, "loop: scripted") {
		return newWorld(t)
	}
	return newRealWorld(t)
}

type wirePlayer struct {
	t        *testing.T
	w        *world
	contract *contractDoc
	known    map[string]string // written id or commit -> real one
}

func (p *wirePlayer) play(name, request, want string) {
	p.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		e, until := p.send(name, request)
		faults := p.compare(e, want)
		if len(faults) == 0 {
			return
		}
		if !until || time.Now().After(deadline) {
			p.t.Fatalf("%s:\n  %s\nanswer: %d %s", name, strings.Join(faults, "\n  "), e.status, e.raw)
		}
		time.Sleep(20 * time.Millisecond) // between two polls
	}
}

// head takes a section apart: first line, headers, body.
func head(section string) (first string, headers [][2]string, body string) {
	top, body, _ := strings.Cut(section, "\n\n")
	lines := strings.Split(strings.TrimSpace(top), "\n")
	for _, l := range lines[1:] {
		k, v, _ := strings.Cut(l, ":")
		headers = append(headers, [2]string{strings.TrimSpace(k), strings.TrimSpace(v)})
	}
	return strings.TrimSpace(lines[0]), headers, body
}

func (p *wirePlayer) send(name, section string) (e exchange, until bool) {
	for written, real := range p.known {
		section = strings.ReplaceAll(section, written, real)
	}
	first, headers, body := head(section)
	method, target, _ := strings.Cut(first, " ")
	r := httptest.NewRequestWithContext(p.t.Context(), method, target, strings.NewReader(body))
	as := []string{"agent:PullRequestCreator", tenantA}
	for _, h := range headers {
		switch h[0] {
		case "As":
			as = strings.Fields(h[1])
		case "Until":
			until = true
		default:
			r.Header.Add(h[0], h[1])
		}
	}
	if len(as) > 1 {
		r.Header.Set("Authorization", "Bearer "+p.w.token(as[1], as[0], as[2:len(as):len(as)]...))
	}
	in, refusal := p.contract.request(r, []byte(body))
	e = p.w.serve(r)
	if in == nil {
		return e, until // no route of the contract
	}
	if refusal != nil && e.status < 300 {
		p.t.Errorf("%s: answered %d to a request that openapi.yaml refuses: %v", name, e.status, refusal)
	}
	if err := p.contract.response(p.t.Context(), in, e); err != nil {
		p.t.Errorf("%s: the answer does not keep to openapi.yaml: %v\n%s", name, err, e.raw)
	}
	return e, until
}

func (p *wirePlayer) compare(e exchange, section string) (faults []string) {
	first, headers, body := head(section)
	learnt := map[string]string{}
	m := matcher{known: p.known, learnt: learnt}
	if want, _, _ := strings.Cut(first, " "); strconv.Itoa(e.status) != want {
		m.fault("status", "got %d, want %s", e.status, want)
	}
	for _, h := range headers {
		got := e.header.Get(h[0])
		if h[1] == "<absent>" && got != "" || h[1] != "<absent>" && got == "" {
			m.fault(h[0], "got %q, want %s", got, h[1])
		} else if h[1] != "<absent>" && h[1] != "<any>" {
			m.value(h[0], h[1], got)
		}
	}
	if strings.TrimSpace(body) != "" {
		var want any
		if err := json.Unmarshal([]byte(body), &want); err != nil {
			p.t.Fatalf("the written answer is no JSON: %v\n%s", err, body)
		}
		m.value("", want, any(e.body))
	}
	if len(m.faults) == 0 {
		for k, v := range learnt {
			p.known[k] = v
		}
	}
	return m.faults
}

// matcher compares what is written with what came.
type matcher struct {
	known, learnt map[string]string
	faults        []string
}

func (m *matcher) fault(at, format string, args ...any) {
	m.faults = append(m.faults, at+": "+fmt.Sprintf(format, args...))
}

var (
	writtenID = regexp.MustCompile(`^(/[a-z-]+/)?(repo|branch|commit|pr|prov|rule|susp|tenant|drift|art)-[0-9a-f]{4,}$`)
	commitID  = regexp.MustCompile(`^([0-9a-f]{8}|[0-9a-f]{40})$`)
)

func (m *matcher) value(at string, want, got any) {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			m.fault(at, "got %v, want an object", got)
			return
		}
		for k, v := range w {
			gv, there := g[k]
			switch {
			case v == "<absent>":
				if there {
					m.fault(at+"/"+k, "got %v, want it absent", gv)
				}
			case !there:
				m.fault(at+"/"+k, "is missing")
			default:
				m.value(at+"/"+k, v, gv)
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			m.fault(at, "got %v, want %d items", got, len(w))
			return
		}
		for i := range w {
			m.value(at+"/"+strconv.Itoa(i), w[i], g[i])
		}
	case string:
		m.text(at, w, got)
	case float64:
		g, ok := got.(float64)
		if !ok || g != w && !(strings.HasSuffix(at, "/number") && g > 0) {
			m.fault(at, "got %v, want %v", got, want)
		}
	default:
		if got != want {
			m.fault(at, "got %v, want %v", got, want)
		}
	}
}

func (m *matcher) text(at, want string, value any) {
	got, ok := value.(string)
	if !ok {
		m.fault(at, "got %v, want %q", value, want)
		return
	}
	if part, ok := strings.CutPrefix(want, "~"); ok {
		if real, ok := m.known[part]; ok {
			part = real
		}
		if !strings.Contains(got, part) {
			m.fault(at, "got %q, want %q in it", got, part)
		}
		return
	}
	if real, ok := m.known[want]; ok {
		want = real
	} else if real, ok := m.learnt[want]; ok {
		want = real
	}
	switch {
	case want == got, want == "<any>" && got != "":
		return
	case writtenID.MatchString(want):
		prefix := want[:strings.LastIndexByte(want, '-')+1]
		if !regexp.MustCompile("^" + regexp.QuoteMeta(prefix) + "[a-z2-7]{16}$").MatchString(got) {
			m.fault(at, "got %q, want an id like %s", got, want)
			return
		}
		m.learn(want, got)
	case commitID.MatchString(want):
		if len(got) != 40 || !commitID.MatchString(got) {
			m.fault(at, "got %q, want a commit", got)
			return
		}
		m.learn(want, got)
	case strings.HasPrefix(want, "http"):
		if u, err := url.Parse(got); err != nil || u.Host == "" || !strings.HasPrefix(u.Scheme, "http") {
			m.fault(at, "got %q, want an address", got)
		}
	case isTime(want):
		if !isTime(got) {
			m.fault(at, "got %q, want a time", got)
		}
	default:
		m.fault(at, "got %q, want %q", got, want)
	}
}

// learn remembers what an id stands for; those with a path before them also by themselves.
func (m *matcher) learn(written, real string) {
	m.learnt[written] = real
	if i := strings.LastIndexByte(written, '/'); i >= 0 {
		m.learnt[written[i+1:]] = real[strings.LastIndexByte(real, '/')+1:]
	}
}

func isTime(s string) bool {
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}

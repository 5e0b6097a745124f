// SPDX-License-Identifier: Apache-2.0

package plumbline

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/connectsoft/plumbline"

// source is one parsed Go file of the tree.
type source struct {
	path      string // slash-separated, from the root
	dir       string // of the package, "." for the root
	text      string
	test      bool // *_test.go
	generated bool // *.pb.go, *.gen.go
	fset      *token.FileSet
	ast       *ast.File
}

// tree is what the rules look at: every Go file, and the texts of the other files that people write.
type tree struct {
	files  []*source
	others map[string]string // path -> text
}

// rule is one rule of the house. Its why is printed with every fault, so that whoever breaks it learns the reason.
type rule struct {
	name  string
	why   string
	check func(*tree) []string // faults, each beginning with file:line
}

// rules lists all of them. Each has at least one row in TestRulesAreSeenToFail.
func rules() []rule {
	return []rule{
		{"imports form a straight line", "siblings that know each other cannot be read, tested or replaced alone; move the shared type down, or let the consumer declare a small interface and wire it in cmd/plumbline", checkLayers},
		{"libraries stay in their rooms", "a library that is used in one package can be replaced there; go through the package that owns it, or add its row here and a line in docs/decisions", checkLibraries},
		{"desired and plan are pure", "same input, same answer: that is what makes a plan a transcript and a snapshot a value; take times and bytes as arguments", checkPure},
		{"no init functions", "code that runs before main cannot be tested, ordered or turned off; call it from main", checkInit},
		{"no mutable package variables", "state that everybody can reach belongs to nobody; put it into a value that its owner passes on. Error sentinels, embedded files and compiled constants are fine as long as nothing writes to them", checkVariables},
		{"no context from nowhere", "work under context.Background cannot be cancelled or joined; take ctx as the first argument, use t.Context() in tests and context.WithoutCancel(ctx) for cleaning up", checkContext},
		{"no context in a struct", "a stored context outlives the call that it belonged to; pass it to each method. Two things may: a message on a channel that carries its sender's (say \"of the caller\" in the field's comment), and a grpc.ServerStream that hands out its own", checkStoredContext},
		{"testing stays in tests", "production code that imports testing ships its flags; put the helper into a _test.go file (adapters/adaptertest is the one package made for tests)", checkTestingImport},
		{"SPDX header", "every file says under which licence it may be used; begin it with the SPDX line", checkSPDX},
		{"package comments", "a package that cannot say in a sentence what it is for should not exist; write the comment in its doc.go", checkPackageComments},
		{"every package is on the map", "who opens the repository reads doc.go first; give the package its line there, or take the line of a package that is gone away", checkMap},
		{"packages have names that say something", "a package named for nothing collects everything; name it for what it adapts or decides", checkNames},
		{"documents name files that exist", "whoever follows one write through the code must find the files; write the new name into the document", checkFileNames},
		{"guarantees name tests that exist", "a promise whose test was renamed or taken away is kept by nothing; name the test that keeps it now in docs/GUARANTEES.md, or write it", checkGuarantees},
		{"functions fit a head", "what is longer than 120 lines is not read but searched; split it, or say in its comment \"Long because …\"", checkLength},
	}
}

func TestArchitecture(t *testing.T) {
	tr := readTree(t, ".")
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range r.check(tr) {
				t.Errorf("%s\n\trule: %s\n\twhy, and what to do: %s", f, r.name, r.why)
			}
		})
	}
}

// layers says which of our packages a package may import, the straight line of the house. "X/*" stands for the
// packages below X.
func layers() map[string][]string {
	return map[string][]string{
		".":                      {},
		"desired":                {},
		"desired/policy":         {"desired"},
		"desired/gitstore":       {"desired"},
		"desired/gitrepo":        {"desired", "desired/gitstore"},
		"adapters":               {"desired"},
		"adapters/internal/rest": {"adapters", "desired"},
		"adapters/*":             {"adapters", "desired", "adapters/internal/rest"},
		"adapters/githost":       {"adapters", "desired", "adapters/internal/rest", "desired/gitstore"},
		"reconciler/plan":        {"adapters", "desired", "desired/policy"},
		"reconciler/state":       {"reconciler/plan", "adapters", "desired"},
		"reconciler/blob":        {"reconciler/plan", "adapters", "desired"},
		"reconciler":             {"reconciler/plan", "reconciler/state", "reconciler/blob", "adapters", "desired", "desired/policy"},
		"api":                    {"reconciler", "reconciler/plan", "reconciler/state", "reconciler/blob", "desired", "desired/*", "adapters", "api/*"},
		"api/auth":               {"desired"},
		"api/pb":                 {},
		"api/*":                  {"desired", "api/auth", "api/pb"},
		"cmd/plumbline":          {"*"},
		"internal/fp":            {},
	}
}

// mayImport decides one edge between two of our packages.
func mayImport(from, to string) (allowed bool, known bool) {
	if to == "internal/fp" && from != "desired" && from != "reconciler/plan" {
		return true, true // failpoints may sit wherever there is I/O
	}
	l := layers()
	list, ok := l[from]
	if !ok {
		list, ok = l[path.Dir(from)+"/*"]
	}
	for _, a := range list {
		if a == "*" || a == to || (strings.HasSuffix(a, "/*") && path.Dir(to) == strings.TrimSuffix(a, "/*")) {
			return true, ok
		}
	}
	return false, ok
}

func checkLayers(t *tree) []string {
	var faults []string
	for _, f := range t.files {
		if f.test {
			continue // tests may put whole houses together
		}
		for _, im := range f.imports() {
			to, ours := ownPackage(im.path)
			if !ours {
				continue
			}
			switch allowed, known := mayImport(f.dir, to); {
			case !known:
				faults = append(faults, f.at(im.pos, "package %s has no row in layers(): say there what it may import", f.dir))
			case !allowed:
				faults = append(faults, f.at(im.pos, "%s must not import %s", f.dir, to))
			}
		}
	}
	return faults
}

// libraries says in which packages a library may be used; the longest matching prefix decides. A direct requirement
// of go.mod without a row is a fault, so a new library needs its row.
func libraries() map[string][]string {
	return map[string][]string{
		"github.com/coreos/go-oidc/":               {"api/auth"},
		"github.com/fsnotify/fsnotify":             {"adapters/githost", "desired/gitrepo", "cmd/plumbline"},
		"github.com/getkin/kin-openapi":            {"api"},
		"github.com/go-git/":                       {"desired/gitstore", "desired/gitrepo", "adapters/githost"},
		"github.com/go-jose/go-jose/":              {"api/auth"},
		"github.com/google/go-cmp":                 {}, // tests
		"github.com/google/go-containerregistry":   {"adapters/target", "adapters/feed"},
		"github.com/gorilla/mux":                   {"api", "cmd/plumbline"},
		"github.com/hashicorp/go-immutable-radix/": {"desired", "desired/gitrepo", "reconciler/state"},
		"github.com/invopop/jsonschema":            {}, // tests
		"github.com/oapi-codegen/runtime":          {"api"},
		"github.com/oklog/ulid/":                   {"api", "api/auth", "reconciler", "desired/gitrepo"},
		"github.com/prometheus/":                   {"api", "adapters/guard", "cmd/plumbline"},
		"github.com/pulumi/":                       {"adapters/stack"},
		"github.com/rogpeppe/go-internal":          {}, // tests
		"github.com/santhosh-tekuri/jsonschema/":   {}, // tests
		"github.com/spf13/cobra":                   {"cmd/plumbline"},
		"github.com/spf13/pflag":                   {"cmd/plumbline"},
		"github.com/Azure/azure-sdk-for-go/":       {"adapters/target"},
		"cel.dev/":                                 {"desired/policy"},
		"go.etcd.io/":                              {"reconciler/state", "cmd/plumbline"},
		"go.uber.org/goleak":                       {},                                    // tests
		"go.uber.org/zap":                          {"reconciler/state", "cmd/plumbline"}, // etcd's logger
		"go.yaml.in/yaml/":                         {"desired", "cmd/plumbline"},
		"golang.org/x/sync":                        {"*"},
		"golang.org/x/time":                        {"adapters/guard", "reconciler", "api", "api/auth"},
		"google.golang.org/grpc":                   {"api", "api/pb", "cmd/plumbline"},
		"google.golang.org/protobuf":               {"api", "api/pb", "cmd/plumbline"},
		"google.golang.org/genproto/":              {"api"},
		"k8s.io/":                                  {"adapters/target"},
		"k8s.io/client-go/util/workqueue":          {"reconciler"},
		"pgregory.net/rapid":                       {}, // tests
		"sigs.k8s.io/yaml":                         {"desired", "api", "cmd/plumbline"},
	}
}

// libraryRow finds the row of an import path.
func libraryRow(p string) (prefix string, rooms []string, ok bool) {
	for row, in := range libraries() {
		match := p == row || strings.HasPrefix(p, strings.TrimSuffix(row, "/")+"/")
		if match && len(row) > len(prefix) {
			prefix, rooms, ok = row, in, true
		}
	}
	return prefix, rooms, ok
}

func checkLibraries(t *tree) []string {
	var faults []string
	for _, f := range t.files {
		if f.test {
			continue
		}
		for _, im := range f.imports() {
			if _, ours := ownPackage(im.path); ours || !strings.Contains(strings.Split(im.path, "/")[0], ".") {
				continue // ours, or the standard library
			}
			_, rooms, ok := libraryRow(im.path)
			switch {
			case !ok:
				faults = append(faults, f.at(im.pos, "%s has no row in libraries()", im.path))
			case !slices.Contains(rooms, f.dir) && !slices.Contains(rooms, "*"):
				faults = append(faults, f.at(im.pos, "%s is not for %s, only for %s", im.path, f.dir, orTests(rooms)))
			}
		}
	}
	for i, line := range strings.Split(t.others["go.mod"], "\n") {
		m := directRequire.FindStringSubmatch(line)
		if m == nil || strings.Contains(line, "// indirect") {
			continue
		}
		if _, _, ok := libraryRow(m[1]); !ok {
			faults = append(faults, fmt.Sprintf("go.mod:%d: %s has no row in libraries()", i+1, m[1]))
		}
	}
	return faults
}

var directRequire = regexp.MustCompile(`^\s+(\S+\.\S+/\S+|\S+\.\S+) v\d\S*`)

func orTests(rooms []string) string {
	if len(rooms) == 0 {
		return "tests"
	}
	return strings.Join(rooms, ", ")
}

// impure are the imports that desired and reconciler/plan (not the packages below them) do without.
func impure(p string) bool {
	switch p {
	case "os", "net", "net/http", "log", "log/slog", "context", "sync", "math/rand", "math/rand/v2", "crypto/rand", "io/ioutil", "runtime":
		return true
	}
	return strings.HasPrefix(p, "os/") || strings.HasPrefix(p, "sync/") || strings.HasPrefix(p, "net/http/")
}

func checkPure(t *tree) []string {
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	var faults []string
	for _, f := range t.files {
		if f.test || (f.dir != "desired" && f.dir != "reconciler/plan") {
			continue
		}
		for _, im := range f.imports() {
			if impure(im.path) {
				faults = append(faults, f.at(im.pos, "%s must not import %s", f.dir, im.path))
			}
		}
		for _, use := range f.uses("time", clock...) {
			faults = append(faults, f.at(use.pos, "%s must not call time.%s", f.dir, use.name))
		}
	}
	return faults
}

func checkInit(t *tree) []string {
	var faults []string
	for _, f := range t.production() {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				faults = append(faults, f.at(fn.Pos(), "func init"))
			}
		}
	}
	return faults
}

func checkContext(t *tree) []string {
	var faults []string
	for _, f := range t.production() {
		if f.path == "cmd/plumbline/main.go" {
			continue
		}
		for _, use := range f.uses("context", "Background", "TODO") {
			faults = append(faults, f.at(use.pos, "context.%s outside main", use.name))
		}
	}
	return faults
}

func checkStoredContext(t *tree) []string {
	var faults []string
	for _, f := range t.production() {
		name := f.importName("context")
		ast.Inspect(f.ast, func(n ast.Node) bool {
			st, ok := n.(*ast.StructType)
			if !ok || name == "" || embeds(st, "ServerStream") {
				return true
			}
			for _, field := range st.Fields.List {
				if isSelector(field.Type, name, "Context") && !strings.Contains(field.Doc.Text()+field.Comment.Text(), "of the caller") {
					faults = append(faults, f.at(field.Pos(), "a struct holds a context.Context"))
				}
			}
			return true
		})
	}
	return faults
}

// embeds reports whether a struct embeds a type of some package by that name.
func embeds(st *ast.StructType, name string) bool {
	return slices.ContainsFunc(st.Fields.List, func(f *ast.Field) bool {
		s, ok := f.Type.(*ast.SelectorExpr)
		return ok && len(f.Names) == 0 && s.Sel.Name == name
	})
}

func checkTestingImport(t *tree) []string {
	var faults []string
	for _, f := range t.production() {
		for _, im := range f.imports() {
			if (im.path == "testing" || strings.HasPrefix(im.path, "testing/")) && f.dir != "adapters/adaptertest" && im.path != "testing/fstest" {
				faults = append(faults, f.at(im.pos, "%s imports %s", f.dir, im.path))
			}
		}
	}
	return faults
}

// checkSPDX looks at the first four lines: scripts begin with #!.
func checkSPDX(t *tree) []string {
	const line = "SPDX-License-Identifier: Apache-2.0"
	var faults []string
	fault := func(p, text string) {
		lines := strings.SplitN(text, "\n", 5)
		if !strings.Contains(strings.Join(lines[:min(4, len(lines))], "\n"), line) {
			faults = append(faults, p+":1: no "+line+" in the first lines")
		}
	}
	for _, f := range t.files {
		if !f.generated {
			fault(f.path, f.text)
		}
	}
	for p, text := range t.others {
		base := path.Base(p)
		if slices.Contains([]string{".proto", ".sh"}, path.Ext(p)) || base == "Makefile" || base == "Dockerfile" || p == ".ci/run" {
			fault(p, text)
		}
	}
	slices.Sort(faults)
	return faults
}

func checkPackageComments(t *tree) []string {
	documented := map[string]bool{}
	first := map[string]*source{}
	for _, f := range t.files {
		if f.test {
			continue
		}
		if first[f.dir] == nil {
			first[f.dir] = f
		}
		if d := f.ast.Doc; d != nil && regexp.MustCompile(`^(Package|Command) \w+`).MatchString(d.Text()) {
			documented[f.dir] = true
		}
	}
	var faults []string
	for _, dir := range sortedKeys(first) {
		if !documented[dir] {
			f := first[dir]
			faults = append(faults, f.at(f.ast.Package, "package %s has no package comment that begins with \"Package %s\" or \"Command …\"", dir, f.ast.Name.Name))
		}
	}
	return faults
}

var mapLine = regexp.MustCompile(`(?m)^//\t((?:adapters|api|cmd|desired|internal|reconciler)(?:/[a-z0-9]+)*) {2,}\S`)

func checkMap(t *tree) []string {
	packages := map[string]*source{}
	var doc *source
	for _, f := range t.files {
		if f.path == "doc.go" {
			doc = f
		}
		if !f.test && f.dir != "." {
			packages[f.dir] = f
		}
	}
	if doc == nil {
		return []string{"doc.go:1: the map of the house is missing"}
	}
	lines := map[string]bool{}
	for _, m := range mapLine.FindAllStringSubmatch(doc.text, -1) {
		lines[m[1]] = true
	}
	var faults []string
	for _, dir := range sortedKeys(packages) {
		if !lines[dir] {
			faults = append(faults, fmt.Sprintf("doc.go:1: package %s has no line", dir))
		}
	}
	for _, dir := range sortedKeys(lines) {
		if packages[dir] == nil {
			faults = append(faults, fmt.Sprintf("doc.go:1: the line of %s stands for no package", dir))
		}
	}
	return faults
}

func checkNames(t *tree) []string {
	junk := []string{"util", "utils", "common", "shared", "misc", "base", "types", "lib", "helper", "helpers", "core", "pkg"}
	seen := map[string]bool{}
	var faults []string
	for _, f := range t.files {
		for _, part := range strings.Split(f.dir, "/") {
			if slices.Contains(junk, part) && !seen[f.dir] {
				seen[f.dir] = true
				faults = append(faults, f.at(f.ast.Package, "package %s is named %q", f.dir, part))
			}
		}
	}
	return faults
}

func checkLength(t *tree) []string {
	const limit = 120
	var faults []string
	for _, f := range t.production() {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil || strings.Contains(fn.Doc.Text(), "Long because") {
				continue
			}
			if n := f.line(fn.End()) - f.line(fn.Pos()) + 1; n > limit {
				faults = append(faults, f.at(fn.Pos(), "func %s has %d lines", fn.Name.Name, n))
			}
		}
	}
	return faults
}

var (
	namedTests  = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	namedScript = regexp.MustCompile("`([a-z_]+)`")
)

// checkGuarantees reads the table rows of docs/GUARANTEES.md: tests in the first cell, their package in the second.
func checkGuarantees(t *tree) []string {
	const doc = "docs/GUARANTEES.md"
	tests := map[string]bool{}
	for _, f := range t.files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test {
				tests[f.dir+"."+fn.Name.Name] = true
			}
		}
	}
	var faults []string
	for i, line := range strings.Split(t.others[doc], "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			continue
		}
		dir := strings.Trim(cells[2], " `")
		for _, m := range namedTests.FindAllStringSubmatch(cells[1], -1) {
			if !tests[dir+"."+m[1]] {
				faults = append(faults, fmt.Sprintf("%s:%d: %s has no %s", doc, i+1, dir, m[1]))
			}
		}
		if _, list, ok := strings.Cut(strings.ToLower(cells[1]), "session"); ok {
			for _, m := range namedScript.FindAllStringSubmatch(list, -1) {
				if _, ok := t.others["testdata/script/"+m[1]+".txtar"]; !ok {
					faults = append(faults, fmt.Sprintf("%s:%d: there is no session %s", doc, i+1, m[1]))
				}
			}
		}
	}
	return faults
}

var namedFile = regexp.MustCompile(`\b((?:adapters|api|cmd|desired|internal|reconciler)/[a-z_/]+\.(?:go|yaml|proto))\b`)

// checkFileNames looks at the map of the house and at the documents that explain the code.
func checkFileNames(t *tree) []string {
	texts := map[string]string{}
	for _, p := range []string{"docs/ARCHITECTURE.md", "docs/GUARANTEES.md", "README.md", "CONTRIBUTING.md"} {
		texts[p] = t.others[p]
	}
	known := map[string]bool{}
	for p := range t.others {
		known[p] = true
	}
	for _, f := range t.files {
		known[f.path] = true
		if f.path == "doc.go" {
			texts[f.path] = f.text
		}
	}
	var faults []string
	for _, doc := range sortedKeys(texts) {
		for i, line := range strings.Split(texts[doc], "\n") {
			for _, m := range namedFile.FindAllStringSubmatch(line, -1) {
				if !known[m[1]] {
					faults = append(faults, fmt.Sprintf("%s:%d: there is no %s", doc, i+1, m[1]))
				}
			}
		}
	}
	return faults
}

// readTree parses the repository below root.
func readTree(t *testing.T, root string) *tree {
	t.Helper()
	texts := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		p = filepath.ToSlash(p)
		if d.IsDir() {
			switch {
			case p == "." || p == ".ci" || p == "testdata" || p == "testdata/script":
				return nil
			case strings.HasPrefix(d.Name(), ".") || path.Dir(p) == "testdata" || slices.Contains([]string{"bin", "testdata", "tools", "testbed"}, d.Name()):
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(p)
		if os.IsNotExist(err) {
			return nil // an editor's temporary file
		}
		texts[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := parseTree(texts)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// parseTree builds the tree of a set of files, path to text.
func parseTree(texts map[string]string) (*tree, error) {
	tr := &tree{others: map[string]string{}}
	for _, p := range sortedKeys(texts) {
		if path.Ext(p) != ".go" {
			tr.others[p] = texts[p]
			continue
		}
		f := &source{path: p, dir: path.Dir(p), text: texts[p], fset: token.NewFileSet()}
		f.test = strings.HasSuffix(p, "_test.go")
		f.generated = strings.HasSuffix(p, ".pb.go") || strings.HasSuffix(p, ".gen.go")
		var err error
		if f.ast, err = parser.ParseFile(f.fset, p, f.text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
			return nil, err
		}
		tr.files = append(tr.files, f)
	}
	return tr, nil
}

// production is the code that people wrote and that ships.
func (t *tree) production() []*source {
	var out []*source
	for _, f := range t.files {
		if !f.test && !f.generated && f.dir != "internal/fp" {
			out = append(out, f)
		}
	}
	return out
}

type importSpec struct {
	path, name string
	pos        token.Pos
}

func (f *source) imports() []importSpec {
	var out []importSpec
	for _, im := range f.ast.Imports {
		s := importSpec{path: strings.Trim(im.Path.Value, `"`), pos: im.Pos()}
		s.name = path.Base(s.path)
		if im.Name != nil {
			s.name = im.Name.Name
		}
		out = append(out, s)
	}
	return out
}

// importName is the name under which a file imports a path, "" when it does not.
func (f *source) importName(p string) string {
	for _, im := range f.imports() {
		if im.path == p {
			return im.name
		}
	}
	return ""
}

type use struct {
	name string
	pos  token.Pos
}

// uses finds pkg.name for any of the names.
func (f *source) uses(pkg string, names ...string) []use {
	local := f.importName(pkg)
	if local == "" {
		return nil
	}
	var out []use
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(names, s.Sel.Name) && isSelector(s, local, s.Sel.Name) {
			out = append(out, use{s.Sel.Name, s.Pos()})
		}
		return true
	})
	return out
}

func isSelector(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg
}

func (f *source) line(p token.Pos) int { return f.fset.Position(p).Line }

func (f *source) at(p token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", f.path, f.line(p), fmt.Sprintf(format, args...))
}

func ownPackage(p string) (dir string, ok bool) {
	if p == module {
		return ".", true
	}
	return strings.CutPrefix(p, module+"/")
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

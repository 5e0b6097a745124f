// SPDX-License-Identifier: Apache-2.0

package plumbline

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// compiled lists the calls whose results may stand in a package variable: they build a value once and nothing can
// change it afterwards.
func compiled() []string {
	return []string{
		"errors.New", "fmt.Errorf", "desired.E", "desired.Errorf", "regexp.MustCompile", "template.Must", "strings.NewReplacer", "strings.Repeat",
		"base32.NewEncoding", "base64.NewEncoding", "hex.EncodeToString", "netip.MustParsePrefix", "semver.MustParse",
		"reflect.TypeFor", "reflect.TypeOf", "big.NewInt",
	}
}

// shared lists what makes a variable shared state whatever its initial value is.
func shared() []string {
	return []string{"sync", "atomic", "rand", "singleflight", "semaphore", "prometheus", "promauto"}
}

// checkVariables accepts a package variable when it is written exactly once, where it is declared, and its value is
// a plain one: literals, composite literals of such, conversions, and the calls of compiled().
func checkVariables(t *tree) []string {
	var faults []string
	written := t.writes()
	for _, f := range t.production() {
		for _, d := range f.ast.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, s := range gen.Specs {
				v := s.(*ast.ValueSpec)
				embedded := strings.Contains(docText(f, gen, v), "//go:embed")
				for i, name := range v.Names {
					if why := variableFault(f, v, i, embedded, written[f.dir+"."+name.Name]); why != "" && name.Name != "_" {
						faults = append(faults, f.at(name.Pos(), "variable %s %s", name.Name, why))
					}
				}
			}
		}
	}
	return faults
}

func variableFault(f *source, v *ast.ValueSpec, i int, embedded bool, writtenAt string) string {
	if writtenAt != "" {
		return "is written to at " + writtenAt
	}
	if embedded {
		return ""
	}
	if v.Type != nil {
		if why := typeFault(v.Type); why != "" {
			return why
		}
	}
	if len(v.Values) == 0 {
		switch v.Type.(type) {
		case *ast.MapType, *ast.InterfaceType:
			return "has no value: somebody must write to it"
		}
		return ""
	}
	if len(v.Values) != len(v.Names) {
		return "is set by a call with several results"
	}
	return valueFault(v.Values[i])
}

// typeFault refuses the types that exist to be changed.
func typeFault(e ast.Expr) string {
	why := ""
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ChanType:
			why = "is a channel"
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && slices.Contains(shared(), x.Name) {
				why = "is shared state (" + x.Name + "." + n.Sel.Name + ")"
			}
		case *ast.FuncType:
			return false // signatures may name anything
		}
		return why == ""
	})
	return why
}

// valueFault refuses initial values that are made to be changed, or that nobody can judge.
func valueFault(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit, *ast.Ident, *ast.SelectorExpr, *ast.FuncLit:
		return ""
	case *ast.ParenExpr:
		return valueFault(e.X)
	case *ast.BinaryExpr:
		return firstOf(valueFault(e.X), valueFault(e.Y))
	case *ast.KeyValueExpr:
		return firstOf(valueFault(e.Key), valueFault(e.Value))
	case *ast.UnaryExpr:
		if e.Op == token.AND {
			return firstOf(valueFault(e.X))
		}
		return valueFault(e.X)
	case *ast.IndexExpr:
		return firstOf(valueFault(e.X), valueFault(e.Index))
	case *ast.IndexListExpr:
		return ""
	case *ast.CompositeLit:
		if e.Type != nil {
			if why := typeFault(e.Type); why != "" {
				return why
			}
		}
		for _, el := range e.Elts {
			if why := valueFault(el); why != "" {
				return why
			}
		}
		return ""
	case *ast.CallExpr:
		return callFault(e)
	}
	return fmt.Sprintf("has a value that cannot be judged (%T)", e)
}

func callFault(e *ast.CallExpr) string {
	if why := calleeFault(e.Fun); why != "" {
		return why
	}
	for _, a := range e.Args {
		if why := valueFault(a); why != "" {
			return why
		}
	}
	return ""
}

// calleeFault accepts conversions, the calls of compiled(), their methods, and functions called where they stand.
func calleeFault(e ast.Expr) string {
	switch fn := e.(type) {
	case *ast.ArrayType, *ast.MapType, *ast.ParenExpr, *ast.FuncLit:
		return ""
	case *ast.IndexExpr:
		return calleeFault(fn.X)
	case *ast.Ident:
		if slices.Contains([]string{"string", "int", "int64", "uint64", "float64", "byte", "rune", "len"}, fn.Name) || ast.IsExported(fn.Name) {
			return ""
		}
		return "is set by calling " + fn.Name
	case *ast.SelectorExpr:
		if x, ok := fn.X.(*ast.Ident); ok {
			if name := x.Name + "." + fn.Sel.Name; !slices.Contains(compiled(), name) {
				return "is set by calling " + name
			}
			return ""
		}
		return valueFault(fn.X) // a method of a value that is fine: base32.NewEncoding(…).WithPadding(…)
	}
	return "is set by a call that cannot be judged"
}

func firstOf(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return ""
}

// writes finds every place that writes to a package variable, its elements or fields, or takes its address:
// "dir.name" -> "file:line". Locals that hide a package variable are told apart by scope.
func (t *tree) writes() map[string]string {
	vars := map[string]bool{}
	for _, f := range t.files {
		for _, d := range f.ast.Decls {
			if gen, ok := d.(*ast.GenDecl); ok && gen.Tok == token.VAR {
				for _, s := range gen.Specs {
					for _, n := range s.(*ast.ValueSpec).Names {
						vars[f.dir+"."+n.Name] = true
					}
				}
			}
		}
	}
	out := map[string]string{}
	for _, f := range t.files {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			locals := localNames(fn)
			for _, target := range writeTargets(fn.Body, !f.test) {
				key := f.variableOf(target, locals)
				if vars[key] && out[key] == "" {
					out[key] = fmt.Sprintf("%s:%d", f.path, f.line(target.Pos()))
				}
			}
		}
	}
	return out
}

// writeTargets lists the expressions of a body that are assigned to, incremented, deleted from or, if that counts,
// addressed: who has the address may write later. Tests may take it to look.
func writeTargets(body ast.Node, addressed bool) []ast.Expr {
	var out []ast.Expr
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				out = append(out, n.Lhs...)
			}
		case *ast.IncDecStmt:
			out = append(out, n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND && addressed {
				out = append(out, n.X)
			}
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				out = append(out, n.Key, n.Value)
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear" || id.Name == "copy") && len(n.Args) > 0 {
				out = append(out, n.Args[0])
			}
		}
		return true
	})
	return slices.DeleteFunc(out, func(e ast.Expr) bool { return e == nil })
}

// variableOf names the package variable that an expression writes to: x, x[i], x.f, *x, pkg.X.
func (f *source) variableOf(e ast.Expr, locals map[string]bool) string {
	for {
		switch x := e.(type) {
		case *ast.ParenExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.SelectorExpr:
			if id, ok := x.X.(*ast.Ident); ok && !locals[id.Name] {
				for _, im := range f.imports() {
					if dir, ours := ownPackage(im.path); ours && im.name == id.Name {
						return dir + "." + x.Sel.Name
					}
				}
			}
			e = x.X
		case *ast.Ident:
			if locals[x.Name] {
				return ""
			}
			return f.dir + "." + x.Name
		default:
			return ""
		}
	}
}

// localNames collects every name that a function declares anywhere in itself; a package variable of the same name
// counts as hidden in the whole function, which errs on the side of silence.
func localNames(fn *ast.FuncDecl) map[string]bool {
	out := map[string]bool{}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, name := range n.Names {
				out[name.Name] = true
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, l := range n.Lhs {
					if id, ok := l.(*ast.Ident); ok {
						out[id.Name] = true
					}
				}
			}
		case *ast.RangeStmt:
			for _, l := range []ast.Expr{n.Key, n.Value} {
				if id, ok := l.(*ast.Ident); ok && n.Tok == token.DEFINE {
					out[id.Name] = true
				}
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				out[name.Name] = true
			}
		}
		return true
	})
	return out
}

// docText is the raw comment above a variable or its group; directives such as go:embed are left out of Text().
func docText(f *source, gen *ast.GenDecl, v *ast.ValueSpec) string {
	var b strings.Builder
	for _, g := range []*ast.CommentGroup{gen.Doc, v.Doc} {
		if g != nil {
			for _, c := range g.List {
				b.WriteString(c.Text + "\n")
			}
		}
	}
	return b.String()
}

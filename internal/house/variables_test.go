package house

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// constants are calls whose results nobody can change, so that a package
// variable may hold one.
var constants = []string{
	"errors.New", "fmt.Errorf", "regexp.MustCompile", "strings.NewReplacer", "redis.NewScript",
	"template.Must", "uuid.MustParse", "netip.MustParsePrefix", "base64.RawURLEncoding.Strict", "reflect.TypeFor",
}

// importEffects returns what happens, or can be changed, without a constructor:
// init functions and package variables that are not constants in all but name.
func (s *source) importEffects() []string {
	var found []string
	changed := s.changedNames()
	for _, f := range s.files {
		for _, declaration := range f.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					found = append(found, s.at(d)+": init runs on import")
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, spec := range d.Specs {
					found = append(found, s.variables(d, spec.(*ast.ValueSpec), changed)...)
				}
			}
		}
	}
	return found
}

func (s *source) variables(d *ast.GenDecl, spec *ast.ValueSpec, changed map[string]string) []string {
	var found []string
	for i, name := range spec.Names {
		switch {
		case name.Name == "_" || isEmbedded(d.Doc) || isEmbedded(spec.Doc):
		case changed[name.Name] != "":
			found = append(found, s.at(name)+": "+name.Name+" is a package variable that is changed at "+changed[name.Name])
		case i >= len(spec.Values) || !isConstant(spec.Values[i]):
			found = append(found, s.at(name)+": "+name.Name+" is a package variable, and no constant in all but name")
		}
	}
	return found
}

func isEmbedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// isConstant reports whether an expression gives something that stays as it is:
// a literal, a table of such, or a call that is known.
func isConstant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit, *ast.FuncLit, *ast.Ident, *ast.SelectorExpr:
		return true
	case *ast.CompositeLit:
		return !strings.HasPrefix(nameOf(e.Type), "sync.") && !strings.HasPrefix(nameOf(e.Type), "atomic.")
	case *ast.UnaryExpr: // the address of something is there for its state
		return e.Op != token.AND && isConstant(e.X)
	case *ast.BinaryExpr:
		return isConstant(e.X) && isConstant(e.Y)
	case *ast.ParenExpr:
		return isConstant(e.X)
	case *ast.CallExpr:
		return slices.Contains(constants, nameOf(e.Fun)) || nameOf(e.Fun) == "byte"
	case *ast.IndexExpr: // a generic function
		return isConstant(e.X)
	default:
		return false
	}
}

// nameOf writes a function's name as the source does.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return nameOf(e.X) + "." + e.Sel.Name
	case *ast.IndexExpr:
		return nameOf(e.X)
	case *ast.ArrayType:
		return nameOf(e.Elt) // []byte("…")
	default:
		return ""
	}
}

// changedNames returns names that a package assigns to, counts up or takes the
// address of outside of their declaration, and where. A local variable that
// hides a package variable is told apart by its declaration in the same
// function.
func (s *source) changedNames() map[string]string {
	changed := map[string]string{}
	for _, f := range s.files {
		for _, declaration := range f.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok || function.Body == nil {
				continue
			}
			local := localNames(function)
			mark := func(e ast.Expr) {
				if name := rootName(e); name != "" && !local[name] && changed[name] == "" {
					changed[name] = s.at(e)
				}
			}
			ast.Inspect(function.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					for _, left := range n.Lhs {
						mark(left)
					}
				case *ast.IncDecStmt:
					mark(n.X)
				case *ast.UnaryExpr:
					if n.Op == token.AND {
						mark(n.X)
					}
				}
				return true
			})
		}
	}
	return changed
}

// rootName returns the variable that an expression is about: a of a, a[i], a.b
// and *a.
func rootName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.IndexExpr:
		return rootName(e.X)
	case *ast.SelectorExpr:
		return rootName(e.X)
	case *ast.StarExpr:
		return rootName(e.X)
	case *ast.ParenExpr:
		return rootName(e.X)
	default:
		return ""
	}
}

// localNames returns what a function declares: its parameters, results and
// variables.
func localNames(function *ast.FuncDecl) map[string]bool {
	local := map[string]bool{}
	field := func(list *ast.FieldList) {
		if list == nil {
			return
		}
		for _, f := range list.List {
			for _, name := range f.Names {
				local[name.Name] = true
			}
		}
	}
	field(function.Recv)
	ast.Inspect(function, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncType:
			field(n.Params)
			field(n.Results)
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, left := range n.Lhs {
					local[rootName(left)] = true
				}
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if e != nil && n.Tok == token.DEFINE {
					local[rootName(e)] = true
				}
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				local[name.Name] = true
			}
		}
		return true
	})
	return local
}

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
)

// A mutation is a source file that is changed in one place.
type mutation struct {
	file, function string
	line           int
	old, new       string

	source   []byte // the unchanged file
	decl     *ast.FuncDecl
	from, to int // the place
}

// broken returns the changed file.
func (m mutation) broken() []byte {
	return slices.Concat(m.source[:m.from], []byte(m.new), m.source[m.to:])
}

// String returns the mutation without its line number, which changes often.
func (m mutation) String() string {
	return fmt.Sprintf("%s %s: %s → %s", m.file, m.function, oneLine(m.old), oneLine(m.new))
}

// place returns the name of the function.
func (m mutation) place() string { return fmt.Sprintf("%s:%d", m.file, m.decl.Pos()) }

func oneLine(code string) string {
	if code = strings.Join(strings.Fields(code), " "); code == "" {
		return "nothing"
	}
	return code
}

// A surgeon collects the mutations of a file.
type surgeon struct {
	fset   *token.FileSet
	file   string
	source []byte
	decl   *ast.FuncDecl
	found  []mutation
}

// offset returns the position of a node in its file, which is the only one of its token.FileSet.
func offset(p token.Pos) int { return int(p) - 1 }

// mutate returns all mutations of a file.
func mutate(file string, source []byte) ([]mutation, error) {
	s := &surgeon{fset: token.NewFileSet(), file: file, source: source}
	tree, err := parser.ParseFile(s.fset, file, source, 0)
	if err != nil {
		return nil, err
	}
	for _, decl := range tree.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil && f.Type.TypeParams == nil {
			s.decl = f
			ast.Inspect(f.Body, s.operate)
		}
	}
	return s.found, nil
}

// replace adds a mutation that replaces n.
func (s *surgeon) replace(n ast.Node, code string) {
	s.found = append(s.found, mutation{
		file: s.file, function: s.decl.Name.Name, line: s.fset.Position(n.Pos()).Line, old: s.code(n), new: code,
		source: s.source, decl: s.decl, from: offset(n.Pos()), to: offset(n.End()),
	})
}

func (s *surgeon) code(n ast.Node) string {
	return string(s.source[offset(n.Pos()):offset(n.End())])
}

// never and always replace a condition by false or true. The condition is still evaluated.
func (s *surgeon) never(cond ast.Expr)  { s.replace(cond, "("+s.code(cond)+") && false") }
func (s *surgeon) always(cond ast.Expr) { s.replace(cond, "("+s.code(cond)+") || true") }

// operate adds the mutations of one node.
func (s *surgeon) operate(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.IfStmt:
		s.never(n.Cond)
		s.always(n.Cond)
	case *ast.SwitchStmt:
		if n.Tag == nil {
			s.cases(n)
		}
	case *ast.BinaryExpr:
		s.operator(n)
	case *ast.ExprStmt, *ast.DeferStmt, *ast.BranchStmt:
		s.replace(n, "")
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE && len(n.Lhs) == 1 {
			s.replace(n, "_ = "+s.code(n.Rhs[0]))
		}
	case *ast.ReturnStmt:
		s.result(n)
	case *ast.BasicLit:
		if number, err := strconv.Atoi(n.Value); err == nil {
			s.replace(n, strconv.Itoa(number+1))
		}
	case *ast.Ident:
		if other := map[string]string{"true": "false", "false": "true"}[n.Name]; other != "" {
			s.replace(n, other)
		}
	}
	return true
}

// cases adds mutations in which a case of a switch without a tag is never true.
func (s *surgeon) cases(n *ast.SwitchStmt) {
	for _, clause := range n.Body.List {
		for _, cond := range clause.(*ast.CaseClause).List {
			s.never(cond)
		}
	}
}

// operators are replaced by those on the right.
var operators = map[token.Token]string{token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">",
	token.ADD: "-", token.SUB: "+"}

// operator replaces an operator, and removes each side of a conjunction.
func (s *surgeon) operator(n *ast.BinaryExpr) {
	switch other := operators[n.Op]; {
	case n.Op == token.LAND || n.Op == token.LOR:
		s.replace(n, s.code(n.X))
		s.replace(n, s.code(n.Y))
	case other != "":
		s.replace(n, s.code(n.X)+" "+other+" "+s.code(n.Y))
	}
}

// result returns a nil error in place of an error, or does not return.
func (s *surgeon) result(n *ast.ReturnStmt) {
	if len(n.Results) == 0 {
		s.replace(n, "")
		return
	}
	switch last := n.Results[len(n.Results)-1].(type) {
	case *ast.Ident:
		if last.Name == "err" {
			s.replace(last, "nil")
		}
	case *ast.CallExpr:
		if strings.Contains(strings.ToLower(s.code(last.Fun)), "err") {
			s.replace(last, "nil")
		}
	}
}

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
)

// A mutation changes a source file in one place.
type mutation struct {
	file, function string
	line           int
	old, new       string

	source   []byte // the unchanged file
	decl     *ast.FuncDecl
	from, to int // the place
}

// String returns the mutation without its line number, which changes often.
func (m mutation) String() string {
	return fmt.Sprintf("%s %s: %s → %s", m.file, m.function, oneLine(m.old), oneLine(m.new))
}

// place identifies the function.
func (m mutation) place() string { return fmt.Sprintf("%s:%d", m.file, m.decl.Pos()) }

func oneLine(code string) string {
	if code = strings.Join(strings.Fields(code), " "); code == "" {
		return "nothing"
	}
	return code
}

// offset returns the offset of p in its file, which must be the only file of its token.FileSet.
func offset(p token.Pos) int { return int(p) - 1 }

// mutate appends the mutations of a file.
func mutate(all []mutation, file string) ([]mutation, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	files := token.NewFileSet()
	tree, err := parser.ParseFile(files, file, source, 0)
	if err != nil {
		return nil, err
	}
	for _, decl := range tree.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Body == nil || f.Type.TypeParams != nil {
			continue
		}
		code := func(n ast.Node) string { return string(source[offset(n.Pos()):offset(n.End())]) }
		replace := func(n ast.Node, by string) {
			all = append(all, mutation{file: file, function: f.Name.Name, line: files.Position(n.Pos()).Line,
				old: code(n), new: by, source: source, decl: f, from: offset(n.Pos()), to: offset(n.End())})
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			operate(n, code, replace)
			return true
		})
	}
	return all, nil
}

// operators maps each operator to its replacement.
var operators = map[token.Token]string{token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">",
	token.ADD: "-", token.SUB: "+"}

// operate calls replace for each mutation of one node. A replaced condition is still evaluated.
func operate(n ast.Node, code func(ast.Node) string, replace func(n ast.Node, by string)) {
	switch n := n.(type) {
	case *ast.IfStmt:
		replace(n.Cond, "("+code(n.Cond)+") && false")
		replace(n.Cond, "("+code(n.Cond)+") || true")
	case *ast.SwitchStmt:
		for _, clause := range n.Body.List {
			for _, cond := range clause.(*ast.CaseClause).List {
				if n.Tag == nil {
					replace(cond, "("+code(cond)+") && false")
				}
			}
		}
	case *ast.BinaryExpr:
		if n.Op == token.LAND || n.Op == token.LOR {
			replace(n, code(n.X))
			replace(n, code(n.Y))
		} else if other := operators[n.Op]; other != "" {
			replace(n, code(n.X)+" "+other+" "+code(n.Y))
		}
	case *ast.ExprStmt, *ast.DeferStmt, *ast.BranchStmt:
		replace(n, "")
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE && len(n.Lhs) == 1 {
			replace(n, "_ = "+code(n.Rhs[0]))
		}
	case *ast.ReturnStmt:
		if len(n.Results) == 0 {
			replace(n, "")
		} else if last := n.Results[len(n.Results)-1]; isError(last, code) {
			replace(last, "nil")
		}
	case *ast.BasicLit:
		if number, err := strconv.Atoi(n.Value); err == nil {
			replace(n, strconv.Itoa(number+1))
		}
	case *ast.Ident:
		if other := map[string]string{"true": "false", "false": "true"}[n.Name]; other != "" {
			replace(n, other)
		}
	}
}

// isError reports whether a result is an error, by its name.
func isError(result ast.Expr, code func(ast.Node) string) bool {
	switch result := result.(type) {
	case *ast.Ident:
		return result.Name == "err"
	case *ast.CallExpr:
		return strings.Contains(strings.ToLower(code(result.Fun)), "err")
	}
	return false
}

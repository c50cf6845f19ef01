package main

import (
	"errors"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// goName matches Go names, as in "set Options.Timeout", "AcceptShort" or "pop3.DialTLS".
var goName = regexp.MustCompile(
	`\b(?:[A-Za-z0-9]+\.[A-Z]\w*|[A-Z][a-z0-9]+[A-Z]\w*|[A-Z]{2,}[a-z]+[A-Z]?\w*|Options|Fetcher)\b`)

// notShownToUsers matches texts that only look like Go names, and texts that users see only if popfetch has a bug.
var notShownToUsers = regexp.MustCompile(`OAuth|KiB|SASLprep|^SsXxCc$|^%d\.M%dP|` +
	`^pop3\.(?:Client|Message)\(|^sasl\.Client\(|use CmdMulti|KeepAlive: |` +
	`DialContext returned|this Message is the zero value|KeepFor needs Seen`)

// No error that users see contains a Go name. The test checks all texts of the library.
func TestErrorsInTheWordsOfTheConfiguration(t *testing.T) {
	found := 0
	for _, dir := range []string{"../..", "../../fetch", "../../sasl"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for text, place := range stringConstants(t, file) {
				if !goName.MatchString(text) || notShownToUsers.MatchString(text) {
					continue
				}
				found++
				if strings.HasSuffix(text, ".Create") { // the code adds this text to a longer one
					text = "mount its file system, or make it with " + text
				}
				for _, sentence := range errorLines(errors.New(text)) {
					assert.NotRegexp(t, goName, sentence, "%s: add it to keyNames in words.go", place)
				}
			}
		}
	}
	assert.Greater(t, found, 10)
}

// stringConstants returns the strings in a source file and where they are. Strings that are added with + count as one.
func stringConstants(t *testing.T, file string) map[string]string {
	t.Helper()
	fset := gotoken.NewFileSet()
	source, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	all := make(map[string]string)
	ast.Inspect(source, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec, *ast.StructType: // import paths and field tags are not texts
			return false
		case ast.Expr:
			if text, ok := literal(n); ok {
				all[text] = fset.Position(n.Pos()).String()
				return false
			}
		}
		return true
	})
	return all
}

// literal returns the value of a string literal, or of several that are added with +.
func literal(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == gotoken.STRING {
			text, err := strconv.Unquote(e.Value)
			return text, err == nil
		}
	case *ast.BinaryExpr:
		left, isLeft := literal(e.X)
		right, isRight := literal(e.Y)
		return left + right, isLeft && isRight
	}
	return "", false
}

package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPromises checks that the tests and files that SECURITY.md names for each promise exist. It also checks the names
// of tests in README.md.
func TestPromises(t *testing.T) {
	tests := allTests(t)
	check := func(text string) (named int) {
		for _, name := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z]+)`").FindAllStringSubmatch(text, -1) {
			assert.Contains(t, tests, "func "+name[1]+"(", text)
			named++
		}
		// The ids are in the names of rows in the tables of tests.
		for _, id := range regexp.MustCompile(`\b(?:H|R\d|Q|C)-\d+`).FindAllString(text, -1) {
			assert.Regexp(t, regexp.QuoteMeta(id)+`\b`, tests, text)
			named++
		}
		return named
	}
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	assert.NotZero(t, check(string(readme)))

	security, err := os.ReadFile("../../SECURITY.md")
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(security), "| --- | --- | --- |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	promises := strings.Split(table, "\n")
	require.Greater(t, len(promises), 10)
	for _, promise := range promises {
		cells := strings.Split(promise, "|")
		require.Len(t, cells, 5, promise)
		assert.NotZero(t, check(cells[3]), "no test: %s", promise)
		for _, file := range regexp.MustCompile("`([a-z/.]+)`").FindAllStringSubmatch(cells[2], -1) {
			_, err := os.Stat("../../" + file[1])
			assert.NoError(t, err, promise)
		}
	}
}

// allTests returns the sources of all tests.
func allTests(t *testing.T) string {
	var tests strings.Builder
	require.NoError(t, filepath.WalkDir("../..", func(name string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, "_test.go") {
			source, err := os.ReadFile(name)
			tests.Write(source)
			return err
		}
		return err
	}))
	return tests.String()
}

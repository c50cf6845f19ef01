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

// TestPromisesNameTests: the tests that README.md and SECURITY.md name for their promises exist.
func TestPromisesNameTests(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	promises, err := os.ReadFile("../../SECURITY.md")
	require.NoError(t, err)
	promises = append(promises, readme...)
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z]+)`").FindAllSubmatch(promises, -1)
	require.NotEmpty(t, named)

	var tests strings.Builder
	require.NoError(t, filepath.WalkDir("../..", func(name string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, "_test.go") {
			source, err := os.ReadFile(name)
			tests.Write(source)
			return err
		}
		return err
	}))
	for _, name := range named {
		assert.Contains(t, tests.String(), "func "+string(name[1])+"(")
	}
}

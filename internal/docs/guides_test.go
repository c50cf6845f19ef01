package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGuides builds the program of each guide, and runs the tests in the guide about testing.
func TestGuides(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: it builds programs")
	}
	guides, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, guides)
	dir, err := os.MkdirTemp(".", "_guides-") // ./... ignores names that begin with "_"
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	vet, test := []string{"vet"}, []string{"test"}
	for _, guide := range guides {
		page, err := os.ReadFile(guide)
		require.NoError(t, err)
		blocks := goBlock.FindAllStringSubmatch(string(page), -1)
		require.Len(t, blocks, 1, guide)
		folder := filepath.Join(dir, strings.TrimSuffix(filepath.Base(guide), ".md"))
		require.NoError(t, os.Mkdir(folder, 0o700))
		name := "main.go"
		if strings.Contains(blocks[0][1], "testing.T") {
			name = "inbox_test.go"
			test = append(test, "./"+folder)
		}
		vet = append(vet, "./"+folder)
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(blocks[0][1]), 0o600))
	}
	require.Len(t, test, 2, "one guide is about tests")
	for _, args := range [][]string{vet, test} {
		out, err := exec.Command("go", args...).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	}
}

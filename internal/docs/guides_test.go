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

// TestGuides builds the program of each guide, and runs the tests of the one that is about tests.
func TestGuides(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: it builds programs")
	}
	guides, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, guides)
	dir, err := os.MkdirTemp(".", "_guides-") // out of the way of ./...
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, guide := range guides {
		page, err := os.ReadFile(guide)
		require.NoError(t, err)
		blocks := goBlock.FindAllStringSubmatch(string(page), -1)
		require.Len(t, blocks, 1, guide)
		folder := filepath.Join(dir, strings.TrimSuffix(filepath.Base(guide), ".md"))
		require.NoError(t, os.Mkdir(folder, 0o700))
		name, command := "main.go", "vet"
		if strings.Contains(blocks[0][1], "testing.T") {
			name, command = "inbox_test.go", "test"
		}
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(blocks[0][1]), 0o600))
		out, err := exec.Command("go", command, "./"+folder).CombinedOutput()
		assert.NoError(t, err, "%s: %s", guide, out)
	}
}

package main

import (
	"os"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The project itself has no differences.
func TestProject(t *testing.T) {
	root, err := findRoot()
	require.NoError(t, err)
	complaints, err := check(lists, os.DirFS(root))
	require.NoError(t, err)
	assert.Empty(t, complaints)
}

func files(contents map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, content := range contents {
		m[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return m
}

func TestCheck(t *testing.T) {
	lists := files(map[string]string{
		"requirements.txt": "R1-001 one\nR1-002 two\nR1-003 three\n",
		"hostile.txt":      "H-001 a\n",
		"quirks.txt":       "Q-1 a\nQ-100 b\n",
		"cases.txt":        "C-001 a\nC-002 b\n",
		"ignored.txt":      "R1-003 not ours\nH-001 not ours\nQ-7 unheard of\n",
	})
	tests := files(map[string]string{
		"a_test.go":           `"R1-001 first", "Q-01", "Q-101", "Q-1234", "C-001 C-003"`,
		"deep/down/b_test.go": `// H-001, H-999, XH-123, H-1234, CVE-2001-0001`,
		"c.go":                `"R1-002"`,
		".git/d_test.go":      `"R1-002"`,
		"untested/e_test.go":  `"R1-002"`,
	})
	complaints, err := check(lists, tests)
	require.NoError(t, err)
	assert.Equal(t, []string{
		"C-002 b: no test names it",
		"C-003: named by a test, but in no list",
		"H-001: ignored, but a test names it",
		"H-999: named by a test, but in no list",
		"Q-100 b: no test names it",
		"Q-101: named by a test, but in no list",
		"Q-7: ignored, but not in a list",
		"R1-002 two: no test names it",
	}, complaints)
}

func TestBrokenLists(t *testing.T) {
	for name, list := range map[string]string{
		"no text": "R1-001\n", "no id": "something\n", "twice": "R1-001 a\nR1-001 b\n", "blank line": "R1-001 a\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := check(files(map[string]string{"a.txt": list}), files(nil))
			assert.Error(t, err)
		})
	}
}

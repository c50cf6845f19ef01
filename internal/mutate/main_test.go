package main

import (
	"go/format"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const source = `package p

func f(a, b int) (n int, err error) {
	if a < b && b > 0 {
		return 0, err
	}
	switch {
	case a == 7:
		n = a + 1
	}
	defer g(true)
	g(false)
	return n, nil
}
`

// sourceMutations returns the mutations of source.
func sourceMutations(t *testing.T) []mutation {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("p.go", []byte(source), 0o666))
	all, err := mutate(nil, "p.go")
	require.NoError(t, err)
	return all
}

func TestMutate(t *testing.T) {
	var names []string
	for _, m := range sourceMutations(t) {
		names = append(names, m.String())
	}
	assert.Equal(t, []string{
		"p.go f: a < b && b > 0 → (a < b && b > 0) && false",
		"p.go f: a < b && b > 0 → (a < b && b > 0) || true",
		"p.go f: a < b && b > 0 → a < b",
		"p.go f: a < b && b > 0 → b > 0",
		"p.go f: a < b → a <= b",
		"p.go f: b > 0 → b >= 0",
		"p.go f: 0 → 1",
		"p.go f: err → nil",
		"p.go f: 0 → 1",
		"p.go f: a == 7 → (a == 7) && false",
		"p.go f: 7 → 8",
		"p.go f: n = a + 1 → _ = a + 1",
		"p.go f: a + 1 → a - 1",
		"p.go f: 1 → 2",
		"p.go f: defer g(true) → nothing",
		"p.go f: true → false",
		"p.go f: g(false) → nothing",
		"p.go f: false → true",
	}, names)
}

func TestDraw(t *testing.T) {
	all := sourceMutations(t)
	some := sampleOf(slices.Clone(all), 3, "seed")
	assert.Len(t, some, 3)
	assert.Equal(t, some, sampleOf(slices.Clone(all), 3, "seed"))
	assert.NotEqual(t, some, sampleOf(slices.Clone(all), 3, "another seed"))
}

// A file with mutations behaves like the original until a mutation is chosen.
func TestWithMutations(t *testing.T) {
	all := sourceMutations(t)
	file := withMutations(all, []int{4, 2})
	_, err := format.Source([]byte(file))
	require.NoError(t, err, file)
	assert.True(t, strings.HasPrefix(file, "package p\n\nfunc f(a, b int) (n int, err error) {\n"+
		"switch chosenMutation {\ncase 5:\n//line mutation4:1\n\n\tif a <= b && b > 0 {"), file)
	assert.Contains(t, file, "panic(\"mutation\")\ncase 3:\n//line mutation2:1\n\n\tif a < b {")
	assert.Contains(t, file, "default:\nreachedMutations(\"p.go:12\")\n}\n\n\tif a < b && b > 0 {")
}

// Every survivor in the list is a mutation of the current source, and has a reason.
func TestSurvivors(t *testing.T) {
	t.Chdir("../..")
	all, err := mutations(nil)
	require.NoError(t, err)
	for line := range strings.Lines(survivors) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		i := slices.IndexFunc(all, func(m mutation) bool { return strings.HasPrefix(line, m.String()+": ") })
		if assert.GreaterOrEqual(t, i, 0, "not in the source: %s", line) {
			assert.Greater(t, len(line), len(all[i].String())+10, "no reason: %s", line)
		}
	}
}

package main

import (
	"go/format"
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

func TestMutate(t *testing.T) {
	found, err := mutate("p.go", []byte(source))
	require.NoError(t, err)
	var names []string
	for _, m := range found {
		names = append(names, m.String())
		_, err := format.Source(m.broken())
		assert.NoError(t, err, m)
		assert.NotEqual(t, source, string(m.broken()))
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
	all, err := mutate("p.go", []byte(source))
	require.NoError(t, err)
	some := draw(slices.Clone(all), 3, "seed")
	assert.Len(t, some, 3)
	assert.Equal(t, some, draw(slices.Clone(all), 3, "seed"))
	assert.NotEqual(t, some, draw(slices.Clone(all), 3, "another seed"))
}

// A file with mutations behaves like the original until a mutation is chosen.
func TestWithMutations(t *testing.T) {
	all, err := mutate("p.go", []byte(source))
	require.NoError(t, err)
	file := withMutations(all, []int{2, 4})
	_, err = format.Source([]byte(file))
	require.NoError(t, err, file)
	for _, code := range []string{
		"func notMutatedf(a, b int) (n int, err error) {\n\tif a < b && b > 0 {",
		"//line mutation2:1\nfunc mutated2f(a, b int) (n int, err error) {\n\tif a < b {",
		"//line mutation4:1\nfunc mutated4f(a, b int) (n int, err error) {\n\tif a <= b && b > 0 {",
		"func  f(param0 int, param1 int) (n int, err error) {\nswitch chosenMutation {\n" +
			"case 3:\nreturn mutated2f(param0, param1)\ncase 5:\nreturn mutated4f(param0, param1)\n" +
			"default:\nreachedMutations(\"p.go:12\")\nreturn notMutatedf(param0, param1)\n}\n}\n",
	} {
		assert.Contains(t, file, code)
	}
}

// Every survivor in the list is a mutation of the present source, and has a reason.
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

//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// systemd accepts the unit files in contrib.
func TestContrib(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("NOT RUN: systemd-analyze is not here")
	}
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(home, "go", "bin"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, "go", "bin", "popfetch"), []byte("#!/bin/sh\n"), 0o700))
	units, err := filepath.Glob("contrib/*.[st]*")
	require.NoError(t, err)
	require.Len(t, units, 3)
	for i, unit := range units {
		text, err := os.ReadFile(unit)
		require.NoError(t, err)
		units[i] = filepath.Join(home, filepath.Base(unit))
		text = []byte(strings.ReplaceAll(string(text), "%h", home))
		require.NoError(t, os.WriteFile(units[i], text, 0o600))
	}
	cmd := exec.CommandContext(t.Context(), analyze,
		append([]string{"verify", "--man=no", "--recursive-errors=no"}, units...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+home+":")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	var ours []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "popfetch") {
			ours = append(ours, line)
		}
	}
	assert.Empty(t, ours)
}

// popfetch accepts each command line in the files of contrib.
func TestContribFlags(t *testing.T) {
	calls := 0
	files, err := filepath.Glob("contrib/*")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			_, args, ok := strings.Cut(line, "/popfetch ")
			if !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "COPY") || strings.HasPrefix(line,
				"RUN") {
				continue
			}
			_, err := parseFlags(strings.Fields(args))
			require.NoError(t, err, line)
			calls++
		}
	}
	assert.Equal(t, 2, calls, "the service and cron")
}

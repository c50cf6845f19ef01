package main

import (
	"os"
	"path/filepath"
)

// stateDir is where popfetch remembers what it has stored: the folder that the configuration names, or that for
// states in the XDG base directory specification.
func stateDir(configured string) (string, error) {
	if configured != "" {
		err := expand(&configured)
		return configured, err
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "popfetch"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "popfetch"), err
}

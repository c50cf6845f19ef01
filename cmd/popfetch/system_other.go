//go:build !unix

package main

import (
	"os"
	"os/exec"
)

// There are no such signals and no process groups.

func (signals) handleUnixSignals(bool, chan os.Signal) {}

func ownGroup(*exec.Cmd) {}

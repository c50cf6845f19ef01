//go:build !unix

package main

import (
	"os"
	"os/exec"
)

// This system has neither these signals nor process groups.

func (signals) handleUnixSignals(bool, chan os.Signal) {}

func ownGroup(*exec.Cmd) {}

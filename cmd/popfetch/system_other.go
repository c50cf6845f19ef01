//go:build !unix

package main

import (
	"os"
	"os/exec"
)

// This system has neither the signals of Unix nor process groups.

func (signals) handleUnixSignals(bool, chan os.Signal) {}

func ownGroup(*exec.Cmd) {}

//go:build !unix

package main

import "os/exec"

// detach does nothing: there are no process groups to be had.
func detach(*exec.Cmd) {}

package clients

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Resident returns the resident memory of a process in octets. It reads /proc, and returns 0 on systems without /proc.
func Resident(pid int) int64 { return status(pid, "VmRSS:") }

// Peak returns the maximum of the resident memory of a process in octets. It reads /proc, because the maximum that
// wait4 returns includes the memory that the parent had when it started the child. It returns 0 on systems without
// /proc.
func Peak(pid int) int64 { return status(pid, "VmHWM:") }

func status(pid int, name string) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte(name)); ok {
			number := bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(value), []byte("kB")))
			kib, err := strconv.ParseInt(string(number), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

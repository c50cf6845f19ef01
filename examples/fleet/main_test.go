package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The test binary is the program too, when a test starts it as a child.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

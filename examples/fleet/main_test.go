package main

import (
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
)

// The test binary is also the fleet, when a test starts it as another process. The servers of the lab are built without
// the race detector, because it would make them many times slower.
func TestMain(m *testing.M) {
	if !lab.IsChild() {
		flag.Set("test.parallel", "4") // the tests wait for other processes most of the time
		dir, err := os.MkdirTemp("", "fleet-test-")
		if err != nil {
			panic(err)
		}
		lab.Program = filepath.Join(dir, "lab")
		if out, err := exec.Command("go", "build", "-o", lab.Program, "./demo").CombinedOutput(); err != nil {
			panic(string(out))
		}
		goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) { os.RemoveAll(dir); os.Exit(status) }))
		return
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(3) // the test has ended
	}()
	main()
}

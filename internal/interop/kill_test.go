package interop

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const envHelper = "POP3_INTEROP_TEST_HELPER" // names the state folder, and turns the test binary into the program to kill

// TestKilledHelper is the program that TestKilled kills: it starts a server, says where, and waits.
func TestKilledHelper(t *testing.T) {
	dir := os.Getenv(envHelper)
	if dir == "" {
		t.Skip("runs only as a child of TestKilled")
	}
	s, err := Start(context.Background(), Dovecot, dir, nil)
	require.NoError(t, err)
	_, err = os.Stdout.WriteString(s.Addr + "\n")
	require.NoError(t, err)
	select {}
}

// TestKilled kills a program that runs a server, as a test time limit or an impatient user does.
func TestKilled(t *testing.T) {
	startServer(t, Dovecot, nil) // skips where it cannot run
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledHelper$")
	cmd.Env = append(os.Environ(), envHelper+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	addr := lines.Text()
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	assert.Eventually(t, func() bool {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 10*time.Second, 20*time.Millisecond, "the server ends with the program that started it")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	assert.NotContains(t, string(mounts), dir, "no mount is left")
}

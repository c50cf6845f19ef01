package fetch_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// A helper is a function that this test binary runs in another process. helperEnv is the environment variable that
// selects it.
const helperEnv = "FETCH_TEST_HELPER"

var helpers = map[string]func(arg string){}

// runHelper runs a helper, if this process is one.
func runHelper() bool {
	task := os.Getenv(helperEnv)
	if task == "" {
		return false
	}
	helpers[task](os.Args[len(os.Args)-1])
	return true
}

// sendWord sends a word from a helper to the process that started it, which waits for it with await.
func sendWord(word string) { fmt.Println(word) }

// A helper is another process.
type helper struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *bufio.Scanner
}

func startHelper(t *testing.T, task, arg string) *helper {
	t.Helper()
	cmd := exec.Command(os.Args[0], arg)
	cmd.Env = append(os.Environ(), helperEnv+"="+task, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	_, err = cmd.StdinPipe() // helpers read from stdin to wait, so it must stay open
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	h := &helper{t, cmd, bufio.NewScanner(out)}
	t.Cleanup(h.kill)
	return h
}

// await reads until the helper says word. It returns false if the helper ends without saying word.
func (h *helper) await(word string) bool {
	for h.stdout.Scan() {
		if h.stdout.Text() == word {
			return true
		}
	}
	return false
}

// kill ends the helper with SIGKILL, if it has not ended.
func (h *helper) kill() {
	h.cmd.Process.Kill()
	h.cmd.Wait()
}

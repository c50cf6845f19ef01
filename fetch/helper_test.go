package fetch_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// Helpers are what this test binary does as another process, by the first word of the environment's helperTask.
const helperTask = "FETCH_TEST_HELPER"

var helpers = map[string]func(arg string){}

// helped runs as a helper if that is what this process is for.
func helped() bool {
	task := os.Getenv(helperTask)
	if task == "" {
		return false
	}
	helpers[task](os.Args[len(os.Args)-1])
	return true
}

// say is heard by await.
func say(word string) { fmt.Println(word) }

// A helper is another process.
type helper struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Scanner
}

func startHelper(t *testing.T, task, arg string) *helper {
	t.Helper()
	cmd := exec.Command(os.Args[0], arg)
	cmd.Env = append(os.Environ(), helperTask+"="+task, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	_, err = cmd.StdinPipe() // which stays open
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	h := &helper{t, cmd, bufio.NewScanner(out)}
	t.Cleanup(h.kill)
	return h
}

// await reads on until the helper says word. It returns false if the helper ends before.
func (h *helper) await(word string) bool {
	for h.out.Scan() {
		if h.out.Text() == word {
			return true
		}
	}
	return false
}

// kill ends the helper as kill -9 does, if it has not ended.
func (h *helper) kill() {
	h.cmd.Process.Kill()
	h.cmd.Wait()
}

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mailIn counts the messages in the Maildirs of a folder, by their first line.
func mailIn(dir string) (count map[string]int, all int) {
	count = make(map[string]int)
	files, _ := filepath.Glob(filepath.Join(dir, "*", "new", "*"))
	for _, name := range files {
		if body, err := os.ReadFile(name); err == nil {
			count[firstLine.FindString(string(body))]++
			all++
		}
	}
	return count, all
}

// Workers that are killed with -9 in the middle of polls, which delete what was delivered. In the end each message is
// in a Maildir, and some are there twice: at most those that were on their way when a worker died.
func TestKilledWorkersLoseNothing(t *testing.T) {
	const boxes, messages, kills, sessions = 40, 6, 4, 4
	f := newFleet(t, boxes, messages)
	dir := t.TempDir()
	file, mail := filepath.Join(dir, "accounts.json"), filepath.Join(dir, "mail")
	var accounts []Account
	for _, a := range f.accounts {
		a.Delete = true
		accounts = append(accounts, a)
	}
	require.NoError(t, saveAccounts(file, accounts))
	hire := func() *child {
		w, err := spawn("worker", "-nats", f.nats.ClientURL(), "-accounts", file, "-sink", "maildir:"+mail,
			"-ackwait", testAckWait.String(), "-min", "1h", "-max", "1h", "-mechanisms", "PLAIN",
			"-sessions", fmt.Sprint(sessions))
		require.NoError(t, err)
		t.Cleanup(w.kill)
		return w
	}
	f.enlist(t)
	start(t, f.scheduler(f.bus, quick).Run)
	crew := [2]*child{hire(), hire()}
	for n := range kills {
		goal := (n*boxes*messages + rand.IntN(boxes*messages)) / (kills + 1)
		eventually(t, "some are delivered", func() bool { _, all := mailIn(mail); return all > goal })
		crew[n%2].kill()
		crew[n%2] = hire()
	}
	eventually(t, "all are polled", f.polled)
	count, all := mailIn(mail)
	assert.Len(t, count, boxes*messages)
	repeated := all - len(count)
	t.Logf("%d messages, %d kills, %d repeated", len(count), kills, repeated)
	assert.LessOrEqual(t, repeated, kills*sessions)
	for n := range boxes {
		assert.Empty(t, f.pop3.Left(labUser(n)))
	}
}

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// If messages that should be deleted were not deleted, each run reports that as a problem, with the reason. It does so
// even if nothing new arrives.
func TestKept(t *testing.T) {
	tests := []struct {
		name       string
		fault      pop3test.Fault
		out        []string // output of each run
		err, event string
	}{
		{"C-066 a server that announces larger sizes", pop3test.Fault{At: "LIST", Lie: 2}, []string{
			"ann: 1 new, 30 bytes, 1 not deleted, 1 with trouble\n",
			"ann: nothing new, 1 not deleted\n", "ann: nothing new, 1 not deleted\n",
		}, "shorter than the server claims", `"short":1,"not_deleted":0`},
		{"C-067 deletions that are confirmed but not carried out",
			pop3test.Fault{At: "QUIT", Commit: pop3test.CommitNone},
			[]string{
				"ann: 1 new, 60 bytes, 1 deleted, 1 not deleted\n",
				"ann: nothing new, 1 deleted, 1 not deleted\n", "ann: nothing new, 1 not deleted\n",
			}, "not deleted by the server", `"short":0,"not_deleted":1`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
			defer srv.Close()
			srv.SetFaults(tt.fault)
			p := newWorkspace(t)
			config := p.configure(p.account(srv, "ann", `delete = "after delivery"`))
			for _, out := range tt.out {
				r := p.run("-c", config)
				assert.Equal(t, exitFailed, r.status)
				assert.Equal(t, out, r.out)
				assert.Contains(t, r.err, tt.err)
			}
			r := p.run("--json", "-c", config)
			assert.Equal(t, exitFailed, r.status)
			assert.Contains(t, r.out, tt.event)
			assert.Len(t, srv.Left("ann"), 1)
		})
	}
}

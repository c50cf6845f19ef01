package fetch_test

import (
	"testing"
	"time"

	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// Replies are shifted, and all messages have the same size, so no size reveals the shift. The messages that were stored
// meanwhile are compared again before anything is deleted (C-110).
func TestShiftedRepliesOfEqualSize(t *testing.T) {
	s := setup{name: "equal sizes", messages: mails("one", "two", "six"), uids: []string{"uid-1", "uid-2", "uid-3"},
		options: fetch.Fetcher{Delete: true}}
	missingReply := pop3test.Fault{At: "RETR 1", Times: 1, Deaf: true}
	for name, nextFault := range map[string]pop3test.Fault{
		"C-110 then the connection is lost":            {At: "RETR 3", Times: 1, Drop: pop3test.AfterReply},
		"C-110 then a reply in the place of a message": {At: "RETR 3", Times: 1, Extra: "+OK\r\n+OK forged\r\n."},
		"C-110 then silence":                           {At: "RETR 9"},
	} {
		t.Run(name, func(t *testing.T) {
			testFailure(t, s, failure{maxStoredTwice: 3, partialMessages: true,
				faults: []pop3test.Fault{missingReply, nextFault}})
		})
	}
}

// Stored messages are in doubt, and the history cannot be saved. Then the run ends with an error (C-110).
func TestUnsureNotSaved(t *testing.T) {
	s := setup{name: "equal sizes", messages: mails("one", "two", "six"), uids: []string{"uid-1", "uid-2", "uid-3"},
		options: fetch.Fetcher{Delete: true}}
	m := failure{maxStoredTwice: 3, partialMessages: true,
		faults: []pop3test.Fault{{At: "RETR 2", Times: 1, Extra: "+OK\r\n+OK forged\r\n."}}}
	bubble(t, func(t *testing.T) {
		w := newTestRun(t, s)
		w.run(m)
		m.seenFailsAt, m.err = w.seen.calls, errSeen
		w.drop.Close()
	})
	for ; m.seenFailsAt > 0; m.seenFailsAt-- {
		testFailure(t, s, m)
	}
}

// A message that is known to be short is not complete. QUIT is withheld after each session that has retrieved it,
// because QUIT might remove it (C-110).
func TestShortMessageRetrievedTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newTestRun(t, setup{messages: mails("one", "two"), uids: []string{"uid-1", "uid-2"}, expireRetrieved: true,
			caps: []string{"UIDL", "PIPELINING", "USER"}, options: fetch.Fetcher{Delete: true}})
		for range 3 {
			w.run(failure{partialMessages: true, faults: []pop3test.Fault{{At: "RETR 1", Short: true, Octets: 20}}})
			time.Sleep(25 * time.Hour)
		}
		w.runAgain(failure{partialMessages: true})
		w.drop.Close()
	})
}

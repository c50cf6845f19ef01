package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// C-074: a Maildir or an mbox is made in the first run of an account. One that disappears later, as with a file system
// that is not mounted, is an error, and the mail stays on the server.
func TestPlaceThatDisappears(t *testing.T) {
	for _, key := range []string{"maildir", "mbox"} {
		t.Run(key, func(t *testing.T) {
			srv := pop3test.NewServer(box("ann", mails("one", "two")...))
			defer srv.Close()
			p := newPlace(t)
			mail := p.path("mail")
			config := p.configure(p.account(srv, "ann", key+` = "`+mail+`"`, `delete = "after delivery"`,
				"max_messages = 1"))
			p.run("-c", config)
			require.Len(t, srv.Left("ann"), 1)
			require.NoError(t, os.RemoveAll(mail))

			r := p.run("-c", config)
			assert.Equal(t, exitTrouble, r.status, "%+v", r)
			assert.Contains(t, r.out+r.err, "mount its file system")
			assert.Len(t, srv.Left("ann"), 1)
			_, err := os.Lstat(mail)
			assert.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}

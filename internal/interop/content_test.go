package interop_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// TestContent compares every awkward message, octet by octet, with the message in the store, after the changes that the
// facts of the server describe.
func TestContent(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		mails := f.corpus(interop.Awkward)
		reserve(t, s, interop.Alice)
		c := loggedIn(t, s, interop.Alice)
		_, err := c.UidlAll(t.Context()) // some servers write unique-ids into the messages when they are listed
		require.NoError(t, err)
		infos, err := c.ListAll(t.Context())
		require.NoError(t, err)
		require.Len(t, infos, len(mails))

		nums := make([]int, len(mails))
		for i, m := range mails {
			nums[i] = i + 1
			text := f.assertMail(t, c, i+1, m)
			assert.Equal(t, infos[i].Size, int64(len(text))+f.sizeErrors[m.Name], "the size of %s", m.Name)
		}
		f.assertMails(t, c, nums, mails)
		require.NoError(t, c.Quit(t.Context()))
	})
}

// TestUtf8 checks that Courier sends a message with 8-bit headers as it is stored only after UTF8.
func TestUtf8(t *testing.T) {
	t.Parallel()
	s := servers.get(t, interop.Courier, "")
	reserve(t, s, interop.Alice)
	c := dial(t, s, overTLS, nil)
	require.NoError(t, c.Utf8(t.Context()))
	require.NoError(t, c.Login(t.Context(), interop.Alice.Name, interop.Alice.Password))
	mails := courier.corpus(interop.Awkward)
	for i, m := range mails {
		if m.Name == "utf8headers" {
			got, err := c.Retr(t.Context(), i+1)
			assertSame(t, m.Wire(), read(t, got, err), m.Name)
		}
	}
	require.NoError(t, c.Quit(t.Context()))
}

// TestUtf8Refused calls UTF8 on servers that do not announce it. Nothing is sent, and the session can be used
// afterwards.
func TestUtf8Refused(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		c := dial(t, s, inClear, nil)
		err := c.Utf8(t.Context())
		if f.utf8User {
			require.NoError(t, err)
		} else {
			require.Error(t, err)
		}
		login(t, c, s.Spare())
		_, err = c.Lang(t.Context(), "en")
		require.Error(t, err, "no server has LANG")
		require.Equal(t, pop3.StateTransaction, c.State())
		require.NoError(t, c.Quit(t.Context()))
	})
}

package interop_test

import (
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// TestBulk lists 1,000 messages, retrieves and compares them, deletes them, and checks that the maildrop is empty. It
// sends commands ahead even if the server does not announce PIPELINING, because every server replies in order after the
// login (findings 1 and 2).
func TestBulk(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		ctx, a := t.Context(), s.SpareBulk()
		mails := f.corpus(interop.Bulk)
		c := dial(t, s, inClear, &pop3.Options{Pipelining: pop3.PipeliningAlways})
		login(t, c, a)
		infos, err := c.Listing(ctx)
		require.NoError(t, err)
		require.Len(t, infos, len(mails))
		nums := make([]int, len(infos))
		uids := map[string]bool{}
		for i, info := range infos {
			nums[i] = info.Num
			uids[info.UID] = true
		}
		assert.Len(t, uids, len(mails), "unique-ids are unique")

		f.assertMails(t, c, nums, mails)

		headers := 0
		for m, err := range c.Tops(ctx, 0, nums[:200]...) {
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, m)
			require.NoError(t, err)
			headers++
		}
		assert.Equal(t, 200, headers)

		require.NoError(t, c.Dele(ctx, nums...))
		drop, err := c.Stat(ctx)
		require.NoError(t, err)
		assert.Zero(t, drop.Count)
		require.NoError(t, c.Quit(ctx))
		assertLeft(t, s, a, 0)
	})
}

// assertMails retrieves messages with Messages, and compares each with its mail.
func (f *facts) assertMails(t *testing.T, c *pop3.Client, nums []int, mails []interop.Mail) {
	t.Helper()
	seen := 0
	for m, err := range c.Messages(t.Context(), nums...) {
		require.NoError(t, err)
		require.Equal(t, nums[seen], m.Num)
		text, err := io.ReadAll(m)
		require.NoError(t, err)
		assertSame(t, f.expected(mails[seen]), f.comparable(text), mails[seen].Name)
		seen++
	}
	assert.Equal(t, len(nums), seen)
}

// TestBreak leaves a loop over many messages in the middle, and then uses the session.
func TestBreak(t *testing.T) {
	forEachServer(t, func(t *testing.T, _ *facts, s *interop.Server) {
		c := loggedIn(t, s, s.Spare())
		for m, err := range c.Messages(t.Context(), 1, 2, 3, 4, 5) {
			require.NoError(t, err)
			if m.Num == 2 {
				break
			}
		}
		require.NoError(t, c.Noop(t.Context()))
		require.NoError(t, c.Quit(t.Context()))
	})
}

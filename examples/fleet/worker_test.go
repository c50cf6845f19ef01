package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// These are the short names of errors. A word that a server has chosen is not used as a name, because each would be a
// new time series.
func TestCodes(t *testing.T) {
	tests := map[string][]error{
		"":            {nil},
		"AUTH":        {&pop3.Error{Code: pop3.CodeAuth}},
		"IN-USE":      {&pop3.Error{Code: pop3.CodeInUse}},
		"SYS/TEMP":    {&pop3.Error{Code: pop3.CodeSysTemp}},
		"refused":     {&pop3.Error{}, &pop3.Error{Code: "X-SOMETHING-7"}},
		"certificate": {&tls.CertificateVerificationError{Err: errors.New("expired")}},
		"timeout":     {os.ErrDeadlineExceeded, context.DeadlineExceeded},
		"protocol":    {&pop3.ProtocolError{}},
		"cut":         {io.ErrUnexpectedEOF, io.EOF},
		"network":     {&net.OpError{Op: "dial", Err: errors.New("no route to host")}},
		"too large":   {fetch.ErrTooLarge},
		"other":       {errors.New("something else")},
	}
	for code, errs := range tests {
		for _, err := range errs {
			if err != nil {
				err = fmt.Errorf("fleet: %w", err)
			}
			assert.Equal(t, code, codeOf(err), "%v", err)
		}
	}
}

// A Maildir is made for an account that has none. The folder that contains the Maildirs must exist (C-074).
func TestMaildirsAreMade(t *testing.T) {
	root := t.TempDir()
	a := accounts.Account{Name: "a@x"}
	w := Worker{Sink: "maildir:" + root}
	sink, err := w.sinkOf(a, true)
	require.NoError(t, err)
	require.NoError(t, sink.Deliver(t.Context(), fetch.Item{}, strings.NewReader("mail")))
	sink, err = w.sinkOf(accounts.Account{Name: "b@x"}, false)
	require.NoError(t, err)
	require.ErrorIs(t, sink.Deliver(t.Context(), fetch.Item{}, strings.NewReader("mail")), fs.ErrNotExist)
	w.Sink += "/not mounted"
	_, err = w.sinkOf(a, true)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

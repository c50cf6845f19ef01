package conformance_test

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3"
)

// canary is the password of the sessions with hostile servers. No error and no trace may contain it.
const canary = "Ab9-canary+Xy7/secret"

// An errorCheck checks the error of a call.
type errorCheck func(t *testing.T, err error)

// wraps returns a check that the error wraps all targets.
func wraps(targets ...error) errorCheck {
	return func(t *testing.T, err error) {
		for _, target := range targets {
			assert.ErrorIs(t, err, target)
		}
	}
}

// allOf returns a check that makes all of the given checks.
func allOf(checks ...errorCheck) errorCheck {
	return func(t *testing.T, err error) {
		for _, p := range checks {
			p(t, err)
		}
	}
}

// hasText returns a check that the text of the error contains text.
func hasText(text string) errorCheck {
	return func(t *testing.T, err error) { assert.ErrorContains(t, err, text) }
}

// lacksText returns a check that the text of the error does not contain text.
func lacksText(text string) errorCheck {
	return func(t *testing.T, err error) { assert.NotContains(t, err.Error(), text) }
}

// connLost checks the error of a lost connection. The error must not wrap io.EOF.
var connLost = allOf(wraps(io.ErrUnexpectedEOF), func(t *testing.T, err error) {
	assert.NotErrorIs(t, err, io.EOF)
	var timeout net.Error
	assert.False(t, errors.As(err, &timeout) && timeout.Timeout())
})

// timedOut checks the error if the server was too slow.
var timedOut = allOf(wraps(os.ErrDeadlineExceeded), func(t *testing.T, err error) {
	var timeout net.Error
	assert.True(t, errors.As(err, &timeout) && timeout.Timeout(), "a net.Error with Timeout")
})

// refusedWith returns a check that the error is an *Error with this code and text.
func refusedWith(code pop3.Code, text string) errorCheck {
	return func(t *testing.T, err error) {
		var refusal *pop3.Error
		if assert.ErrorAs(t, err, &refusal) {
			assert.Equal(t, code, refusal.Code)
			assert.Equal(t, text, refusal.Text)
		}
	}
}

// nonFatal checks that the error is a *ProtocolError that is not fatal.
func nonFatal(t *testing.T, err error) { checkProtocolError(t, err, false) }

// fatal checks that the error is a *ProtocolError that is fatal.
func fatal(t *testing.T, err error) { checkProtocolError(t, err, true) }

func checkProtocolError(t *testing.T, err error, fatal bool) {
	var protocol *pop3.ProtocolError
	if assert.ErrorAs(t, err, &protocol) {
		assert.Equal(t, fatal, protocol.Fatal)
		assert.NotEmpty(t, protocol.Cmd)
		assert.NotEmpty(t, protocol.Detail)
		assert.LessOrEqual(t, len(protocol.Line), 128)
	}
}

// sameCause checks that the later error wraps the same cause as the first one.
func sameCause(t *testing.T, first, later error) {
	for _, cause := range []error{
		io.ErrUnexpectedEOF, os.ErrDeadlineExceeded, context.Canceled, context.DeadlineExceeded,
		syscall.ECONNRESET,
	} {
		if errors.Is(first, cause) {
			assert.ErrorIs(t, later, cause)
		}
	}
	var firstErr, laterErr *pop3.ProtocolError
	if errors.As(first, &firstErr) && firstErr.Fatal && assert.ErrorAs(t, later, &laterErr) {
		assert.Same(t, firstErr, laterErr, "the error of the first cause")
	}
}

// maxErrorText is a little more than the longest text of an error: 512 octets from the server, a command, and text of
// the client.
const maxErrorText = 1200

// checkError checks that err can be shown: it is short, has no control characters, and does not contain the password.
func checkError(t *testing.T, err error) {
	t.Helper()
	if !assert.Error(t, err) {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && strings.Contains(err.Error(), "\n") {
		for _, err := range joined.Unwrap() { // errors.Join writes each error on a line of its own
			checkError(t, err)
		}
		return
	}
	assert.LessOrEqual(t, len(err.Error()), maxErrorText)
	checkShown(t, err.Error())
}

// checkShown checks that text contains neither control characters nor the password.
func checkShown(t *testing.T, text string) {
	t.Helper()
	assert.True(t, utf8.ValidString(text), "valid UTF-8: %q", text)
	for _, r := range text {
		if unicode.In(r, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
			assert.Fail(t, "a control character is shown", "%q in %q", r, text)
		}
	}
	for name, form := range canaryEncodings() {
		if strings.Contains(text, form) {
			assert.Fail(t, "the password is shown", "%s in %q", name, text)
		}
	}
}

// canaryEncodings computes the encodings of canary only once. Every error and every trace of every test is searched for
// them.
var canaryEncodings = sync.OnceValue(func() map[string]string { return encodingsOf(canary) })

// urlSafe converts base64 to its alphabet for URLs.
var urlSafe = strings.NewReplacer("+", "-", "/", "_")

// encodingsOf returns the encodings of a secret that a text must not contain.
func encodingsOf(secret string) map[string]string {
	forms := map[string]string{
		"plain":       secret,
		"hex":         hex.EncodeToString([]byte(secret)),
		"upper hex":   strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"percent":     percent(secret, false),
		"all percent": percent(secret, true),
		"quoted":      strings.Trim(strconv.Quote(secret), `"`),
		"octets":      strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
	}
	for skip := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, skip), secret...))
		// These characters depend only on the secret, not on the octets before and after it.
		encoded = encoded[(skip*8+5)/6 : (skip+len(secret))*8/6]
		forms[fmt.Sprintf("base64 after %d", skip)] = encoded
		forms[fmt.Sprintf("base64url after %d", skip)] = urlSafe.Replace(encoded)
	}
	return forms
}

// percent encodes s as in URLs. If all is true, it also encodes the octets for which that is not necessary.
func percent(s string, all bool) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if !all && (c == '-' || unicode.IsLetter(rune(c)) || unicode.IsDigit(rune(c))) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// checkingTrace returns a trace that checks all texts. It also checks that Done is called at most once for each
// command.
func checkingTrace(t *testing.T) *pop3.Trace {
	open := map[string]int{}
	return &pop3.Trace{
		WroteCommand: func(_ context.Context, cmd string) {
			checkShown(t, cmd)
			open[verbOf(cmd)]++
		},
		GotReply: func(_ context.Context, cmd, reply string) {
			checkShown(t, cmd)
			checkShown(t, reply)
			assert.LessOrEqual(t, len(reply), 512)
		},
		Done: func(_ context.Context, cmd string, octets int64, err error) {
			checkShown(t, cmd)
			if open[verbOf(cmd)]--; err == nil {
				assert.GreaterOrEqual(t, open[verbOf(cmd)], 0, "done more often than written: %s", cmd)
			} else {
				checkError(t, err)
			}
		},
	}
}

// verbOf returns the part of a command that is the same in all hooks. For AUTH this is only the verb, because the
// client writes AUTH in several lines.
func verbOf(cmd string) string {
	verb, _, _ := strings.Cut(cmd, " ")
	if verb == "AUTH" {
		return verb
	}
	return cmd
}

// errUnsupported is short for errors.ErrUnsupported, which many tests use.
var errUnsupported = errors.ErrUnsupported

var errReset = syscall.ECONNRESET

// apopDigest returns the digest of RFC 1939 section 7.
func apopDigest(stamp, secret string) string {
	sum := md5.Sum([]byte(stamp + secret))
	return hex.EncodeToString(sum[:])
}

// A repeatReader returns its octets again and again, without end.
type repeatReader string

func (e repeatReader) Read(p []byte) (int, error) {
	n := 0
	for n+len(e) <= len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

// quoted quotes octets for the lines of a script.
func quoted(octets string) string { return strconv.Quote(octets) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

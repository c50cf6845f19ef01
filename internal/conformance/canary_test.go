package conformance_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// The canary test logs in with a random password in every way, at servers that repeat it in all they say, with
// traces on, and then looks for it in everything that can be seen.

// leftOut stands for words of a server in which a secret shows.
const leftOut = "(the server's words repeat the secret)"

// randomPassword gives a password of characters that the encodings of a server treat in different ways.
func randomPassword(alphabet string) string {
	b := make([]byte, 20)
	rand.Read(b)
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return string(b)
}

// A parrotServer lets everybody in or nobody, and says the password each time.
type parrotServer struct {
	password string
	quote    func(password string) string
	mood     mood
}

// mood is what the server makes of commands.
type mood int

const (
	welcoming   mood = iota // logins succeed, and what follows is refused with a quotation
	refusing                // logins are refused with a quotation
	coding                  // logins are refused with a quotation as response code
	babbling                // replies are no replies
	overflowing             // replies are too long
	mumbling                // replies have a value that is no value
	hasty                   // replies come twice
	moods
)

// run is a session.
func (s parrotServer) run(p *peer) {
	p.says("+OK ready <1@example.com>\r\n")
	for in := false; ; {
		line := p.line()
		verb, _, _ := strings.Cut(line, " ")
		switch {
		case line == "":
			return
		case verb == "CAPA":
			p.says("+OK " + s.quote(s.password) + "\r\nUSER\r\nSASL PLAIN LOGIN CRAM-MD5 XOAUTH2 OAUTHBEARER SCRAM-SHA-256\r\n.\r\n")
		case verb == "USER":
			p.says("+OK\r\n")
		case verb == "AUTH" && !s.challenge(p, line):
			return
		case !in && s.mood == welcoming:
			in = true
			p.says("+OK in, " + s.quote(s.password) + "\r\n")
		default:
			p.says(s.reply())
		}
	}
}

// challenge goes through the exchange of a mechanism up to the verdict.
func (s parrotServer) challenge(p *peer, line string) bool {
	switch mech := strings.Fields(line)[1]; {
	case mech == "SCRAM-SHA-256":
		first, _ := base64.StdEncoding.DecodeString(strings.Fields(line)[2])
		if s.mood == refusing {
			p.says("+ " + b64("e="+s.quote(s.password)) + "\r\n")
			return p.line() != ""
		}
		signature := scramExchange(p, strings.TrimPrefix(string(first), "n,,"), s.password)
		p.says("+ " + b64("v="+signature) + "\r\n")
		return p.line() == ""
	case mech == "LOGIN":
		p.says("+ " + b64("Username of "+s.quote(s.password)) + "\r\n")
		p.line()
		p.says("+ " + b64("Password, not "+s.quote(s.password)) + "\r\n")
		p.line()
	case mech == "CRAM-MD5":
		p.says("+ " + b64("<"+s.quote(s.password)+"@example.com>") + "\r\n")
		p.line()
	case strings.Contains(mech, "OAUTH") && s.mood == refusing:
		p.says("+ " + b64(fmt.Sprintf(`{"status":%q,"scope":%q}`, s.quote(s.password),
			s.quote(s.password))) + "\r\n")
		p.line()
	}
	return true
}

func (s parrotServer) reply() string {
	quote := s.quote(s.password)
	switch s.mood {
	case coding:
		return "-ERR [" + quote + "] " + quote + "\r\n"
	case babbling:
		return quote + "\r\n"
	case overflowing:
		return "+OK " + strings.Repeat("x", 120) + quote + strings.Repeat("x", 9000) + "\r\n"
	case mumbling:
		return "+OK " + quote + "\r\n" + quote + "\r\n.\r\n"
	case hasty:
		return "+OK\r\n+OK " + quote + "\r\n"
	}
	return "-ERR no, " + quote + " is wrong\r\n"
}

// quotes are the ways in which a server repeats what it got.
var quotes = map[string]func(string) string{
	"plain":      func(p string) string { return p },
	"in words":   func(p string) string { return "x" + p + "y" },
	"parted":     func(p string) string { return p[:3] + "\x1b" + p[3:7] + "\x07" + p[7:12] + "\u200b" + p[12:] },
	"base64":     func(p string) string { return b64(p) },
	"base64, 1":  func(p string) string { return b64("u" + p) },
	"base64, 2":  func(p string) string { return b64("\x00u\x00"[1:] + p + "\x01\x01") },
	"base64 url": func(p string) string { return base64.URLEncoding.EncodeToString([]byte("u" + p)) },
	"hex":        func(p string) string { return hex.EncodeToString([]byte(p)) },
	"query":      url.QueryEscape,
	"percent":    func(p string) string { return percent(p, true) },
	"long":       func(p string) string { return strings.Repeat("-", 500) + p },
}

// A notebook keeps all that was shown.
type notebook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (n *notebook) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(p)
}

// note prints a value in all ways.
func (n *notebook) note(v any) {
	fmt.Fprintf(n, "%v\n%+v\n%#v\n%s\n%q\n%d\n%x\n", v, v, v, v, v, v, v)
	encoded, _ := json.Marshal(v)
	n.Write(encoded)
	slog.New(slog.NewTextHandler(n, nil)).Info("note", "value", v)
	slog.New(slog.NewJSONHandler(n, nil)).Info("note", "value", v)
	for err, ok := v.(error); ok && err != nil; err = errors.Unwrap(err) {
		fmt.Fprintf(n, "%v\n%+v\n%#v\n", err, err, err)
	}
}

// trace logs to the notebook and writes into it what the hooks get.
func (n *notebook) trace() *pop3.Trace {
	level := &slog.HandlerOptions{Level: slog.LevelDebug}
	text := pop3.LogTrace(slog.New(slog.NewTextHandler(n, level)))
	structured := pop3.LogTrace(slog.New(slog.NewJSONHandler(n, level)))
	return &pop3.Trace{
		WroteCommand: func(ctx context.Context, cmd string) {
			text.WroteCommand(ctx, cmd)
			structured.WroteCommand(ctx, cmd)
			fmt.Fprintln(n, cmd)
		},
		GotReply: func(ctx context.Context, cmd, reply string) {
			text.GotReply(ctx, cmd, reply)
			structured.GotReply(ctx, cmd, reply)
			fmt.Fprintln(n, cmd, reply)
		},
		Done: func(ctx context.Context, cmd string, octets int64, err error) {
			text.Done(ctx, cmd, octets, err)
			structured.Done(ctx, cmd, octets, err)
			n.note(err)
		},
	}
}

// waysIn are all ways to log in.
var waysIn = map[string]func(ctx context.Context, c *pop3.Client, password string) error{
	"USER": func(ctx context.Context, c *pop3.Client, password string) error {
		return errors.Join(c.User(ctx, "u"), c.Pass(ctx, password))
	},
	"APOP": func(ctx context.Context, c *pop3.Client, password string) error {
		return c.Apop(ctx, "u",
			password)
	},
	"PLAIN": func(ctx context.Context, c *pop3.Client, password string) error {
		return c.Auth(ctx, sasl.Plain("", "u", password))
	},
	"LOGIN": func(ctx context.Context, c *pop3.Client, password string) error {
		return c.Auth(ctx, sasl.Login("u", password))
	},
	"CRAM-MD5": func(ctx context.Context, c *pop3.Client, password string) error {
		return c.Auth(ctx, sasl.CramMD5("u", password))
	},
	"XOAUTH2": func(ctx context.Context, c *pop3.Client, password string) error {
		return c.Auth(ctx, sasl.XOAuth2("u", password))
	},
	"OAUTHBEARER": func(ctx context.Context, c *pop3.Client, password string) error {
		return c.Auth(ctx, sasl.OAuthBearer("u", password))
	},
	"SCRAM-SHA-256": func(ctx context.Context, c *pop3.Client, password string) error {
		return c.Auth(ctx, must(sasl.Scram("SCRAM-SHA-256", "u", password)))
	},
	"foreign": func(ctx context.Context, c *pop3.Client, password string) error {
		return c.Auth(ctx, &foreign{password})
	},
	"Login": func(ctx context.Context, c *pop3.Client, password string) error {
		return c.Login(ctx, "u",
			password)
	},
}

// foreign is a mechanism of somebody else, who does not care for secrets.
type foreign struct{ password string }

func (f *foreign) Start() (string, []byte, error) {
	return "PLAIN", []byte("\x00u\x00" + f.password), nil
}
func (f *foreign) Next(challenge []byte) ([]byte, error) {
	return nil, fmt.Errorf("%s\x1b[2J is not what I expected", challenge)
}

func TestCanary(t *testing.T) {
	for name, way := range waysIn {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			alphabets := []string{"abcXYZ0189+/=%&~?>", "ABCDEFGHIJ0123456789"}
			for quoteName, quote := range quotes {
				if !strings.Contains("USER SCRAM-SHA-256 foreign", name) && len(quoteName) > len("parted") {
					continue // the masks are the same
				}
				for m := range moods {
					password := randomPassword(alphabets[int(m)%2])
					notes := canarySession(t, parrotServer{password: password, quote: quote, mood: m}, way)
					for form, secret := range formsOf(password) {
						if i := strings.Index(notes, secret); i >= 0 {
							shown := notes[max(0, i-200):min(len(notes), i+100)]
							require.Fail(t, "the password is shown", "%s, %s, %d: %s", form, quoteName, m,
								shown)
						}
					}
				}
			}
		})
	}
}

// canarySession logs in and calls everything, and gives all that could be seen of it.
func canarySession(t *testing.T, s parrotServer, way func(context.Context, *pop3.Client, string) error) string {
	notes := new(notebook)
	opts := &pop3.Options{InsecureAuth: true, Trace: notes.trace()}
	c, err := pop3.NewClient(t.Context(), serve(t, s.run), opts)
	require.NoError(t, err)
	notes.note(way(t.Context(), c, s.password))
	if s.mood == welcoming {
		assert.Equal(t, pop3.StateTransaction, c.State())
	}
	notes.note(c)
	notes.note(*opts)
	for _, call := range []call{noop, stat, listOne, listAll, uidlOne, uidlAll, dele, rset, retr, top, langDe,
		langAll, capa} {
		value, err := call.do(t.Context(), c)
		notes.note(err)
		if _, data := value.(pop3.Capabilities); !data {
			notes.note(value)
		}
	}
	for _, err := range c.Messages(t.Context(), 1, 2) {
		notes.note(err)
	}
	_, err = c.Listing(t.Context())
	notes.note(err)
	if _, err = c.Cmd(t.Context(), "XTND"); err != nil {
		notes.note(err)
	}
	notes.note(way(t.Context(), c, s.password))
	notes.note(c)
	notes.note(c.Quit(t.Context()))
	notes.note(c.Noop(t.Context()))
	notes.note(c.Close())
	return notes.text.String()
}

// Programs that print what differs between two values look into every corner of a client. There is nothing to see.
func TestCanaryInMemory(t *testing.T) {
	for name, way := range waysIn {
		t.Run(name, func(t *testing.T) {
			password := randomPassword("abcXYZ0189+/=%&~?>")
			s := parrotServer{password: password, quote: func(string) string { return "" }}
			c, err := pop3.NewClient(t.Context(), serve(t, s.run), &pop3.Options{InsecureAuth: true})
			require.NoError(t, err)
			require.NoError(t, way(t.Context(), c, password))
			seen := new(corners)
			seen.look(reflect.ValueOf(c))
			assert.Greater(t, seen.values, 50, "it was looked at")
			for form, secret := range formsOf(password) {
				assert.NotContains(t, seen.text.String(), secret, form)
			}
			assert.NoError(t, c.Close())
		})
	}
}

// corners collects all strings and octets that can be reached from a value.
type corners struct {
	text   strings.Builder
	values int
	been   map[uintptr]bool
}

func (s *corners) look(v reflect.Value) {
	s.values++
	switch v.Kind() {
	case reflect.Pointer:
		if s.been[v.Pointer()] {
			return
		}
		if s.been == nil {
			s.been = map[uintptr]bool{}
		}
		s.been[v.Pointer()] = true
		s.look(v.Elem())
	case reflect.Interface:
		s.look(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			s.look(v.Field(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			s.look(key)
			s.look(v.MapIndex(key))
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			for i := range v.Len() {
				s.text.WriteByte(byte(v.Index(i).Uint()))
			}
			return
		}
		for i := range v.Len() {
			s.look(v.Index(i))
		}
	case reflect.String:
		io.WriteString(&s.text, v.String()+"\n")
	}
}

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
	"html"
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

// The canary test logs in with a random password, by each login method. The servers repeat the password in every text,
// and a trace records the session. Then the test searches for the password in everything that a user could see.

// hiddenText is shown in place of a text of the server that contains a secret.
const hiddenText = "(the server's words repeat the secret)"

// randomPassword returns a password of characters that the encodings of a server treat differently.
func randomPassword(alphabet string) string {
	b := make([]byte, 20)
	rand.Read(b)
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return string(b)
}

// An echoServer accepts or refuses every login, and repeats the password in each reply.
type echoServer struct {
	password string
	quote    func(password string) string
	style    replyStyle
}

// A replyStyle is the way in which an echoServer replies.
type replyStyle int

const (
	acceptsLogin  replyStyle = iota // logins succeed; later commands are refused with a text that quotes the password
	refusesLogin                    // logins are refused with a text that quotes the password
	quotesInCode                    // logins are refused with the password as the response code
	invalidStatus                   // replies are neither +OK nor -ERR
	longReplies                     // replies are too long
	invalidValues                   // replies have an invalid value
	doubleReplies                   // replies are sent twice
	numReplyStyles
)

// run serves a session.
func (s echoServer) run(p *peer) {
	p.send("+OK ready <1@example.com>\r\n")
	for in := false; ; {
		line := p.line()
		verb, _, _ := strings.Cut(line, " ")
		switch {
		case line == "":
			return
		case verb == "CAPA":
			p.send(
				"+OK " + s.quote(
					s.password,
				) + "\r\nUSER\r\nSASL PLAIN LOGIN CRAM-MD5 XOAUTH2 OAUTHBEARER SCRAM-SHA-256\r\n.\r\n",
			)
		case verb == "USER":
			p.send("+OK\r\n")
		case verb == "AUTH" && !s.challenge(p, line):
			return
		case !in && s.style == acceptsLogin:
			in = true
			p.send("+OK in, " + s.quote(s.password) + "\r\n")
		default:
			p.send(s.reply())
		}
	}
}

// challenge carries out the exchange of a mechanism, except for the final reply.
func (s echoServer) challenge(p *peer, line string) bool {
	switch mech := strings.Fields(line)[1]; {
	case mech == "SCRAM-SHA-256":
		first, _ := base64.StdEncoding.DecodeString(strings.Fields(line)[2])
		if s.style == refusesLogin {
			p.send("+ " + b64("e="+s.quote(s.password)) + "\r\n")
			return p.line() != ""
		}
		signature := scramExchange(p, strings.TrimPrefix(string(first), "n,,"), s.password)
		p.send("+ " + b64("v="+signature) + "\r\n")
		return p.line() == ""
	case mech == "LOGIN":
		p.send("+ " + b64("Username of "+s.quote(s.password)) + "\r\n")
		p.line()
		p.send("+ " + b64("Password, not "+s.quote(s.password)) + "\r\n")
		p.line()
	case mech == "CRAM-MD5":
		p.send("+ " + b64("<"+s.quote(s.password)+"@example.com>") + "\r\n")
		p.line()
	case strings.Contains(mech, "OAUTH") && s.style == refusesLogin:
		p.send("+ " + b64(fmt.Sprintf(`{"status":%q,"scope":%q}`, s.quote(s.password),
			s.quote(s.password))) + "\r\n")
		p.line()
	}
	return true
}

func (s echoServer) reply() string {
	quote := s.quote(s.password)
	switch s.style {
	case quotesInCode:
		return "-ERR [" + quote + "] " + quote + "\r\n"
	case invalidStatus:
		return quote + "\r\n"
	case longReplies:
		return "+OK " + strings.Repeat("x", 120) + quote + strings.Repeat("x", 9000) + "\r\n"
	case invalidValues:
		return "+OK " + quote + "\r\n" + quote + "\r\n.\r\n"
	case doubleReplies:
		return "+OK\r\n+OK " + quote + "\r\n"
	}
	return "-ERR no, " + quote + " is wrong\r\n"
}

// echoEncodings are the encodings in which a server repeats a text. Some of them are those of C-101.
var echoEncodings = map[string]func(string) string{
	"plain":      func(p string) string { return p },
	"in words":   func(p string) string { return "x" + p + "y" },
	"parted":     func(p string) string { return p[:3] + "\x1b" + p[3:7] + "\x07" + p[7:12] + "\u200b" + p[12:] },
	"base64":     func(p string) string { return b64(p) },
	"base64, 1":  func(p string) string { return b64("u" + p) },
	"base64, 2":  func(p string) string { return b64("u\x00" + p + "\x01\x01") },
	"base64 url": func(p string) string { return base64.URLEncoding.EncodeToString([]byte("u" + p)) },
	"hex":        func(p string) string { return hex.EncodeToString([]byte(p)) },
	"query":      url.QueryEscape,
	"percent":    func(p string) string { return percent(p, true) },
	"long":       func(p string) string { return strings.Repeat("-", 500) + p },

	"C-101 one octet short":    func(p string) string { return p[:len(p)-1] },
	"C-101 the first one lost": func(p string) string { return p[1:] },
	"C-101 upper case":         strings.ToUpper,
	"C-101 lower case":         strings.ToLower,
	"C-101 blanks collapsed":   func(p string) string { return strings.Join(strings.Fields(p), "") },
	"C-101 JSON": func(p string) string {
		return strings.ReplaceAll(string(must(json.Marshal(p))), "&", `\u0026`)
	},
	"C-101 quoted-printable": func(p string) string {
		return strings.NewReplacer("=", "=3D", "~", "=7E").Replace(p)
	},
	"C-101 HTML":                  html.EscapeString,
	"C-101 hex with colons":       func(p string) string { return strings.ReplaceAll(fmt.Sprintf("% x", p), " ", ":") },
	"C-101 Latin-1":               func(p string) string { return "\xe4" + p + "\xfc" },
	"C-101 SQL quotes":            func(p string) string { return "'" + strings.ReplaceAll(p, "'", "''") + "'" },
	"C-101 half of it":            func(p string) string { return p[:len(p)/2] },
	"C-101 zero width space":      func(p string) string { return strings.Join(strings.Split(p, ""), "\u200b") },
	"C-101 soft hyphen":           func(p string) string { return strings.Join(strings.Split(p, ""), "\u00ad") },
	"C-101 zero width joiner":     func(p string) string { return strings.Join(strings.Split(p, ""), "\u200d") },
	"C-101 variation selector":    func(p string) string { return strings.Join(strings.Split(p, ""), "\ufe0f") },
	"C-101 Hangul filler":         func(p string) string { return strings.Join(strings.Split(p, ""), "\u3164") },
	"C-101 right to left":         func(p string) string { return "\u202e" + p[:9] + "\u202c" + p[9:] },
	"C-101 a byte order mark":     func(p string) string { return p[:5] + "\ufeff" + p[5:] },
	"C-101 escape sequences":      func(p string) string { return strings.Join(strings.Split(p, ""), "\x1b") },
	"C-101 between other letters": func(p string) string { return "prefix" + p + "suffix" },
}

// A shownText collects everything that was shown.
type shownText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (n *shownText) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(p)
}

// record prints a value with all verbs of package fmt.
func (n *shownText) record(v any) {
	fmt.Fprintf(n, "%v\n%+v\n%#v\n%s\n%q\n%d\n%x\n", v, v, v, v, v, v, v)
	encoded, _ := json.Marshal(v)
	n.Write(encoded)
	slog.New(slog.NewTextHandler(n, nil)).Info("note", "value", v)
	slog.New(slog.NewJSONHandler(n, nil)).Info("note", "value", v)
	for err, ok := v.(error); ok && err != nil; err = errors.Unwrap(err) {
		fmt.Fprintf(n, "%v\n%+v\n%#v\n", err, err, err)
	}
}

// trace returns a trace that adds the arguments of the hooks, and the log of LogTrace.
func (n *shownText) trace() *pop3.Trace {
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
			n.record(err)
		},
	}
}

// loginWays are all ways to log in.
var loginWays = map[string]func(ctx context.Context, c *pop3.Client, password string) error{
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
		return c.Auth(ctx, &foreignMechanism{password})
	},
	"Login": func(ctx context.Context, c *pop3.Client, password string) error {
		return c.Login(ctx, "u",
			password)
	},
}

// A foreignMechanism is a mechanism of another package. It does not hide its secrets.
type foreignMechanism struct{ password string }

func (f *foreignMechanism) Start() (string, []byte, error) {
	return "PLAIN", []byte("\x00u\x00" + f.password), nil
}
func (f *foreignMechanism) Next(challenge []byte) ([]byte, error) {
	return nil, fmt.Errorf("%s\x1b[2J is not what I expected", challenge)
}

func TestCanary(t *testing.T) {
	for name, way := range loginWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for quoteName, quote := range echoEncodings {
				if !strings.Contains("USER SCRAM-SHA-256 foreign", name) && len(quoteName) > len("parted") {
					// A code hides secrets in the same way after every login, so three ways to log in are enough for
					// these quotes.
					continue
				}
				for m := range numReplyStyles {
					password := randomPassword(
						"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=%&~?>'",
					)
					shown := canarySession(t, echoServer{password: password, quote: quote, style: m}, way)
					for form, secret := range encodingsOf(password) {
						requireNotShown(t, shown, secret, "%s, %s, %d", form, quoteName, m)
					}
					shown = lettersAndDigits(shown)
					for suffix := lettersAndDigits(password); len(suffix) >= 8; suffix = suffix[1:] {
						requireNotShown(t, shown, suffix[:8], "a piece, %s, %d", quoteName, m)
					}
				}
			}
		})
	}
}

func requireNotShown(t *testing.T, shown, secret, format string, args ...any) {
	if i := strings.Index(shown, secret); i >= 0 {
		require.Fail(t, "the password is shown", "%s: %s", fmt.Sprintf(format, args...),
			shown[max(0, i-200):min(len(shown), i+100)])
	}
}

// lettersAndDigits returns the ASCII letters and digits of s, in lower case.
func lettersAndDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
}

// canarySession logs in and calls every method. It returns everything that a user could see.
func canarySession(t *testing.T, s echoServer, way func(context.Context, *pop3.Client, string) error) string {
	shown := new(shownText)
	opts := &pop3.Options{InsecureAuth: true, Trace: shown.trace()}
	c, err := pop3.NewClient(t.Context(), serve(t, s.run), opts)
	require.NoError(t, err)
	shown.record(way(t.Context(), c, s.password))
	if s.style == acceptsLogin {
		assert.Equal(t, pop3.StateTransaction, c.State())
	}
	shown.record(c)
	shown.record(*opts)
	for _, call := range []action{noop, stat, listOne, listAll, uidlOne, uidlAll, dele, rset, retr, top, langDe,
		langAll, capa} {
		value, err := call.do(t, t.Context(), c)
		shown.record(err)
		if _, data := value.(pop3.Capabilities); !data {
			shown.record(value)
		}
	}
	for _, err := range c.Messages(t.Context(), 1, 2) {
		shown.record(err)
	}
	_, err = c.Listing(t.Context())
	shown.record(err)
	if _, err = c.Cmd(t.Context(), "XTND"); err != nil {
		shown.record(err)
	}
	shown.record(way(t.Context(), c, s.password))
	shown.record(c)
	shown.record(c.Quit(t.Context()))
	shown.record(c.Noop(t.Context()))
	shown.record(c.Close())
	return shown.text.String()
}

// Some programs print the difference between two values, with all fields of a client. The fields must not contain the
// password.
func TestCanaryInMemory(t *testing.T) {
	for name, way := range loginWays {
		t.Run(name, func(t *testing.T) {
			password := randomPassword("abcXYZ0189+/=%&~?>")
			s := echoServer{password: password, quote: func(string) string { return "" }}
			c, err := pop3.NewClient(t.Context(), serve(t, s.run), &pop3.Options{InsecureAuth: true})
			require.NoError(t, err)
			require.NoError(t, way(t.Context(), c, password))
			seen := new(stringCollector)
			seen.collect(reflect.ValueOf(c))
			assert.Greater(t, seen.values, 50, "strings were collected")
			for form, secret := range encodingsOf(password) {
				assert.NotContains(t, seen.text.String(), secret, form)
			}
			assert.NoError(t, c.Close())
		})
	}
}

// A stringCollector collects all strings and byte slices that can be reached from a value.
type stringCollector struct {
	text   strings.Builder
	values int
	been   map[uintptr]bool
}

func (s *stringCollector) collect(v reflect.Value) {
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
		s.collect(v.Elem())
	case reflect.Interface:
		s.collect(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			s.collect(v.Field(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			s.collect(key)
			s.collect(v.MapIndex(key))
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			for i := range v.Len() {
				s.text.WriteByte(byte(v.Index(i).Uint()))
			}
			return
		}
		for i := range v.Len() {
			s.collect(v.Index(i))
		}
	case reflect.String:
		io.WriteString(&s.text, v.String()+"\n")
	}
}

// protocolWords are short words from the texts and commands of this package and of the protocol.
var protocolWords = strings.Fields(`
	a the of to and in it is by be or an no not on at as for was with before after behind ahead all any none more less
	than only over too two one first second last next new old same other each every what that this there here who
	pop3 POP3 OK ERR CAPA USER PASS QUIT NOOP STAT LIST UIDL RETR TOP DELE RSET APOP AUTH STLS UTF8 LANG SASL PLAIN
	LOGIN
	SCRAM SHA TLS TCP EOF IN-USE AUTH SYS TEMP PERM SYS/TEMP SYS/PERM LOGIN-DELAY
	server client reply replies line lines word words text code octet octets byte bytes number numbers name password
	secret secrets token login mailbox maildrop message messages session state status greeting connection command
	commands challenge challenges response argument mechanism deadline timeout time error failed fail refuse refused
	refuses refusing reject closed close open lost cut hung up down end ended ends wait send sent sends says said spoke
	asked answer answered answering instead unexpected neither nor than long longer short empty space control valid
	character characters ASCII use used using set call try tried fatal wrong bad broken busy done nothing something
	silent silence unread unknown unsupported required secure insecure clear safe verified Dial dial Auth Login Pass
	User Quit Close Options Trace Timeout CR LF CRLF NUL dot com org net io os i/o 1 2 3 8192 255 512 +OK -ERR *** ( )
	: ;
`)

// C-100: texts, commands and codes of this package are shown unchanged, even if the password is one of their words.
func TestProtocolWordsShown(t *testing.T) {
	require.Greater(t, len(protocolWords), 200)
	for name, reply := range map[string]string{
		"refused":          "-ERR [IN-USE]",
		"refused for good": "-ERR [sys/perm]",
		"nonsense":         "?",
		"too long":         "+OK" + strings.Repeat(" ", 9000),
		"twice":            "+OK\r\n+OK",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			session := func(password string) string {
				var texts []any
				opts := &pop3.Options{InsecureAuth: true, Trace: &pop3.Trace{
					WroteCommand: func(_ context.Context, cmd string) { texts = append(texts, cmd) },
					GotReply:     func(_ context.Context, cmd, reply string) { texts = append(texts, cmd, reply) },
					Done: func(_ context.Context, cmd string, _ int64, err error) {
						texts = append(texts, cmd, err)
					},
				}}
				c, err := pop3.NewClient(t.Context(), serve(t, func(p *peer) {
					p.send("+OK\r\n")
					for line := p.line(); line != ""; line = p.line() {
						switch {
						case strings.HasPrefix(line, "PASS"):
							p.send(reply + "\r\n")
						case line == "CAPA":
							p.send("-ERR\r\n")
						default:
							p.send("+OK\r\n")
						}
					}
				}), opts)
				require.NoError(t, err)
				texts = append(texts, c.Login(t.Context(), "u", password))
				_, err = c.Stat(t.Context())
				texts = append(texts, err, c.Close())
				return fmt.Sprintln(texts...)
			}
			want := session("zzzzzzzzzz")
			for _, word := range protocolWords {
				require.Equal(t, want, session(word), "with the password %q", word)
			}
		})
	}
}

// C-037 C-100: a password that is equal to a code or to a word of the text does not change what the refusal means.
func TestPasswordIsInRefusal(t *testing.T) {
	for _, tt := range []struct {
		text      string
		code      pop3.Code
		verdict   verdict
		passwords []string
	}{
		{"[IN-USE] the maildrop is in use by another one", pop3.CodeInUse, temporaryByCode,
			[]string{"IN-USE", "in-use", "IN", "USE"}},
		{"Mailbox in use by another session", "", lockedByText,
			[]string{"mailbox", "in use by", "another session", "session9"}},
	} {
		for _, password := range tt.passwords {
			c, err := pop3.NewClient(t.Context(), serve(t, func(p *peer) {
				p.send("+OK\r\n")
				p.line()
				p.send("+OK\r\n")
				p.line()
				p.send("-ERR " + tt.text + "\r\n")
				p.line()
			}), insecure)
			require.NoError(t, err)
			require.NoError(t, c.User(t.Context(), "u"))
			err = c.Pass(t.Context(), password)
			refusal, ok := errors.AsType[*pop3.Error](err)
			require.True(t, ok)
			assert.Equal(t, tt.code, refusal.Code)
			hasVerdict(tt.verdict)(t, err)
			assert.NoError(t, c.Close())
		}
	}
}

// C-102: with a text such as a digest, guesses of the password can be checked. If the server repeats such a text, it is
// not shown.
func TestGuessableTextsHidden(t *testing.T) {
	const password = "correct horse battery"
	for name, way := range loginWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, quote := range []func(string) string{
				func(s string) string { return s }, b64, func(s string) string { return percent(s, true) },
			} {
				for index := range 3 {
					guessable := make(chan []string, 1)
					shown := new(shownText)
					opts := &pop3.Options{InsecureAuth: true, Trace: shown.trace()}
					c, err := pop3.NewClient(t.Context(), serve(t, func(p *peer) {
						guessable <- echoGuessable(p, password, index, quote)
					}), opts)
					require.NoError(t, err)
					shown.record(way(t.Context(), c, password))
					shown.record(c.Close())
					letters := lettersAndDigits(shown.text.String())
					for _, secret := range <-guessable {
						for suffix := lettersAndDigits(secret); len(suffix) >= 16; suffix = suffix[1:] {
							requireNotShown(t, letters, suffix[:16], "part of %s", secret)
						}
					}
				}
			}
		})
	}
}

// echoGuessable serves a session up to the refusal of a login. It returns all texts with which a guess of the password
// could be checked. The refusal repeats the text with the given index.
func echoGuessable(p *peer, password string, index int, quote func(string) string) (guessable []string) {
	guessable = []string{password}
	p.send("+OK ready <1@example.com>\r\n")
	for {
		line := p.line()
		words := append(strings.Fields(line), "", "")
		switch {
		case line == "":
			return guessable
		case line == "CAPA":
			p.send("+OK\r\nUSER\r\nSASL PLAIN LOGIN CRAM-MD5 XOAUTH2 OAUTHBEARER SCRAM-SHA-256\r\n.\r\n")
			continue
		case words[0] == "USER":
			p.send("+OK\r\n")
			continue
		case words[0] == "APOP":
			guessable = append(guessable, words[2])
		case words[1] == "LOGIN":
			p.send("+\r\n")
			p.line()
			p.send("+\r\n")
			p.line()
		case words[1] == "CRAM-MD5":
			p.send("+ " + b64("<1896.697170952@example.com>") + "\r\n")
			response, _ := base64.StdEncoding.DecodeString(p.line())
			guessable = append(guessable, strings.TrimPrefix(string(response), "u "))
		case words[1] == "SCRAM-SHA-256":
			first, _ := base64.StdEncoding.DecodeString(words[2])
			proof, signature := scramProofs(p, strings.TrimPrefix(string(first), "n,,"), password)
			p.send("+ " + b64("v="+signature) + "\r\n")
			p.line()
			guessable = append(guessable, proof, signature, b64("v="+signature))
		}
		p.send("-ERR no: " + quote(guessable[index%len(guessable)]) + "\r\n")
	}
}

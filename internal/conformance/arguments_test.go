package conformance_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// In CVE-2025-15367, CVE-2012-0036, CVE-2026-42257, CVE-2026-42258, CVE-2026-30227 and others without a number, a
// client sent a line end in an argument as part of a command. No method of this client does that. The test finds the
// methods by reflection, so a new method cannot be forgotten.

// badTexts are texts that no argument may contain.
var badTexts = []string{"\r\n", "\n", "\r", "\x00", "\x1b", "\x7f", "\r\nDELE 1", "\t", "\u0085", "\x9b",
	"\xff", "\x01"}

// insertions returns good with bad at the beginning, in the middle and at the end.
func insertions(good, bad string) []string {
	half := len(good) / 2
	return []string{bad + good, good[:half] + bad + good[half:], good + bad}
}

// validArgument returns a valid argument for a parameter. Tests then replace one argument of a call by another text.
func validArgument(t *testing.T, param reflect.Type) reflect.Value {
	switch {
	case param == reflect.TypeFor[context.Context]():
		return reflect.ValueOf(t.Context())
	case param.Kind() == reflect.String:
		return reflect.ValueOf("word").Convert(param)
	case param.Kind() == reflect.Int, param.Kind() == reflect.Int64:
		return reflect.ValueOf(1).Convert(param)
	}
	require.Fail(t, "a method has a parameter of a new type: teach this test what to give it", "%v", param)
	return reflect.Value{}
}

// A countingConn counts the octets that are written.
type countingConn struct {
	net.Conn
	written atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.written.Add(int64(len(p)))
	return c.Conn.Write(p)
}

// countingClient returns a client of a server without faults, and logs in if loggedIn is true.
func countingClient(t *testing.T, loggedIn bool) (*pop3.Client, *countingConn, *pop3test.Server) {
	srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary, Messages: threeMessages()})
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.ServeConn(server)
	}()
	conn := &countingConn{Conn: client}
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true,
		Mechanisms: []string{"PLAIN"}})
	require.NoError(t, err)
	if loggedIn {
		require.NoError(t, c.Login(t.Context(), "u", canary))
	}
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c, conn, srv
}

func TestArguments(t *testing.T) {
	methods := reflect.TypeFor[*pop3.Client]()
	tried := 0
	for i := range methods.NumMethod() {
		method := methods.Method(i)
		for param := 1; param < method.Type.NumIn(); param++ {
			if method.Type.In(param).Kind() != reflect.String {
				continue
			}
			tried++
			t.Run(method.Name, func(t *testing.T) {
				reached := false
				for _, loggedIn := range []bool{false, true} {
					reached = rejectsBadTexts(t, method, param, loggedIn) || reached
				}
				assert.True(t, reached, "the argument is checked in one of the states")
			})
		}
	}
	assert.GreaterOrEqual(t, tried, 9, "USER, PASS, APOP twice, login twice, LANG, Cmd, CmdMulti")
}

// rejectsBadTexts calls a method with every bad text in one of its arguments. It reports whether the error was about
// that text, and not about the state of the session.
func rejectsBadTexts(t *testing.T, method reflect.Method, param int, loggedIn bool) (reached bool) {
	c, conn, _ := countingClient(t, loggedIn)
	before := conn.written.Load()
	for _, badText := range badTexts {
		for _, bad := range insertions("word", badText) {
			args := []reflect.Value{reflect.ValueOf(c)}
			for i := 1; i < method.Type.NumIn(); i++ {
				args = append(args, validArgument(t, method.Type.In(i)))
			}
			args[param] = reflect.ValueOf(bad).Convert(method.Type.In(param))
			results := method.Func.Call(args)
			err, _ := results[len(results)-1].Interface().(error)
			require.Error(t, err, "%q", bad)
			checkError(t, err)
			if errors.Is(err, pop3.ErrArgument) {
				reached = true
			} else {
				assert.ErrorIs(t, err, pop3.ErrState, "%q", bad)
			}
			require.Equal(t, before, conn.written.Load(), "octets were written for %q", bad)
		}
	}
	if !loggedIn {
		require.NoError(t, c.Login(t.Context(), "u", canary), "the client can be used")
	}
	assert.NoError(t, c.Noop(t.Context()), "the client can be used")
	return reached
}

// constructors are the constructors of package sasl. Each uses some of the three strings in s.
var constructors = map[string]func(s ...string) (sasl.Client, error){
	"Plain":   func(s ...string) (sasl.Client, error) { return sasl.Plain(s[0], s[1], s[2]), nil },
	"Login":   func(s ...string) (sasl.Client, error) { return sasl.Login(s[1], s[2]), nil },
	"CramMD5": func(s ...string) (sasl.Client, error) { return sasl.CramMD5(s[1], s[2]), nil },
	"Scram":   func(s ...string) (sasl.Client, error) { return sasl.Scram("SCRAM-SHA-256", s[1], s[2]) },
	"ScramNoPlus": func(s ...string) (sasl.Client, error) {
		return sasl.ScramNoPlus("SCRAM-SHA-256", s[1],
			s[2])
	},
	"XOAuth2":     func(s ...string) (sasl.Client, error) { return sasl.XOAuth2(s[1], s[2]), nil },
	"OAuthBearer": func(s ...string) (sasl.Client, error) { return sasl.OAuthBearer(s[1], s[2]), nil },
	"External":    func(s ...string) (sasl.Client, error) { return sasl.External(s[0]), nil },
	"Anonymous":   func(s ...string) (sasl.Client, error) { return sasl.Anonymous(s[0]), nil },
}

// A bad argument of a mechanism is rejected before anything is sent, or it is sent as base64.
func TestArgumentsOfMechanisms(t *testing.T) {
	clean := regexp.MustCompile(`^(CAPA|\*|AUTH [A-Z0-9-]+( [A-Za-z0-9+/]*=*)?|[A-Za-z0-9+/]*=*)$`)
	for name, construct := range constructors {
		t.Run(name, func(t *testing.T) {
			for _, badText := range badTexts {
				for _, bad := range insertions("word", badText) {
					for i := range 3 {
						c, _, srv := countingClient(t, false)
						args := []string{"word", "word", "word"}
						args[i] = bad
						mech, err := construct(args...)
						if err == nil {
							err = c.Auth(t.Context(), mech)
						}
						if errors.Is(err, pop3.ErrArgument) || errors.Is(err, sasl.ErrArgument) {
							assert.Empty(t, srv.Commands(), "%q", bad)
						}
						for _, line := range srv.Commands() {
							require.Regexp(t, clean, line, "%q", bad)
						}
					}
				}
			}
		})
	}
}

// The map constructors contains every constructor of the package.
func TestArgumentsOfAllMechanisms(t *testing.T) {
	names, err := filepath.Glob("../../sasl/*.go")
	require.NoError(t, err)
	found := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !f.Name.IsExported() || !returnsClient(f) {
				continue
			}
			found++
			assert.Contains(t, constructors, f.Name.Name, "add it to the table of this test")
		}
	}
	assert.Equal(t, len(constructors), found)
}

func returnsClient(f *ast.FuncDecl) bool {
	name, ok := f.Type.Results.List[0].Type.(*ast.Ident)
	return ok && name.Name == "Client"
}

// A mechanism of another package can return any name. The client refuses a name that could inject a command.
func TestArgumentsOfForeignMechanisms(t *testing.T) {
	c, conn, _ := countingClient(t, false)
	before := conn.written.Load()
	for _, name := range []string{
		"PLAIN\r\nDELE 1", "PLAIN\n", "\x00PLAIN", "", "PLAIN ", " PLAIN", "PLAIN x", "plain", "PLÄIN",
		"P/LAIN",
		strings.Repeat("X", 21), strings.Repeat("X", 100_000), "\x1b[2J\u202e",
	} {
		err := c.Auth(t.Context(), &echoMechanism{mech: name})
		assert.ErrorIs(t, err, pop3.ErrArgument, "%q", name)
		checkError(t, err)
		require.Equal(t, before, conn.written.Load(), "%q", name)
	}
	assert.NoError(t, c.Login(t.Context(), "u", canary), "the client can be used")
}

// Addresses and host names that are not valid are refused.
func TestArgumentsOfDial(t *testing.T) {
	for _, dial := range []dialFunc{pop3.DialTLS, pop3.DialStartTLS, pop3.DialInsecure} {
		for _, poison := range []string{"\r\n", "\n", "\r", "\x00", "\x1b", "\x7f"} {
			for _, bad := range append(insertions("pop.example.com", poison), strings.Repeat("ä", 50_000)+poison) {
				c, err := dial(t.Context(), bad,
					&pop3.Options{DialContext: func(context.Context, string, string) (net.Conn, error) {
						t.Error("dialled")
						return nil, errors.New("dialled")
					}})
				assert.Nil(t, c)
				assert.ErrorIs(t, err, pop3.ErrArgument, "%q", bad)
				checkError(t, err)
			}
		}
	}
}

// A user name that would make the USER line longer than 255 octets is refused before anything is sent (C-110).
func TestUserTooLong(t *testing.T) {
	c, conn, _ := countingClient(t, false)
	before := conn.written.Load()
	err := c.User(t.Context(), strings.Repeat("x", 301))
	assert.ErrorIs(t, err, pop3.ErrArgument)
	assert.Equal(t, before, conn.written.Load(), "nothing is sent")
	assert.NoError(t, c.User(t.Context(), "u"), "the session can continue")
}

// Arguments that are too long, empty or not valid numbers are refused. Nothing is sent, and the session can be used
// afterwards.
func TestArgumentLimits(t *testing.T) {
	c, conn, _ := countingClient(t, true)
	before := conn.written.Load()
	ctx := t.Context()
	long := strings.Repeat("x", 100_000)
	refusals := map[string]error{
		"R1-019 RETR 0":               errorOf(c.Retr(ctx, 0)),
		"R1-019 RETR -1":              errorOf(c.Retr(ctx, -1)),
		"R1-019 TOP 0":                errorOf(c.Top(ctx, 0, 0)),
		"R1-059 TOP -1 lines":         errorOf(c.Top(ctx, 1, -1)),
		"R1-019 LIST 0":               errorOf(c.List(ctx, 0)),
		"R1-019 UIDL 0":               errorOf(c.Uidl(ctx, 0)),
		"R1-019 DELE 0":               c.Dele(ctx, 0),
		"R1-019 DELE 1 0":             c.Dele(ctx, 1, 0),
		"R1-155 LANG of nothing":      errorOf(c.Lang(ctx, "")),
		"R1-155 LANG of stars":        errorOf(c.Lang(ctx, "**")),
		"R1-155 LANG of words":        errorOf(c.Lang(ctx, "de en")),
		"R1-155 LANG of marks":        errorOf(c.Lang(ctx, "de_DE")),
		"R1-155 LANG far too long":    errorOf(c.Lang(ctx, long)),
		"R1-003 long command":         errorOf(c.Cmd(ctx, "XTND "+strings.Repeat("x", 249))),
		"R1-003 far too long":         errorOf(c.Cmd(ctx, long)),
		"R1-001 no command":           errorOf(c.Cmd(ctx, "")),
		"R1-001 a space":              errorOf(c.Cmd(ctx, " ")),
		"R1-001 a space at the start": errorOf(c.Cmd(ctx, " NOOP")),
		"R1-001 a space at the end":   errorOf(c.Cmd(ctx, "NOOP ")),
		"R1-001 two spaces":           errorOf(c.Cmd(ctx, "XTND  X")),
		"R1-002 not ASCII":            errorOf(c.Cmd(ctx, "XTND ä")),
	}
	for _, verb := range []string{"QUIT", "quit", "Stls", "USER x", "PASS x", "APOP x y", "AUTH X", "DELE 1",
		"rset", "UTF8"} {
		refusals["own verb "+verb] = errorOf(c.Cmd(ctx, verb))
		refusals["own verb, many lines "+verb] = errorOf(c.CmdMulti(ctx, verb))
	}
	for id, err := range refusals {
		assert.ErrorIs(t, err, pop3.ErrArgument, id)
		checkError(t, err)
	}
	for _, err := range c.Messages(ctx, 1, 0) {
		assert.ErrorIs(t, err, pop3.ErrArgument)
	}
	for _, err := range c.Tops(ctx, -1, 1) {
		assert.ErrorIs(t, err, pop3.ErrArgument)
	}
	assert.NoError(t, c.Dele(ctx), "no numbers, no messages")
	for range c.Messages(ctx) {
		t.Error("a message of no numbers")
	}
	assert.Equal(t, before, conn.written.Load())
	assert.NoError(t, c.Noop(ctx))
}

func errorOf[T any](_ T, err error) error { return err }

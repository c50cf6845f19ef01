package docs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// A knadhRow tests a row of the table in MIGRATING.md. Its test makes the calls in the column pop3 of the row.
type knadhRow struct {
	row string // the cell of the row in the column knadh/go-pop3
	run func(t *testing.T)
}

var knadhRows = []knadhRow{
	{"New(Opt{Host, Port, TLSEnabled: true}), NewConn()", fromNewConn},
	{"TLSEnabled: false", fromTLSEnabled},
	{"TLSSkipVerify: true", fromTLSSkipVerify},
	{"DialTimeout", fromDialTimeout},
	{"Dialer", fromDialer},
	{"Auth(user, password)", fromAuth},
	{"Stat()", fromStat},
	{"List(0), Uidl(0)", fromListZero},
	{"List(id), Uidl(id)", fromListID},
	{"Retr(id)", fromRetr},
	{"RetrRaw(id)", fromRetrRaw},
	{"Top(id, n)", fromTop},
	{"a loop over Retr", fromRetrLoop},
	{"Dele(ids...)", fromDele},
	{"Rset(), Noop()", fromRset},
	{"defer c.Quit()", fromDeferQuit},
	{"Cmd(name, multi, args...), or Send with ReadOne or ReadAll", fromCmd},
	{"matching err.Error()", fromErrorText},
	{"Retr and Top remove a BOM", fromBOM},
}

func TestFromKnadh(t *testing.T) {
	for _, row := range knadhRows {
		t.Run(row.row, row.run)
	}
}

// TestFromKnadhTable checks that each row of the table has a test, and that the test makes each call in the row.
func TestFromKnadhTable(t *testing.T) {
	rows := table(t, "| knadh/go-pop3 | pop3 |")
	require.Len(t, rows, len(knadhRows))
	tests := functions(t, "migrating_test.go")
	for i, cells := range rows {
		require.Len(t, cells, 3)
		assert.Equal(t, knadhRows[i].row, strings.ReplaceAll(cells[0], "`", ""))
		pc := runtime.FuncForPC(reflect.ValueOf(knadhRows[i].run).Pointer()).Name()
		done := codeIn(tests[pc[strings.LastIndexByte(pc, '.')+1:]])
		for _, span := range spans(cells[1]) {
			assert.True(t, done[span], "the test of %q does not do %s", knadhRows[i].row, span)
		}
	}
}

// TestOtherTables checks that the names in the column pop3 of the other tables are exported names of this package.
func TestOtherTables(t *testing.T) {
	names := exportedNames(t)
	for _, head := range []string{
		"| bytbox, simia-tech, taknb2nch | pop3 |", "| poplib | pop3 |", "| MailKit | pop3 |",
	} {
		for _, cells := range table(t, head) {
			for _, span := range spans(cells[1]) {
				expr, err := parser.ParseExpr(strings.TrimPrefix(span, "*"))
				if err != nil || span == "ALL_PROXY" {
					continue // the cell contains text, not Go expressions
				}
				ast.Inspect(expr, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.SelectorExpr:
						of, ok := n.X.(*ast.Ident)
						return !ok || ast.IsExported(of.Name) || of.Name == "c" || of.Name == "pop3"
					case *ast.Ident:
						assert.True(t, !n.IsExported() || names[n.Name], "there is no %s: %s", n.Name, span)
					}
					return true
				})
			}
		}
	}
}

// table returns the cells of the rows of a table of MIGRATING.md.
func table(t *testing.T, head string) (rows [][]string) {
	t.Helper()
	guide, err := os.ReadFile("../../MIGRATING.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(guide), head)
	require.True(t, found, head)
	rest, _, _ = strings.Cut(rest, "\n\n")
	// The first two lines are the end of the head and the line below it.
	for _, line := range strings.Split(strings.TrimRight(rest, "\n"), "\n")[2:] {
		rows = append(rows, strings.Split(strings.Trim(line, "| "), " | "))
		require.Greater(t, len(rows[len(rows)-1]), 1, line)
	}
	return rows
}

// spans returns the texts between backquotes in a cell.
func spans(cell string) (code []string) {
	parts := strings.Split(cell, "`")
	for i := 1; i < len(parts); i += 2 {
		code = append(code, parts[i])
	}
	return code
}

// functions returns the functions of a file of this package.
func functions(t *testing.T, name string) map[string]*ast.FuncDecl {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	require.NoError(t, err)
	all := map[string]*ast.FuncDecl{}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			all[f.Name.Name] = f
		}
	}
	return all
}

// codeIn returns all expressions and statements of a function, as gofmt prints them.
func codeIn(f *ast.FuncDecl) map[string]bool {
	all := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		var text strings.Builder
		switch n.(type) {
		case ast.Expr, ast.Stmt:
			if printer.Fprint(&text, token.NewFileSet(), n) == nil {
				// the head of a loop or of a similar statement is enough
				head, _, _ := strings.Cut(text.String(), " {\n")
				all[text.String()], all[head] = true, true
			}
		}
		return true
	})
	return all
}

// exportedNames are the exported names of the package: functions, methods, types, variables, constants, fields.
func exportedNames(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("../../*.go")
	require.NoError(t, err)
	names := make(map[string]bool)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.FileExports(file)
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				names[n.Name.Name] = true
			case *ast.TypeSpec:
				names[n.Name.Name] = true
			case *ast.ValueSpec:
				for _, name := range n.Names {
					names[name.Name] = true
				}
			case *ast.Field:
				for _, name := range n.Names {
					names[name.Name] = true
				}
			}
			return true
		})
	}
	return names
}

// knadhServer returns a server for example.com, with a mailbox of the user alice that has two messages. The options
// connect to that server, whatever address is dialed.
func knadhServer(t *testing.T, start func(*pop3test.Server)) (srv *pop3test.Server, opts *pop3.Options) {
	srv = pop3test.NewUnstartedServer(&pop3test.Mailbox{
		User: "alice", Password: "secret",
		Messages: [][]byte{[]byte("Subject: one\r\n\r\n.dot\nbare\r\n"), []byte("\ufeffSubject: two\r\n\r\n2\r\n")},
		UIDs:     []string{"uid-1", "uid-2"},
	})
	srv.TLS = new(tls.Config)
	start(srv)
	t.Cleanup(srv.Close)
	return srv, &pop3.Options{
		TLSConfig: srv.ClientTLS(),
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, srv.Addr)
		},
	}
}

// knadhClient returns a client that is logged in to a server of knadhServer.
func knadhClient(t *testing.T) (ctx context.Context, c *pop3.Client, srv *pop3test.Server) {
	srv, opts := knadhServer(t, (*pop3test.Server).StartTLS)
	ctx = t.Context()
	c, err := pop3.DialTLS(ctx, "example.com:995", opts)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.Login(ctx, "alice", "secret"))
	return ctx, c, srv
}

// scripted returns a client that is logged in. Then its server plays script.
func scripted(t *testing.T, script string) *pop3.Client {
	t.Helper()
	conn, done := pop3test.Script("S: +OK\nC: USER u\nS: +OK\nC: PASS p\nS: +OK\n" + script)
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, c.Close())
		assert.NoError(t, done())
	})
	require.NoError(t, c.User(t.Context(), "u"))
	require.NoError(t, c.Pass(t.Context(), "p"))
	return c
}

func fromNewConn(t *testing.T) {
	_, opts := knadhServer(t, (*pop3test.Server).StartTLS)
	ctx := t.Context()
	c, err := pop3.DialTLS(ctx, "example.com:995", opts)
	require.NoError(t, err)
	defer c.Close()
	assert.Equal(t, pop3.StateAuthorization, c.State())
}

func fromTLSEnabled(t *testing.T) {
	_, opts := knadhServer(t, (*pop3test.Server).Start)
	ctx := t.Context()
	c, err := pop3.DialStartTLS(ctx, "example.com:110", opts)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.User(ctx, "alice"))

	inClear, err := pop3.DialInsecure(ctx, "example.com:110", opts)
	require.NoError(t, err)
	defer inClear.Close()
	require.ErrorIs(t, inClear.User(ctx, "alice"), pop3.ErrInsecureAuth)
}

func fromTLSSkipVerify(t *testing.T) {
	srv, opts := knadhServer(t, (*pop3test.Server).StartTLS)
	ctx, dial, roots := t.Context(), opts.DialContext, srv.ClientTLS().RootCAs
	own := pop3.Options{TLSConfig: &tls.Config{RootCAs: roots}}
	own.DialContext = dial
	c, err := pop3.DialTLS(ctx, "example.com:995", &own)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Login(ctx, "alice", "secret"))

	skip := pop3.Options{TLSConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: dial}
	unsure, err := pop3.DialTLS(ctx, "example.com:995", &skip)
	require.NoError(t, err)
	defer unsure.Close()
	require.ErrorIs(t, unsure.User(ctx, "alice"), pop3.ErrInsecureAuth)
}

func fromDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := pop3.Options{Timeout: time.Minute}
		opts.DialContext = func(context.Context, string, string) (net.Conn, error) {
			silent, _ := pop3test.Script("HOLD")
			return silent, nil
		}
		begin := time.Now()
		_, err := pop3.DialTLS(t.Context(), "example.com:995", &opts)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "in the handshake")
		_, err = pop3.DialInsecure(t.Context(), "example.com:110", &opts)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "before the greeting")
		assert.Equal(t, 2*time.Minute, time.Since(begin))
	})
}

func fromDialer(t *testing.T) {
	srv, opts := knadhServer(t, (*pop3test.Server).StartTLS)
	ctx, dial := t.Context(), opts.DialContext
	through := pop3.Options{DialContext: dial}
	through.TLSConfig = opts.TLSConfig
	c, err := pop3.DialTLS(ctx, "example.com:995", &through)
	require.NoError(t, err)
	defer c.Close()

	conn, err := tls.Dial("tcp", srv.Addr, srv.ClientTLS())
	require.NoError(t, err)
	c, err = pop3.NewClient(ctx, conn, opts)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Login(ctx, "alice", "secret"))
}

func fromAuth(t *testing.T) {
	_, opts := knadhServer(t, (*pop3test.Server).StartTLS)
	ctx, user, password := t.Context(), "alice", "secret"
	for _, login := range []func(c *pop3.Client) error{
		func(c *pop3.Client) error { return c.Login(ctx, user, password) },
		func(c *pop3.Client) error {
			if err := c.User(ctx, user); err != nil {
				return err
			}
			return c.Pass(ctx, password)
		},
	} {
		c, err := pop3.DialTLS(ctx, "example.com:995", opts)
		require.NoError(t, err)
		require.NoError(t, login(c))
		assert.Equal(t, pop3.StateTransaction, c.State())
		require.NoError(t, c.Quit(ctx))
	}
}

func fromStat(t *testing.T) {
	ctx, c, _ := knadhClient(t)
	drop, err := c.Stat(ctx)
	require.NoError(t, err)
	assert.Equal(t, pop3.DropListing{Count: 2, Size: 49}, drop)
}

func fromListZero(t *testing.T) {
	ctx, c, _ := knadhClient(t)
	infos, err := c.ListAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 27}, {Num: 2, Size: 22}}, infos)
	infos, err = c.UidlAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, []pop3.MessageInfo{{Num: 1, UID: "uid-1"}, {Num: 2, UID: "uid-2"}}, infos)
	infos, err = c.Listing(ctx)
	require.NoError(t, err)
	assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 27, UID: "uid-1"}, {Num: 2, Size: 22, UID: "uid-2"}}, infos)

	c = scripted(t, "C: UIDL\nS: +OK\nS: 1 a\nS: 2\nS: 3 c\nS: .")
	_, err = c.UidlAll(ctx)
	var malformed *pop3.ProtocolError
	require.ErrorAs(t, err, &malformed, "a list is never cut in silence")
}

func fromListID(t *testing.T) {
	ctx, c, _ := knadhClient(t)
	num := 2
	info, err := c.List(ctx, num)
	require.NoError(t, err)
	assert.Equal(t, pop3.MessageInfo{Num: 2, Size: 22}, info)
	info, err = c.Uidl(ctx, num)
	require.NoError(t, err)
	assert.Equal(t, pop3.MessageInfo{Num: 2, UID: "uid-2"}, info)
	_, err = c.List(ctx, 0)
	require.ErrorIs(t, err, pop3.ErrArgument)
}

func fromRetr(t *testing.T) {
	ctx, c, _ := knadhClient(t)
	num := 1
	m, err := c.Retr(ctx, num)
	require.NoError(t, err)
	parsed, err := mail.ReadMessage(m)
	require.NoError(t, err)
	assert.Equal(t, "one", parsed.Header.Get("Subject"))
	require.ErrorIs(t, c.Noop(ctx), pop3.ErrBusy, "the body is still to be read")
	require.NoError(t, m.Close())
	require.NoError(t, c.Noop(ctx))
}

func fromRetrRaw(t *testing.T) {
	ctx, c, _ := knadhClient(t)
	m, err := c.Retr(ctx, 1)
	require.NoError(t, err)
	content, err := io.ReadAll(m)
	require.NoError(t, err)
	assert.Equal(t, "Subject: one\r\n\r\n.dot\nbare\r\n", string(content))

	file, err := os.Create(filepath.Join(t.TempDir(), "2.eml"))
	require.NoError(t, err)
	defer file.Close()
	m, err = c.Retr(ctx, 2)
	require.NoError(t, err)
	n, err := io.Copy(file, m)
	require.NoError(t, err)
	assert.Equal(t, int64(22), n)

	c = scripted(t, "C: RETR 1\nS: +OK\nS: half\nEOF")
	m, err = c.Retr(ctx, 1)
	require.NoError(t, err)
	_, err = io.ReadAll(m)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func fromTop(t *testing.T) {
	ctx, c, _ := knadhClient(t)
	num, lines, nums := 1, 0, []int{1}
	m, err := c.Top(ctx, num, lines)
	require.NoError(t, err)
	header, err := io.ReadAll(m)
	require.NoError(t, err)
	assert.Equal(t, "Subject: one\r\n\r\n", string(header))
	for m, err := range c.Tops(ctx, lines, nums...) {
		require.NoError(t, err)
		again, err := io.ReadAll(m)
		require.NoError(t, err)
		assert.Equal(t, header, again)
	}
}

func fromRetrLoop(t *testing.T) {
	ctx, c, _ := knadhClient(t)
	var sizes []int64
	nums := []int{1, 2}
	for m, err := range c.Messages(ctx, nums...) {
		require.NoError(t, err)
		n, err := io.Copy(io.Discard, m)
		require.NoError(t, err)
		sizes = append(sizes, n)
	}
	assert.Equal(t, []int64{27, 22}, sizes)
}

func fromDele(t *testing.T) {
	ctx, c, srv := knadhClient(t)
	nums := []int{1, 7, 2}
	err := c.Dele(ctx, nums...)
	var refusal *pop3.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, "DELE 7", refusal.Cmd)
	require.NoError(t, c.Quit(ctx))
	assert.Empty(t, srv.Left("alice"), "1 and 2 were marked all the same")
}

func fromRset(t *testing.T) {
	ctx, c, srv := knadhClient(t)
	require.NoError(t, c.Dele(ctx, 1))
	require.NoError(t, c.Rset(ctx))
	require.NoError(t, c.Noop(ctx))
	require.NoError(t, c.Quit(ctx))
	assert.Len(t, srv.Left("alice"), 2)
}

func fromDeferQuit(t *testing.T) {
	work := func(ctx context.Context, c *pop3.Client, failure error) error {
		defer c.Close()
		if err := c.Dele(ctx, 1); err != nil {
			return err
		}
		if failure != nil {
			return failure
		}
		return c.Quit(ctx)
	}
	ctx, c, srv := knadhClient(t)
	full := errors.New("the disk is full")
	require.ErrorIs(t, work(ctx, c, full), full)
	assert.Len(t, srv.Left("alice"), 2)
	ctx, c, srv = knadhClient(t)
	require.NoError(t, work(ctx, c, nil))
	assert.Len(t, srv.Left("alice"), 1)
}

func fromCmd(t *testing.T) {
	ctx := t.Context()
	c := scripted(t, "C: XFOO 1\nS: +OK done\nC: XTND LISTS\nS: +OK\nS: news\nS: .")
	text, err := c.Cmd(ctx, "XFOO 1")
	require.NoError(t, err)
	assert.Equal(t, "done", text)
	m, err := c.CmdMulti(ctx, "XTND LISTS")
	require.NoError(t, err)
	lists, err := io.ReadAll(m)
	require.NoError(t, err)
	assert.Equal(t, "news\r\n", string(lists))
	for _, refused := range []string{"XFOO 1\r\nDELE 1", "DELE 1"} {
		_, err = c.Cmd(ctx, refused)
		require.ErrorIs(t, err, pop3.ErrArgument)
	}
}

func fromErrorText(t *testing.T) {
	ctx := t.Context()
	c := scripted(t, "C: RETR 1\nS: -ERR [SYS/TEMP] the disk sleeps")
	_, err := c.Retr(ctx, 1)
	var refusal *pop3.Error
	require.True(t, errors.As(err, &refusal))
	assert.Equal(t, pop3.CodeSysTemp, refusal.Code)
	assert.True(t, refusal.Temporary())
}

func fromBOM(t *testing.T) {
	ctx, c, _ := knadhClient(t)
	m, err := c.Retr(ctx, 2)
	require.NoError(t, err)
	content, err := io.ReadAll(m)
	require.NoError(t, err)
	withoutBOM := bytes.TrimPrefix(content, []byte("\ufeff"))
	assert.Equal(t, "Subject: two\r\n\r\n2\r\n", string(withoutBOM))
	assert.Len(t, content, len(withoutBOM)+3)
}

var guideBlock = regexp.MustCompile("(?s)```(go\npackage main|python\n)(.*?)```")

// TestMigratingPrograms builds and runs the complete programs of MIGRATING.md, each with a server of its own. Programs
// that need other packages are in blocks that guideBlock does not match.
func TestMigratingPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	guide, err := os.ReadFile("../../MIGRATING.md")
	require.NoError(t, err)
	blocks := guideBlock.FindAllStringSubmatch(string(guide), -1)
	require.Len(t, blocks, 3)
	// MIGRATING.md says that this program stores messages with LF line ends.
	byHand := func(octets string) string { return strings.ReplaceAll(octets, "\r\n", "\n") }
	t.Run("pop3", func(t *testing.T) { fetchAll(t, buildProgram(t, "package main"+blocks[0][2]), nil) })
	t.Run("textproto", func(t *testing.T) { fetchAll(t, buildProgram(t, "package main"+blocks[1][2]), byHand) })
	t.Run("poplib", func(t *testing.T) {
		python, err := exec.LookPath("python3")
		if err != nil {
			t.Skip("NOT RUN: there is no python3 to run the program for poplib")
		}
		fetchAll(t, exec.Command(python, "-c", blocks[2][2]), nil)
	})
}

// buildProgram builds source within the module, so that it needs no go.mod.
func buildProgram(t *testing.T, source string) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp(".", "_migrating-program-") // ./... ignores names that begin with "_"
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
	program := filepath.Join(t.TempDir(), "program")
	out, err := exec.Command("go", "build", "-o", program, file).CombinedOutput()
	require.NoError(t, err, string(out))
	return exec.Command(program)
}

// fetchAll lets a program fetch two messages and checks that it stored them. If change is not nil, it is applied to
// the expected content.
func fetchAll(t *testing.T, program *exec.Cmd, change func(string) string) {
	t.Helper()
	messages := []string{"Subject: one\r\n\r\n.dot\r\n..\r\n", "Subject: two\r\n\r\n\xe9\r\n"}
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{
		User: "alice", Password: "secret", Messages: [][]byte{[]byte(messages[0]), []byte(messages[1])},
	})
	t.Cleanup(srv.Close)
	program.Dir = t.TempDir()
	program.Env = append(os.Environ(), "SSL_CERT_FILE="+writeRoots(t, srv), "POP3_SERVER="+srv.Addr,
		"POP3_USER=alice", "POP3_PASSWORD=secret")
	out, err := program.CombinedOutput()
	require.NoError(t, err, string(out))

	var stored []string
	names, err := filepath.Glob(filepath.Join(program.Dir, "*.eml"))
	require.NoError(t, err)
	for _, name := range names {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		stored = append(stored, string(content))
	}
	if change != nil {
		messages = []string{change(messages[0]), change(messages[1])}
	}
	assert.ElementsMatch(t, messages, stored)
	assert.Empty(t, srv.Left("alice"))
}

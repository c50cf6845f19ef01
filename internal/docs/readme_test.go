package docs_test

import (
	"crypto/tls"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// TestReadmeProgram builds the programs of README.md and runs them with a test server whose certificate they trust.
// The first one changes nothing. The second one stores and deletes with the two functions of README.md. Both continue
// after a refused message (C-012), and a refused deletion does not cancel the others (C-013).
func TestReadmeProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	blocks := goBlock.FindAllStringSubmatch(string(readme), -1)
	require.Len(t, blocks, 3)

	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "alice", Password: "secret", Messages: [][]byte{
		[]byte("Subject: one\r\n\r\nHello.\r\n"), []byte("Subject: two\r\n\r\n"), []byte("Subject: three\r\n\r\n"),
		[]byte("Subject: four\r\n\r\n"),
	}})
	t.Cleanup(srv.Close)
	srv.SetFaults(pop3test.Fault{At: "RETR 3", Short: true, Octets: 8},
		pop3test.Fault{At: "TOP 2 0", Reply: "-ERR not now"}, pop3test.Fault{At: "RETR 2", Reply: "-ERR no"},
		pop3test.Fault{At: "DELE 1", Reply: "-ERR no"})
	roots := writeRoots(t, srv)

	out := runProgram(t, srv, roots, blocks[0][1])
	require.Contains(t, out, "one\n")
	require.Contains(t, out, "TOP 2 0: -ERR not now\n")
	require.Contains(t, out, "three\n")
	require.Len(t, srv.Left("alice"), 4)

	out = runProgram(t, srv, roots, storingProgram+blocks[1][1]+blocks[2][1])
	require.Contains(t, out, "Hello.")
	require.Contains(t, out, "message 2: pop3: RETR 2: -ERR no\n")
	require.Contains(t, out, "DELE 1: -ERR no")
	require.Contains(t, out, "message 3: unexpected EOF\n")
	require.Len(t, srv.Left("alice"), 3, "message 4 is deleted: it was stored and its DELE accepted")
}

// storingProgram is the part of the second program that comes before the two functions of README.md.
const storingProgram = `package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/seed-2d50cddb/pop3"
)

func main() {
	ctx := context.Background()
	c, err := pop3.DialTLS(ctx, os.Getenv("POP3_SERVER"), nil)
	if err == nil {
		err = c.Login(ctx, os.Getenv("POP3_USER"), os.Getenv("POP3_PASSWORD"))
	}
	if err != nil {
		log.Fatal(err)
	}
	stored, err := storeAll(ctx, c, func(m io.Reader) (int64, error) { return io.Copy(os.Stdout, m) })
	fmt.Println(stored, err, deleteStored(ctx, c, stored))
}
`

// runProgram builds and runs a program within the module, and returns what it prints.
func runProgram(t *testing.T, srv *pop3test.Server, roots, source string) string {
	t.Helper()
	dir, err := os.MkdirTemp(".", "_readme-program-") // ./... ignores names that begin with "_"
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
	run := exec.Command("go", "run", file)
	run.Env = append(os.Environ(), "SSL_CERT_FILE="+roots, "POP3_SERVER="+srv.Addr, "POP3_USER=alice",
		"POP3_PASSWORD=secret")
	out, err := run.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

// writeRoots writes the server's certificate as a file of trusted roots.
func writeRoots(t *testing.T, srv *pop3test.Server) string {
	t.Helper()
	conn, err := tls.Dial("tcp", srv.Addr, srv.ClientTLS())
	require.NoError(t, err)
	defer conn.Close()
	var roots []byte
	for _, cert := range conn.ConnectionState().PeerCertificates {
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	file := filepath.Join(t.TempDir(), "roots.pem")
	require.NoError(t, os.WriteFile(file, roots, 0o600))
	return file
}

package docs_test

import (
	"crypto/tls"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

var goBlock = regexp.MustCompile("(?s)```go\n(package .*?)```")

// TestReadmeProgram builds the programs of README and runs them against a test server whose certificate they are told
// to trust.
func TestReadmeProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	blocks := goBlock.FindAllSubmatch(readme, -1)
	require.NotEmpty(t, blocks)

	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "alice", Password: "secret",
		Messages: [][]byte{[]byte("Subject: one\r\n\r\nHello.\r\n")}})
	t.Cleanup(srv.Close)
	dir, err := os.MkdirTemp(".", "_readme-program-") // within the module, and out of the way of ./...
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	roots := writeRoots(t, srv)

	for _, block := range blocks {
		file := filepath.Join(dir, "main.go")
		require.NoError(t, os.WriteFile(file, block[1], 0o600))
		run := exec.Command("go", "run", file)
		run.Env = append(os.Environ(), "SSL_CERT_FILE="+roots, "POP3_SERVER="+srv.Addr,
			"POP3_USER=alice", "POP3_PASSWORD=secret")
		out, err := run.CombinedOutput()
		require.NoError(t, err, string(out))
		require.True(t, strings.Contains(string(out), "Hello."), string(out))
	}
	require.Empty(t, srv.Left("alice"))
}

// writeRoots writes the certificate that the server shows, as a file of trusted roots.
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

package pop3test_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// BenchmarkRetr measures how much time the server takes in a benchmark of a client. It sends pipelined RETRs over
// TCP and discards the replies.
func BenchmarkRetr(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(bytesName(size), func(b *testing.B) {
			m := bytes.Repeat([]byte("a line of seventy octets, more or less, as in most of the mail sent.\r\n"),
				size/70)
			box := &pop3test.Mailbox{User: "mrose", Password: "tanstaaf", Messages: [][]byte{m}}
			srv := pop3test.NewServer(box)
			defer srv.Close()
			conn, err := net.Dial("tcp", srv.Addr)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			b.SetBytes(int64(len(m)))
			go func() {
				io.WriteString(conn, "USER mrose\r\nPASS tanstaaf\r\n")
				batch := bytes.Repeat([]byte("RETR 1\r\n"), 100)
				for left := b.N; left > 0; left -= 100 {
					conn.Write(batch[:8*min(left, 100)])
				}
				io.WriteString(conn, "QUIT\r\n")
			}()
			io.Copy(io.Discard, bufio.NewReaderSize(conn, 256<<10))
		})
	}
}

func bytesName(n int) string {
	if n >= 1<<20 {
		return "1MiB"
	}
	return map[int]string{1 << 10: "1KiB", 64 << 10: "64KiB"}[n]
}

// BenchmarkNoop measures the round trip of the shortest command.
func BenchmarkNoop(b *testing.B) {
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "mrose", Password: "tanstaaf"})
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	io.WriteString(conn, "USER mrose\r\nPASS tanstaaf\r\n")
	for range 3 {
		in.ReadSlice('\n')
	}
	for b.Loop() {
		io.WriteString(conn, "NOOP\r\n")
		in.ReadSlice('\n')
	}
}

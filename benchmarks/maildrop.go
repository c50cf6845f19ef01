package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// A maildrop describes the mail that a session reads. It has count messages of size octets each, with CRLF line ends.
// The content of a message depends only on its number and size, so a message need not be kept in memory.
type maildrop struct {
	count, size int
}

// name returns the name of the user. It is also the name of the folder with the maildrop.
func (d maildrop) name() string { return fmt.Sprintf("m%dx%d", d.count, d.size) }

// lineSize is the length of most lines, including CRLF. It is the length of a line of base64, which is the largest part
// of most mail.
const lineSize = 78

// message returns message i, which has exactly size octets. The first message is message 0.
func (d maildrop) message(i int) []byte {
	var b strings.Builder
	b.Grow(d.size)
	fmt.Fprintf(&b, "From: <sender@example.org>\r\nSubject: %d of %d\r\nMessage-ID: <%d.%d@example.org>\r\n\r\n",
		i+1, d.count, d.size, i+1)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	rnd := rand.NewPCG(uint64(i), uint64(d.size))
	for rest := d.size - b.Len(); rest > 2; rest = d.size - b.Len() {
		n := min(rest, lineSize) - 2
		if rest-n-2 < 3 {
			n = rest - 2 // no room for another line
		}
		for word := uint64(0); n > 0; n-- {
			if word == 0 {
				word = rnd.Uint64()
			}
			b.WriteByte(alphabet[word%64])
			word /= 64
		}
		b.WriteString("\r\n")
	}
	return []byte(b.String())
}

// messages returns all messages.
func (d maildrop) messages() [][]byte {
	all := make([][]byte, d.count)
	for i := range all {
		all[i] = d.message(i)
	}
	return all
}

// write writes the maildrop to a home directory as a Maildir, and makes owner its owner. The file names contain the
// size of the file and the size with CRLF, so that a server can list a message without reading it.
func (d maildrop) write(home string, owner int) error {
	dir := filepath.Join(home, "Maildir")
	for _, sub := range []string{"new", "cur", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	for i := range d.count {
		wire := string(d.message(i))
		stored := strings.ReplaceAll(wire, "\r\n", "\n")
		name := fmt.Sprintf("%d.M%dP1.host,S=%d,W=%d:2,S", 1_700_000_000+i, i, len(stored), len(wire))
		if err := os.WriteFile(filepath.Join(dir, "cur", name), []byte(stored), 0o600); err != nil {
			return err
		}
	}
	return filepath.WalkDir(home, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, owner, owner)
	})
}

// countMessages returns the number of messages in a Maildir.
func countMessages(dir string) (int, error) {
	files, err := os.ReadDir(filepath.Join(dir, "cur"))
	return len(files), err
}

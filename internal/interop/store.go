package interop

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A Store is the format of a mail store on disk.
type Store string

const (
	Maildir Store = "maildir"
	Mbox    Store = "mbox"
)

// received is one second before the first message of each maildrop arrived. Stores sort messages by their time of
// arrival.
var received = time.Unix(1_700_000_000, 0)

// fill writes the maildrops of all accounts into the server's mail folder. owner returns the owner of the maildrop of
// account i.
func (s *Server) fill(owner func(i int) (uid, gid int)) error {
	if err := os.Chown(s.mailDir(), mailUID, mailGID); err != nil {
		return err
	}
	for i, a := range accounts() {
		if err := s.fillOne(a); err != nil {
			return err
		}
		uid, gid := owner(i)
		if err := chownAll(filepath.Join(s.mailDir(), a.Name), uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// oneOwner returns the same owner for every maildrop. It is for servers whose users are not users of the system.
func oneOwner(int) (uid, gid int) { return mailUID, mailGID }

func (s *Server) fillOne(a Account) error {
	path := filepath.Join(s.mailDir(), a.Name)
	if s.opts.Store == Mbox {
		return writeMbox(path, Corpus(a.Mail))
	}
	return writeMaildir(filepath.Join(path, "Maildir"), Corpus(a.Mail))
}

func writeMaildir(dir string, mails []Mail) error {
	for _, sub := range []string{"new", "cur", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o770); err != nil {
			return err
		}
	}
	for i, m := range mails {
		at := received.Add(time.Duration(i+1) * time.Second)
		name := filepath.Join(dir, "new", fmt.Sprintf("%d.M%dP1.host", at.Unix(), i+1))
		if err := os.WriteFile(name, m.Stored, 0o660); err != nil {
			return err
		}
		if err := os.Chtimes(name, at, at); err != nil {
			return err
		}
	}
	return nil
}

// writeMbox writes a file in the mboxo format: lines end in LF, "From " at the start of a line is quoted, and an empty
// line follows each message.
func writeMbox(name string, mails []Mail) error {
	var b bytes.Buffer
	for _, m := range mails {
		b.WriteString("From sender@example.org Mon Jan  1 10:00:00 2024\n")
		text := bytes.ReplaceAll(m.Stored, []byte("\r\n"), []byte("\n"))
		b.Write(bytes.ReplaceAll(text, []byte("\nFrom "), []byte("\n>From ")))
		if !bytes.HasSuffix(text, []byte("\n")) {
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	if err := os.WriteFile(name, b.Bytes(), 0o660); err != nil {
		return err
	}
	return os.Chmod(name, 0o660) // WriteFile has applied the umask
}

func chownAll(root string, uid, gid int) error {
	return filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}

// Freeze makes the maildrop of an account immutable, so that the server cannot delete messages. With Cyrus it affects
// all accounts. [Server.Thaw] and [Server.Stop] undo it. If the file system does not support the immutable flag, the
// error wraps [ErrUnavailable].
func (s *Server) Freeze(name string) error { return s.chattr("+i", name) }

// Thaw undoes [Server.Freeze].
func (s *Server) Thaw(name string) error { return s.chattr("-i", name) }

func (s *Server) chattr(flag, name string) error {
	path := s.Maildrop(name)
	out, err := exec.Command("chattr", "-R", flag, path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: chattr %s: %v: %s", ErrUnavailable, flag, err, bytes.TrimSpace(out))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if flag == "+i" {
		s.frozen[name] = true
	} else {
		delete(s.frozen, name)
	}
	return nil
}

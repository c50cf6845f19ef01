package interop

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
)

// A Mail is one message of a store.
type Mail struct {
	Name   string // short and unique in its maildrop, for the names of subtests
	Stored []byte // the content as Unix stores it: lines end in LF, except in the message "barecrlf"
}

// Wire returns the message as a server without quirks sends it: every line ends in CRLF. "barecrlf" mixes line ends on
// purpose, so Wire returns it unchanged. The facts of each server say how it sends "barecrlf".
func (m Mail) Wire() []byte {
	if m.Name == barecrlf {
		return m.Stored
	}
	return bytes.ReplaceAll(m.Stored, []byte("\n"), []byte("\r\n"))
}

const (
	barecrlf   = "barecrlf"
	largeSize  = 20 << 20 // approximate number of octets of the large message
	bulkCount  = 1000
	bulkSmall  = 2 << 10 // octets of the shortest bulk message
	bulkLarge  = 10 << 10
	base64Line = 72
)

// Corpus returns the messages in the maildrops of a kind. They are the same on every machine and in every run.
func Corpus(kind MailKind) []Mail {
	switch kind {
	case Awkward:
		return awkward()
	case Bulk:
		return bulk()
	case Five:
		return five()
	default:
		return nil
	}
}

func header(n int, subject string) string {
	return fmt.Sprintf("Return-Path: <sender@example.org>\n"+
		"Date: Mon, 01 Jan 2024 10:%02d:00 +0000\n"+
		"From: Sender <sender@example.org>\n"+
		"To: Alice <alice@example.org>\n"+
		"Subject: %s\n"+
		"Message-ID: <m%d@interop.example.org>\n", n%60, subject, n)
}

// awkward has one message for each problem of clients, servers and stores.
var awkward = sync.OnceValue(func() []Mail {
	var lines strings.Builder
	for i := range 20 {
		fmt.Fprintf(&lines, "line %d\n", i+1)
	}
	mails := []struct{ name, header, body string }{
		{"small1", header(1, "small one"), "\nHello, this is message one.\nSecond line.\n"},
		{"small2", header(2, "small two"), "\nBody of message two.\n\nLast line after an empty one.\n"},
		{"small3", header(3, "small three"), "\n" + lines.String()},
		{"large20MB", header(4, "twenty megabytes"), "\n" + largeBody()},
		{"dots", header(5, "dots"), "\n.\n..\n...\n.leading dot\n..two leading dots\n. \nnot.leading\n" +
			"From here to eternity\n>From quoted\n\n.\n\nlast is a dot\n.\n"},
		{"longline100K", header(6, "long line"),
			"\nbefore\n" + strings.Repeat("0123456789", 10240) + "\nafter\n"},
		{"utf8headers", header(7, "grüße aus köln 日本語") +
			"X-Latin: caf\xe9\nX-Names: Ægir <ægir@exämple.org>\nMIME-Version: 1.0\n" +
			"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n",
			"\nKörper mit Ümläuten — 漢字\n"},
		{"nul", header(8, "nul byte"), "\nbefore\x00after\nnext line\n\x00\nend\n"},
		{barecrlf, crlf(header(9, "bare cr and lf")),
			"\r\ncrlf line\r\nlf line\nbare CR here\rrest of line\r\ntwo CRs\r\r\nend\r\n"},
		{"nofinalnewline", header(10, "no final newline"), "\nfirst\nno newline at end"},
		{"headersonly", header(11, "headers only, no blank line"), ""},
	}
	out := make([]Mail, len(mails))
	for i, m := range mails {
		out[i] = Mail{m.name, []byte(m.header + m.body)}
	}
	return out
})

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// largeBody returns base64 in lines of 72 octets. Base64 is the largest part of most mail.
func largeBody() string {
	raw := make([]byte, largeSize*base64Line/(base64Line+1)*3/4)
	rand.NewChaCha8([32]byte{4}).Read(raw)
	text := base64.StdEncoding.EncodeToString(raw)
	var b strings.Builder
	b.Grow(largeSize + base64Line)
	for len(text) > 0 {
		n := min(base64Line, len(text))
		b.WriteString(text[:n])
		b.WriteByte('\n')
		text = text[n:]
	}
	return b.String()
}

// bulk returns a thousand messages of 2 to 10 KB, with a total of 6 MB.
var bulk = sync.OnceValue(func() []Mail {
	rnd := rand.New(rand.NewPCG(7, 7))
	words := make([]string, 400)
	for i := range words {
		w := make([]byte, 2+rnd.IntN(9))
		for j := range w {
			w[j] = byte('a' + rnd.IntN(26))
		}
		words[i] = string(w)
	}
	out := make([]Mail, bulkCount)
	for i := range out {
		out[i] = Mail{fmt.Sprintf("bulk%04d", i+1), bulkMail(rnd, words, i+1)}
	}
	return out
})

func bulkMail(rnd *rand.Rand, words []string, n int) []byte {
	var b bytes.Buffer
	b.WriteString(header(1000+n, fmt.Sprintf("bulk %d", n)) + "\n")
	for want := bulkSmall + rnd.IntN(bulkLarge-bulkSmall); b.Len() < want; {
		for range 9 {
			b.WriteString(words[rnd.IntN(len(words))])
			b.WriteByte(' ')
		}
		b.WriteString(words[rnd.IntN(len(words))])
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// five returns the messages from which a test may delete.
var five = sync.OnceValue(func() []Mail {
	out := make([]Mail, 5)
	for i := range out {
		text := header(2001+i, fmt.Sprintf("five %d", i+1)) + fmt.Sprintf("\nto be deleted or not %d\n", i+1)
		out[i] = Mail{fmt.Sprintf("five%d", i+1), []byte(text)}
	}
	return out
})

package main

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

const (
	sampleUser     = "alice"
	samplePassword = "wonderland"
)

// startSample starts a server with TLS on this machine. Its maildrop contains messages of several kinds.
func startSample() *pop3test.Server {
	return pop3test.NewTLSServer(&pop3test.Mailbox{User: sampleUser, Password: samplePassword, Messages: samples()})
}

func samples() [][]byte {
	return [][]byte{
		sample("Lunch?", "Shall we have lunch at one?", "", "Bob"),
		sample("Dots", "POP3 must byte-stuff lines that begin with a dot:", ".", "..", "...and.", ".hidden", "."),
		eightBit(),
		multipart(),
		sample("", ""),
		large(3 << 20),
	}
}

// sample returns a message with a subject and lines of text.
func sample(subject string, lines ...string) []byte {
	return message("Subject: "+subject, "Content-Type: text/plain; charset=us-ascii", "", strings.Join(lines, "\r\n"))
}

func message(lines ...string) []byte {
	header := []string{
		"Return-Path: <bob@example.org>",
		"From: Bob <bob@example.org>",
		"To: Alice <alice@example.com>",
		"Date: Tue, 24 Nov 2026 08:30:00 +0000",
		"MIME-Version: 1.0",
	}
	return []byte(strings.Join(append(header, lines...), "\r\n") + "\r\n")
}

// eightBit returns a message in UTF-8 with a line that is longer than RFC 5322 allows. Real maildrops contain such
// messages.
func eightBit() []byte {
	return message("Subject: Grüße aus Köln",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit", "",
		"Viele Grüße und ein schönes Wochenende – 再见!",
		strings.Repeat("lang und länger ", 200))
}

func multipart() []byte {
	return message("Subject: Two ways to say it",
		`Content-Type: multipart/alternative; boundary="=_frontier"`, "",
		"This is a message in MIME format.",
		"--=_frontier", "Content-Type: text/plain; charset=us-ascii", "",
		"Hello, Alice.",
		"--=_frontier", "Content-Type: text/html; charset=us-ascii", "",
		"<p>Hello, <b>Alice</b>.</p>",
		"--=_frontier--")
}

// large returns a message with an attachment of the given size. The content is the same in each run.
func large(octets int) []byte {
	content := make([]byte, octets)
	rand.NewChaCha8([32]byte{}).Read(content)
	encoded := base64.StdEncoding.EncodeToString(content)
	lines := make([]string, 0, len(encoded)/76+8)
	lines = append(lines, "Subject: The pictures",
		`Content-Type: application/octet-stream; name="pictures.zip"`,
		"Content-Transfer-Encoding: base64", "")
	for ; len(encoded) > 76; encoded = encoded[76:] {
		lines = append(lines, encoded[:76])
	}
	return message(append(lines, encoded)...)
}

package interop_test

import (
	"bytes"
	"regexp"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// A refusal is a -ERR reply: its response code and a regular expression for its whole text.
type refusal struct {
	code pop3.Code
	text string
}

// facts describe the behaviour of a server. The tests read the facts and do not check which server they use.
type facts struct {
	kind     interop.Kind
	greeting string // a regular expression that matches the whole text
	stls     bool
	apop     bool

	capsClear    []string // lines of CAPA before a login in clear; nil if CAPA is refused
	capsTLS      []string // lines of CAPA before a login inside TLS
	capsAfter    []string // lines of CAPA after a login in clear
	capsAfterTLS []string // lines of CAPA after a login inside TLS

	wrongPassword  refusal  // reply to a wrong password with USER and PASS
	wrongCloses    bool     // the server hangs up after a wrong password
	noMessage      refusal  // reply to a message number that does not exist
	markedMessage  refusal  // reply to RETR, TOP and LIST for a message marked as deleted
	deleAgain      *refusal // reply to DELE for a message marked as deleted; nil if it is +OK
	unknownCommand refusal  // reply to a command that does not exist

	anyPassword   bool // every password is accepted
	listsDeleted  bool // LIST n works for a message marked as deleted
	unknownCloses bool // the server hangs up after a command that does not exist

	uid      string // a regular expression for unique-ids
	utf8User bool   // USER and PASS accept a name and password that are not ASCII

	secondLogin     *refusal // reply to a second login into a maildrop in use; nil if it is accepted
	frozenQuit      *refusal // reply to QUIT if the store cannot be written; nil if it is +OK even then
	frozenLeft      int      // number of messages that are left after that QUIT; two of five were marked
	cutQuitLeft     int      // number of messages that are left after "QUIT" without a line end
	plain           *refusal // reply to AUTH PLAIN; nil if the server has it
	expunged        outcome  // result of RETR in a second session, if the first one has deleted the message
	announcesExpire bool     // the server announces EXPIRE NEVER: messages do not expire
	announcesDelay  bool     // the server announces LOGIN-DELAY
	loginDelay      time.Duration

	changes         map[string][]change // changes of the messages of interop.Alice, by name; "" is for all others
	rejectedMail    string              // the name of the message that the store rejects
	addedHeaders    *regexp.Regexp      // header lines that the server adds; their values differ each time
	varyingText     *regexp.Regexp      // text that differs each time that a message is sent
	sizeErrors      map[string]int64    // the size in LIST minus the octets that RETR sends, by name; 0 if absent
	countsLF        bool                // sizes in LIST count each line end as one octet
	sizesGrow       bool                // UIDL writes into the messages, so sizes grow within the session
	textAfterHeader string              // an additional text that TOP sends after the header
	// TOP omits a last line that has no line end, and all of a message that has no empty line.
	truncatesTop bool
}

// An outcome of a command is success, a refusal, or the end of the connection.
type outcome struct {
	refused *refusal
	closed  bool
}

// A change returns a message as the client receives it. mail is the message in the store, with CRLF line ends.
type change func(mail []byte) []byte

var (
	dovecot = facts{
		kind:     interop.Dovecot,
		greeting: `Dovecot ready\. <[0-9a-zA-Z.+/=]+@\S+>`,
		stls:     true, apop: true,
		capsClear:      append([]string{"STLS", "USER", dovecotSASL}, dovecotCaps...),
		capsTLS:        append([]string{"USER", dovecotSASL}, dovecotCaps...),
		capsAfter:      dovecotCaps,
		capsAfterTLS:   dovecotCaps,
		wrongPassword:  refusal{pop3.CodeAuth, `Authentication failed\.`},
		noMessage:      refusal{text: `There's no message 99\.`},
		markedMessage:  refusal{text: `Message is deleted\.`},
		deleAgain:      &refusal{text: `Message is deleted\.`},
		unknownCommand: refusal{text: `Unknown command: XFOO`},
		uid:            `[0-9a-f]{16}`,
		frozenLeft:     5, cutQuitLeft: 5,
		expunged:   outcome{refused: &refusal{text: `Message 1 expunged\.`}},
		changes:    map[string][]change{barecrlf: {lineEnds}, noFinalNewline: {finalNewline}},
		sizeErrors: map[string]int64{noFinalNewline: -2},
	}
	dovecotCaps = []string{"CAPA", "TOP", "UIDL", "RESP-CODES", "PIPELINING", "AUTH-RESP-CODE"}

	courier = facts{
		kind:      interop.Courier,
		greeting:  `Hello there\.`,
		stls:      true,
		capsClear: append([]string{"STLS"}, courierCaps...),
		capsTLS:   courierCaps,
		// Courier still announces STLS after a login, but refuses it.
		capsAfter:      append([]string{"STLS"}, courierCaps...),
		capsAfterTLS:   courierCaps,
		wrongPassword:  refusal{text: `Login failed\.`},
		noMessage:      refusal{text: `Invalid message number\.`},
		markedMessage:  refusal{text: `Invalid message number\.`},
		deleAgain:      &refusal{text: `Invalid message number\.`},
		unknownCommand: refusal{text: `Invalid command\.`},
		uid:            `UID\d+-\d+`,
		utf8User:       true,
		frozenLeft:     5, cutQuitLeft: 3,
		expunged:       outcome{refused: &refusal{text: `Can't open the message file - it's gone!`}},
		announcesDelay: true, loginDelay: 10 * time.Second, // the server does not enforce the delay
		changes: map[string][]change{
			"utf8headers": {wrapped}, barecrlf: {everyLF}, noFinalNewline: {finalNewline},
		},
		varyingText: regexp.MustCompile(`=_\d+-\d+`), // a boundary that is made of the process id and the time
		sizeErrors:  map[string]int64{"utf8headers": 398 - 1124, noFinalNewline: -2},
	}
	courierCaps = []string{"SASL PLAIN LOGIN CRAM-MD5 CRAM-SHA1 CRAM-SHA256", "TOP", "USER", "LOGIN-DELAY 10",
		"PIPELINING", "UIDL", "UTF8 USER", "IMPLEMENTATION Courier Mail Server"}

	cyrus = facts{
		kind:     interop.Cyrus,
		greeting: `localhost Cyrus POP3 \S+ server ready <\d+\.\d+@localhost>`,
		stls:     true, apop: true,
		capsClear: append([]string{"STLS", "USER",
			"SASL PLAIN LOGIN CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256 NTLM"}, cyrusCaps...),
		capsTLS:        append([]string{"USER", cyrusTLSSASL}, cyrusCaps...),
		capsAfter:      cyrusCaps,
		capsAfterTLS:   append([]string{cyrusTLSSASL}, cyrusCaps...),
		wrongPassword:  refusal{pop3.CodeAuth, `Invalid login`},
		noMessage:      refusal{text: `No such message`},
		markedMessage:  refusal{text: `No such message`},
		deleAgain:      &refusal{text: `No such message`},
		unknownCommand: refusal{text: `Unrecognized command`},
		uid:            `\d+\.\d+`,
		frozenLeft:     5, cutQuitLeft: 3,
		announcesExpire: true, announcesDelay: true,
		changes: map[string][]change{
			"nul":         nil, // Cyrus refuses this message at delivery
			"utf8headers": {munged}, barecrlf: {lineEnds, noBareCR}, noFinalNewline: {finalNewline},
		},
		rejectedMail: "nul",
		addedHeaders: regexp.MustCompile(`(?m)^Received: .*\r\n(\t.*\r\n)+X-Cyrus-Session-Id: .*\r\nX-Sieve.*\r\n`),
	}
	cyrusCaps = []string{"EXPIRE NEVER", "LOGIN-DELAY 0", "TOP", "UIDL", "PIPELINING", "RESP-CODES",
		"AUTH-RESP-CODE", "IMPLEMENTATION Cyrus POP3 3.6.1-Debian-3.6.1-4+deb12u5"}

	mailutils = facts{
		kind:     interop.Mailutils,
		greeting: `POP3 Ready <\d+\.\d+@\S+>`,
		stls:     true, apop: true,
		capsClear: append([]string{"STLS"}, mailutilsCaps...),
		capsTLS:   mailutilsCaps,
		// Mailutils still announces STLS after a login, but refuses it.
		capsAfter:      append([]string{"STLS", mailutilsImpl}, mailutilsCaps...),
		capsAfterTLS:   append([]string{mailutilsImpl}, mailutilsCaps...),
		wrongPassword:  refusal{pop3.CodeAuth, `Bad login`},
		noMessage:      refusal{text: `No such message`},
		markedMessage:  refusal{text: `Message has been deleted`},
		unknownCommand: refusal{text: `Invalid command`},
		plain:          &refusal{text: `Not implemented`},
		uid:            `[0-9a-f]{32}\.\d+\.\d+`,
		secondLogin:    &refusal{pop3.CodeInUse, `Mailbox in use`},
		frozenQuit:     &refusal{text: `Some deleted messages not removed`}, frozenLeft: 5, cutQuitLeft: 5,
		changes: map[string][]change{
			"dots": {unquoteFrom}, barecrlf: {lineEnds},
			noFinalNewline: {finalNewline}, headersOnly: {emptyLine},
		},
		announcesExpire: true,
		addedHeaders:    regexp.MustCompile(`(?m)^(X-UIDL|X-IMAPbase|X-UID|Status): .*\r\n`),
		sizesGrow:       true,
		textAfterHeader: "\r\n",
	}
	// Mailutils writes EXPIRENEVER in place of EXPIRE NEVER (C-041).
	mailutilsCaps = []string{"TOP", "UIDL", "RESP-CODES", "PIPELINING", "AUTH-RESP-CODE", "EXPIRENEVER", "USER"}

	popa3d = facts{
		kind:          interop.Popa3d,
		greeting:      ``,
		wrongPassword: refusal{text: `Authentication failed \(bad password\?\)`},
		wrongCloses:   true,
		deleAgain:     &refusal{},
		plain:         &refusal{},
		expunged:      outcome{closed: true},
		uid:           `[0-9a-f]{16}`,
		frozenQuit:    &refusal{}, frozenLeft: 5, cutQuitLeft: 3,
		changes: map[string][]change{
			"dots": {quoteFrom}, barecrlf: {lineEnds}, noFinalNewline: {finalNewline}, headersOnly: {emptyLine},
		},
	}

	solid = facts{
		kind:           interop.Solid,
		greeting:       `Solid POP3 server ready <\d+\.\d+@localhost>`,
		apop:           true,
		wrongPassword:  refusal{text: `authentication failed`},
		wrongCloses:    true,
		noMessage:      refusal{text: `no such message`},
		markedMessage:  refusal{text: `message 1 (is|already) marked as deleted`},
		deleAgain:      &refusal{text: `message 1 already marked as deleted`},
		unknownCommand: refusal{text: `unknown command`},
		plain:          &refusal{text: `command not implemented yet`},
		expunged:       outcome{closed: true},
		uid:            `[0-9a-f]{32}`,
		frozenQuit:     &refusal{text: `write error`}, frozenLeft: 5, cutQuitLeft: 5,
		changes: map[string][]change{
			"": {emptyLine}, "dots": {quoteFrom, emptyLine}, barecrlf: {lineEnds, emptyLine},
			noFinalNewline: {finalNewline, emptyLine},
		},
	}

	// nginx sends the replies before the login, and Dovecot sends the replies after it.
	nginx = facts{
		kind:           interop.Nginx,
		greeting:       `POP3 ready`,
		stls:           true,
		capsClear:      []string{"TOP", "USER", "UIDL", "SASL PLAIN LOGIN", "STLS"},
		capsTLS:        []string{"TOP", "USER", "UIDL", "SASL PLAIN LOGIN"},
		capsAfter:      dovecotCaps,
		capsAfterTLS:   dovecotCaps,
		wrongPassword:  refusal{text: `Invalid login or password`},
		wrongCloses:    true,
		noMessage:      dovecot.noMessage,
		markedMessage:  dovecot.markedMessage,
		deleAgain:      dovecot.deleAgain,
		unknownCommand: dovecot.unknownCommand,
		uid:            dovecot.uid,
		changes:        dovecot.changes,
		sizeErrors:     dovecot.sizeErrors,
	}

	wildDuck = facts{
		kind:           interop.WildDuck,
		greeting:       `WildDuck POP3 Server ready for requests from 127\.0\.0\.1 [a-z0-9]+`,
		stls:           true,
		capsClear:      append([]string{"STLS", "USER", "SASL PLAIN"}, wildDuckCaps...),
		capsTLS:        append([]string{"USER", "SASL PLAIN"}, wildDuckCaps...),
		capsAfter:      append([]string{"STLS"}, wildDuckCaps...),
		capsAfterTLS:   wildDuckCaps,
		wrongPassword:  refusal{pop3.CodeAuth, `Username and password not accepted`},
		noMessage:      refusal{text: `no such message, only 5 messages in maildrop`},
		markedMessage:  refusal{text: `message 1 already deleted`},
		deleAgain:      &refusal{text: `message 1 already deleted`},
		listsDeleted:   true,
		unknownCommand: refusal{text: `bad command`},
		unknownCloses:  true,
		uid:            `[0-9a-z]+`,
		changes:        map[string][]change{barecrlf: {lineEnds}, noFinalNewline: {finalNewline}},
		sizeErrors:     map[string]int64{noFinalNewline: -2},
		truncatesTop:   true,
	}
	wildDuckCaps = []string{"TOP", "UIDL", "RESP-CODES", "PIPELINING", "IMPLEMENTATION WildDuck-v1.46.1"}

	inbucket = facts{
		kind:     interop.Inbucket,
		greeting: `Inbucket POP3 server ready <\d+\.\d+@inbucket>`,
		stls:     true, apop: true, anyPassword: true,
		capsClear:      append([]string{"STLS"}, inbucketCaps...),
		capsTLS:        inbucketCaps,
		capsAfter:      append([]string{"STLS"}, inbucketCaps...),
		capsAfterTLS:   inbucketCaps,
		noMessage:      refusal{text: `(LIST|RETR|DELE) argument must not exceed the number of messages`},
		markedMessage:  refusal{text: `You deleted message 1`},
		deleAgain:      &refusal{text: `Message 1 has already been deleted`},
		unknownCommand: refusal{text: `Syntax error, XFOO command unrecognized`},
		plain:          &refusal{text: `Syntax error, AUTH command unrecognized`},
		uid:            `\d{8}T\d{6}-\d{4}`,
		changes:        map[string][]change{barecrlf: {lineEnds, noDoubledCR}, noFinalNewline: {finalNewline}},
		addedHeaders:   regexp.MustCompile(`\A(?:Return-Path: .*\r\n|Received: .*\r\n(?:[ \t].*\r\n)*){2}`),
		countsLF:       true,
	}
	inbucketCaps = []string{"TOP", "USER", "UIDL", "IMPLEMENTATION Inbucket"}
)

const (
	dovecotSASL = "SASL PLAIN LOGIN CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256 EXTERNAL ANONYMOUS " +
		"OAUTHBEARER XOAUTH2"
	cyrusTLSSASL = "SASL PLAIN LOGIN CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1-PLUS SCRAM-SHA-1 SCRAM-SHA-256-PLUS " +
		"SCRAM-SHA-256 NTLM"
	mailutilsImpl = "IMPLEMENTATION GNU Mailutils 3.15"
)

// corpus returns the messages in a maildrop at the start.
func (f *facts) corpus(kind interop.MailKind) []interop.Mail {
	return slices.DeleteFunc(slices.Clone(interop.Corpus(kind)), func(m interop.Mail) bool {
		return m.Name == f.rejectedMail
	})
}

// expected returns the message as the server sends it, without the parts that differ each time. comparable removes
// these parts from a received message.
func (f *facts) expected(m interop.Mail) []byte {
	changes, ok := f.changes[m.Name]
	if !ok {
		changes = f.changes[""]
	}
	out := m.Wire()
	for _, change := range changes {
		out = change(out)
	}
	return out
}

// sizeError returns by how much the size in LIST exceeds the octets that RETR sends.
func (f *facts) sizeError(m interop.Mail) int64 {
	if f.countsLF {
		return f.sizeErrors[m.Name] - int64(bytes.Count(m.Stored, []byte("\n")))
	}
	return f.sizeErrors[m.Name]
}

// comparable returns a message without the parts that cannot be predicted.
func (f *facts) comparable(got []byte) []byte {
	if f.addedHeaders != nil {
		end := bytes.Index(got, []byte("\r\n\r\n"))
		if end < 0 {
			end = len(got) - len("\r\n")
		}
		header := f.addedHeaders.ReplaceAll(got[:end+len("\r\n")], nil)
		got = append(bytes.Clone(header), got[end+len("\r\n"):]...)
	}
	return unwrap(got)
}

// withoutVarying returns a message, or a part of it, without the text that differs each time.
func (f *facts) withoutVarying(text []byte) []byte {
	if f.varyingText == nil {
		return text
	}
	return f.varyingText.ReplaceAll(text, nil)
}

// mainServers has the facts of the servers that most tests use, in the order of interop.Kinds. otherServers are used
// only in TestSession, in TestReplay and in tests of their own.
var (
	mainServers  = []*facts{&dovecot, &courier, &cyrus, &mailutils, &popa3d, &solid}
	otherServers = []*facts{&nginx, &wildDuck, &inbucket}
)

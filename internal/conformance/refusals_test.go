package conformance_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3"
)

// A verdict is what Temporary and RejectsCredentials return for a refused login.
type verdict struct{ temporary, rejects, certain bool }

var (
	locked = verdict{temporary: true}                // according to the text, which is never certain
	later  = verdict{temporary: true, certain: true} // according to a response code
	never  = verdict{certain: true}                  // a response code says that the password is not the reason
	wrong  = verdict{rejects: true}                  // according to the text, which is never certain
	surely = verdict{rejects: true, certain: true}   // according to a response code
)

// judged is a problem: the error must be an *Error with this verdict.
func judged(v verdict) problem {
	return func(t *testing.T, err error) {
		var refusal *pop3.Error
		if assert.ErrorAs(t, err, &refusal) {
			rejects, certain := refusal.RejectsCredentials()
			assert.Equal(t, v, verdict{refusal.Temporary(), rejects, certain})
		}
	}
}

// These are the texts with which servers refuse a login. They come from the catalogue, from the documentation of
// servers, and from reports of users and of other clients. In a reply to RETR such a text says nothing about the
// password, and only a response code makes the refusal temporary.
func TestRefusedLogins(t *testing.T) {
	for _, row := range []struct {
		server, text string
		verdict      verdict
	}{
		{"RFC 1939", "maildrop already locked", locked},
		{"RFC 1939", "unable to lock maildrop", locked},
		{"RFC 1939", "invalid password", wrong},
		{"RFC 1939", "sorry, no mailbox for u here", wrong},
		{"RFC 2449", "[IN-USE] Do you have another POP session running?", later},
		{"UW ipop3d", "Can't get lock.  Mailbox in use", locked},
		{"UW ipop3d", "Bad login", wrong},
		{"qpopper 2", "/var/spool/mail/.u.pop lock busy!  Is another session active?", locked},
		{"qpopper 2", `Password supplied for "u" is incorrect.`, wrong},
		{"qpopper 4", `[AUTH] Password supplied for "u" is incorrect.`, surely},
		{"Cyrus 1", "Unable to lock maildrop", locked},
		{"Cyrus 2", "[IN-USE] Unable to lock maildrop: Mailbox is locked by POP server", later},
		{"Cyrus 3", "[AUTH] Invalid login", surely},
		{"Cyrus 3", "[AUTH] authenticating: authentication failure", surely},
		{"Cyrus 3", "[LOGIN-DELAY] Logins must be at least 10 minutes apart", later},
		{"Cyrus 3", "[SYS/PERM] Fatal error: can't write proxy file", never},
		{"Dovecot 0", "[IN-USE] Couldn't sync mailbox.", later},
		{"Dovecot 1, Courier", "Authentication failed.", wrong},
		{"Dovecot 1", "[IN-USE] Internal login failure. Refer to server log for more information.", later},
		{"Dovecot 2", "[IN-USE] Mailbox is locked by another POP3 session.", later},
		{"Dovecot 2", "[AUTH] Authentication failed.", surely},
		{"Dovecot 2", "[SYS/TEMP] Internal error occurred. Refer to server log for more information.", later},
		{"Courier", "Login failed.", wrong},
		{"Courier", "Maildir: No such file or directory", wrong},
		{"Courier", "Temporary problem, please try again later", locked},
		{"Courier", "Account u is temporarily unavailable", locked},
		{"Q-37", "Service unavailable", locked},
		{"Q-37", "please wait a few minutes", locked},
		{"used elsewhere", "account already logged in", locked},
		{"Mailutils", "[IN-USE] Mailbox in use", later},
		{"Mailutils", "[AUTH] Bad login", surely},
		{"popa3d", "", wrong},
		{"popa3d", "Authentication failed (bad password?)", wrong},
		{"solid-pop3d", "authentication failed", wrong},
		{"solid-pop3d", "wrong character in digest", wrong},
		{"Bongo", "[IN-USE] Mailbox is already locked. POP access denied", later},
		{"Bongo", "[SYS/TEMP] I already know who you are!", later},
		{"a server with Kerberos", "Mailbox is already in use.", locked},
		{"hMailServer", "Your mailbox is already locked", locked},
		{"VPOP3", "Mailbox Locked", locked},
		{"VPOP3, with codes", "[IN-USE] Mailbox Locked", later},
		{"Directnic", "[IN-USE] Mailbox is locked", later},
		{"perdition", "[IN-USE] mailbox already in use by pid 12345", later},
		{"tcllib", "could not aquire lock for maildrop u", locked},
		{"a Maildir server", "Maildrop is locked by someone else!", locked},
		{"an Android server", "mailbox u currently locked", locked},
		{"a BBS", "Mailbox is locked. Try later.", locked},
		{"a server in Java", "Mailbox locked by another session", locked},
		{"a server in Java", "mailbox for u already locked.Try again later.", locked},
		{"a server in C++", "Mailbox locked, try next time", locked},
		{"Gmail", "[AUTH] Username and password not accepted.", surely},
		{"Gmail", "[AUTH] Web login required: https://support.google.com/mail/answer/78754", surely},
		{"Gmail", "[IN-USE] Unable to lock maildrop: mailbox is locked by another POP session", later},
		{"Gmail", "[SYS/TEMP] Temporary system problem. Please try again later.", later},
		{"Gmail", "[LOGIN-DELAY] Minimum time between logins not met", later},
		{"Mailcow", "[LOGIN-DELAY] Retry later", later},
		{"a proxy", "[SYS/TEMP] Backend server temporarily unavailable", later},
		{"a proxy", "[LOGIN-DELAY] Too many authentication attempts. Please try again later.", later},
		{"Exchange", "Logon failure: unknown user name or bad password.", wrong},
		{"Hotmail", "Exceeded the login limit for a 15 minute period. Reduce the frequency of requests to the " +
			"POP3 server.", wrong},
		{"WildDuck", "[AUTH] Username and password not accepted", surely},
		{"inbucket", "Invalid login or password", wrong},
		{"LumiSoft", "Bad sequence of commands: Session rejected.", wrong},
		{"locked for good", "Account locked", wrong},
		{"locked for good", "Account temporarily locked", wrong},
		{"locked for good", "Temporarily blocked after too many attempts", wrong},
		{"locked for good", "Mailbox locked after too many attempts", wrong},
		{"locked for good", "Your mailbox has been suspended and locked", wrong},
	} {
		id, reply := "C-037 "+row.server+": "+row.text, "-ERR "+row.text
		playAll(t, []dialogue{
			{id: id, script: turns("USER u", "+OK", "PASS "+canary, reply), do: via(byUser),
				want: fails(judged(row.verdict))},
			{id: id + ", to RETR", script: turns("RETR 1", reply), do: retr,
				want: fails(judged(verdict{temporary: row.verdict == later, certain: true}))},
		})
	}
}

// If a server announces AUTH-RESP-CODE, it marks each refusal of a password with a code. So a refusal without that
// code does not mean that the password is wrong.
func TestRefusedLoginsAnnounced(t *testing.T) {
	for text, v := range map[string]verdict{
		"Mailbox is locked": later, "Login failed.": never, "[AUTH] no": surely, "[IN-USE] locked": later,
	} {
		dialogue{id: "C-037 R1-112 announced: " + text, do: via(byChoice), want: fails(judged(v)),
			script: turns("CAPA", "+OK\nAUTH-RESP-CODE\n.", "USER u", "+OK", "PASS "+canary, "-ERR "+text)}.run(t)
	}
}

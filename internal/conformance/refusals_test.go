package conformance_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3"
)

// A verdict is what Temporary and RejectsCredentials return for a refused login.
type verdict struct{ temporary, rejects, certain bool }

var (
	lockedByText    = verdict{temporary: true}                // according to the text, which is never certain
	temporaryByCode = verdict{temporary: true, certain: true} // according to a response code
	otherByCode     = verdict{certain: true}                  // a response code names another reason
	wrongByText     = verdict{rejects: true}                  // according to the text, which is never certain
	wrongByCode     = verdict{rejects: true, certain: true}   // according to a response code
)

// hasVerdict returns a check that the error is an *Error with this verdict.
func hasVerdict(v verdict) errorCheck {
	return func(t *testing.T, err error) {
		var refusal *pop3.Error
		if assert.ErrorAs(t, err, &refusal) {
			rejects, certain := refusal.RejectsCredentials()
			assert.Equal(t, v, verdict{refusal.Temporary(), rejects, certain})
		}
	}
}

// These are the texts with which servers refuse a login. They come from the catalogue, from the documentation of
// servers, and from reports of users and of other clients. In a reply to RETR such a text has no effect; only a
// response code makes the refusal temporary.
func TestRefusedLogins(t *testing.T) {
	for _, row := range []struct {
		server, text string
		verdict      verdict
	}{
		{"RFC 1939", "maildrop already locked", lockedByText},
		{"RFC 1939", "unable to lock maildrop", lockedByText},
		{"RFC 1939", "invalid password", wrongByText},
		{"RFC 1939", "sorry, no mailbox for u here", wrongByText},
		{"RFC 2449", "[IN-USE] Do you have another POP session running?", temporaryByCode},
		{"UW ipop3d", "Can't get lock.  Mailbox in use", lockedByText},
		{"UW ipop3d", "Bad login", wrongByText},
		{"qpopper 2", "/var/spool/mail/.u.pop lock busy!  Is another session active?", lockedByText},
		{"qpopper 2", `Password supplied for "u" is incorrect.`, wrongByText},
		{"qpopper 4", `[AUTH] Password supplied for "u" is incorrect.`, wrongByCode},
		{"Cyrus 1", "Unable to lock maildrop", lockedByText},
		{"Cyrus 2", "[IN-USE] Unable to lock maildrop: Mailbox is locked by POP server", temporaryByCode},
		{"Cyrus 3", "[AUTH] Invalid login", wrongByCode},
		{"Cyrus 3", "[AUTH] authenticating: authentication failure", wrongByCode},
		{"Cyrus 3", "[LOGIN-DELAY] Logins must be at least 10 minutes apart", temporaryByCode},
		{"Cyrus 3", "[SYS/PERM] Fatal error: can't write proxy file", otherByCode},
		{"Dovecot 0", "[IN-USE] Couldn't sync mailbox.", temporaryByCode},
		{"Dovecot 1, Courier", "Authentication failed.", wrongByText},
		{"Dovecot 1", "[IN-USE] Internal login failure. Refer to server log for more information.", temporaryByCode},
		{"Dovecot 2", "[IN-USE] Mailbox is locked by another POP3 session.", temporaryByCode},
		{"Dovecot 2", "[AUTH] Authentication failed.", wrongByCode},
		{"Dovecot 2", "[SYS/TEMP] Internal error occurred. Refer to server log for more information.", temporaryByCode},
		{"Courier", "Login failed.", wrongByText},
		{"Courier", "Maildir: No such file or directory", wrongByText},
		{"Courier", "Temporary problem, please try again later", lockedByText},
		{"Courier", "Account u is temporarily unavailable", lockedByText},
		{"Q-37", "Service unavailable", lockedByText},
		{"Q-37", "please wait a few minutes", lockedByText},
		{"used elsewhere", "account already logged in", lockedByText},
		{"Mailutils", "[IN-USE] Mailbox in use", temporaryByCode},
		{"Mailutils", "[AUTH] Bad login", wrongByCode},
		{"popa3d", "", wrongByText},
		{"popa3d", "Authentication failed (bad password?)", wrongByText},
		{"solid-pop3d", "authentication failed", wrongByText},
		{"solid-pop3d", "wrong character in digest", wrongByText},
		{"Bongo", "[IN-USE] Mailbox is already locked. POP access denied", temporaryByCode},
		{"Bongo", "[SYS/TEMP] I already know who you are!", temporaryByCode},
		{"a server with Kerberos", "Mailbox is already in use.", lockedByText},
		{"hMailServer", "Your mailbox is already locked", lockedByText},
		{"VPOP3", "Mailbox Locked", lockedByText},
		{"VPOP3, with codes", "[IN-USE] Mailbox Locked", temporaryByCode},
		{"Directnic", "[IN-USE] Mailbox is locked", temporaryByCode},
		{"perdition", "[IN-USE] mailbox already in use by pid 12345", temporaryByCode},
		{"tcllib", "could not aquire lock for maildrop u", lockedByText},
		{"a Maildir server", "Maildrop is locked by someone else!", lockedByText},
		{"an Android server", "mailbox u currently locked", lockedByText},
		{"a BBS", "Mailbox is locked. Try later.", lockedByText},
		{"a server in Java", "Mailbox locked by another session", lockedByText},
		{"a server in Java", "mailbox for u already locked.Try again later.", lockedByText},
		{"a server in C++", "Mailbox locked, try next time", lockedByText},
		{"Gmail", "[AUTH] Username and password not accepted.", wrongByCode},
		{"Gmail", "[AUTH] Web login required: https://support.google.com/mail/answer/78754", wrongByCode},
		{"Gmail", "[IN-USE] Unable to lock maildrop: mailbox is locked by another POP session", temporaryByCode},
		{"Gmail", "[SYS/TEMP] Temporary system problem. Please try again later.", temporaryByCode},
		{"Gmail", "[LOGIN-DELAY] Minimum time between logins not met", temporaryByCode},
		{"Mailcow", "[LOGIN-DELAY] Retry later", temporaryByCode},
		{"a proxy", "[SYS/TEMP] Backend server temporarily unavailable", temporaryByCode},
		{"a proxy", "[LOGIN-DELAY] Too many authentication attempts. Please try again later.", temporaryByCode},
		{"Exchange", "Logon failure: unknown user name or bad password.", wrongByText},
		{"Hotmail", "Exceeded the login limit for a 15 minute period. Reduce the frequency of requests to the " +
			"POP3 server.", wrongByText},
		{"WildDuck", "[AUTH] Username and password not accepted", wrongByCode},
		{"inbucket", "Invalid login or password", wrongByText},
		{"LumiSoft", "Bad sequence of commands: Session rejected.", wrongByText},
		{"locked for good", "Account locked", wrongByText},
		{"locked for good", "Account temporarily locked", wrongByText},
		{"locked for good", "Temporarily blocked after too many attempts", wrongByText},
		{"locked for good", "Mailbox locked after too many attempts", wrongByText},
		{"locked for good", "Your mailbox has been suspended and locked", wrongByText},
	} {
		id, reply := "C-037 "+row.server+": "+row.text, "-ERR "+row.text
		playAll(t, []dialogue{
			{id: id, script: turns("USER u", "+OK", "PASS "+canary, reply), do: loginAction(byUser),
				want: failsWith(hasVerdict(row.verdict))},
			{id: id + ", to RETR", script: turns("RETR 1", reply), do: retr,
				want: failsWith(hasVerdict(verdict{temporary: row.verdict == temporaryByCode, certain: true}))},
		})
	}
}

// If a server announces AUTH-RESP-CODE, it marks each refusal of a password with a code. So a refusal without that
// code does not mean that the password is wrong.
func TestRefusedLoginsAnnounced(t *testing.T) {
	for text, v := range map[string]verdict{
		"Mailbox is locked": temporaryByCode, "Login failed.": otherByCode, "[AUTH] no": wrongByCode,
		"[IN-USE] locked": temporaryByCode,
	} {
		dialogue{id: "C-037 R1-112 announced: " + text, do: loginAction(byChoice), want: failsWith(hasVerdict(v)),
			script: turns("CAPA", "+OK\nAUTH-RESP-CODE\n.", "USER u", "+OK", "PASS "+canary, "-ERR "+text)}.run(t)
	}
}

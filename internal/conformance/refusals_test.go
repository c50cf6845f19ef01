package conformance_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// A verdict is what Temporary and RejectsCredentials say about a refused login.
type verdict struct{ temporary, rejects, certain bool }

var (
	locked = verdict{temporary: true}                // says so in words: a hint
	later  = verdict{temporary: true, certain: true} // says so by a code
	never  = verdict{certain: true}                  // not about the password, by a code
	wrong  = verdict{rejects: true}                  // most likely
	surely = verdict{rejects: true, certain: true}   // by a code
)

// refusedWith wants a login that is refused with these words to get the verdict. The same words to RETR are not about
// the password, and temporary only by a code.
func refusedWith(server, text string, v verdict) dialogue {
	return dialogue{id: "C-037 " + server + ": " + text,
		script: greets("+OK", "USER u", "+OK", "PASS "+canary, "-ERR "+text, "USER u", "+OK", "PASS "+canary, "+OK",
			"RETR 1", "-ERR "+text),
		do: session(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			var refusal *pop3.Error
			require.ErrorAs(t, byUser(ctx, c), &refusal)
			rejects, certain := refusal.RejectsCredentials()
			assert.Equal(t, v, verdict{refusal.Temporary(), rejects, certain})
			require.NoError(t, byUser(ctx, c))
			_, err := c.Retr(ctx, 1)
			require.ErrorAs(t, err, &refusal)
			rejects, certain = refusal.RejectsCredentials()
			assert.Equal(
				t,
				verdict{v == later, false, true},
				verdict{refusal.Temporary(), rejects, certain},
				"to RETR",
			)
		})}
}

// What servers say to a login that they refuse: from the catalogue, from their documentation, and as their users and
// other clients report it.
func TestRefusedLogins(t *testing.T) {
	playAll(t, []dialogue{
		refusedWith("RFC 1939", "maildrop already locked", locked),
		refusedWith("RFC 1939", "unable to lock maildrop", locked),
		refusedWith("RFC 1939", "invalid password", wrong),
		refusedWith("RFC 1939", "sorry, no mailbox for u here", wrong),
		refusedWith("RFC 2449", "[IN-USE] Do you have another POP session running?", later),
		refusedWith("UW ipop3d", "Can't get lock.  Mailbox in use", locked),
		refusedWith("UW ipop3d", "Bad login", wrong),
		refusedWith("qpopper 2", "/var/spool/mail/.u.pop lock busy!  Is another session active?", locked),
		refusedWith("qpopper 2", `Password supplied for "u" is incorrect.`, wrong),
		refusedWith("qpopper 4", `[AUTH] Password supplied for "u" is incorrect.`, surely),
		refusedWith("Cyrus 1", "Unable to lock maildrop", locked),
		refusedWith("Cyrus 2", "[IN-USE] Unable to lock maildrop: Mailbox is locked by POP server", later),
		refusedWith("Cyrus 3", "[AUTH] Invalid login", surely),
		refusedWith("Cyrus 3", "[AUTH] authenticating: authentication failure", surely),
		refusedWith("Cyrus 3", "[LOGIN-DELAY] Logins must be at least 10 minutes apart", later),
		refusedWith("Cyrus 3", "[SYS/PERM] Fatal error: can't write proxy file", never),
		refusedWith("Dovecot 0", "[IN-USE] Couldn't sync mailbox.", later),
		refusedWith("Dovecot 1", "Authentication failed.", wrong),
		refusedWith("Dovecot 1", "[IN-USE] Internal login failure. Refer to server log for more information.", later),
		refusedWith("Dovecot 2", "[IN-USE] Mailbox is locked by another POP3 session.", later),
		refusedWith("Dovecot 2", "[AUTH] Authentication failed.", surely),
		refusedWith(
			"Dovecot 2",
			"[SYS/TEMP] Internal error occurred. Refer to server log for more information.",
			later,
		),
		refusedWith("Courier", "Login failed.", wrong),
		refusedWith("Courier", "Authentication failed.", wrong),
		refusedWith("Courier", "Maildir: No such file or directory", wrong),
		refusedWith("Mailutils", "[IN-USE] Mailbox in use", later),
		refusedWith("Mailutils", "[AUTH] Bad login", surely),
		refusedWith("popa3d", "", wrong),
		refusedWith("popa3d", "Authentication failed (bad password?)", wrong),
		refusedWith("solid-pop3d", "authentication failed", wrong),
		refusedWith("solid-pop3d", "wrong character in digest", wrong),
		refusedWith("Bongo", "[IN-USE] Mailbox is already locked. POP access denied", later),
		refusedWith("Bongo", "[SYS/TEMP] I already know who you are!", later),
		refusedWith("a server with Kerberos", "Mailbox is already in use.", locked),
		refusedWith("hMailServer", "Your mailbox is already locked", locked),
		refusedWith("VPOP3", "Mailbox Locked", locked),
		refusedWith("VPOP3, with codes", "[IN-USE] Mailbox Locked", later),
		refusedWith("Directnic", "[IN-USE] Mailbox is locked", later),
		refusedWith("perdition", "[IN-USE] mailbox already in use by pid 12345", later),
		refusedWith("tcllib", "could not aquire lock for maildrop u", locked),
		refusedWith("a Maildir server", "Maildrop is locked by someone else!", locked),
		refusedWith("an Android server", "mailbox u currently locked", locked),
		refusedWith("a BBS", "Mailbox is locked. Try later.", locked),
		refusedWith("a server in Java", "Mailbox locked by another session", locked),
		refusedWith("a server in Java", "mailbox for u already locked.Try again later.", locked),
		refusedWith("a server in C++", "Mailbox locked, try next time", locked),
		refusedWith("Gmail", "[AUTH] Username and password not accepted.", surely),
		refusedWith("Gmail", "[AUTH] Web login required: https://support.google.com/mail/answer/78754", surely),
		refusedWith("Gmail", "[IN-USE] Unable to lock maildrop: mailbox is locked by another POP session", later),
		refusedWith("Gmail", "[SYS/TEMP] Temporary system problem. Please try again later.", later),
		refusedWith("Gmail", "[LOGIN-DELAY] Minimum time between logins not met", later),
		refusedWith("Mailcow", "[LOGIN-DELAY] Retry later", later),
		refusedWith("a proxy", "[SYS/TEMP] Backend server temporarily unavailable", later),
		refusedWith("a proxy", "[LOGIN-DELAY] Too many authentication attempts. Please try again later.", later),
		refusedWith("Exchange", "Logon failure: unknown user name or bad password.", wrong),
		refusedWith(
			"Hotmail",
			"Exceeded the login limit for a 15 minute period. Reduce the frequency of requests to the POP3 server.",
			wrong,
		),
		refusedWith("WildDuck", "[AUTH] Username and password not accepted", surely),
		refusedWith("inbucket", "Invalid login or password", wrong),
		refusedWith("LumiSoft", "Bad sequence of commands: Session rejected.", wrong),
		refusedWith("locked for good", "Account locked", wrong),
		refusedWith("locked for good", "Mailbox locked after too many attempts", wrong),
		refusedWith("locked for good", "Your mailbox has been suspended and locked", wrong),
	})
	// A server that announces AUTH-RESP-CODE marks what is about the password, so that nothing else is.
	for text, v := range map[string]verdict{
		"Mailbox is locked": later, "Login failed.": never, "[AUTH] no": surely, "[IN-USE] locked": later,
	} {
		dialogue{
			id: "C-037 R1-112 announced: " + text,
			script: turns("CAPA", "+OK\nAUTH-RESP-CODE\n.", "USER u", "+OK",
				"PASS "+canary, "-ERR "+text),
			do: via(byChoice),
			want: fails(func(t *testing.T, err error) {
				var refusal *pop3.Error
				require.ErrorAs(t, err, &refusal)
				rejects, certain := refusal.RejectsCredentials()
				assert.Equal(t, v, verdict{refusal.Temporary(), rejects, certain})
			}),
		}.run(
			t,
		)
	}
}

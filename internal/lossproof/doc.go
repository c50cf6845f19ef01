// Package lossproof checks that package pop3 loses no mail. It contains only tests. The tests generate their cases.
// They combine a model server, a program that uses the client carefully, a connection that fails at a given octet or
// call, and checks of the result.
//
// # The parts
//
// The model (maildrop, session, host) has the rules of RFC 1939 section 6 and nothing else: a message is removed only
// by a complete QUIT line in the TRANSACTION state. Real servers deviate from these rules, and so do the variants of
// the model:
//
//   - They reply -ERR to QUIT and have removed none, half or all of the messages.
//   - They remove the messages and hang up without a reply, or reply +OK and remove nothing.
//   - They remove the messages that were retrieved (EXPIRE 0), whether they announce it or not.
//   - They send half of a message and end it normally, as after a read error.
//   - They refuse RETR or DELE, list sizes that are too small, have no CAPA, or do not stuff dots.
//
// Each variant runs with and without PIPELINING. Replies arrive in one common segment, or in one segment each. The
// model has its own parser and its own stuffing. It shares no code with pop3 and pop3test.
//
// The program logs in, lists the messages, retrieves those with new unique-ids (with Messages, or with Retr one by
// one), and stores them. It deletes the messages that are stored and not shorter than listed, and sends QUIT. If a
// message was retrieved and is not stored, and the server may remove it at QUIT, the program does not send QUIT. The
// program runs with and without a record of unique-ids, with one context for all calls or one for each, slowly or fast,
// with and without KeepAlive. For every message the program reports that the message was kept or deleted, or that this
// is unknown.
//
// The wire fails once. There are three kinds of faults. At an octet of either direction the connection may end (FIN,
// RST), become silent, block, be cancelled, or be closed by another goroutine. An octet may be changed, doubled or
// lost, or a line end, a terminator or an extra reply may be inserted. One call of Read, Write, SetDeadline or Close
// may fail after it has transferred none, some or all of the octets; later calls then work again. The tests use the
// clock of testing/synctest, so they can use the same time limits as users.
//
// # The invariants
//
// They are checked after every session, and again after a second session without faults:
//
//   - I0, no false alarm: replies that arrive octet by octet, a pause within the limits, and a slow program cause no
//     error.
//   - I1, nothing lost: every message is on the server, or stored octet for octet.
//   - I2, order: a message is stored before DELE is sent.
//   - I3, honesty: a message that was reported deleted is gone, and one that was reported kept is there. If neither can
//     be known, the error wraps [github.com/seed-2d50cddb/pop3.ErrCommitUnknown]. If no octet of QUIT was written, the
//     error does not wrap it.
//   - I4, silence: after the error that ended the session, no octet is written. QUIT is sent at most once, only by
//     Quit, and not after an error of the transport.
//   - I5, convergence: the second session succeeds and empties the maildrop. If the program keeps a record, each
//     message is stored once, unless the first session gave a reason to doubt the replies. In all other cases it is
//     stored at most twice.
//   - I6, hygiene: the session ends within the time limit, and at once after Close or the end of a context. No
//     goroutine is left, the connection is closed, and no error and no trace contains the password.
//
// # Changed octets in clear
//
// Over TLS the invariants are true whatever is changed. In clear an attacker can change a message, and nobody can
// notice that. So in clear the invariants are weaker:
//
//   - I1: a message whose reply was changed is stored as it arrived, and every other message octet for octet. If an
//     extra reply arrived that could not be seen, a status line may precede the message.
//   - I2 does not hold, because the program may believe that a message is stored when it is not. But this is noticed
//     before QUIT.
//   - I3: a message that was reported kept is there. The exception is a change of EXPIRE 0 into EXPIRE 1, which makes
//     QUIT seem harmless.
//   - I4 to I6 are unchanged.
//
// If a change makes one valid command into another (RETR 2 into RETR 3), only I4, I6 and the second session are
// checked.
//
// # What is not checked
//
//   - A server that lies about what it has removed, or sends another message. The unique-ids in the next session show
//     whether messages were removed. Nothing shows that another message was sent.
//   - More than one fault in a session. For instance, octets are changed and the server also cuts messages short or
//     does not stuff dots. Then only the size in the list shows the cut, and it may have been changed too.
//   - A change of a unique-id into another one that the record contains. The unique-ids of the model differ in three
//     places.
//   - An extra reply that arrives so late that it cannot be seen before any command. If the system lets the client look
//     into the socket, the client notices the reply before the next command that is not sent ahead. The wire is not a
//     socket, so this is checked over TCP, at every position.
//   - A record of unique-ids that is kept after a session with a server that does not stuff dots. There the sender of a
//     mail can forge replies, so the record may contain wrong unique-ids. If a session ended with a ProtocolError, or
//     with a timeout while commands were sent ahead, a program should discard what it recorded in that session.
//   - A store that loses what it has confirmed, and a program that is killed. The server sees a crash as a FIN, but the
//     store of these tests is always atomic.
//
// # Progress
//
// TestLiveness checks sequences of 5 to 10 runs of package fetch. The faults last for the whole sequence, in random
// combinations: faults of single messages (refused, cut, the server hangs up, other content each time ...), of the
// maildrop (no unique-ids, equal, reused or changed ones, locks, delays, a false or missing reply to QUIT ...), of the
// sink and of the record. The tests use the clock of testing/synctest, so a sequence can last for days. The rules:
//
//   - L1, arrival: a message that can be retrieved and stored is stored within 2 runs, whatever happens to the others.
//     If limits of the server or the caller require several sessions, it is stored within twice that number of runs.
//   - L2, departure: a stored message that is to be deleted, and that the server would delete, is gone within 3 runs.
//   - L3, once: there is at most one extra copy for each kill of the program, and one for each message whose content
//     differs each time.
//   - L4, time: a run takes no longer than its time limits, and ends at once after a signal. A second account, which
//     shares the record and fetches at the same time, is not delayed.
//   - L5, reports: every run reports what is not done.
//   - L6, cost: a message is sent once, a few times more if it fails, and then once a day.
//
// Some servers make a rule impossible to follow, and these cases are left out. L1 counts only runs in which the server
// lists the message. If unique-ids are reused, a new message may be mistaken for an old one of the same size that
// another program or the server itself (EXPIRE 0) has deleted. That breaks no rule. L2 expects no deletion if the sizes
// of the server are too large and a message is cut, because then the program cannot learn how the server counts. L3
// allows a copy if the server confirms that it has deleted a message, hides it, and lists it again.
//
// With some combinations of faults, messages cannot be told apart. Unique-ids may be positions, or change in each
// session. Or there are no unique-ids, and sizes differ each time, or the server confirms deletions and does not
// delete. If there is another fault as well, only I0 to I5 and L4 are checked.
//
// I0 to I4 are checked too. I5 is checked at the end, when all faults are gone: three runs finish the job, and the next
// run only fetches new mail. A failure is reduced to the faults that cause it, and printed with the log of its runs.
// LIVENESS=12 prints the log of seed 12. TestLivenessOfCases has the situations that users have reported. Its files are
// mailbox (the server), situation (the faults), sequence (the runs) and rules (the checks).
//
// # Running it
//
// By default every fault happens at every octet, each time with one server and one program, which are drawn with a
// fixed seed. All other tests run samples. LOSSPROOF=full runs all combinations, ten million experiments, in half an
// hour, and 11,000 sequences instead of 2,000. Each test logs the number of its sessions, their duration, and the
// invariants that did not hold. TestCareless shows that the tests find programs that lose mail.
//
// Breaking the client on purpose has shown three ways in which such tests can miss a mistake:
//
//   - A message that was cut need not be shorter than listed. So each message that the client returns as whole is
//     compared with what the server sent.
//   - A deadline that is left from a context has an effect only in a later call. So a call that succeeded must not make
//     another one fail.
//   - An extra reply that arrives late can be seen only in the kernel. So that test runs over TCP and in real time.
//
// A client that holds a lock while it waits for the network stops the clock of synctest. Then the time limit of go test
// ends the run.
package lossproof

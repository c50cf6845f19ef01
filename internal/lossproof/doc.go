// Package lossproof checks that package pop3 loses no mail. It contains only tests. They do not list cases, they
// generate them: a model server, a program that uses the client carefully, a connection that fails at a given octet or
// call, and a judge that checks the result.
//
// # The parts
//
// The model (maildrop, session, host) has the rules of RFC 1939 section 6 and nothing else: a message is removed only
// by a complete QUIT line in the TRANSACTION state. Its variants do what servers do:
//
//   - They reply -ERR to QUIT and have removed none, half or all of the messages.
//   - They remove the messages and hang up without a reply, or reply +OK and remove nothing.
//   - They remove what was retrieved (EXPIRE 0), announced or not.
//   - They send half of a message and end it normally, as after a read error.
//   - They refuse RETR or DELE, list sizes that are too small, have no CAPA, or do not stuff dots.
//
// Each variant runs with and without PIPELINING, and with replies in one segment or in one segment each. The model has
// its own parser and its own stuffing. It shares no code with pop3 and pop3test.
//
// The program logs in, lists the messages, retrieves those with new unique-ids (with Messages, or with Retr one by
// one), and stores them. It marks those that are stored and not shorter than listed, and quits. If a message was
// retrieved and is not stored, and the server may remove it at QUIT, the program does not send QUIT. The program runs
// with and without a record of unique-ids, with one context for all calls or one for each, slowly or fast, with
// and without KeepAlive. It reports of every message whether it was kept or deleted, or that this is unknown.
//
// The wire fails once. At an octet of either direction the connection ends (FIN, RST), becomes silent, blocks, is
// cancelled, or is closed by another goroutine. Or an octet is changed, doubled or lost, or a line end, a terminator or
// an extra reply is inserted. Or one call of Read, Write, SetDeadline or Close fails after it has transferred none,
// some or all of the octets, and later calls work again. The clock is that of testing/synctest, so the time limits are
// those that users have.
//
// # The invariants
//
// They are checked after every session, and again after a second session without faults:
//
//   - I0, no false alarm: single octets, a pause within the limits, and a slow program change nothing.
//   - I1, nothing lost: every message is on the server, or stored octet for octet.
//   - I2, order: a message is stored before DELE is sent.
//   - I3, honesty: a message that was reported deleted is gone, and one that was reported kept is there. If neither can
//     be known, the error is [github.com/seed-2d50cddb/pop3.ErrCommitUnknown], but not if no octet of QUIT was
//     written.
//   - I4, silence: after a call has failed for good no octet is written. QUIT is sent at most once, only by Quit, and
//     not after an error of the transport.
//   - I5, convergence: the second session succeeds and empties the maildrop. With a record each message is stored once,
//     unless the first session gave a reason to doubt the replies; otherwise at most twice.
//   - I6, hygiene: the session ends within the time limit, and at once after Close or the end of a context. No
//     goroutine is left, the connection is closed, and no error and no trace contains the password.
//
// # Changed octets in clear
//
// Over TLS the invariants hold whatever is changed. In clear an attacker can change a message, and nobody can notice
// that. There the invariants are weaker:
//
//   - I1: a message whose reply was changed is stored as it arrived, and every other message octet for octet. A status
//     line may precede the message if an extra reply arrived that could not be seen.
//   - I2 does not hold, because the program may believe that a message is stored when it is not. But this is noticed
//     before QUIT.
//   - I3: no message that was reported kept is gone, unless the change made EXPIRE 0 into EXPIRE 1, so that QUIT seemed
//     harmless.
//   - I4 to I6 are unchanged.
//
// If a change makes one valid command into another (RETR 2 into RETR 3), only I4, I6 and the second session are
// checked.
//
// # What is not checked
//
//   - A server that lies about what it has removed, or sends another message. Unique-ids in the next session show the
//     first; nothing shows the second.
//   - More than one fault in a session: octets are changed while the server cuts messages short or does not stuff dots.
//     Then the size in the list is the only sign, and it may have been changed too.
//   - A change that makes one unique-id into another one that the record contains. Those of the model differ in three
//     places.
//   - An extra reply that arrives so late that it cannot be seen before any command. The client notices it before the
//     next command that is not sent ahead, in clear and within TLS, if the system lets the client look into the socket.
//     The wire is no socket, so this is checked over TCP, at every position.
//   - A record of unique-ids that is kept after a session with a server that does not stuff dots. The sender of a mail
//     can forge replies there, and so choose what is recorded under which unique-id. A program should forget what it
//     has recorded in a session that ended with a ProtocolError, or with a timeout while commands were sent ahead.
//   - A store that loses what it has confirmed, and a program that is killed. For the server a crash is a FIN, but the
//     store of these tests is always atomic.
//
// # Progress
//
// TestLiveness checks sequences of 5 to 10 runs of package fetch. The faults last for the whole sequence, in random
// combinations: faults of single messages (refused, cut, the server hangs up, other content each time ...), of the
// maildrop (no unique-ids, equal, reused or changed ones, locks, delays, a false or missing reply to QUIT ...), of the
// sink and of the record. The clock is that of testing/synctest, so a sequence can last for days. The rules:
//
//   - L1, arrival: a message that can be retrieved and stored is stored within 2 runs, whatever happens to the others.
//     If limits of the server or the caller require several sessions, it is within 2 times their number.
//   - L2, departure: a stored message that is to be deleted, and that the server would delete, is gone within 3 runs.
//   - L3, once: there is at most one extra copy for each kill of the program, and one for a message whose content is
//     never the same.
//   - L4, time: a run takes no longer than its time limits, and ends at once after a signal. A second account, which
//     shares the record and fetches at the same time, is not delayed.
//   - L5, reports: every run reports what is not done.
//   - L6, cost: a message is sent once, a few times more if it fails, and then once a day.
//
// Some servers make a rule impossible to follow, and these cases are left out. L1 counts only runs in which the server
// lists the message. If unique-ids are reused, no rule is broken where a new message is mistaken for an old one of the
// same size that another program, or the server itself (EXPIRE 0), has deleted. L2 expects no deletion if the sizes of
// the server are too large and a message is cut, because then no rule of its sizes can be seen. L3 allows a copy of a
// message that the server has confirmed to be deleted, hides, and lists again.
//
// Some combinations leave nothing that tells messages apart: unique-ids that are positions or change in each session,
// or no unique-ids together with sizes that differ each time or with a server that confirms deletions and does not
// delete. If there is another fault besides, only I0 to I5 and L4 are checked.
//
// I0 to I4 are checked too, and I5 at the end: when all faults are gone, three runs finish the job, and the next run
// has nothing to do but fetch new mail. A failure is reduced to the faults that cause it, and printed with the log of
// its runs. LIVENESS=12 prints the log of seed 12. TestLivenessOfCases has the situations that users have reported. Its
// files are mailbox (the server), situation (the faults), sequence (the runs) and rules (the judge).
//
// # Running it
//
// By default every fault happens at every octet, each time with one server and one program, drawn with a fixed seed; of
// everything else there are samples. LOSSPROOF=full runs all combinations, ten million experiments, in half an hour,
// and 11,000 sequences in place of 2,000. Each test logs the number of its sessions, their duration, and the
// invariants that did not hold. TestCareless shows that the tests find programs that lose mail.
//
// Breaking the client on purpose has shown three ways in which such tests can miss a mistake:
//
//   - A message that was cut need not be shorter than listed. So what the client returns as a whole message is compared
//     with what the server sent.
//   - A deadline that is left from a context has an effect only in a later call. So a call that succeeded must not make
//     another one fail.
//   - An extra reply that arrives late can be seen only in the kernel. So that test runs over TCP and in real time.
//
// A client that holds a lock while it waits for the network stops the clock of synctest. Then the time limit of go test
// ends the run.
package lossproof

// Package lossproof is the proof that package pop3 loses no mail. It holds nothing but tests, and they are a machine
// and not a list of cases: a model server, a program that uses the client carefully, a connection that fails at a
// given octet or call, and a judge that looks at the world afterwards.
//
// # The parts
//
// The model (maildrop, session, host) has the rules of RFC 1939 section 6 and nothing else: a message is removed only
// by a complete QUIT line in the TRANSACTION state. Its variants are what servers do: they answer QUIT with -ERR and
// have removed none, half or all; they commit and hang up without an answer; they say +OK and remove nothing; they
// remove what was retrieved (EXPIRE 0), announced or not; they send half of a message and terminate it, as after a
// read error; they refuse RETR or DELE, list sizes that are too small, have no CAPA, do not stuff dots. Each with and
// without PIPELINING, and with replies in one segment or in one each. It parses and stuffs by itself; no code of pop3
// or pop3test is in it.
//
// The program logs in, lists, retrieves what is new by unique-id (with Messages, or with Retr one by one), stores it,
// marks what is stored and not shorter than listed, and quits; it withholds QUIT if something that it retrieved is not
// stored and the server may remove that too. It runs with and without a record of unique-ids, with one context or one
// for each call, hurried or slow, with KeepAlive or without, and it tells of every message: kept, deleted or unknown.
//
// The wire breaks once: at an octet of either direction the connection ends (FIN, RST), falls silent, blocks, is
// cancelled or closed from another goroutine; or an octet is flipped, doubled or lost, or a line end, a terminator or a
// reply too many is put in. Or one call of Read, Write, SetDeadline or Close fails, with nothing, a part or all of the
// octets transferred, and works again after that. Time is that of testing/synctest, so that the limits are those that
// users have.
//
// # The invariants
//
// After every session, and once more after a second one without faults:
//
//   - I0 no false alarm: octet by octet, a pause that the limits allow, or a slow program change nothing.
//   - I1 nothing lost: every message is on the server, or stored octet for octet.
//   - I2 order: stored before DELE is sent.
//   - I3 honesty: what was told to be deleted is gone, what was told to be kept is there, and where neither can be
//     known the error was [github.com/seed-2d50cddb/pop3.ErrCommitUnknown], but not if no octet of QUIT was written.
//   - I4 silence: no octet is written once a call has failed for good, QUIT at most once, only by Quit, and not after
//     an error of the transport.
//   - I5 convergence: the second session succeeds and empties the maildrop. With a record each message is stored once,
//     unless the first session gave a reason to doubt the replies; otherwise twice at most.
//   - I6 hygiene: the session ends within the time limit, after Close or the end of a context at once; no goroutine is
//     left, the connection is closed, and the password is in no error and no trace.
//
// # What corruption in clear leaves of them
//
// Over TLS all of them hold whatever is changed. In clear whoever changes octets can change a message, and nobody can
// notice. There the invariants mean this: I1, that a message is stored as it arrived if the change lies in the very
// reply that brought it, and octet for octet otherwise, except that a status line may stand before it if a reply too
// many had come that could not be seen; I2 is not claimed, since the program can believe to have stored what it has
// not, only that this is noticed before QUIT; I3, that of what was kept nothing is gone unless the change made EXPIRE 0
// into EXPIRE 1, so that QUIT seemed harmless; I4 to I6 are as above. Where a change makes one valid command into
// another (RETR 2 into RETR 3), only I4, I6 and the second session are claimed.
//
// # What is not proved
//
//   - A server that lies about what it has removed, or sends another message's octets: unique-ids in the next session
//     tell the first, nothing tells the second.
//   - More than one fault in a session: octets changed while the server cuts messages short or does not stuff dots.
//     There the size in its list is the only sign, and it may be what was changed.
//   - A change that makes one unique-id into another that the record knows. Those of the model differ in three places.
//   - A reply too many that comes so late that at each command nothing of it can be seen. It is noticed before the
//     next command that is not sent ahead, in clear and within TLS, where the system lets the client look into the
//     socket. The wire is no socket; so that is proved over TCP, and there every position is gone through.
//   - A record of unique-ids that is kept after a session with a server that does not stuff dots: the sender of a mail
//     can forge replies there, and so what is recorded under which unique-id. A program should forget what it has
//     recorded in a session that ended with a ProtocolError, or with a timeout among commands sent ahead.
//   - A store that loses what it has confirmed, and a program that is killed: a crash is a FIN to the server, but the
//     store of the machine is always atomic.
//
// # It always goes on
//
// A second machine judges sequences of 5 to 10 runs of package fetch. The faults last for the whole sequence, and are
// drawn in combinations: of single messages (refused, cut, hanging up, differing each time ...), of the maildrop
// (no unique-ids, equal, reused or changed ones, locks, delays, QUIT that lies or is never answered ...), of the sink
// and of the record. The clock is that of testing/synctest, so that a sequence can last for days. The rules:
//
//   - L1 arrival: a message that can be retrieved and stored is stored within 2 runs, whatever the others do, or 2
//     times the number of sessions that limits of the server or the caller force.
//   - L2 departure: a stored message that is to be deleted, and that the server would delete, is gone within 3 runs.
//   - L3 once: there are no more copies than kills of the program, and one of each message that is never the same.
//   - L4 no hostage: a run lasts no longer than its time limits, and ends at once after a signal. A second account,
//     which shares the record and fetches at the same time, is not held up.
//   - L5 told: whatever is not done is in the report of every run.
//   - L6 cost: a message is sent once, a few times more if it fails, and then once a day.
//
// Some servers make a rule impossible, and these cases are left out. L1 counts only runs in which the server lists
// the message. Where unique-ids are reused, a message may be taken for one of the same size that another program, or
// the server itself (EXPIRE 0), has deleted. L2 expects no deletion where the server counts too many octets and a
// message is cut, because then no rule of its sizes can be seen. L3 allows a copy of a message that the server has
// confirmed to be deleted, hides, and shows again.
//
// The table known in liveness_test has the combinations of faults in which a rule is still broken. TestLiveness counts
// them and does not fail.
//
// I0 to I4 are judged too, and I5 at the end: when all is well again, three runs finish the job, and the next one is
// as any other. A failure is shrunk, and printed with the story of its runs. LIVENESS=12 tells the story of seed 12.
// TestLivenessOfCases has the situations that users have reported, in files mailbox (the server), situation (the
// faults), sequence (the runs) and rules (the judge).
//
// # Running it
//
// The default is every fault at every octet with one server and one program each, drawn with a fixed seed, and samples
// of the rest. LOSSPROOF=full runs the whole product, ten million experiments, in half an hour, and 300,000 sequences
// in place of 2,000. Each test logs
// how many sessions it had, how long they took and which invariants did not hold. TestCareless shows that the machine
// finds programs that lose mail.
//
// Three ways in which a machine like this is fooled were found by breaking the client on purpose. A message that was
// cut need not be shorter than listed, so what the client gives as whole is compared with what the server sent. A
// deadline that a context left behind shows only in a later call, so a call that ended well must not make another
// fail. A reply too many that comes late is seen in the kernel only, so that test runs over TCP and in real time. A
// client that holds a lock while it waits for the network stops the clock of synctest; then it is the limit of go
// test that ends the run.
package lossproof

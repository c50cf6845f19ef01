package lossproof

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// A program uses the client carefully. It retrieves new messages, stores them, deletes those that are stored and not
// shorter than listed, and sends QUIT.
type program struct {
	name           string
	oneByOne       bool // it calls Retr and Read, otherwise Messages and WriteTo
	record         bool // it remembers unique-ids across sessions
	contextPerCall bool // every call has a context of its own, otherwise all share one
	peeks          bool // it first opens a message and closes it before the end
	slow           bool // it pauses for ten minutes between two calls, and within each message
	keepsAlive     bool // KeepAlive runs during these pauses

	careless careless
}

// A careless value says in which ways a program is not careful. Such programs show that the tests find mistakes.
type careless int

const (
	deletesFirst         careless = 1 << iota // it sends DELE before the message is stored
	deletesShort                              // it deletes a message that is shorter than listed and was not stored
	quitsUnstored                             // it sends QUIT although a retrieved message was not stored
	alwaysReportsDeleted                      // it reports messages as deleted, whatever Quit returns
	alwaysReportsKept                         // it reports messages as kept whenever Quit fails
	recordsEarly                              // it records the message before it is stored
)

var programs = []program{
	{name: "Messages", record: true},
	{name: "Retr", oneByOne: true, record: true, contextPerCall: true, peeks: true},
	{name: "Messages, no record", contextPerCall: true, peeks: true},
	{name: "Retr, no record", oneByOne: true},
	{name: "Messages, slow", record: true, contextPerCall: true, peeks: true, slow: true},
	{name: "Retr, slow and kept alive", record: true, oneByOne: true, contextPerCall: true, slow: true,
		keepsAlive: true},
}

// An outcome is what the program reports about a message.
type outcome int

const (
	outcomeKept outcome = iota
	outcomeDeleted
	outcomeUnknown
)

func (o outcome) String() string { return [...]string{"kept", "deleted", "unknown"}[o] }

// A programSession is one session of a program.
type programSession struct {
	program
	w            *wire
	store        *store
	checkErr     func(err error)            // called with every error
	checkMessage func(num int, data string) // called with every message that the client returned as complete
	sleep        func(d time.Duration)      // called when the program pauses
	dial         func(ctx context.Context) (*pop3.Client, error)
	onClient     func(c *pop3.Client) // called when the client exists

	c             *pop3.Client
	ctx           context.Context
	infos         []pop3.MessageInfo
	serverKeeps   bool         // the server announces that it keeps what was retrieved
	known         []int        // messages that an earlier session stored
	retrieved     []int        // messages that were retrieved, completely or in part
	stored        []int        // retrieved messages that are stored and not shorter than listed
	marked        []int        // messages that were marked with DELE
	refused       map[int]bool // marked messages whose DELE was refused
	quitErr       error        // the error of Quit, if it was called
	hasQuit       bool
	calls         int    // number of calls that have begun
	failedCall    int    // number of the call that ended the session
	recordRemoved bool   // the record of this session was removed
	stopKeepAlive func() // ends KeepAlive
}

// run runs the session. It returns the error that ended it early.
func (v *programSession) run() (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v.ctx, v.stopKeepAlive = ctx, func() {}
	v.setCancel(cancel)
	err = v.call(func(ctx context.Context) (err error) {
		v.c, err = v.dial(ctx)
		return err
	})
	if err != nil {
		return err
	}
	defer v.c.Close()
	v.onClient(v.c)
	defer func() { v.stopKeepAlive() }()
	if err = v.runSteps(); err != nil {
		v.handleFailure(err)
	}
	return err
}

// startKeepAlive starts KeepAlive if the program uses it.
func (v *programSession) startKeepAlive() {
	if !v.keepsAlive {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.checkErr(v.c.KeepAlive(ctx, 4*time.Minute))
	}()
	v.stopKeepAlive = func() {
		cancel()
		<-done
	}
}

// handleFailure handles the failure of a session. It calls Quit on the closed client, which must do no harm.
func (v *programSession) handleFailure(err error) {
	if v.c.State() == pop3.StateClosed {
		v.checkErr(v.c.Quit(context.Background()))
	}
	v.c.Close()
	var protocol *pop3.ProtocolError
	if errors.As(err, &protocol) || !v.oneByOne && errors.Is(err, os.ErrDeadlineExceeded) {
		v.removeRecord()
	}
}

// removeRecord removes the record of this session. If a reply was missing or came twice, replies may have been taken
// for those to other commands. So messages may be stored under wrong unique-ids.
func (v *programSession) removeRecord() {
	v.recordRemoved = true
	for _, info := range v.infos {
		if slices.Contains(v.retrieved, info.Num) {
			delete(v.store.record, info.UID)
		}
	}
}

func (v *programSession) runSteps() error {
	if err := v.call(v.logInAndList); err != nil {
		return err
	}
	if v.peeks && len(v.infos) > 0 {
		if err := v.call(v.peek); err != nil {
			return err
		}
	}
	if err := v.retrieve(v.newMessages()); err != nil {
		return err
	}
	if err := v.dele(slices.Concat(v.known, v.stored)); err != nil {
		return err
	}
	if v.quitIsSafe() {
		return v.call(v.quit)
	}
	return v.leave()
}

// call runs one step with a context, and checks its error.
func (v *programSession) call(step func(ctx context.Context) error) error {
	v.pause()
	ctx := v.ctx
	if v.contextPerCall {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		v.setCancel(cancel)
	}
	v.calls++
	v.setRunningCall(v.calls)
	err := step(ctx)
	v.setRunningCall(0)
	v.checkErr(err)
	if err != nil && (v.c == nil || v.c.State() == pop3.StateClosed) {
		v.w.mu.Lock()
		v.w.log.callError = true
		v.w.mu.Unlock()
		v.failedCall = v.calls
	}
	return err
}

// setRunningCall sets the number of the running call.
func (v *programSession) setRunningCall(call int) {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	v.w.runningCall = call
}

// setCancel sets the function that cancels the context of the running call.
func (v *programSession) setCancel(cancel func()) {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	v.w.cancel = cancel
}

func (v *programSession) pause() {
	if v.slow {
		v.sleep(10 * time.Minute)
	}
}

func (v *programSession) logInAndList(ctx context.Context) error {
	if err := v.c.Login(ctx, user, password); err != nil {
		return err
	}
	v.startKeepAlive()
	v.pause()
	infos, err := v.c.Listing(ctx)
	if err != nil {
		return err
	}
	v.infos = infos
	v.pause()
	caps, err := v.c.Capa(ctx)
	if err != nil {
		return err
	}
	days, announced := caps.Expire()
	v.serverKeeps = announced && days != 0
	return nil
}

// peek opens a message and closes it in the middle.
func (v *programSession) peek(ctx context.Context) error {
	m, err := v.c.Retr(ctx, v.infos[0].Num)
	if refused(err) != nil {
		return nil
	} else if err != nil {
		return err
	}
	v.retrieved = append(v.retrieved, m.Num)
	if _, err := m.Read(make([]byte, 3)); err != nil && err != io.EOF {
		return err
	}
	return m.Close()
}

// newMessages returns the messages to retrieve. A message without a unique-id has just arrived, and is left for the
// next session.
func (v *programSession) newMessages() (nums []int) {
	for _, info := range v.infos {
		switch {
		case info.UID == "":
		case v.record && v.store.record[info.UID]:
			v.known = append(v.known, info.Num)
		default:
			nums = append(nums, info.Num)
		}
	}
	return nums
}

func (v *programSession) retrieve(nums []int) error {
	if v.careless&deletesFirst != 0 {
		if err := v.dele(nums); err != nil {
			return err
		}
	}
	if v.oneByOne {
		return v.retrieveEach(nums)
	}
	return v.call(func(ctx context.Context) error {
		for m, err := range v.c.Messages(ctx, nums...) {
			switch {
			case m == nil:
				return err
			case err != nil:
				v.checkErr(err)
				continue
			}
			v.storeMessage(m)
			v.pause()
		}
		return nil
	})
}

func (v *programSession) retrieveEach(nums []int) error {
	for _, num := range nums {
		err := v.call(func(ctx context.Context) error {
			m, err := v.c.Retr(ctx, num)
			if err != nil {
				return err
			}
			if err := v.storeMessage(m); err != nil && err != errFull {
				return err
			}
			return m.Close()
		})
		if err != nil && refused(err) == nil {
			return err
		}
	}
	return nil
}

// storeMessage stores a message, if it is complete and not shorter than listed.
func (v *programSession) storeMessage(m *pop3.Message) error {
	v.retrieved = append(v.retrieved, m.Num)
	info := v.infos[slices.IndexFunc(v.infos, func(i pop3.MessageInfo) bool { return i.Num == m.Num })]
	if v.careless&recordsEarly != 0 {
		v.store.record[info.UID] = true
	}
	l := v.store.open(m.Num)
	var err error
	if v.oneByOne {
		_, err = io.CopyBuffer(struct{ io.Writer }{l}, struct{ io.Reader }{m}, make([]byte, 7))
	} else {
		_, err = m.WriteTo(l)
	}
	if err != nil {
		return err
	}
	v.checkMessage(m.Num, l.String())
	if int64(l.Len()) < info.Size {
		if v.careless&deletesShort != 0 {
			v.stored = append(v.stored, m.Num)
		}
		return nil
	}
	v.store.commit(info.UID, l)
	v.store.record[info.UID] = true
	v.stored = append(v.stored, m.Num)
	return nil
}

// refused returns err as a refusal, or nil if it is another error.
func refused(err error) *pop3.Error {
	var refusal *pop3.Error
	if errors.As(err, &refusal) {
		return refusal
	}
	return nil
}

func (v *programSession) dele(nums []int) error {
	if len(nums) == 0 {
		return nil
	}
	v.marked = append(v.marked, nums...)
	v.refused = map[int]bool{}
	err := v.call(func(ctx context.Context) error { return v.c.Dele(ctx, nums...) })
	if v.c.State() == pop3.StateClosed || refused(err) == nil {
		return err
	}
	for _, num := range nums {
		v.refused[num] = refuses(err, fmt.Sprintf("DELE %d", num))
	}
	return nil
}

// refuses reports whether err contains a refusal of cmd.
func refuses(err error, cmd string) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return refuses(err, cmd) })
	}
	refusal := refused(err)
	return refusal != nil && refusal.Cmd == cmd
}

// quitIsSafe reports whether QUIT can do no harm. QUIT may delete every message that was retrieved (RFC 2449 section
// 6.7). So all of them must be stored, unless the server announces that it keeps them.
func (v *programSession) quitIsSafe() bool {
	return v.serverKeeps || v.careless&quitsUnstored != 0 || !slices.ContainsFunc(v.retrieved, func(num int) bool {
		return !slices.Contains(v.stored, num) && !slices.Contains(v.known, num)
	})
}

func (v *programSession) quit(ctx context.Context) error {
	v.w.mu.Lock()
	v.w.log.quitting = true
	v.w.mu.Unlock()
	err := v.c.Quit(ctx)
	v.hasQuit, v.quitErr = true, err
	v.w.mu.Lock()
	v.w.log.quitting = false
	v.w.mu.Unlock()
	return err
}

// leave ends the session without QUIT. Before that it sends two commands to check that each reply belongs to its
// command. If there is an extra reply, the first command receives its status line, and the second command receives the
// rest of it.
func (v *programSession) leave() error {
	for range 2 {
		if err := v.call(v.c.Noop); err != nil {
			return err
		}
	}
	return v.c.Close()
}

// outcome returns what the program reports about a message. It follows the documentation of Quit. The documentation
// does not mention a message that was retrieved and not marked, and that the server may remove. The outcome of such a
// message is unknown.
func (v *programSession) outcome(num int) outcome {
	marked := slices.Contains(v.marked, num)
	switch {
	case marked && v.careless&alwaysReportsDeleted != 0:
		return outcomeDeleted
	case !v.hasQuit || v.quitErr != nil && v.careless&alwaysReportsKept != 0:
		return outcomeKept
	case errors.Is(v.quitErr, pop3.ErrCommitUnknown) && marked:
		return outcomeUnknown
	case v.quitErr == nil && marked && !v.refused[num]:
		return outcomeDeleted
	case slices.Contains(v.retrieved, num) && !v.serverKeeps:
		return outcomeUnknown
	}
	return outcomeKept
}

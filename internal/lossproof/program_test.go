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

// A program uses the client in one careful way: it retrieves new messages, stores them, deletes those that are stored
// and not shorter than listed, and quits.
type program struct {
	name     string
	oneByOne bool // it calls Retr and Read, otherwise Messages and WriteTo
	record   bool // it remembers unique-ids across sessions
	perCall  bool // every call has a context of its own, otherwise all share one
	peeks    bool // it first opens a message and closes it unread
	slow     bool // it pauses for ten minutes between two calls, and within each message
	alive    bool // KeepAlive runs during these pauses

	careless careless
}

// A careless value says in which ways a program is not careful. Such programs show that the tests find mistakes.
type careless int

const (
	deletesFirst   careless = 1 << iota // before the message is stored
	deletesShort                        // although the message is shorter than listed and was not stored
	quitsAnyway                         // although a retrieved message was not stored
	callsItDeleted                      // it reports messages as deleted, whatever Quit returns
	callsItKept                         // it reports messages as kept whenever Quit fails
	recordsEarly                        // before the message is stored
)

var programs = []program{
	{name: "Messages", record: true},
	{name: "Retr", oneByOne: true, record: true, perCall: true, peeks: true},
	{name: "Messages, no record", perCall: true, peeks: true},
	{name: "Retr, no record", oneByOne: true},
	{name: "Messages, slow", record: true, perCall: true, peeks: true, slow: true},
	{name: "Retr, slow and kept alive", record: true, oneByOne: true, perCall: true, slow: true, alive: true},
}

// An outcome is what the program reports about a message.
type outcome int

const (
	kept outcome = iota
	deleted
	unknown
)

func (o outcome) String() string { return [...]string{"kept", "deleted", "unknown"}[o] }

// A visit is one session of a program.
type visit struct {
	program
	w     *wire
	store *store
	look  func(err error)            // called with every error
	got   func(num int, data string) // called with every message that the client returned as whole
	sleep func(d time.Duration)      // waits, when the program pauses
	dial  func(ctx context.Context) (*pop3.Client, error)
	ready func(c *pop3.Client) // called when the client exists

	c         *pop3.Client
	ctx       context.Context
	infos     []pop3.MessageInfo
	spared    bool         // the server announces that it keeps what was retrieved
	known     []int        // messages that an earlier session stored
	retrieved []int        // messages that were retrieved, completely or in part
	whole     []int        // retrieved messages that are stored and not shorter than listed
	asked     []int        // messages that were marked with DELE
	refused   map[int]bool // marked messages whose DELE was refused
	quitErr   error        // the error of Quit, if it was called
	hasQuit   bool
	calls     int    // number of calls that have begun
	failed    int    // number of the call that ended the session
	tookBack  bool   // the record of this session was removed
	quiesce   func() // ends KeepAlive
}

// run runs the session. It returns the error that ended it early.
func (v *visit) run() (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v.ctx, v.quiesce = ctx, func() {}
	v.cancelWith(cancel)
	err = v.call(func(ctx context.Context) (err error) {
		v.c, err = v.dial(ctx)
		return err
	})
	if err != nil {
		return err
	}
	defer v.c.Close()
	v.ready(v.c)
	defer func() { v.quiesce() }()
	if err = v.work(); err != nil {
		v.regret(err)
	}
	return err
}

// keepAlive starts KeepAlive if the program uses it.
func (v *visit) keepAlive() {
	if !v.alive {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		v.look(v.c.KeepAlive(ctx, 4*time.Minute))
	}()
	v.quiesce = func() {
		cancel()
		<-over
	}
}

// regret handles the failure of a session. It calls Quit on the closed client, which must do no harm.
func (v *visit) regret(err error) {
	if v.c.State() == pop3.StateClosed {
		v.look(v.c.Quit(context.Background()))
	}
	v.c.Close()
	var protocol *pop3.ProtocolError
	if errors.As(err, &protocol) || !v.oneByOne && errors.Is(err, os.ErrDeadlineExceeded) {
		v.takeBack()
	}
}

// takeBack removes the record of this session. If a reply was missing or came twice, replies may have been taken for
// those to other commands. So messages may be stored under wrong unique-ids.
func (v *visit) takeBack() {
	v.tookBack = true
	for _, info := range v.infos {
		if slices.Contains(v.retrieved, info.Num) {
			delete(v.store.record, info.UID)
		}
	}
}

func (v *visit) work() error {
	if err := v.call(v.open); err != nil {
		return err
	}
	if v.peeks && len(v.infos) > 0 {
		if err := v.call(v.peek); err != nil {
			return err
		}
	}
	if err := v.retrieve(v.fresh()); err != nil {
		return err
	}
	if err := v.dele(slices.Concat(v.known, v.whole)); err != nil {
		return err
	}
	if v.mayQuit() {
		return v.call(v.quit)
	}
	return v.leave()
}

// call runs one step with a context, and checks its error.
func (v *visit) call(step func(ctx context.Context) error) error {
	v.pause()
	ctx := v.ctx
	if v.perCall {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		v.cancelWith(cancel)
	}
	v.calls++
	v.running(v.calls)
	err := step(ctx)
	v.running(0)
	v.look(err)
	if err != nil && (v.c == nil || v.c.State() == pop3.StateClosed) {
		v.w.mu.Lock()
		v.w.log.callError = true
		v.w.mu.Unlock()
		v.failed = v.calls
	}
	return err
}

// running sets the number of the running call.
func (v *visit) running(call int) {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	v.w.running = call
}

// cancelWith sets the function that cancels the context of the running call.
func (v *visit) cancelWith(cancel func()) {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	v.w.cancel = cancel
}

func (v *visit) pause() {
	if v.slow {
		v.sleep(10 * time.Minute)
	}
}

func (v *visit) open(ctx context.Context) error {
	if err := v.c.Login(ctx, user, password); err != nil {
		return err
	}
	v.keepAlive()
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
	v.spared = announced && days != 0
	return nil
}

// peek opens a message and closes it in the middle.
func (v *visit) peek(ctx context.Context) error {
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

// fresh returns the messages to retrieve. A message without a unique-id has just arrived, and is left for the next
// session.
func (v *visit) fresh() (nums []int) {
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

func (v *visit) retrieve(nums []int) error {
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
				v.look(err)
				continue
			}
			v.take(m)
			v.pause()
		}
		return nil
	})
}

func (v *visit) retrieveEach(nums []int) error {
	for _, num := range nums {
		err := v.call(func(ctx context.Context) error {
			m, err := v.c.Retr(ctx, num)
			if err != nil {
				return err
			}
			if err := v.take(m); err != nil && err != errFull {
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

// take stores a message, if it is complete and not shorter than listed.
func (v *visit) take(m *pop3.Message) error {
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
	v.got(m.Num, l.String())
	if int64(l.Len()) < info.Size {
		if v.careless&deletesShort != 0 {
			v.whole = append(v.whole, m.Num)
		}
		return nil
	}
	v.store.keep(info.UID, l)
	v.store.record[info.UID] = true
	v.whole = append(v.whole, m.Num)
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

func (v *visit) dele(nums []int) error {
	if len(nums) == 0 {
		return nil
	}
	v.asked = append(v.asked, nums...)
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

// mayQuit reports whether QUIT can do no harm. QUIT may delete every message that was retrieved (RFC 2449 section 6.7).
// So all of them must be stored, unless the server announces that it keeps them.
func (v *visit) mayQuit() bool {
	return v.spared || v.careless&quitsAnyway != 0 || !slices.ContainsFunc(v.retrieved, func(num int) bool {
		return !slices.Contains(v.whole, num) && !slices.Contains(v.known, num)
	})
}

func (v *visit) quit(ctx context.Context) error {
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
// command. The first one may take the status line of an extra reply for its own; then the second one finds the rest of
// that reply.
func (v *visit) leave() error {
	for range 2 {
		if err := v.call(v.c.Noop); err != nil {
			return err
		}
	}
	return v.c.Close()
}

// outcome returns what the program reports about a message. It follows the documentation of Quit. If a message was
// retrieved but not marked, and the server may remove it too, the documentation says nothing.
func (v *visit) outcome(num int) outcome {
	asked := slices.Contains(v.asked, num)
	switch {
	case asked && v.careless&callsItDeleted != 0:
		return deleted
	case !v.hasQuit || v.quitErr != nil && v.careless&callsItKept != 0:
		return kept
	case errors.Is(v.quitErr, pop3.ErrCommitUnknown) && asked:
		return unknown
	case v.quitErr == nil && asked && !v.refused[num]:
		return deleted
	case slices.Contains(v.retrieved, num) && !v.spared:
		return unknown
	}
	return kept
}

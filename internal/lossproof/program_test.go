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

// A program is one way to write a careful program: it retrieves what is new, stores it, deletes what is stored and
// not shorter than listed, and quits.
type program struct {
	name     string
	oneByOne bool // Retr and Read, else Messages and WriteTo
	record   bool // it remembers unique-ids across sessions
	perCall  bool // every call has a context of its own, else all have one
	peeks    bool // it opens a message first, and closes it unread
	slow     bool // it takes ten minutes between any two calls, and over each message
	alive    bool // and it has KeepAlive run meanwhile

	careless careless
}

// careless is how a program is not careful, to see that the machine finds it.
type careless int

const (
	deletesFirst   careless = 1 << iota // before it has stored
	deletesShort                        // what is shorter than listed, and was not stored
	quitsAnyway                         // though what was retrieved is not stored
	callsItDeleted                      // whatever Quit says
	callsItKept                         // whenever Quit fails
	recordsEarly                        // before it has stored
)

var programs = []program{
	{name: "Messages", record: true},
	{name: "Retr", oneByOne: true, record: true, perCall: true, peeks: true},
	{name: "Messages, no record", perCall: true, peeks: true},
	{name: "Retr, no record", oneByOne: true},
	{name: "Messages, slow", record: true, perCall: true, peeks: true, slow: true},
	{name: "Retr, slow and kept alive", record: true, oneByOne: true, perCall: true, slow: true, alive: true},
}

// An outcome is what the program tells its user about a message.
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
	look  func(err error)            // at every error
	got   func(num int, data string) // at every message that the client gives as whole
	sleep func(d time.Duration)      // pauses of the program's own
	dial  func(ctx context.Context) (*pop3.Client, error)
	ready func(c *pop3.Client) // the client is there

	c         *pop3.Client
	ctx       context.Context
	infos     []pop3.MessageInfo
	spared    bool         // the server says that it keeps what was retrieved
	known     []int        // messages that an earlier session stored
	retrieved []int        // messages whose octets came, or some of them
	whole     []int        // of them, stored and not shorter than listed
	asked     []int        // DELE
	refused   map[int]bool // of them
	quitErr   error        // of Quit, if it was called in good order
	hasQuit   bool
	calls     int    // that have begun
	failed    int    // the one that ended the session, counted from 1
	tookBack  bool   // the record of this session
	quiesce   func() // ends KeepAlive
}

// run is the whole visit. The error is what ended it early.
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

// keepAlive starts KeepAlive, if it is to run.
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

// regret is what a program does whose session has failed. Quit on a client that is closed must be harmless.
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

// takeBack forgets the record of this session: a reply too many, or one that is missing among several, shows that
// replies may have been taken for those to other commands, so that what is stored may not be what its unique-id
// says.
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

// call carries out one step with a context, and looks at what the step gives.
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

// running says which call is.
func (v *visit) running(call int) {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	v.w.running = call
}

// cancelWith says what a cancelled context means from now on.
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

// fresh gives the messages that are to be retrieved. One without a unique-id just came, and is for next time.
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

// take brings a message into the store, if it is whole and not shorter than listed.
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

// refused gives the refusal that err is, nil if it is anything else.
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

// refuses reports whether a refusal of cmd is among those that err joins.
func refuses(err error, cmd string) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return refuses(err, cmd) })
	}
	refusal := refused(err)
	return refusal != nil && refusal.Cmd == cmd
}

// mayQuit reports whether QUIT can do no harm: what was retrieved may count as deleted (RFC 2449 section 6.7), so
// it has to be stored, unless the server says that it keeps it.
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

// leave ends the session without QUIT. Two commands show before whether the replies are in step: the first may
// take the status line of a reply too many for its own, the second then meets the rest of it.
func (v *visit) leave() error {
	for range 2 {
		if err := v.call(v.c.Noop); err != nil {
			return err
		}
	}
	return v.c.Close()
}

// outcome is what the program tells about a message. It takes the documentation of Quit at its word; but for what
// was retrieved and not marked there is no word, if the server may remove that as well.
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

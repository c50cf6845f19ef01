package lossproof

import (
	"context"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3"
)

// A torture makes one call on the client's end of the connection fail. Later calls would succeed. So the test shows
// whether the client stops after the error.
type torture struct {
	op    string
	index int // number of the call among those of op, -1 for none
	agony agony

	calls map[string]int
}

// next counts a call of op. It returns how the call must fail, or nil.
func (t *torture) next(op string) *agony {
	if t.calls == nil {
		t.calls = map[string]int{}
	}
	t.calls[op]++
	if op == t.op && t.calls[op] == t.index+1 {
		return &t.agony
	}
	return nil
}

func (t *torture) String() string {
	how := "nothing"
	if t.agony.part {
		how = "a part"
	} else if t.agony.whole {
		how = "all of it, not counted"
	}
	return fmt.Sprintf("%s %d fails (%v) with %s transferred", t.op, t.index, t.agony.err, how)
}

// A hook is a fault that happens in a hook of pop3.Trace, at the end of a call.
type hook struct {
	index int
	close bool // the client is closed; otherwise the context of the call ends

	calls int
}

func (h *hook) String() string {
	if h.close {
		return fmt.Sprintf("Close in hook %d", h.index)
	}
	return fmt.Sprintf("context cancelled in hook %d", h.index)
}

// trace checks every text that the hooks get.
func (r *run) trace(faulty bool) *pop3.Trace {
	strike := func() {
		if h := r.hook; faulty && h != nil {
			if h.calls++; h.calls == h.index+1 {
				r.strikeInHook(h)
			}
		}
	}
	return &pop3.Trace{
		WroteCommand: func(_ context.Context, cmd string) { r.noSecret("trace", cmd); strike() },
		GotReply:     func(_ context.Context, cmd, reply string) { r.noSecret("trace", cmd+reply); strike() },
		Done: func(_ context.Context, cmd string, _ int64, err error) {
			r.look(err)
			strike()
		},
	}
}

func (r *run) strikeInHook(h *hook) {
	if !h.close {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		r.w.cancelCall()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.w.hangUp()
	}()
	<-done
}

// agonies are the ways in which a call can fail.
var agonies = map[string][]agony{
	"Read": {
		{err: syscall.ECONNRESET}, {err: os.ErrDeadlineExceeded}, {err: io.EOF},
		{err: syscall.ECONNRESET, part: true}, {err: os.ErrDeadlineExceeded, part: true}, {err: io.EOF, part: true},
		{err: syscall.ECONNRESET, whole: true}, {err: os.ErrDeadlineExceeded, whole: true}, {err: io.EOF, whole: true},
	},
	"Write": {
		{err: syscall.EPIPE}, {err: os.ErrDeadlineExceeded},
		{err: syscall.EPIPE, part: true}, {err: os.ErrDeadlineExceeded, part: true},
		{err: syscall.EPIPE, whole: true}, {err: os.ErrDeadlineExceeded, whole: true},
	},
	"SetReadDeadline":  {{err: syscall.EINVAL}, {err: io.ErrClosedPipe}},
	"SetWriteDeadline": {{err: syscall.EINVAL}, {err: io.ErrClosedPipe}},
	"SetDeadline":      {{err: syscall.EINVAL}},
	"Close":            {{err: syscall.EIO}},
}

// TestTorture makes every call on the connection fail once, in every way.
func TestTorture(t *testing.T) {
	operate(t, func(m *machine) {
		draw := seeded()
		for _, e := range sessions() {
			if !full && (e.octetwise || e.program.alive || draw.IntN(16) > 0) {
				continue
			}
			count := &torture{}
			e.torture = count
			m.do(e)
			for op, calls := range count.calls {
				m.tortureAll(e, op, calls)
			}
		}
	})
}

// tortureAll makes each of a number of calls fail, in every way.
func (m *machine) tortureAll(e experiment, op string, calls int) {
	for index := range calls {
		for _, a := range agonies[op] {
			e.torture = &torture{op: op, index: index, agony: a}
			m.do(e)
		}
	}
}

// TestHooks ends the context, or closes the client, at the very end of steps of a call.
func TestHooks(t *testing.T) {
	operate(t, func(m *machine) {
		draw := seeded()
		for _, e := range sessions() {
			if !full && draw.IntN(30) > 0 {
				continue
			}
			count := &hook{index: -1}
			e.hook = count
			m.do(e)
			for index := range count.calls {
				for _, shut := range []bool{false, true} {
					e.hook = &hook{index: index, close: shut}
					m.do(e)
				}
			}
		}
	})
}

// TestCancelWithoutDeadlines: if a deadline can't be set, the end of a context closes the connection.
func TestCancelWithoutDeadlines(t *testing.T) {
	cancel := faults[2]
	assert.Equal(t, "silence, then context cancelled", cancel.name)
	operate(t, func(m *machine) {
		e := experiment{server: servers()[0], program: programs[0], at: -1}
		for at := range m.do(e).w.down.passed + 1 {
			e := e.strike(cancel, false, at)
			e.torture = &torture{op: "SetDeadline", agony: agony{err: syscall.EINVAL}}
			m.do(e)
		}
	})
}

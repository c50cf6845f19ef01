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

// A failingCall makes one call on the client's end of the connection fail. Later calls would succeed. So the test shows
// whether the client stops after the error.
type failingCall struct {
	op      string
	index   int // index of the call among the calls of op
	failure callFailure

	calls map[string]int
}

// next counts a call of op. It returns how the call must fail, or nil.
func (t *failingCall) next(op string) *callFailure {
	if t.calls == nil {
		t.calls = map[string]int{}
	}
	t.calls[op]++
	if op == t.op && t.calls[op] == t.index+1 {
		return &t.failure
	}
	return nil
}

func (t *failingCall) String() string {
	how := "nothing"
	if t.failure.half {
		how = "a part"
	} else if t.failure.all {
		how = "all of it, not counted"
	}
	return fmt.Sprintf("%s %d fails (%v) with %s transferred", t.op, t.index, t.failure.err, how)
}

// A hookFault is a fault that happens in a call of a hook of pop3.Trace.
type hookFault struct {
	index int
	close bool // the client is closed; otherwise the context of the call ends

	calls int
}

func (h *hookFault) String() string {
	if h.close {
		return fmt.Sprintf("Close in hook %d", h.index)
	}
	return fmt.Sprintf("context cancelled in hook %d", h.index)
}

// trace checks every text that the hooks get.
func (r *run) trace(withFault bool) *pop3.Trace {
	inject := func() {
		if h := r.hook; withFault && h != nil {
			if h.calls++; h.calls == h.index+1 {
				r.injectInHook(h)
			}
		}
	}
	return &pop3.Trace{
		WroteCommand: func(_ context.Context, cmd string) { r.checkSecret("trace", cmd); inject() },
		GotReply:     func(_ context.Context, cmd, reply string) { r.checkSecret("trace", cmd+reply); inject() },
		Done: func(_ context.Context, cmd string, _ int64, err error) {
			r.checkErr(err)
			inject()
		},
	}
}

func (r *run) injectInHook(h *hookFault) {
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

// callFailures are the ways in which a call can fail.
var callFailures = map[string][]callFailure{
	"Read": {
		{err: syscall.ECONNRESET}, {err: os.ErrDeadlineExceeded}, {err: io.EOF},
		{err: syscall.ECONNRESET, half: true}, {err: os.ErrDeadlineExceeded, half: true}, {err: io.EOF, half: true},
		{err: syscall.ECONNRESET, all: true}, {err: os.ErrDeadlineExceeded, all: true}, {err: io.EOF, all: true},
	},
	"Write": {
		{err: syscall.EPIPE}, {err: os.ErrDeadlineExceeded},
		{err: syscall.EPIPE, half: true}, {err: os.ErrDeadlineExceeded, half: true},
		{err: syscall.EPIPE, all: true}, {err: os.ErrDeadlineExceeded, all: true},
	},
	"SetReadDeadline":  {{err: syscall.EINVAL}, {err: io.ErrClosedPipe}},
	"SetWriteDeadline": {{err: syscall.EINVAL}, {err: io.ErrClosedPipe}},
	"SetDeadline":      {{err: syscall.EINVAL}},
	"Close":            {{err: syscall.EIO}},
}

// TestEachCallFails makes every call on the connection fail once, in every way.
func TestEachCallFails(t *testing.T) {
	checkExperiments(t, func(m *machine) {
		draw := newRand()
		for _, e := range allExperiments() {
			if !runAll && (e.splitReplies || e.program.keepsAlive || draw.IntN(16) > 0) {
				continue
			}
			count := &failingCall{}
			e.failingCall = count
			m.run(e)
			for op, calls := range count.calls {
				m.failEachCall(e, op, calls)
			}
		}
	})
}

// failEachCall makes each of a number of calls fail, in every way.
func (m *machine) failEachCall(e experiment, op string, calls int) {
	for index := range calls {
		for _, a := range callFailures[op] {
			e.failingCall = &failingCall{op: op, index: index, failure: a}
			m.run(e)
		}
	}
}

// TestHooks ends the context, or closes the client, in each hook of pop3.Trace.
func TestHooks(t *testing.T) {
	checkExperiments(t, func(m *machine) {
		draw := newRand()
		for _, e := range allExperiments() {
			if !runAll && draw.IntN(30) > 0 {
				continue
			}
			count := &hookFault{index: -1}
			e.hook = count
			m.run(e)
			for index := range count.calls {
				for _, shut := range []bool{false, true} {
					e.hook = &hookFault{index: index, close: shut}
					m.run(e)
				}
			}
		}
	})
}

// TestCancelWithoutDeadlines checks that the end of a context closes the connection if no deadline can be set.
func TestCancelWithoutDeadlines(t *testing.T) {
	cancel := commonFaults[2]
	assert.Equal(t, "silence, then context cancelled", cancel.name)
	checkExperiments(t, func(m *machine) {
		e := experiment{server: servers()[0], program: programs[0], faultAt: -1}
		for at := range m.run(e).w.down.passed + 1 {
			e := e.withFault(cancel, false, at)
			e.failingCall = &failingCall{op: "SetDeadline", failure: callFailure{err: syscall.EINVAL}}
			m.run(e)
		}
	})
}

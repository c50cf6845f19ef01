package pop3

import (
	"context"
	"log/slog"
)

// A Trace is a set of hooks that see what goes over the wire; any of them may be nil. None ever sees a secret: a
// password, a token or a SASL response is three stars, also where the server repeats it.
//
// The hooks run on the goroutine of the call, which for a NOOP may be that of [Client.KeepAlive]: WroteCommand when
// the command is handed to the connection (in a batch, when it is queued), or a SASL response; GotReply when the
// status line of its reply is read, or a SASL challenge; and Done when the whole reply is. Done counts the octets
// of a message as they were handed out; it is 0 for other commands. err is what the call returns for the command.
// Of the commands that a batch has queued, those whose reply was not reached before the batch ended have no Done.
//
// A panic in a hook goes on to the caller. It closes the connection where it leaves a reply half read or an answer
// uncounted.
type Trace struct {
	WroteCommand func(ctx context.Context, cmd string)
	GotReply     func(ctx context.Context, cmd, reply string)
	Done         func(ctx context.Context, cmd string, octets int64, err error)
}

func (t *Trace) wroteCommand(ctx context.Context, k command) {
	if t != nil && t.WroteCommand != nil {
		t.WroteCommand(ctx, k.String())
	}
}

func (t *Trace) gotReply(ctx context.Context, k command, line []byte, hidden secrets) {
	if t != nil && t.GotReply != nil {
		t.GotReply(ctx, k.String(), hidden.show(line, maxText))
	}
}

func (t *Trace) done(ctx context.Context, k command, octets int64, err error) {
	if t != nil && t.Done != nil {
		t.Done(ctx, k.String(), octets, err)
	}
}

// LogTrace gives hooks that log to l: commands and replies at debug level, a failed command at debug level too,
// since the caller has the error.
func LogTrace(l *slog.Logger) *Trace {
	return &Trace{
		WroteCommand: func(ctx context.Context, cmd string) {
			l.DebugContext(ctx, "pop3: command", "cmd", cmd)
		},
		GotReply: func(ctx context.Context, cmd, reply string) {
			l.DebugContext(ctx, "pop3: reply", "cmd", cmd, "reply", reply)
		},
		Done: func(ctx context.Context, cmd string, octets int64, err error) {
			if err != nil {
				l.DebugContext(ctx, "pop3: failed", "cmd", cmd, "octets", octets, "err", err)
				return
			}
			l.DebugContext(ctx, "pop3: done", "cmd", cmd, "octets", octets)
		},
	}
}

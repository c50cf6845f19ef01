package pop3

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A gate is a peer that accepts one write for each value that is sent to open.
type gate struct {
	open  chan error // the results of the writes
	taken bytes.Buffer
}

func newGate() *gate { return &gate{open: make(chan error)} }

func (g *gate) write(p []byte) (int, error) {
	if err := <-g.open; err != nil {
		return 0, err
	}
	return g.taken.Write(p)
}

func begun(w *writer, n int) bool {
	ok, _ := w.begun(n)
	return ok
}

// A command is written after a flush. Commands that are added during a write are written in order by the next write.
func TestWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := startWriter(g.write)
		w.put(numbered("RETR", 1))
		w.put(numbered("RETR", 2))
		synctest.Wait()
		assert.False(t, begun(w, 0), "nothing is written before the flush")
		w.flush()
		synctest.Wait()
		assert.True(t, begun(w, 1))
		assert.False(t, begun(w, 2))

		w.put(numbered("RETR", 3))
		w.flush()
		w.put(numbered("RETR", 4))
		w.flush()
		synctest.Wait()
		assert.False(t, begun(w, 2), "the peer has not taken the first write")
		g.open <- nil
		synctest.Wait()
		assert.Equal(t, "RETR 1\r\nRETR 2\r\n", g.taken.String())
		assert.True(t, begun(w, 3))
		g.open <- nil
		synctest.Wait()
		assert.Equal(t, "RETR 1\r\nRETR 2\r\nRETR 3\r\nRETR 4\r\n", g.taken.String())

		assert.Equal(t, 4, w.halt())
		assert.NoError(t, w.wait())
	})
}

// R1-117: a peer that accepts nothing does not block put.
func TestWriterBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := startWriter(g.write)
		w.put(numbered("RETR", 1))
		w.flush()
		synctest.Wait()
		for n := range 10_000 {
			w.put(numbered("RETR", n+2))
			w.flush()
		}
		assert.Equal(t, 1, w.halt())
		g.open <- nil
		require.NoError(t, w.wait())
		assert.Equal(t, "RETR 1\r\n", g.taken.String(), "what was counted is what was written")
	})
}

// halt drops the commands for which no write has begun. It also works if there was no write at all.
func TestWriterHalt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := startWriter(g.write)
		w.put(numbered("RETR", 1))
		assert.Equal(t, 0, w.halt())
		assert.NoError(t, w.wait())
		assert.Empty(t, g.taken.String())
		assert.False(t, begun(w, 0))
	})
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := startWriter(g.write)
		w.put(numbered("RETR", 1))
		w.flush()
		synctest.Wait()
		w.put(numbered("RETR", 2))
		w.flush()
		assert.Equal(t, 1, w.halt())
		g.open <- nil
		assert.NoError(t, w.wait())
		assert.Equal(t, "RETR 1\r\n", g.taken.String())
	})
}

// After the error of a write, nothing more is written. begun and wait return the error, and no method blocks.
func TestWriterError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken pipe")
		g := newGate()
		w := startWriter(g.write)
		w.put(numbered("RETR", 1))
		w.flush()
		synctest.Wait()
		ok, err := w.begun(0)
		assert.True(t, ok)
		assert.NoError(t, err)
		g.open <- broken
		synctest.Wait()
		w.put(numbered("RETR", 2))
		w.flush()
		w.flush()
		ok, err = w.begun(1)
		assert.False(t, ok)
		assert.Equal(t, broken, err)
		assert.Equal(t, 1, w.halt())
		assert.Equal(t, broken, w.wait())
	})
}

// If no command waits, nothing is written. A write would fail if the context has ended in the meantime.
func TestWriterIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriter(func([]byte) (int, error) { return 0, errors.New("written") })
		w.flush()
		synctest.Wait()
		w.halt()
		require.NoError(t, w.wait())
	})
}

// The table keeps known sizes, including 0. For other messages it returns -1 (C-110).
func TestSizeTable(t *testing.T) {
	var sizes sizeTable
	assert.EqualValues(t, -1, sizes.size(1), "nothing was listed")
	sizes.learn([]MessageInfo{{Num: 1, Size: -1}, {Num: 2}, {Num: 3, Size: 1000}, {Num: 5, Size: 1 << 40}})
	for num, want := range []int64{-1, -1, 256, 1024, -1, 65535 * 256, -1} {
		assert.Equal(t, want, sizes.size(num), "message %d", num)
	}
	sizes.learn([]MessageInfo{{Num: 1002}})
	assert.EqualValues(t, 256, sizes.size(1002))
	sizes.learn([]MessageInfo{{Num: 1003}})
	assert.EqualValues(t, -1, sizes.size(1003), "the table would be too big")
}

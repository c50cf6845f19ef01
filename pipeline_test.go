package pop3

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A blockingPeer accepts one write for each value that is sent to results.
type blockingPeer struct {
	results  chan error // the results of the writes
	received bytes.Buffer
}

func newBlockingPeer() *blockingPeer { return &blockingPeer{results: make(chan error)} }

func (g *blockingPeer) write(p []byte) (int, error) {
	if err := <-g.results; err != nil {
		return 0, err
	}
	return g.received.Write(p)
}

func hasBegun(w *writer, n int) bool {
	ok, _ := w.begun(n)
	return ok
}

// A command is written after a flush. Commands that are added during a write are written in order by the next write.
func TestWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBlockingPeer()
		w := startWriter(g.write)
		w.enqueue(numbered("RETR", 1))
		w.enqueue(numbered("RETR", 2))
		synctest.Wait()
		assert.False(t, hasBegun(w, 0), "nothing is written before the flush")
		w.flush()
		synctest.Wait()
		assert.True(t, hasBegun(w, 1))
		assert.False(t, hasBegun(w, 2))

		w.enqueue(numbered("RETR", 3))
		w.flush()
		w.enqueue(numbered("RETR", 4))
		w.flush()
		synctest.Wait()
		assert.False(t, hasBegun(w, 2), "the first write has not ended")
		g.results <- nil
		synctest.Wait()
		assert.Equal(t, "RETR 1\r\nRETR 2\r\n", g.received.String())
		assert.True(t, hasBegun(w, 3))
		g.results <- nil
		synctest.Wait()
		assert.Equal(t, "RETR 1\r\nRETR 2\r\nRETR 3\r\nRETR 4\r\n", g.received.String())

		assert.Equal(t, 4, w.halt())
		assert.NoError(t, w.wait())
	})
}

// R1-117: a peer that accepts nothing does not block put.
func TestWriterBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBlockingPeer()
		w := startWriter(g.write)
		w.enqueue(numbered("RETR", 1))
		w.flush()
		synctest.Wait()
		for n := range 10_000 {
			w.enqueue(numbered("RETR", n+2))
			w.flush()
		}
		assert.Equal(t, 1, w.halt())
		g.results <- nil
		require.NoError(t, w.wait())
		assert.Equal(t, "RETR 1\r\n", g.received.String(), "only the command that halt counted is written")
	})
}

// halt drops the commands for which no write has begun. It also works if there was no write at all.
func TestWriterHalt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBlockingPeer()
		w := startWriter(g.write)
		w.enqueue(numbered("RETR", 1))
		assert.Equal(t, 0, w.halt())
		assert.NoError(t, w.wait())
		assert.Empty(t, g.received.String())
		assert.False(t, hasBegun(w, 0))
	})
	synctest.Test(t, func(t *testing.T) {
		g := newBlockingPeer()
		w := startWriter(g.write)
		w.enqueue(numbered("RETR", 1))
		w.flush()
		synctest.Wait()
		w.enqueue(numbered("RETR", 2))
		w.flush()
		assert.Equal(t, 1, w.halt())
		g.results <- nil
		assert.NoError(t, w.wait())
		assert.Equal(t, "RETR 1\r\n", g.received.String())
	})
}

// After the error of a write, nothing more is written. begun and wait return the error, and no method blocks.
func TestWriterError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken pipe")
		g := newBlockingPeer()
		w := startWriter(g.write)
		w.enqueue(numbered("RETR", 1))
		w.flush()
		synctest.Wait()
		ok, err := w.begun(0)
		assert.True(t, ok)
		assert.NoError(t, err)
		g.results <- broken
		synctest.Wait()
		w.enqueue(numbered("RETR", 2))
		w.flush()
		w.flush()
		ok, err = w.begun(1)
		assert.False(t, ok)
		assert.Equal(t, broken, err)
		assert.Equal(t, 1, w.halt())
		assert.Equal(t, broken, w.wait())
	})
}

// If no command waits, nothing is written. An unnecessary write could fail because the context has ended.
func TestWriterIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriter(func([]byte) (int, error) { return 0, errors.New("written") })
		w.flush()
		synctest.Wait()
		w.halt()
		require.NoError(t, w.wait())
	})
}

// The table stores known sizes, including 0. For other messages it returns -1 (C-110).
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

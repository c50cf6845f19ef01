package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// benchSessions has many sessions at once, in a process that does nothing else.
func benchSessions(ctx context.Context, b benchFlags) error {
	const most = 5000
	r, err := openRig(ctx, labSize{Maildrops: most, Servers: b.servers, Messages: 1, Octets: 64 << 10}, false)
	if err != nil {
		return err
	}
	defer r.close()
	for _, kind := range []string{"idle", "retr"} {
		for _, n := range []int{1000, most} {
			c, err := spawn("lab-hold", "-nats", r.url, "-accounts", r.lab.file(), "-ca", r.lab.ca(),
				"-mechanisms", "PLAIN", "-n", fmt.Sprint(n), "-kind", kind, "-memprofile", b.heap(kind, n))
			if err != nil {
				return err
			}
			line, err := c.line()
			c.stop()
			if err != nil {
				return err
			}
			fmt.Println(line)
		}
	}
	return nil
}

// heap gives the name of the heap profile of a measurement, if profiles are wanted.
func (b benchFlags) heap(kind string, n int) string {
	if b.profile == "" {
		return ""
	}
	return fmt.Sprintf("%s-heap-%s-%d", b.profile, kind, n)
}

// labHold holds sessions until it is stopped: logged in and idle, or in the middle of a poll with a message half read.
func labHold(ctx context.Context, args []string) error {
	var c config
	f := c.flags("lab-hold")
	c.workerFlags(f)
	n := f.Int("n", 1000, "sessions")
	profile := f.String("memprofile", "", "write a heap profile to this `file`")
	kind := f.String("kind", "idle", "idle or retr")
	f.Parse(args)
	w, accounts, closeBus, err := c.holder(ctx)
	if err != nil {
		return err
	}
	defer closeBus()
	h := &holder{poller: w.Poller, ready: make(chan error), slots: newSlots(64)}
	h.poller.Sink = func(Account) fetch.Sink { return fetch.SinkFunc(h.hold) }
	before := memoryNow()
	ctx, cancel := context.WithCancel(ctx)
	defer h.wg.Wait()
	defer cancel()
	go h.begin(ctx, accounts, *n, *kind)
	for range *n {
		if err := <-h.ready; err != nil {
			return err
		}
	}
	after := memoryNow()
	fmt.Printf("%d sessions, %s: each %.1f kB resident, %.1f kB heap, %.1f kB stacks; %d descriptors more\n", *n, *kind,
		float64(after.resident-before.resident)/1e3/float64(*n), float64(after.heap-before.heap)/1e3/float64(*n),
		float64(after.stack-before.stack)/1e3/float64(*n), after.files-before.files)
	err = writeHeapProfile(*profile)
	<-ctx.Done()
	return err
}

// writeHeapProfile writes what the memory is used for, if a file is named.
func writeHeapProfile(name string) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

func (c *config) holder(ctx context.Context) (*Worker, fileAccounts, func(), error) {
	accounts, err := loadAccounts(c.accounts)
	if err != nil {
		return nil, nil, nil, err
	}
	b, err := c.open(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	w, err := c.worker(ctx, b, accounts)
	return w, accounts, b.nc.Close, err
}

type holder struct {
	poller Poller
	ready  chan error
	slots  slots // sessions that begin at the same time
	wg     sync.WaitGroup
}

// begin starts sessions, a few at a time.
func (h *holder) begin(ctx context.Context, accounts fileAccounts, n int, kind string) {
	for _, a := range accounts {
		if n--; n < 0 || h.slots.take(ctx, 1) == 0 {
			return
		}
		h.wg.Go(func() {
			if kind == "idle" {
				h.idle(ctx, a)
				return
			}
			if o := h.poller.Poll(ctx, a); o.Err != nil && ctx.Err() == nil {
				h.ready <- o.Err
			}
		})
	}
}

func (h *holder) idle(ctx context.Context, a Account) {
	c, err := h.poller.connect(ctx, a)
	if err == nil {
		defer c.Close()
		_, err = c.Stat(ctx)
	}
	h.slots.put(1)
	h.ready <- err
	<-ctx.Done()
}

// hold is a sink that stops in the middle.
func (h *holder) hold(ctx context.Context, _ fetch.Item, r io.Reader) error {
	_, err := io.ReadFull(r, make([]byte, 100))
	h.slots.put(1)
	h.ready <- err
	<-ctx.Done()
	return ctx.Err()
}

type memory struct{ resident, heap, stack, files int64 }

func memoryNow() memory {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{residentOf(os.Getpid()), int64(m.HeapAlloc), int64(m.StackInuse), int64(descriptors())}
}

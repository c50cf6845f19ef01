package main

import (
	"context"
	"fmt"
	"time"
)

// benchScale compares one worker with two, on servers that are as slow as those on the Internet: there it is waiting
// that a worker is full with, not work.
func benchScale(ctx context.Context, b benchFlags) error {
	const delay, sessions = 30 * time.Millisecond, 40
	n := b.maildrops / 5
	r, err := openRig(ctx, labSize{Maildrops: n, Servers: b.servers, Messages: 1, Octets: 4096, Delay: delay}, b.sync)
	if err != nil {
		return err
	}
	defer r.close()
	var crew children
	defer func() { crew.stop() }()
	var first time.Duration
	for _, workers := range []int{0, 1, 2} { // 0 is for the mail to be gone, with one worker
		flags := append(b.workerFlags(), "-sessions", fmt.Sprint(sessions))
		more, err := r.lab.hire(max(workers, 1)-len(crew), r.url, flags...)
		crew = append(crew, more...)
		if err != nil {
			return err
		}
		if err := r.allDue(); err != nil {
			return err
		}
		took, err := r.poll(5*time.Minute, func(int) {})
		if err != nil {
			return err
		}
		switch workers {
		case 0:
			continue
		case 1:
			first = took
		}
		fmt.Printf("%d workers with %d sessions, each reply after %v: %d polls in %.1f s, %.0f a second, %.2f times one\n",
			workers, sessions, delay, n, took.Seconds(), float64(n)/took.Seconds(), first.Seconds()/took.Seconds())
	}
	return nil
}

package main

import "context"

// slots are what a worker may have under way at the same time.
type slots chan struct{}

func newSlots(n int) slots {
	s := make(slots, n)
	s.put(n)
	return s
}

// take waits for a slot, and takes up to most of those that are free. It gives 0 when ctx has ended.
func (s slots) take(ctx context.Context, most int) int {
	select {
	case <-s:
	case <-ctx.Done():
		return 0
	}
	for n := 1; n < most; n++ {
		select {
		case <-s:
		default:
			return n
		}
	}
	return most
}

func (s slots) put(n int) {
	for range n {
		s <- struct{}{}
	}
}

// takeAll waits until all of them are back.
func (s slots) takeAll() {
	for range cap(s) {
		<-s
	}
}

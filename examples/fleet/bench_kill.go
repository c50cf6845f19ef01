package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// benchKill kills workers while they fetch and delete, and counts what is lost and what is there twice.
func benchKill(ctx context.Context, b benchFlags) error {
	for _, sink := range []string{"maildir", "stream"} {
		var expected, lost, repeated, kills int
		for range b.rounds {
			k := killRound{sink: sink, boxes: 200, messages: 5, kills: 5, sync: b.sync}
			if err := k.run(ctx); err != nil {
				return err
			}
			expected += k.boxes * k.messages
			lost += k.lost
			repeated += k.repeated
			kills += k.kills
		}
		fmt.Printf("%s: %d messages, %d kills: %d lost, %d repeated\n", sink, expected, kills, lost, repeated)
	}
	return nil
}

// A killRound is two workers, of which one after the other is killed, and replaced.
type killRound struct {
	sink                   string
	boxes, messages, kills int
	sync                   bool
	lost, repeated         int
}

func (k *killRound) run(ctx context.Context) error {
	size := labSize{Maildrops: k.boxes, Servers: 2, Messages: k.messages, Octets: 2048}
	r, err := openRig(ctx, size, k.sync, "-ackwait", "3s")
	if err != nil {
		return err
	}
	defer r.close()
	for i := range r.lab.accounts {
		r.lab.accounts[i].Delete = true
	}
	if err := r.lab.save(); err != nil {
		return err
	}
	if err := k.massacre(r); err != nil {
		return err
	}
	found, err := k.found(ctx, r.bus.js, filepath.Join(r.lab.dir, "mail"))
	k.lost, k.repeated = tallyMail(found, k.boxes*k.messages)
	return err
}

// massacre polls all maildrops while workers are killed.
func (k *killRound) massacre(r *rig) error {
	flags := []string{"-min", "1h", "-max", "1h", "-ackwait", "3s", "-sessions", "10", "-mechanisms", "PLAIN"}
	if k.sink == "stream" {
		flags = append(flags, "-sink", "stream")
	}
	crew, err := r.lab.hire(2, r.url, flags...)
	defer func() { crew.stop() }()
	if err != nil {
		return err
	}
	if err := r.allDue(); err != nil {
		return err
	}
	killed := 0
	_, err = r.poll(2*time.Minute, func(polled int) {
		if killed == k.kills || polled*(k.kills+1) < killed*k.boxes+rand.IntN(k.boxes) {
			return
		}
		crew[killed%2].kill()
		if more, err := r.lab.hire(1, r.url, flags...); err == nil {
			crew[killed%2] = more[0]
		}
		killed++
	})
	k.kills = killed
	return err
}

var labLine = regexp.MustCompile(`box \d+ message \d+`)

// tallyMail counts what is missing of a number of different messages, and what is there again.
func tallyMail(found []string, expected int) (lost, repeated int) {
	different := make(map[string]bool)
	for _, line := range found {
		different[line] = true
	}
	return expected - len(different), len(found) - len(different)
}

// found gives the first lines of what was delivered.
func (k *killRound) found(ctx context.Context, js jetstream.JetStream, mail string) ([]string, error) {
	if k.sink == "stream" {
		return linesInStream(ctx, js)
	}
	var lines []string
	err := filepath.WalkDir(mail, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(filepath.Dir(name)) != "new" {
			return err
		}
		body, err := os.ReadFile(name)
		lines = append(lines, string(labLine.Find(body)))
		return err
	})
	return lines, err
}

func linesInStream(ctx context.Context, js jetstream.JetStream) ([]string, error) {
	stream, err := js.Stream(ctx, "MAIL")
	if err != nil {
		return nil, err
	}
	var lines []string
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		msg, err := stream.GetMsg(ctx, seq)
		if err != nil {
			return nil, err
		}
		lines = append(lines, string(labLine.Find(bytes.TrimSpace(msg.Data))))
	}
	return lines, nil
}

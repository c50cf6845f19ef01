package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// readPassword returns POP3_PASSWORD, or else the first line of stdin. If stdin is a terminal, it asks for the
// password.
func readPassword(ctx context.Context, stdin *os.File, prompt io.Writer) (string, error) {
	if password, ok := os.LookupEnv("POP3_PASSWORD"); ok {
		return password, nil
	}
	if !isTerminal(stdin) {
		return readLine(stdin)
	}
	if err := echo(stdin, "-echo"); err != nil {
		return "", fmt.Errorf("can't hide what is typed, so set POP3_PASSWORD: %w", err)
	}
	defer echo(stdin, "echo")
	fmt.Fprint(prompt, "Password: ")
	defer fmt.Fprintln(prompt)
	return untilDone(ctx, func() (string, error) { return readLine(stdin) })
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // the null device is a character device too, but not a terminal
	return err != nil || !os.SameFile(info, null)
}

// echo turns the echo of a terminal on or off. Every Unix has the program stty.
func echo(terminal *os.File, mode string) error {
	stty := exec.Command("stty", mode)
	stty.Stdin = terminal
	return stty.Run()
}

func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(r).ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line != "" {
		return line, nil
	}
	if err == nil || err == io.EOF {
		err = errors.New("set POP3_PASSWORD, or give it on the standard input")
	}
	return "", err
}

// untilDone returns the result of f, or an error as soon as ctx ends. A read from a terminal can't be interrupted, and
// the echo must be turned on again.
func untilDone(ctx context.Context, f func() (string, error)) (string, error) {
	type answer struct {
		line string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		line, err := f()
		answers <- answer{line, err}
	}()
	select {
	case a := <-answers:
		return a.line, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

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

// readPassword returns the value of POP3_PASSWORD. If that variable is not set, it returns the first line of stdin. If
// stdin is a terminal, it shows a prompt.
func readPassword(ctx context.Context, stdin *os.File, prompt io.Writer) (string, error) {
	if password, ok := os.LookupEnv("POP3_PASSWORD"); ok {
		return password, nil
	}
	if !isTerminal(stdin) {
		return readLine(stdin)
	}
	if err := echo(stdin, "-echo"); err != nil {
		return "", fmt.Errorf("cannot turn off the echo of the terminal: %w; set POP3_PASSWORD instead", err)
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
		err = errors.New("set POP3_PASSWORD, or write the password to the standard input")
	}
	return "", err
}

// untilDone returns the result of f, or an error as soon as ctx is done. A read from a terminal cannot be interrupted,
// but the echo must be turned on again.
func untilDone(ctx context.Context, f func() (string, error)) (string, error) {
	type result struct {
		line string
		err  error
	}
	results := make(chan result, 1)
	go func() {
		line, err := f()
		results <- result{line, err}
	}()
	select {
	case a := <-results:
		return a.line, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

package main

import (
	"io"
	"log/slog"
)

// newLogger logs what goes wrong; with --daemon also what is done, with --verbose everything.
func newLogger(w io.Writer, o *options) *slog.Logger {
	level := slog.LevelWarn
	switch {
	case o.verbose:
		level = slog.LevelDebug
	case o.daemon && !o.quiet:
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

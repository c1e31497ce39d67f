package flags

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
)

// The formats of [NewLogger].
const (
	LogText = "text" // key=value lines for people
	LogJSON = "json" // an object per line
)

// LogLevel is the flag value of a level that can be changed while the process
// runs: debug, info, warn or error.
type LogLevel struct{ Level *slog.LevelVar }

// Set implements [pflag.Value].
func (l LogLevel) Set(s string) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s)); err != nil {
		return errors.New("want debug, info, warn or error")
	}
	l.Level.Set(level)
	return nil
}

func (l LogLevel) String() string { return strings.ToLower(l.Level.Level().String()) }

// Type implements [pflag.Value].
func (l LogLevel) Type() string { return "debug|info|warn|error" }

// NewLogger returns a logger of what is at or above level at the time. format is [LogText] or [LogJSON]. Who logs never waits for w, which
// may be a pipe that nobody reads: up to 1,024 lines wait for it; of further ones it is said how many were left out. stop returns when all that was
// logged before is written, or a second later; what is logged afterwards is not written.
func NewLogger(level *slog.LevelVar, format string, w io.Writer) (_ *slog.Logger, stop func()) {
	l := &lines{queue: make(chan []byte, 1024), ended: make(chan struct{}), written: make(chan struct{})}
	go l.write(w, loggerTo(w, level, format))
	return loggerTo(l, level, format), l.stop
}

func loggerTo(w io.Writer, level *slog.LevelVar, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// lines hands what is logged to a goroutine that writes it.
type lines struct {
	queue   chan []byte
	missed  atomic.Int64 // lines that were left out
	ended   chan struct{}
	written chan struct{}
}

// Write implements io.Writer for slog, whose handlers write one line at a time. It does not block.
func (l *lines) Write(line []byte) (int, error) {
	select {
	case l.queue <- bytes.Clone(line):
	default:
		l.missed.Add(1)
	}
	return len(line), nil
}

func (l *lines) write(w io.Writer, direct *slog.Logger) {
	defer close(l.written)
	for {
		select {
		case line := <-l.queue:
			_, _ = w.Write(line) // there is nobody to tell
			continue
		default:
		}
		if n := l.missed.Swap(0); n > 0 {
			direct.Error("lines of the log were left out: it was not read as fast as it was written", "lines", n)
		}
		select {
		case line := <-l.queue:
			_, _ = w.Write(line)
		case <-l.ended:
			if len(l.queue) == 0 {
				return
			}
		}
	}
}

func (l *lines) stop() {
	close(l.ended)
	select {
	case <-l.written:
	case <-time.After(time.Second):
	}
}

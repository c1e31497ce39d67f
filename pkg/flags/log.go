package flags

import (
	"errors"
	"io"
	"log/slog"
	"strings"
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

// NewLogger returns a logger of what is at or above level at the time. format
// is [LogText] or [LogJSON].
func NewLogger(level *slog.LevelVar, format string, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

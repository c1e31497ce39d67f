// Package slogcore lets the etcd client and server, which log through zap, log to a slog.Logger. It is the opposite of
// go.uber.org/zap/exp/zapslog. It owns no goroutine.
package slogcore

import (
	"context"
	"log/slog"
	"strings"

	"go.uber.org/zap/zapcore"
)

type core struct{ handler slog.Handler }

// New returns a core that writes to l, one level lower than zap's (what etcd calls information is debugging to us), and
// nothing if l is nil.
func New(l *slog.Logger) zapcore.Core {
	if l == nil {
		return zapcore.NewNopCore()
	}
	return core{l.Handler()}
}

func (c core) Enabled(l zapcore.Level) bool {
	return c.handler.Enabled(context.Background(), level(l))
}

func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.handler.WithAttrs(attrs(fields))}
}

func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, level(e.Level), strings.TrimSuffix(e.Message, "."), 0)
	r.AddAttrs(attrs(fields)...)
	return c.handler.Handle(context.Background(), r)
}

func (core) Sync() error { return nil }

func level(l zapcore.Level) slog.Level {
	switch {
	case l <= zapcore.InfoLevel:
		return slog.LevelDebug
	case l == zapcore.WarnLevel:
		return slog.LevelInfo
	case l == zapcore.ErrorLevel:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

func attrs(fields []zapcore.Field) []slog.Attr {
	out := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		for key, value := range enc.Fields {
			out = append(out, slog.Any(key, value))
		}
	}
	return out
}

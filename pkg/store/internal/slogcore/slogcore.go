// Package slogcore lets the etcd client and server, which log through zap, log to a slog.Logger. It is the opposite of
// go.uber.org/zap/exp/zapslog. It owns no goroutine.
package slogcore

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"
)

type core struct {
	handler slog.Handler
	limiter *limiter
}

// New returns a core that writes to l, one level lower than zap's (what etcd calls information is debugging to us), and
// nothing if l is nil. Of one message it writes one in Every, with the number of those left out since: while a server is gone,
// the client tells of each attempt, dozens in a second.
func New(l *slog.Logger) zapcore.Core {
	if l == nil {
		return zapcore.NewNopCore()
	}
	return core{l.Handler(), &limiter{messages: map[string]*message{}}}
}

func (c core) Enabled(l zapcore.Level) bool {
	return c.handler.Enabled(context.Background(), level(l))
}

func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.handler.WithAttrs(attrs(fields)), c.limiter}
}

func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	omitted, pass := c.limiter.pass(e)
	if !pass {
		return nil
	}
	r := slog.NewRecord(e.Time, level(e.Level), strings.TrimSuffix(e.Message, "."), 0)
	r.AddAttrs(attrs(fields)...)
	if omitted > 0 {
		r.AddAttrs(slog.Int("omitted", omitted))
	}
	return c.handler.Handle(context.Background(), r)
}

func (core) Sync() error { return nil }

// Every is the time in which one message is written once.
const Every = 10 * time.Second

// maxMessages bounds what is remembered. etcd's messages are constants, a few hundred of them.
const maxMessages = 1000

// limiter remembers when a message was written last.
type limiter struct {
	mu       sync.Mutex
	messages map[string]*message // guarded by mu
}

type message struct {
	written time.Time
	omitted int
}

// pass reports whether e is to be written, and how many of its kind were not since the last that was.
func (l *limiter) pass(e zapcore.Entry) (omitted int, pass bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.messages[e.Message]
	if m == nil {
		if len(l.messages) >= maxMessages {
			clear(l.messages)
		}
		m = &message{}
		l.messages[e.Message] = m
	}
	if since := e.Time.Sub(m.written); since >= 0 && since < Every {
		m.omitted++
		return 0, false
	}
	omitted, m.omitted, m.written = m.omitted, 0, e.Time
	return omitted, true
}

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

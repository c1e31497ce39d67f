package accesslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"
)

// Format is how a line looks.
type Format uint8

// The formats. Both write one line per request.
const (
	JSON Format = iota
	Text
)

// ParseFormat reads "json" or "text".
func ParseFormat(s string) (Format, error) {
	switch s {
	case "json":
		return JSON, nil
	case "text":
		return Text, nil
	default:
		return 0, fmt.Errorf("access log format %q is neither json nor text", s)
	}
}

const (
	// DefaultSlots takes 1.4 MB and holds 30 ms of a core that does nothing
	// but proxy (35,000 requests/s), longer than the writer waits for a turn.
	DefaultSlots = 1024
	// MaxSlots bounds the ring to 90 MB.
	MaxSlots = 1 << 16

	// batchSize is how many bytes are gathered for one write.
	batchSize = 32 << 10
	// pause is how long the writer lets entries gather after it has found the
	// ring empty. It bounds how late a line is, and makes a wake-up and a
	// system call belong to a batch, not to a request.
	pause = 20 * time.Millisecond
)

// States of the writer, by which producers know whether to wake it.
const (
	awake    uint32 = iota
	pausing         // looks again by itself; woken when the ring fills
	sleeping        // woken by the next entry
)

// ErrNotDrained is returned by [Log.Close] when its context ended first.
var ErrNotDrained = errors.New("access log not drained")

// Config configures a [Log].
type Config struct {
	Format Format
	// Slots is how many entries wait for the writer before further ones are
	// dropped; rounded up to a power of two. Default [DefaultSlots], at most
	// [MaxSlots]. A slot takes 1.4 kB.
	Slots int
	// Logger is told when writing begins to fail and when it works again.
	Logger *slog.Logger
}

// Log is an asynchronous access log. Record, Dropped and Written are safe for
// concurrent use and never block.
type Log struct {
	ring   *ring
	format func([]byte, *record) []byte
	out    io.Writer
	logger *slog.Logger

	dropped atomic.Uint64
	written atomic.Uint64
	state   atomic.Uint32
	wake    chan struct{} // capacity 1
	closing chan struct{}
	done    chan struct{}

	// The writer goroutine's alone.
	buffer  []byte
	pending uint64 // entries in buffer
	failing bool
}

// New starts a log that writes to out, which only the log's goroutine uses.
func New(config Config, out io.Writer) (*Log, error) {
	if config.Slots == 0 {
		config.Slots = DefaultSlots
	}
	if config.Slots < 1 || config.Slots > MaxSlots {
		return nil, fmt.Errorf("access log: slots %d outside 1 to %d", config.Slots, MaxSlots)
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{
		ring:    newRing(config.Slots),
		format:  appendJSON,
		out:     out,
		logger:  config.Logger,
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		buffer:  make([]byte, 0, batchSize+maxLine),
	}
	if config.Format == Text {
		l.format = appendText
	}
	go l.write()
	return l, nil
}

// Record logs e. It copies what it keeps, does not allocate and never blocks;
// if the ring is full, or the log closed, the entry is dropped and counted.
func (l *Log) Record(e *Entry) {
	position, ok := l.ring.put(e)
	if !ok {
		l.dropped.Add(1)
		return
	}
	switch l.state.Load() {
	case sleeping:
		l.rouse(sleeping)
	case pausing:
		// Each quarter of the ring wakes it, so it never fills during a pause.
		if position&(l.ring.mask>>2) == 0 {
			l.rouse(pausing)
		}
	}
}

func (l *Log) rouse(from uint32) {
	if l.state.CompareAndSwap(from, awake) {
		select {
		case l.wake <- struct{}{}:
		default: // a wake-up is already under way
		}
	}
}

// Dropped returns how many entries were lost: to a full ring, after Close, or
// to a failed write.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Written returns how many entries were written.
func (l *Log) Written() uint64 { return l.written.Load() }

// Close refuses further entries, writes what the ring holds and ends the
// goroutine. It blocks until then or until ctx ends; in that case it returns
// [ErrNotDrained], and the goroutine ends once the blocked writer returns.
// Call it once.
func (l *Log) Close(ctx context.Context) error {
	l.ring.seal()
	close(l.closing)
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotDrained, context.Cause(ctx))
	}
}

// write is the log's goroutine.
func (l *Log) write() {
	defer close(l.done)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		found := l.drain()
		if !l.wait(timer, found) {
			l.drainSealed()
			return
		}
	}
}

// wait pauses after a drain that found entries, and sleeps after one that did
// not. It reports false when the log is being closed.
func (l *Log) wait(timer *time.Timer, found bool) bool {
	state, expired := sleeping, (<-chan time.Time)(nil)
	if found {
		timer.Reset(pause)
		state, expired = pausing, timer.C
	}
	l.state.Store(state)
	// An entry put between the last look and the store found nobody to wake.
	if !found && l.ring.next() != nil {
		l.state.Store(awake)
		return true
	}
	select {
	case <-l.wake:
	case <-expired:
	case <-l.closing:
		return false
	}
	l.state.Store(awake)
	return true
}

// drain writes all there is, and reports whether there was anything.
func (l *Log) drain() (found bool) {
	for r := l.ring.next(); r != nil; r = l.ring.next() {
		found = true
		l.buffer = l.format(l.buffer, r)
		l.ring.release()
		l.pending++
		if len(l.buffer) >= batchSize {
			l.flush()
		}
	}
	l.flush()
	return found
}

// drainSealed also waits for producers that are still copying.
func (l *Log) drainSealed() {
	for l.drain(); !l.ring.drained(); l.drain() {
		runtime.Gosched()
	}
}

func (l *Log) flush() {
	if len(l.buffer) == 0 {
		return
	}
	_, err := l.out.Write(l.buffer)
	if err != nil {
		l.dropped.Add(l.pending)
	} else {
		l.written.Add(l.pending)
	}
	if failing := err != nil; failing != l.failing {
		l.failing = failing
		l.report(err)
	}
	l.buffer, l.pending = l.buffer[:0], 0
}

// report says it once per change, or a full disk would fill another log.
func (l *Log) report(err error) {
	if err != nil {
		l.logger.Error("access log cannot be written, entries are dropped", "error", err)
		return
	}
	l.logger.Info("access log is written again", "dropped", l.dropped.Load())
}

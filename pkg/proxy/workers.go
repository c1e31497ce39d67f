package proxy

import "sync/atomic"

// maxIdleWorkers is how many goroutines stay when there is nothing to wait for: their
// stacks have grown to what an exchange needs.
const maxIdleWorkers = 32

// workers are goroutines that wait for what an exchange needs where the reader of a
// connection must not. It is safe for concurrent use.
type workers struct {
	work chan *h2Exchange
	stop chan struct{}
	over *atomic.Bool
	idle *atomic.Int32
}

func newWorkers() workers {
	return workers{work: make(chan *h2Exchange), stop: make(chan struct{}), over: new(atomic.Bool), idle: new(atomic.Int32)}
}

// carry carries an exchange to its end, from where it is. It does not wait.
func (w *workers) carry(x *h2Exchange) {
	select {
	case w.work <- x:
	default:
		go w.run(x)
	}
}

func (w *workers) run(x *h2Exchange) {
	for {
		x.carryOn()
		if w.idle.Add(1) > maxIdleWorkers {
			w.idle.Add(-1)
			return
		}
		select {
		case x = <-w.work:
			w.idle.Add(-1)
		case <-w.stop:
			return
		}
	}
}

// end lets idle goroutines end. It may be called more than once.
func (w *workers) end() {
	if w.over.CompareAndSwap(false, true) {
		close(w.stop)
	}
}

package breaker

import (
	"sync"
	"testing"
	"time"
)

// FuzzWindow plays a sequence of steps forward in time, each with a success or a
// failure, and compares with a list of all events that was never cleared.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1})
	f.Add([]byte{0x80, 0x81, 0xff, 0xfe, 3, 4, 5})
	f.Add([]byte{9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9})
	f.Fuzz(func(t *testing.T, steps []byte) {
		const width = 16
		w := newWindow(width * buckets)
		type event struct {
			at     int64
			failed bool
		}
		var all []event
		now := int64(0)
		for _, step := range steps {
			now += int64(step >> 1) // 0 to 127: up to 80 % of the window
			if step == 0xff {
				now += 1 << 50 // idle
			}
			failed := step&1 == 1
			all = append(all, event{now, failed})
			if failed {
				w.failure(now)
			} else {
				w.success(now)
			}
			var wantAll, wantFailed uint64
			for _, e := range all {
				if e.at/width <= now/width-buckets {
					continue
				}
				wantAll++
				if e.failed {
					wantFailed++
				}
			}
			if gotAll, gotFailed := w.counts(now); gotAll != wantAll || gotFailed != wantFailed {
				t.Fatalf("at %d: %d of %d failed, want %d of %d", now, gotFailed, gotAll, wantFailed, wantAll)
			}
		}
	})
}

func TestWindowCountsAllSuccessesOfManyGoroutines(t *testing.T) {
	t.Parallel()
	const goroutines, each = 8, 20_000
	w := newWindow(int64(time.Second))
	var wg sync.WaitGroup
	for g := range int64(goroutines) {
		wg.Go(func() {
			for i := range int64(each) {
				w.success(g + i*100_000/each) // all within the first bucket
			}
		})
	}
	wg.Wait()
	if got, _ := w.counts(0); got != goroutines*each {
		t.Errorf("%d counted, want %d", got, goroutines*each)
	}
}

func TestWindowSpreadsSuccessesOverItsStripes(t *testing.T) {
	t.Parallel()
	w := &window{width: int64(time.Hour), stripes: make([]stripe, 8)}
	for i := range int64(8000) {
		w.success(i * 1000) // a clock that ticks in microseconds
	}
	for i := range w.stripes {
		if n := w.stripes[i].cells[0].Load(); n < 500 || n > 1500 {
			t.Errorf("stripe %d got %d of 8000", i, n)
		}
	}
}

func TestWindowGoesOnAfterTheClockSteppedBack(t *testing.T) {
	t.Parallel()
	w := newWindow(int64(time.Second))
	const day = int64(24 * time.Hour)
	w.success(day)
	w.failure(day)
	w.success(0)
	w.failure(0)
	if all, failed := w.counts(0); all != 2 || failed != 1 {
		t.Errorf("%d of %d failed", failed, all)
	}
}

func TestWindowDropsWhatComesAWindowLate(t *testing.T) {
	t.Parallel()
	w := newWindow(int64(time.Second))
	w.success(1050 * ms)
	w.failure(1050 * ms)
	w.success(50 * ms) // the same bucket, one round before
	w.failure(50 * ms)
	if all, failed := w.counts(1050 * ms); all != 2 || failed != 1 {
		t.Errorf("%d of %d failed", failed, all)
	}
}

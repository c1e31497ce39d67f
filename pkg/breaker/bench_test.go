package breaker

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// The comparison with other libraries is in compare/.

func BenchmarkAcquireDone(b *testing.B) {
	b.Run("by row", func(b *testing.B) { benchmarkAcquireDone(b, plain()) })
	b.Run("by ratio", func(b *testing.B) { benchmarkAcquireDone(b, byRatio()) })
}

func benchmarkAcquireDone(b *testing.B, c Config) {
	b.Run("1 goroutine", func(b *testing.B) {
		br := mustNew(b, c)
		for now := int64(0); b.Loop(); now += 100 {
			p, _ := br.Acquire(now)
			br.Done(p, Success, now)
		}
	})
	b.Run("64 goroutines", func(b *testing.B) {
		br := mustNew(b, c)
		b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
		b.RunParallel(func(pb *testing.PB) {
			for now := int64(0); pb.Next(); now += 100 {
				p, _ := br.Acquire(now)
				br.Done(p, Success, now)
			}
		})
	})
}

func BenchmarkRefuse(b *testing.B) {
	br := mustNew(b, plain())
	trip(b, br, 0)
	for b.Loop() {
		br.Acquire(1)
	}
}

func BenchmarkExecute(b *testing.B) {
	br := mustNew(b, Default())
	ctx := context.Background()
	f := func(context.Context) error { return nil }
	for b.Loop() {
		_ = br.Execute(ctx, f)
	}
}

func BenchmarkTimeSince(b *testing.B) { // what of Execute is the clock
	born := time.Now()
	for b.Loop() {
		_ = time.Since(born)
	}
}

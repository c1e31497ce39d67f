package etcdembed

import (
	"errors"
	"io"
	"testing"

	"go.uber.org/zap"
)

// Without the hook, zap would end the process.
func TestAFatalErrorIsReportedAndEndsOnlyItsGoroutine(t *testing.T) {
	fatal := make(chan error, 1)
	logger := loggerOf(nil, fatal)
	for _, end := range []func(string, ...zap.Field){logger.Fatal, logger.Panic} { // the second is not the cause and is dropped
		ended := make(chan bool, 1)
		go func() {
			returned := false
			defer func() { ended <- returned }()
			end("failed to sync the log", zap.Error(io.ErrShortWrite))
			returned = true
		}()
		if <-ended {
			t.Error("a fatal error did not end its goroutine")
		}
	}
	if err := <-fatal; !errors.Is(err, io.ErrShortWrite) || err.Error() != "etcd: failed to sync the log: short write" {
		t.Errorf("reported %v", err)
	}
}

package etcdstore

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestClientLibrarySaysTheSameOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		config, err := Config{Endpoints: []string{"a:1"}, Logger: slog.New(slog.NewTextHandler(&out, nil))}.client()
		if err != nil {
			t.Fatal(err)
		}
		outage := func() {
			for range 1000 {
				config.Logger.Warn("retrying of unary invoker failed")
			}
			config.Logger.Error("something else")
		}
		outage()
		outage()
		time.Sleep(repeatAfter)
		outage()
		text := out.String()
		if n, m := strings.Count(text, "retrying of unary"), strings.Count(text, "something else"); n != 2 || m != 2 {
			t.Errorf("said %d and %d times, want each twice:\n%.500s", n, m, text)
		}
	})
}

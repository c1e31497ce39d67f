package slogcore_test

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/fairlead-mesh/fairlead/pkg/store/internal/slogcore"
)

func TestZapEntriesArriveOneLevelLowerWithTheirFields(t *testing.T) {
	var out bytes.Buffer
	handler := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	log := zap.New(slogcore.New(slog.New(handler))).With(zap.String("member", "a"))
	log.Info("not shown")
	log.Warn("slow fdatasync.", zap.Int("took", 7))
	log.Error("apply failed", zap.Error(io.EOF))
	want := "level=INFO msg=\"slow fdatasync\" member=a took=7\nlevel=WARN msg=\"apply failed\" member=a error=EOF\n"
	if got := out.String(); got != want {
		t.Errorf("logged\n%swant\n%s", strings.TrimSpace(got), want)
	}
}

func TestOneMessageIsWrittenOnceInAWhileWithHowManyWereLeftOut(t *testing.T) {
	var out bytes.Buffer
	core := slogcore.New(slog.New(slog.NewTextHandler(&out, nil)))
	at := time.Unix(1000, 0)
	log := func(after time.Duration, message string) {
		t.Helper()
		e := zapcore.Entry{Level: zapcore.WarnLevel, Time: at.Add(after), Message: message}
		if err := core.With(nil).Write(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		log(time.Duration(i)*slogcore.Every/100, "retrying")
	}
	log(0, "another")
	log(slogcore.Every, "retrying")
	log(-time.Hour, "retrying") // the clock was set back
	if got := strings.Count(out.String(), "msg=retrying"); got != 3 || !strings.Contains(out.String(), "msg=retrying omitted=99") || !strings.Contains(out.String(), "msg=another") {
		t.Errorf("logged\n%swant three lines of the message, the second with omitted=99, and the other message", out.String())
	}
}

package slogcore_test

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"

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

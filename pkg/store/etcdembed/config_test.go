package etcdembed

import (
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// What keeps the data: every write is on disk before it is answered, and neither history nor data grow without end.
func TestDataIsSyncedCompactedAndBounded(t *testing.T) {
	for _, c := range []struct {
		set       Config
		retention string
		quota     int64
	}{
		{Config{}, "1h0m0s", 2 << 30},
		{Config{AutoCompactionRetention: time.Minute, QuotaBytes: 1 << 20}, "1m0s", 1 << 20},
	} {
		c.set.DataDir = t.TempDir()
		set, err := c.set.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		config := new(Server).config(set, paths{data: "data", socket: "socket"})
		if config.UnsafeNoFsync {
			t.Error("writes are answered before they are on disk")
		}
		if config.AutoCompactionMode != embed.CompactorModePeriodic || config.AutoCompactionRetention != c.retention {
			t.Errorf("compaction %s after %s, want periodic after %s", config.AutoCompactionMode, config.AutoCompactionRetention, c.retention)
		}
		if config.QuotaBackendBytes != c.quota {
			t.Errorf("quota %d, want %d", config.QuotaBackendBytes, c.quota)
		}
	}
}

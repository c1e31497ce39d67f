package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestComplaintsOfLogsAreFound(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"quiet.log": "level=INFO msg=listening\nlevel=WARN msg=\"control plane lost\"\n",
		"web.log":   "level=INFO msg=a\npanic: runtime error\n",
		"shop.log":  strings.Repeat("level=WARN msg=\"a host breaks HTTP/2\"\n", 9),
		"other.txt": "panic: no log\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := scanLogs(dir)
	if err != nil || len(found) != 6 || !strings.HasPrefix(found[0], "shop.log: ") || found[5] != "web.log: panic: runtime error" {
		t.Errorf("%q, %v", found, err)
	}
}

package flags

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"
)

func TestAddressesSayWhatIsWrongAndHowToWriteThem(t *testing.T) {
	for _, c := range []struct {
		in, address, listen string // what Address and ListenAddress say; "" is no error
	}{
		{"127.0.0.1:8080", "", ""},
		{"localhost:1", "", ""},
		{"orders_db.shop.internal.:65535", "", ""},
		{"[::1]:8080", "", ""},
		{"[fe80::1%eth0]:8080", "", ""},
		{":8080", "has no host: want host:port, such as 127.0.0.1:8080", ""},
		{"[]:8080", "has no host: want host:port, such as 127.0.0.1:8080", ""},
		{"127.0.0.1:0", "nothing can be reached at port 0: want a port from 1 to 65535", ""},
		{"", "want host:port, such as 127.0.0.1:8080", "the same"},
		{"8080", "has no host: want host:port, such as 127.0.0.1:8080", "the same"},
		{"localhost", "want host:port, such as 127.0.0.1:8080", "the same"},
		{"10.0.0.1", "has no port: want host:port, such as 10.0.0.1:8080", "the same"},
		{"::1", "has no port: want host:port, such as [::1]:8080", "the same"},
		{"[::1]", "has no port: want host:port, such as [::1]:8080", "the same"},
		{"a:b:80", "want host:port, with an IPv6 address in brackets, such as [::1]:8080", "the same"},
		{"http://localhost:80", "is a URL: want host:port, such as 127.0.0.1:8080", "the same"},
		{"localhost:http", `port "http": want a number up to 65535`, "the same"},
		{"localhost:65536", `port "65536": want a number up to 65535`, "the same"},
		{"localhost:-1", `port "-1": want a number up to 65535`, "the same"},
		{"local host:80", `host "local host": want an IP address or a name`, "the same"},
		{"-a:80", `host "-a": want an IP address or a name`, "the same"},
		{"a..b:80", `host "a..b": want an IP address or a name`, "the same"},
		{strings.Repeat("a", 64) + ":80", `host "` + strings.Repeat("a", 64) + `": want an IP address or a name`, "the same"},
	} {
		if c.listen == "the same" {
			c.listen = c.address
		}
		var a Address
		var l ListenAddress
		for _, v := range []struct {
			value pflag.Value
			want  string
		}{{&a, c.address}, {&l, c.listen}} {
			err := v.value.Set(c.in)
			switch {
			case err == nil && v.want == "" && v.value.String() != c.in:
				t.Errorf("%T %q: is %q", v.value, c.in, v.value)
			case err == nil && v.want != "", err != nil && err.Error() != v.want:
				t.Errorf("%T %q: %v, want %q", v.value, c.in, err, v.want)
			case err != nil && v.value.String() != "":
				t.Errorf("%T %q: refused and set", v.value, c.in)
			}
		}
	}
}

func TestKeyValuesAddUpAndComeBackSorted(t *testing.T) {
	var kv KeyValues
	for _, s := range []string{"version=v1", "tier=gold, zone=a", "expr=a=b", "empty="} {
		if err := kv.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if want := "empty=,expr=a=b,tier=gold,version=v1,zone=a"; kv.String() != want {
		t.Errorf("%s, want %s", kv.String(), want)
	}
	for in, want := range map[string]string{
		"":             `"" has no '='`,
		"a":            `"a" has no '='`,
		"=b":           `"=b" has no key`,
		"x=1,":         `"" has no '='`,
		"version=v2":   `key "version" is given twice`,
		"new=1, new=2": `key "new" is given twice`,
	} {
		if err := kv.Set(in); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

// A log that is not read, as of a stopped terminal or a full pipe, holds nobody up, and says what it lost.
func TestWhoLogsDoesNotWaitForWhoReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		logger, stop := NewLogger(new(slog.LevelVar), LogJSON, w)
		for i := range 2000 {
			logger.Info("line", "n", i)
		}
		var lines []string
		read := make(chan struct{})
		go func() {
			defer close(read)
			for s := bufio.NewScanner(r); s.Scan(); {
				lines = append(lines, s.Text())
			}
		}()
		synctest.Wait()
		logger.Info("last")
		stop()
		_ = w.Close()
		<-read
		n := len(lines)
		if n < 1000 || n > 1100 || !strings.Contains(lines[0], `"n":0`) || !strings.Contains(lines[n-1], "last") {
			t.Fatalf("%d lines: %.200q", n, lines)
		}
		if want := fmt.Sprintf(`"lines":%d`, 2000-(n-2)); !strings.Contains(lines[n-2], want) {
			t.Errorf("%s, without %s", lines[n-2], want)
		}

		_, w = io.Pipe() // nobody will ever read
		logger, stop = NewLogger(new(slog.LevelVar), LogText, w)
		logger.Info("line")
		before := time.Now()
		stop()
		if took := time.Since(before); took != time.Second {
			t.Errorf("stopping took %v", took)
		}
		_ = w.Close()
	})
}

func TestTheLogLevelChangesWhatALoggerWrites(t *testing.T) {
	var level slog.LevelVar
	var b bytes.Buffer
	value := LogLevel{&level}
	for format, want := range map[string]string{LogText: "level=DEBUG msg=seen", LogJSON: `"level":"DEBUG","msg":"seen"`} {
		b.Reset()
		logger, stop := NewLogger(&level, format, &b)
		if err := value.Set("warn"); err != nil {
			t.Fatal(err)
		}
		logger.Info("hidden")
		if err := value.Set("debug"); err != nil {
			t.Fatal(err)
		}
		logger.Debug("seen")
		stop()
		if got := b.String(); strings.Contains(got, "hidden") || !strings.Contains(got, want) {
			t.Errorf("%s: %q", format, got)
		}
	}
	if value.String() != "debug" {
		t.Errorf("level %q", value)
	}
	if err := value.Set("loud"); err == nil || err.Error() != "want debug, info, warn or error" {
		t.Error(err)
	}
}

func TestTheVersionNamesReleaseCommitAndToolchain(t *testing.T) {
	for want, info := range map[string]debug.BuildInfo{
		"v0.1.0 (go1.26.0)": {GoVersion: "go1.26.0", Main: debug.Module{Version: "v0.1.0"}},
		"(devel) (commit 0123456789ab, modified, go1.26.0)": {GoVersion: "go1.26.0", Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"},
		}},
	} {
		if got := describe(&info); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestSizesHaveAUnit(t *testing.T) {
	for in, want := range map[string]Size{"512MiB": 512 << 20, "2GiB": 2 << 30, "1KiB": 1 << 10, "1025KiB": 1025 << 10} {
		var s Size
		if err := s.Set(in); err != nil || s != want || s.String() != in {
			t.Errorf("%s: %v, %v", in, s.String(), err)
		}
	}
	for _, in := range []string{"", "1", "1.5GiB", "GiB", "-1GiB", "0MiB", "1 GiB", "1GB", "1gib", "9999999999GiB"} {
		s := Size(7)
		if err := s.Set(in); err == nil || s != 7 || !strings.Contains(err.Error(), "such as 512MiB") {
			t.Errorf("%s: %v, %v", in, s.String(), err)
		}
	}
}

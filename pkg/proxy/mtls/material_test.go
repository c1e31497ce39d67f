package mtls

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestAFileHasChangedIfAnythingTellsSo(t *testing.T) {
	const resolution = 4 * time.Second
	long := time.Now().Add(-time.Hour).Truncate(time.Second)
	write := func(path, text string, modified time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, one := range map[string]struct {
		modified time.Time // before it was read
		change   func(path, dir string)
		want     bool
	}{
		"nothing":                 {long, func(string, string) {}, false},
		"another time":            {long, func(path, _ string) { write(path, "one", long.Add(time.Second)) }, true},
		"an older time":           {long, func(path, _ string) { write(path, "one", long.Add(-time.Second)) }, true},
		"another size, no newer":  {long, func(path, _ string) { write(path, "three", long) }, true},
		"it is gone":              {long, func(path, _ string) { must(os.Remove(path)) }, true},
		"another file, alike":     {long, func(path, _ string) { write(path+"2", "two", long); must(os.Rename(path+"2", path)) }, true},
		"a link to the same file": {long, func(path, dir string) { must(os.Rename(path, dir+"/x")); must(os.Symlink("x", path)) }, false},
		"a link to another, alike": {long, func(path, dir string) {
			write(dir+"/x", "two", long)
			must(os.Remove(path))
			must(os.Symlink("x", path))
		}, true},
		"it was new when it was read": {time.Now(), func(string, string) {}, true},
		"of the future":               {time.Now().Add(time.Hour), func(string, string) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			write(path, "one", one.modified)
			info, err := os.Stat(path)
			must(err)
			f := file{path: path, info: info, at: time.Now()}
			one.change(path, dir)
			if got := f.hasChanged(resolution); got != one.want {
				t.Errorf("changed: %t", got)
			}
		})
	}
	if f := (&file{path: filepath.Join(t.TempDir(), "f")}); !f.hasChanged(resolution) {
		t.Error("what was not there is not looked at again")
	}
}

// What is exactly so old when it is read can be trusted.
func TestAFileIsNewWithinTheResolutionOfItsTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for age, want := range map[time.Duration]bool{0: true, time.Second - 1: true, time.Second: false, time.Second + 1: false} {
		f := file{path: path, info: info, at: info.ModTime().Add(age)}
		if got := f.hasChanged(time.Second); got != want {
			t.Errorf("read %v after it was modified: %t", age, got)
		}
	}
}

func TestAKeeperLetsAsManyHandshakesComputeAsThereAreProcessorsAndEndsWithClose(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	k := NewKeeper(Config{Log: slog.New(slog.DiscardHandler)})
	if cap(k.places) != 3 || runtime.GOMAXPROCS(0) != 3 {
		t.Errorf("%d places, %d processors", cap(k.places), runtime.GOMAXPROCS(0))
	}
	k.Close()
	select {
	case <-k.done:
	default:
		t.Error("its goroutine is there after Close")
	}
}

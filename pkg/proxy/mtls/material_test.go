package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
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

func TestAKeyIsOneOfAnyKindThatIsNotEncrypted(t *testing.T) {
	block := func(kind, headers string) string {
		return "-----BEGIN " + kind + "-----\n" + headers + "AAAA\n-----END " + kind + "-----\n"
	}
	for _, one := range []struct{ text, want string }{
		{block("PRIVATE KEY", ""), ""},
		{block("EC PRIVATE KEY", ""), ""},
		{block("RSA PRIVATE KEY", ""), ""},
		{block("EC PARAMETERS", "") + block("EC PRIVATE KEY", ""), ""}, // as openssl ecparam writes it
		{block("ENCRYPTED PRIVATE KEY", ""), "is encrypted"},
		{block("EC PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n"), "is encrypted"},
		{block("CERTIFICATE", ""), "has no private key in it"},
		{"AAAA", "is not PEM"},
	} {
		err := checkKey([]byte(one.text))
		if (err == nil) != (one.want == "") || err != nil && !strings.Contains(err.Error(), one.want) {
			t.Errorf("%q: %v", one.text, err)
		}
	}
}

func TestAFileMayBeAsLargeAsTheBound(t *testing.T) {
	for size, want := range map[int]bool{maxFile: true, maxFile + 1: false} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		l := &loader{sum: sha256.New()}
		data, err := l.read(path)
		if (err == nil) != want || want && len(data) != size || !want && !strings.Contains(err.Error(), "is larger than 1048576 bytes") {
			t.Errorf("%d bytes: %d are read, %v", size, len(data), err)
		}
	}
}

// The same bytes are another content in other files, or cut in two elsewhere.
func TestTheSumIsOfFilesAndNotOfTheirBytesAlone(t *testing.T) {
	dir := t.TempDir()
	sum := func(names, contents [2]string) [sha256.Size]byte {
		l := &loader{sum: sha256.New()}
		for i, name := range names {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(contents[i]), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := l.read(path); err != nil {
				t.Fatal(err)
			}
		}
		return [sha256.Size]byte(l.sum.Sum(nil))
	}
	a, b := [2]string{"a", "b"}, [2]string{"b", "a"}
	first := sum(a, [2]string{"12", "3"})
	if sum(a, [2]string{"12", "3"}) != first {
		t.Error("the same files have another sum")
	}
	if sum(a, [2]string{"1", "23"}) == first || sum(b, [2]string{"12", "3"}) == first {
		t.Error("other files have the same sum")
	}
}

func TestAllNamesOfACertificateAreShown(t *testing.T) {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(255), DNSNames: []string{"a.example"},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/a"}}, IPAddresses: []net.IP{net.ParseIP("10.0.0.1")},
	}
	if d := describe("f", c); d.File != "f" || d.Serial != "ff" || !slices.Equal(d.Names, []string{"a.example", "spiffe://td/a", "10.0.0.1"}) {
		t.Errorf("%+v", d)
	}
}

// What waits for a peer lies in one buffer, which goes back to its pool once.
func TestWhatIsLeftIsGivenBackWhenItIsSent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	s := newSocket(nc)
	s.established.Store(true)
	sent := int64(0)
	for !s.isFull() {
		n, err := s.Write(make([]byte, 10_000))
		if err != nil {
			t.Fatal(err)
		}
		sent += int64(n)
	}
	got := make(chan int64, 1)
	go func() { n, _ := io.Copy(io.Discard, peer); got <- n }()
	if err := s.flush(); err != nil || s.left != nil || s.unsent != nil || s.isFull() {
		t.Errorf("%v, %d bytes are left in a buffer of %d", err, len(s.unsent), cap(s.left))
	}
	_ = nc.Close()
	if n := <-got; n != sent {
		t.Errorf("%d bytes of %d came", n, sent)
	}
}

package mtls_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
)

// The types of records and of messages in them (RFC 8446 §4, §5.1).
const (
	alert       = 21
	handshake   = 22
	application = 23

	clientHello = 1
	keyUpdate   = 24
)

// forger sends what crypto/tls would not, in records that are sealed as they have to be
// (RFC 8446 §5.2).
type forger struct {
	t      *testing.T
	nc     net.Conn
	suite  uint16
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// forge makes a connection with conn at the listener, and goes on in the client's place.
func forge(t *testing.T) (*mtls.Conn, *forger) {
	t.Helper()
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var keys bytes.Buffer
	peer := tls.Client(dialled, &tls.Config{RootCAs: ca.Pool(), ServerName: "app.example", MinVersion: tls.VersionTLS13, KeyLogWriter: &keys})
	done := make(chan error, 1)
	go func() { done <- peer.Handshake() }()
	conn := server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}}).Conn(accepted)
	if err := errors.Join(conn.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); _ = dialled.Close() })
	_ = accepted.(*net.TCPConn).SetWriteBuffer(1 << 12)
	f := &forger{t: t, nc: dialled, suite: peer.ConnectionState().CipherSuite}
	for line := range strings.Lines(keys.String()) {
		if words := strings.Fields(line); words[0] == "CLIENT_TRAFFIC_SECRET_0" {
			f.secret, _ = hex.DecodeString(words[2])
		}
	}
	f.key()
	return conn, f
}

// expand is HKDF-Expand-Label (RFC 8446 §7.1).
func (f *forger) expand(label string, length int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(length)) //nolint:gosec // it is small
	info = append(append(append(info, byte(len(label))), label...), 0)
	hashed := sha256.New
	if f.suite == tls.TLS_AES_256_GCM_SHA384 {
		hashed = sha512.New384
	}
	key, err := hkdf.Expand(hashed, f.secret, string(info), length)
	if err != nil {
		f.t.Fatal(err)
	}
	return key
}

// key makes the keys of the secret.
func (f *forger) key() {
	f.t.Helper()
	var err error
	if f.suite == tls.TLS_CHACHA20_POLY1305_SHA256 {
		f.aead, err = chacha20poly1305.New(f.expand("key", chacha20poly1305.KeySize))
	} else {
		size := 16
		if f.suite == tls.TLS_AES_256_GCM_SHA384 {
			size = 32
		}
		var block cipher.Block
		if block, err = aes.NewCipher(f.expand("key", size)); err == nil {
			f.aead, err = cipher.NewGCM(block)
		}
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.iv, f.seq = f.expand("iv", 12), 0
}

// record returns a record. Padding is that many zeros (RFC 8446 §5.4).
func (f *forger) record(kind byte, body []byte, padding int) []byte {
	inner := append(append(bytes.Clone(body), kind), make([]byte, padding)...)
	n := len(inner) + f.aead.Overhead()
	header := []byte{application, 3, 3, byte(n >> 8), byte(n)}
	nonce := bytes.Clone(f.iv)
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(f.seq >> (8 * i))
	}
	f.seq++
	return f.aead.Seal(header, nonce, inner, header)
}

// update returns a KeyUpdate, asks for one in return or not, and changes the keys.
func (f *forger) update(ask byte) []byte {
	record := f.record(handshake, []byte{keyUpdate, 0, 0, 1, ask}, 0)
	f.secret = f.expand("traffic upd", len(f.secret))
	f.key()
	return record
}

func (f *forger) send(records ...[]byte) {
	for _, one := range records {
		if _, err := f.nc.Write(one); err != nil {
			return // the other side has ended it, which the test sees there
		}
	}
}

// readAll reads as the codecs do, until the end.
func readAll(c *mtls.Conn) (string, error) {
	var got strings.Builder
	buf := make([]byte, 1<<10)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		var n int
		var readErr error
		err := c.Poll(func() bool {
			var wait bool
			n, wait, readErr = c.TryRead(buf)
			return !wait
		})
		got.Write(buf[:n])
		if err = errors.Join(err, readErr); err != nil {
			return got.String(), err
		}
	}
}

func many(n int, record func() []byte) []byte {
	var all []byte
	for range n {
		all = append(all, record()...)
	}
	return all
}

func TestRecordsAreTakenOrRefusedAsTLSSays(t *testing.T) {
	notify := []byte{1, 0}
	text := func(f *forger, s string) []byte { return f.record(application, []byte(s), 0) }
	for name, one := range map[string]struct {
		send func(f *forger)
		got  string
		end  string // of the error; "EOF" is a good end
	}{
		"close_notify is an end": {func(f *forger) { f.send(text(f, "hello"), f.record(alert, notify, 0)) }, "hello", "EOF"},
		"what comes behind close_notify is not read": {func(f *forger) {
			f.send(text(f, "hello"), f.record(alert, notify, 0), text(f, "more"))
		}, "hello", "EOF"},
		"the end of the stream without it is none": {func(f *forger) { f.send(text(f, "hello")); _ = f.nc.(*net.TCPConn).CloseWrite() }, "hello", "EOF"},
		"a record that is cut off": {func(f *forger) {
			r := text(f, "hello")
			f.send(r[:len(r)-1])
			_ = f.nc.(*net.TCPConn).CloseWrite()
		}, "", "unexpected EOF"},
		"a record that was changed": {func(f *forger) {
			r := text(f, "hello")
			r[len(r)-1] ^= 1
			f.send(r)
		}, "", "bad record MAC"},
		"a record that comes twice": {func(f *forger) { r := text(f, "hello"); f.send(r, r) }, "hello", "bad record MAC"},
		"padding":                   {func(f *forger) { f.send(f.record(application, []byte("hello"), 1000), f.record(alert, notify, 9)) }, "hello", "EOF"},
		"nothing but padding":       {func(f *forger) { f.send(f.record(0, nil, 100)) }, "", "unexpected message"},
		"as large as may be":        {func(f *forger) { f.send(text(f, strings.Repeat("x", 1<<14)), f.record(alert, notify, 0)) }, strings.Repeat("x", 1<<14), "EOF"},
		"larger":                    {func(f *forger) { f.send(text(f, strings.Repeat("x", 1<<14+1))) }, "", "record overflow"},
		"much larger":               {func(f *forger) { f.send(text(f, strings.Repeat("x", 1<<15))) }, "", "oversized record"},
		"a few empty records": {func(f *forger) {
			f.send(many(10, func() []byte { return text(f, "") }), text(f, "hello"), f.record(alert, notify, 0))
		}, "hello", "EOF"},
		"empty records without end": {func(f *forger) { f.send(many(1000, func() []byte { return text(f, "") })) }, "", "too many ignored records"},
		"a change of keys":          {func(f *forger) { f.send(text(f, "hel"), f.update(0), text(f, "lo"), f.record(alert, notify, 0)) }, "hello", "EOF"},
		"changes of keys without end": {func(f *forger) {
			f.send(many(1000, func() []byte { return f.update(0) }))
		}, "", "too many non-advancing records"},
		"changes of keys that ask for others without end": {func(f *forger) {
			f.send(many(1000, func() []byte { return f.update(1) }))
		}, "", "too many non-advancing records"},
		"a change of keys to nothing": {func(f *forger) { f.send(f.record(handshake, []byte{keyUpdate, 0, 0, 1, 9}, 0)) }, "", ""},
		"a second ClientHello":        {func(f *forger) { f.send(f.record(handshake, []byte{clientHello, 0, 0, 0}, 0)) }, "", ""},
		"a handshake message without end": {func(f *forger) {
			f.send(f.record(handshake, []byte{keyUpdate, 0xff, 0xff, 0xff}, 0), many(100, func() []byte { return f.record(handshake, make([]byte, 1<<14), 0) }))
		}, "", "exceeds maximum"},
		"an alert that is fatal":   {func(f *forger) { f.send(text(f, "hello"), f.record(alert, []byte{2, 40}, 0)) }, "hello", "handshake failure"},
		"alerts without end":       {func(f *forger) { f.send(many(1000, func() []byte { return f.record(alert, []byte{1, 90}, 0) })) }, "", "too many ignored records"},
		"a record that is no type": {func(f *forger) { f.send(f.record(99, []byte("x"), 0)) }, "", "unexpected message"},
		"what is not sealed":       {func(f *forger) { f.send([]byte("HTTP/1.1 200 OK\r\n\r\n")) }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn, f := forge(t)
			go one.send(f)
			got, err := readAll(conn)
			if got != one.got {
				t.Errorf("%d bytes came: %.40q", len(got), got)
			}
			if good := errors.Is(err, io.EOF); good != (one.end == "EOF") || !strings.Contains(err.Error(), one.end) {
				t.Errorf("it ends by %v", err)
			}
			if conn.Alive() {
				t.Error("it is alive")
			}
			// crypto/tls takes this for an end like any other.
			if want := name == "the end of the stream without it is none" || strings.Contains(one.end, "unexpected EOF"); conn.Truncated() != want {
				t.Errorf("truncated: %t", conn.Truncated())
			}
		})
	}
}

// Each change of keys that asks for another makes an answer, and bytes between them make it look
// like progress: what is answered must not heap up for a peer that reads nothing.
func TestAPeerThatAsksForKeysAndReadsNothingIsEnded(t *testing.T) {
	conn, f := forge(t)
	go func() {
		for {
			batch := many(64, func() []byte { return append(f.update(1), f.record(application, []byte("x"), 0)...) })
			if _, err := f.nc.Write(batch); err != nil {
				return
			}
		}
	}()
	_ = conn.SetReadDeadline(time.Now().Add(60 * time.Second))
	_, err := io.Copy(io.Discard, conn)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it goes on: %v", err)
	}
	if n, err := conn.Write([]byte("x")); n != 0 || err == nil || !strings.Contains(err.Error(), "reads nothing") {
		t.Errorf("writing says %v", err)
	}
}

package mtls_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
)

const helloRequest = 0 // RFC 5246 §7.4

// tap keeps what is read and written.
type tap struct {
	net.Conn
	in, out bytes.Buffer
	hello   []byte          // the ClientHello
	silent  <-chan struct{} // nothing is read until it is closed; nil: what comes is
}

// message returns m, or the ClientHello if there is none.
func (t *tap) message(m []byte) []byte {
	if m == nil {
		return t.hello
	}
	return m
}

func (t *tap) Read(p []byte) (int, error) {
	if t.silent != nil {
		<-t.silent
	}
	n, err := t.Conn.Read(p)
	t.in.Write(p[:n])
	return n, err
}

func (t *tap) Write(p []byte) (int, error) {
	t.out.Write(p)
	return t.Conn.Write(p)
}

// expand12 is the PRF of TLS 1.2 (RFC 5246 §5).
func expand12(secret []byte, label string, seed []byte, length int) []byte {
	mac := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, p := range parts {
			_, _ = h.Write(p) // a hash does not fail
		}
		return h.Sum(nil)
	}
	seed = append([]byte(label), seed...)
	var out []byte
	for a := mac(seed); len(out) < length; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:length]
}

// sealed12 returns what seals records of a connection of TLS 1.2 as the side would that t has
// tapped, behind its Finished (RFC 5246 §6.3, RFC 5288 §3).
func sealed12(t *testing.T, side *tap, keys string, isClient bool) func(kind byte, body []byte) []byte {
	t.Helper()
	serverHello := &side.out
	if isClient {
		serverHello = &side.in
	}
	words := strings.Fields(keys)
	if len(words) != 3 || words[0] != "CLIENT_RANDOM" {
		t.Fatalf("the keys are %q", keys)
	}
	clientRandom, _ := hex.DecodeString(words[1])
	master, _ := hex.DecodeString(words[2])
	serverRandom := serverHello.Bytes()[5+4+2:][:32] // behind the headers of record and message, and the version
	block := expand12(master, "key expansion", append(bytes.Clone(serverRandom), clientRandom...), 40)
	key, salt := block[:16], block[32:36]
	if !isClient {
		key, salt = block[16:32], block[36:40]
	}
	c, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(c)
	if err != nil {
		t.Fatal(err)
	}
	seq := uint64(1) // Finished was the first
	return func(kind byte, body []byte) []byte {
		explicit := binary.BigEndian.AppendUint64(nil, seq)
		more := append(bytes.Clone(explicit), kind, 3, 3, byte(len(body)>>8), byte(len(body)))
		n := len(explicit) + len(body) + aead.Overhead()
		record := append([]byte{kind, 3, 3, byte(n >> 8), byte(n)}, explicit...)
		seq++
		return aead.Seal(record, append(bytes.Clone(salt), explicit...), body, more)
	}
}

// connect12 makes a connection of TLS 1.2. seal makes records of the side that is not conn's.
func connect12(t *testing.T, ca *mtlstest.Authority, byClient bool) (conn *mtls.Conn, side *tap, seal func(kind byte, body []byte) []byte) {
	t.Helper()
	k, _ := newKeeper(t, 0)
	accepted, dialled := pair(t)
	var keys bytes.Buffer
	config := &tls.Config{ //nolint:gosec // a test
		Certificates: []tls.Certificate{ca.Certificate("app.example")}, RootCAs: ca.Pool(), ServerName: "app.example", KeyLogWriter: &keys,
		MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	}
	side = &tap{Conn: accepted}
	peer := tls.Server(side, config)
	if byClient {
		side.Conn = dialled
		peer = tls.Client(side, config)
	}
	done := make(chan error, 1)
	go func() { done <- peer.Handshake() }()
	var err error
	if byClient {
		conn = server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}}).Conn(accepted)
		err = conn.Handshake()
	} else {
		conn, err = client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{CA: ca.File(t.TempDir())}, SNI: "app.example"}).Handshake(context.Background(), dialled, "h")
	}
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if side.hello = side.in.Bytes(); byClient {
		side.hello = side.out.Bytes()
	}
	side.hello = side.hello[5:][:4+int(side.hello[7])<<8+int(side.hello[8])] // behind the record's header: the message's, and as much as it says
	return conn, side, sealed12(t, side, keys.String(), byClient)
}

// RFC 5246 §7.4.1.1 and §7.4.1.2 let either side ask for another handshake, which is a way to make
// the other compute, and to change who it is in the middle of what it says.
func TestANewHandshakeWithinAConnectionOfTLS12EndsIt(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	for name, one := range map[string]struct {
		byClient bool
		message  []byte // nil: the ClientHello that the connection began with
		end      string
	}{
		"a client that sends a ClientHello":            {true, nil, "unexpected handshake message"},
		"a client that sends a HelloRequest":           {true, []byte{helloRequest, 0, 0, 0}, "no renegotiation"},
		"a host that sends a HelloRequest":             {false, []byte{helloRequest, 0, 0, 0}, "no renegotiation"},
		"a host that sends a ClientHello":              {false, nil, "unexpected handshake message"},
		"a client that sends a message without an end": {true, []byte{clientHello, 0xff, 0xff, 0xff}, "exceeds maximum"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, side, seal := connect12(t, ca, one.byClient)
			_, _ = side.Write(append(seal(application, []byte("hello")), seal(handshake, side.message(one.message))...))
			got, err := readAll(conn)
			if got != "hello" || err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), one.end) {
				t.Errorf("%q comes, and it ends by %v", got, err)
			}
		})
		t.Run(name+", while it is idle", func(t *testing.T) {
			conn, side, seal := connect12(t, ca, one.byClient)
			if !conn.Alive() {
				t.Fatal("it is not alive")
			}
			_, _ = side.Write(seal(handshake, side.message(one.message)))
			soon(t, "it is dead", func() bool { return !conn.Alive() })
		})
	}
}

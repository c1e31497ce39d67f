package controlplane_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// mixed is an application that answers HTTP/1, and says again whatever else it hears. With a
// greeting it speaks first.
func mixed(t *testing.T, greeting string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_ = nc.SetDeadline(time.Now().Add(time.Minute))
			all.Go(func() {
				defer func() { _ = nc.Close() }()
				_, _ = io.WriteString(nc, greeting)
				r := bufio.NewReader(nc)
				if begin, _ := r.Peek(4); string(begin) != "GET " {
					_, _ = io.Copy(nc, r)
					return
				}
				for {
					q, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"+q.URL.Path[:4])
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// Whatever an application speaks, its sidecar is told nothing of it but auto.
func TestAnInboundPortTakesWhatIsHTTPAndWhatIsNot(t *testing.T) {
	addresses := runControlPlane(t)
	at := map[string]string{}
	for service, app := range map[string]string{"orders": mixed(t, ""), "mail": mixed(t, "220 ready\r\n")} {
		s := runSidecarWith(t, sidecar.Config{
			ControlPlane: addresses.GRPC.String(),
			Workload:     sidecar.Workload{Service: service, InstanceID: service, AppAddr: app, DetectProtocol: true},
		})
		at[service] = s.addresses.Listeners[sidecar.Inbound].String()
		eventually(t, "it is registered and well", func() bool { return registered(t, addresses, service) == service })
	}
	shop := runSidecarWith(t, sidecar.Config{ControlPlane: addresses.GRPC.String(), Workload: sidecar.Workload{Service: "shop"}})
	opaque := func(service, says, hears string) {
		c, err := net.Dial("tcp", at[service])
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(c, says)
		got := make([]byte, len(hears))
		if n, err := io.ReadFull(c, got); err != nil || string(got) != hears {
			t.Errorf("%s: %q, %v, want %q", service, got[:n], err, hears)
		}
	}
	for range 2 {
		opaque("mail", "", "220 ready\r\n")
		opaque("mail", "EHLO\r\n", "220 ready\r\nEHLO\r\n")
		opaque("orders", "\x00\x01\x02\x03", "\x00\x01\x02\x03")
		for _, url := range []string{"http://" + shop.addresses.Listeners[sidecar.Outbound].String(), "http://" + at["orders"]} {
			q, err := http.NewRequest("GET", url+"/abc", strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			q.Host = "orders"
			a, err := http.DefaultClient.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(a.Body); a.StatusCode != 200 || string(body) != "/abc" {
				t.Errorf("%s: %d %q, %v", url, a.StatusCode, body, err)
			}
			_ = a.Body.Close()
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// tcpSuite is the relay of connections. In bulk a response is a megabyte, of 10⁶ bytes, so that CPU µs
// for one are CPU ms for a GB.
func tcpSuite() suite {
	bars := []bar{{than: "haproxy", must: 1.1, aim: 1}}
	relay := proxy{name: "fairlead", title: "Fairlead", version: []string{"--version"}, chain: []program{sidecar("tcp/fairlead.yaml")}, verify: verifyRelay}
	return suite{
		name: "tcp", title: "TCP", unit: "CPU µs/ping-pong, ms/GB", rate: "ping-pongs/s, MB/s",
		backend:   program{binary: "bench", config: "tcp/backend.txt", args: []string{tcpServe, "{config}"}},
		generator: "bench",
		proxies: []proxy{
			relay,
			haproxy("tcp/haproxy.cfg"),
			envoy("tcp/envoy.yaml"),
		},
		subject: "fairlead", reference: "haproxy", right: "as long as they were to be",
		workloads: []workload{
			{name: "pingpong-32c-100B", connections: 32, streams: 1, body: 100, bars: bars},
			{name: "bulk-4c", connections: 4, streams: 1, body: megabyte, streamed: true, bars: bars},
		},
		probe: probeTCP,
		load:  runTCP,
	}
}

const megabyte = 1_000_000

// verifyRelay wants the metrics of the connections.
func verifyRelay(ctx context.Context, chain []setting) error {
	metrics, _, err := getHTTP1(ctx, chain[0].Admin, "/stats/prometheus")
	if err != nil {
		return err
	}
	return errors.Join(verifyCounted(metrics, "fairlead_tcp_connections_opened_total"), verifyCounted(metrics, "fairlead_tcp_sent_bytes_total"))
}

// The first byte of a connection says what the service is to do with it.
const (
	askEcho = 'e' // send back what comes
	askBulk = 'b' // send zeros until the connection ends
)

// serveTCP serves on the addresses of a file until ctx ends.
func serveTCP(ctx context.Context, args []string, _ io.Writer) error {
	addresses, err := addressesOf(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var serving sync.WaitGroup
	defer serving.Wait()
	for _, address := range addresses {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		serving.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					cancel(err)
					return
				}
				serving.Go(func() { answerTCP(ctx, conn) })
			}
		})
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, ctx.Err()) {
		return err
	}
	return nil
}

// answerTCP does what the connection asks for, until its end or that of ctx.
func answerTCP(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	buffer := make([]byte, 256<<10)
	if _, err := io.ReadFull(conn, buffer[:1]); err != nil {
		return
	}
	bulk := buffer[0] == askBulk
	clear(buffer)
	for {
		n := len(buffer)
		if !bulk {
			var err error
			if n, err = conn.Read(buffer); err != nil {
				return
			}
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			return // the load has what it wants
		}
	}
}

// tcpWork is a closed loop over connections.
type tcpWork struct {
	target      string
	connections int  // at least 1
	message     int  // bytes of a ping and of its pong, or of what is read in bulk before it counts
	bulk        bool // read what the service sends; else send a message and wait for it
}

// probeTCP makes a connection and wants one response on it.
func probeTCP(ctx context.Context, port int, w workload) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	l, err := tcpWork{target: local(port), connections: 1, message: w.body, bulk: w.streamed}.run(ctx, 0)
	if err == nil && l.Requests < 1 {
		err = errors.New("no response")
	}
	return int64(w.body), err
}

// run goes on until d is over, and waits for the responses that are under way then; 0 is one each.
func (w tcpWork) run(ctx context.Context, d time.Duration) (load, error) {
	l, err := closedLoops(ctx, w.connections, d, w.loop)
	l.Bytes = l.Requests * int64(w.message)
	return l, err
}

// loop counts the responses on a connection of its own.
func (w tcpWork) loop(ctx context.Context, until time.Time, n *int64) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.target)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	ask := byte(askEcho)
	if w.bulk {
		ask = askBulk
	}
	if _, err := conn.Write([]byte{ask}); err != nil {
		return err
	}
	ping := bytes.Repeat([]byte("0123456789"), w.message/10)
	pong := make([]byte, w.message)
	for ok := true; ok; ok = time.Now().Before(until) {
		if w.bulk {
			clear(ping) // what comes is zeros
		} else if _, err := conn.Write(ping); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, pong); err != nil {
			return fmt.Errorf("after %d responses: %w", *n, err)
		}
		if !bytes.Equal(ping, pong) {
			return errors.New("other bytes came than were sent")
		}
		*n++
	}
	return nil
}

// runTCP drives the connections from a process with one core.
func runTCP(ctx context.Context, t tools, cores string, port int, w workload, d time.Duration) (load, error) {
	var l load
	err := t.runRole(ctx, cores, &l, tcpLoad, "-target", local(port), "-connections", strconv.Itoa(w.connections),
		"-message", strconv.Itoa(w.body), "-bulk="+strconv.FormatBool(w.streamed), "-duration", d.String())
	return l, err
}

// loadTCP works as its flags say, and writes the load as JSON.
func loadTCP(ctx context.Context, args []string, out io.Writer) error {
	var w tcpWork
	set := flag.NewFlagSet(tcpLoad, flag.ContinueOnError)
	set.SetOutput(io.Discard) // the error says it
	set.StringVar(&w.target, "target", "", "")
	set.IntVar(&w.connections, "connections", 1, "")
	set.IntVar(&w.message, "message", 10, "")
	set.BoolVar(&w.bulk, "bulk", false, "")
	d := set.Duration("duration", 0, "")
	if err := set.Parse(args); err != nil {
		return err
	}
	l, err := w.run(ctx, *d)
	if err != nil {
		return err
	}
	return writeLoad(out, l)
}

package tcp

import (
	"bytes"
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/sniff"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// dialDelay is how long a client may be silent, where others have spoken HTTP or TLS, until the
// host of what is not HTTP is connected to all the same.
const dialDelay = time.Second

// past is a deadline that ends what waits.
func past() time.Time { return time.Unix(1, 0) }

// look is what a client's first bytes are looked at with. They stay where they are.
type look struct {
	config *Config
	seen   *seen

	done  bool // it is known what they are
	hello bool // they are a part of a ClientHello
	gone  bool // the client broke the connection, or said nothing before it ended it
	err   error
}

// at looks at what has come. It reports whether there is nothing to wait for any more.
func (l *look) at(fd uintptr) bool {
	buf := sockio.Get(sniff.MaxHello)
	defer sockio.Put(buf)
	n, errno := sockio.Peek(fd, buf)
	for errno == syscall.EINTR {
		n, errno = sockio.Peek(fd, buf)
	}
	switch {
	case errno == syscall.EAGAIN:
		return false
	case errno != 0:
		l.gone = true
		return true
	case n <= 0:
		l.done = true
		return true
	}
	l.judge(buf[:n])
	if !l.done && l.err == nil && sockio.HasEnded(fd) { // what there is will not become more
		l.gone, l.done = l.hello, !l.hello
	}
	return l.over()
}

// over reports whether there is nothing to wait for any more.
func (l *look) over() bool { return l.done || l.gone || l.err != nil }

// judge decides what the first bytes are, if they suffice.
func (l *look) judge(data []byte) {
	l.hello = false
	if l.config.TLS {
		hello, err := sniff.Parse(data)
		switch {
		case err == nil:
			l.done, l.seen.tls, l.seen.server = true, true, bytes.Clone(hello.ServerName)
			for name := range hello.Protocols() {
				l.seen.protocols = append(append(l.seen.protocols, byte(len(name))), name...)
			}
			return
		case errors.Is(err, sniff.ErrShort):
			l.hello = true
			return
		case !errors.Is(err, sniff.ErrNotTLS):
			l.err = err
			return
		}
	}
	if l.config.HTTP {
		speech, err := sniff.HTTP(data)
		switch {
		case err != nil:
			return
		case speech == sniff.HTTP1:
			l.seen.protocols = []byte("\x08http/1.1\x08http/1.0")
		case speech == sniff.HTTP2:
			l.seen.protocols = []byte("\x03h2c")
		}
	}
	l.done = true
}

// ahead is a connection to the host of what is neither TLS nor HTTP, made while it is not
// known yet whether the client's is that.
type ahead struct {
	decided chan struct{} // closed once it is known, with Conn.mu
	over    chan struct{} // closed by its goroutine, after which the rest is for all
	spoke   bool          // the host did, before the client
	gone    bool          // the host has ended the connection meanwhile
	failed  cause
}

// inspect finds out what the connection is, and so its route: by what the client says, or by
// the host that opaque bytes would go to, if it speaks first. It reports whether there is one.
func (c *Conn) inspect() bool {
	config := &c.relay.config
	switch {
	case config.Find != nil:
		return c.await()
	case !config.TLS && !config.HTTP:
		c.route = config.Routes.find(&c.said)
		return c.isRouted()
	}
	if c.client.raw == nil {
		c.fail(cause{reason.BadPreface, "the connection is none of a socket, whose bytes can be looked at"})
		return false
	}
	known := c.relay.answers.get(c.destination, config.Clock())
	l := look{config: config, seen: &c.said}
	_ = c.client.net.SetReadDeadline(time.Now().Add(config.PrefaceTimeout)) // fails only on a closed one
	err := c.client.raw.Control(func(fd uintptr) { l.at(fd) })
	a := &ahead{decided: make(chan struct{}), over: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	opaque := c.relay.opaque
	waits := err == nil && !l.over()
	if waits && opaque != nil {
		go c.connectAhead(ctx, opaque, known, a)
	} else {
		close(a.over)
	}
	if waits {
		err = c.client.raw.Read(l.at)
	}
	c.route = config.Routes.find(&c.said)
	c.join(a, cancel)
	_ = c.client.net.SetReadDeadline(time.Time{})
	if c.conclude(&l, a, known, err) && c.isRouted() {
		return true
	}
	c.route = nil
	if c.upstream.net != nil {
		c.disconnect()
	}
	return false
}

// join waits for the goroutine that connects ahead. What it has is kept if it is for the
// route.
func (c *Conn) join(a *ahead, cancel context.CancelFunc) {
	keep := c.route != nil && c.route == c.relay.opaque
	c.mu.Lock()
	close(a.decided)
	if !keep {
		cancel()
	}
	if c.upstream.net != nil {
		_ = c.upstream.net.SetReadDeadline(past())
	}
	c.mu.Unlock()
	<-a.over
	if c.upstream.net == nil {
		return
	}
	if !keep || a.gone {
		c.disconnect()
		return
	}
	_ = c.upstream.net.SetReadDeadline(time.Time{})
}

// conclude says what was found out, and remembers it. It reports whether the connection goes
// on.
func (c *Conn) conclude(l *look, a *ahead, known answer, err error) bool {
	now := c.relay.config.Clock()
	switch {
	case l.err != nil:
		c.fail(cause{reason.BadPreface, l.err.Error()})
		return false
	case l.gone || c.isOver():
		c.fail(cause{why: reason.ClientGone})
		return false
	case l.done && c.route != c.relay.opaque:
		c.relay.answers.learn(c.destination, notOpaque, now)
	case l.done:
		if known == notOpaque {
			c.relay.answers.learn(c.destination, unanswered, now)
		}
	case a.spoke:
		c.relay.answers.learn(c.destination, serverFirst, now)
	case a.failed.why != reason.None && known == serverFirst:
		c.fail(a.failed)
		return false
	case !errors.Is(err, os.ErrDeadlineExceeded):
		c.fail(cause{why: reason.ClientGone})
		return false
	case c.relay.config.Continue || known == serverFirst && c.upstream.net != nil:
		// Whoever says nothing may go on saying nothing.
	default:
		c.fail(cause{why: reason.BadPreface})
		return false
	}
	return true
}

func (c *Conn) isRouted() bool {
	if c.route == nil {
		c.fail(cause{why: reason.NoFilterChain})
	}
	return c.route != nil
}

// connectAhead connects to a host and waits for its first byte, until it is decided what the
// client's connection is. Where the last was HTTP or TLS it lets the client begin.
func (c *Conn) connectAhead(ctx context.Context, route *Route, known answer, a *ahead) {
	defer close(a.over)
	if known == notOpaque {
		t := time.NewTimer(dialDelay)
		defer t.Stop()
		select {
		case <-a.decided:
			return
		case <-t.C:
		}
	}
	a.failed = c.connect(ctx, route)
	if a.failed.why != reason.None {
		if known == serverFirst {
			_ = c.client.net.SetReadDeadline(past()) // who waits for it need not wait longer
		}
		return
	}
	if !c.introduce(route) {
		a.gone = true
		return
	}
	select {
	case <-a.decided:
		return
	default:
	}
	err := c.hearHost() // ends by the deadline that join sets
	a.spoke, a.gone = err == nil, err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	if !a.spoke {
		return
	}
	if known != serverFirst { // a client that speaks TLS or HTTP may be about to
		t := time.NewTimer(c.relay.config.Grace)
		defer t.Stop()
		select {
		case <-a.decided:
			return
		case <-t.C:
		}
	}
	_ = c.client.net.SetReadDeadline(past())
}

// hearHost waits until the host has said something. What of that is read, as TLS has to be
// for that, is the first that is sent to the client.
func (c *Conn) hearHost() error {
	if secure, ok := c.upstream.net.(*mtls.Conn); ok {
		return c.out.poll(secure)
	}
	return sockio.Await(c.upstream.net.(syscall.Conn))
}

// disconnect gives a connection to a host up that was made for nothing.
func (c *Conn) disconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.upstream.net.Close()
	c.out.release() // what it has said
	c.host.Disconnected()
	c.attempt.Done(breaker.Ignored, c.relay.config.Clock())
	c.upstream, c.attempt, c.host, c.introduced = end{}, upstream.Attempt{}, nil, false
	c.retries, c.connectTime = 0, 0
}

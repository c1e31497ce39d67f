package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// changeEvery is how often the configuration changes.
const changeEvery = 100 * time.Millisecond

// changes changes policies and registrations through the API, and the certificates of the
// sidecars that serve bootstrap files, until it is stopped.
type changes struct {
	world  *world
	ledger *ledger
}

// begin makes what there is before anything begins: no timeout for what is long, and breakers that
// heal fast.
func (c *changes) begin() error {
	var faults []error
	for _, service := range []string{web, rpc, cache, steady, steadyRPC, steadyCache} {
		faults = append(faults, c.call(http.MethodPut, policyOf(service), `{"requestTimeout":"0s",`+breakers(3)+`}`))
	}
	return errors.Join(faults...)
}

// breakers let an instance be used again soon after it has come back: before another one is
// broken.
func breakers(failures int) string {
	return fmt.Sprintf(`"breaker":{"consecutiveFailures":%d,"openTime":"0.5s","maxOpenTime":"1s"}`, failures)
}

// run changes one thing after the other until ctx ends, and then takes out what it has put in.
func (c *changes) run(ctx context.Context) {
	ticker := time.NewTicker(changeEvery)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			c.clear()
			return
		case <-ticker.C:
		}
		c.change(n)
	}
}

// balancing are the policies that take turns.
var balancing = [...]string{"LEAST_REQUEST", "ROUND_ROBIN", "RANDOM", "WEIGHTED_ROUND_ROBIN"} //nolint:gochecknoglobals // a constant

// change makes the nth change. Those of a kind come every 800 ms, so that a registration stays
// for as long.
func (c *changes) change(n int) {
	turn := n / 8
	policy := balancing[turn%len(balancing)]
	breaker := breakers(3 + turn%3)
	// Long responses are longer than any timeout.
	endless := fmt.Sprintf(`{"loadBalancing":%q,"requestTimeout":"0s",%s}`, policy, breaker)
	switch n % 8 {
	case 0:
		c.put(web, fmt.Sprintf(`{"loadBalancing":%q,"requestTimeout":"0s",%s}`, policy, breaker))
	case 1:
		c.registration(steady, "http", "HTTP", c.world.ports.http, turn%2 == 0)
	case 2:
		c.put(rpc, fmt.Sprintf(`{"loadBalancing":%q,"requestTimeout":"%ds",%s}`, policy, 10+turn%10, breaker))
	case 3:
		c.registration(fmt.Sprintf("passing-%d", turn/2%20), "http", "HTTP", c.world.ports.http, turn%2 == 0)
	case 4:
		c.put(steady, endless)
	case 5:
		c.registration(steadyRPC, "grpc", "GRPC", c.world.ports.grpc, turn%2 == 0)
	case 6:
		c.put(steadyRPC, endless)
	default:
		if turn%8 == 0 {
			c.certificates()
		}
		c.registration(web, "http", "HTTP", c.world.ports.http, turn%2 == 1)
	}
}

// clear takes the registrations out.
func (c *changes) clear() {
	for _, service := range []string{steady, steadyRPC, web} {
		c.registration(service, "", "", "", false)
	}
}

// registration puts in, or takes out, the application without a sidecar as another instance of a
// service.
func (c *changes) registration(service, name, protocol, port string, in bool) {
	path := "/v1/namespaces/default/services/" + service + "/instances"
	if in {
		c.do("registration", http.MethodPost, path, fmt.Sprintf(`{"id":"extra","address":%q,"ports":[{"name":%q,"number":%s,"protocol":%q}],"ttl":"60s"}`,
			extraAddress, name, port, protocol))
		return
	}
	c.do("deregistration", http.MethodDelete, path+"/extra", "")
}

func (c *changes) put(service, policy string) {
	c.do("policy", http.MethodPut, policyOf(service), policy)
}

func policyOf(service string) string { return "/v1/namespaces/default/services/" + service + "/policy" }

// do calls the API. While the control plane is down or frozen, it may fail; and what was not put
// in then cannot be taken out afterwards.
func (c *changes) do(kind, method, path, body string) {
	f := failure{kind: "change: " + kind, began: time.Now()}
	err := c.call(method, path, body)
	switch {
	case err == nil:
		c.ledger.succeeded(f.kind, 1)
	case c.ledger.disturbed(f.began.Add(-time.Second)):
		c.ledger.succeeded("change that the control plane was not there for", 1)
	default:
		c.ledger.failed(f, err)
	}
}

// call calls the API. What is to be taken out and is not there is no error.
func (c *changes) call(method, path, body string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+c.world.http+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = a.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(a.Body, 4<<10))
	if a.StatusCode == http.StatusNotFound && method == http.MethodDelete {
		return err
	}
	if err == nil && a.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, a.Status, text)
	}
	return err
}

// certificates replaces those of the sidecars that serve bootstrap files.
func (c *changes) certificates() {
	if err := c.world.authority.Write(c.world.dir, serverName); err != nil {
		c.ledger.failed(failure{kind: "change: certificate", began: time.Now()}, err)
		return
	}
	c.ledger.succeeded("change: certificate", 1)
}

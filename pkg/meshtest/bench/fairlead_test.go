package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestFairleadIsMeasuredOnlyWithItsBreakersAndBalancing(t *testing.T) {
	host := func(breaker string, requests, failures int) string {
		return fmt.Sprintf(`{"breaker":%q,"rq_total":%d,"rq_error":%d}`, breaker, requests, failures)
	}
	for _, c := range []struct{ name, a, b, want string }{
		{"as it should be", host("closed", 1000, 0), host("closed", 1001, 0), ""},
		{"no breaker", host("", 1000, 0), host("closed", 1000, 0), `a breaker is ""`},
		{"an open breaker", host("closed", 1000, 0), host("open", 1000, 9), `a breaker is "open" after 9 failures`},
		{"one backend idle", host("closed", 2000, 0), host("closed", 3, 0), "it does not balance"},
		{"the other one", host("closed", 3, 0), host("closed", 2000, 0), "it does not balance"},
	} {
		err := verifyHosts([]byte(`{"cluster_statuses":[{"host_statuses":[`+c.a+","+c.b+`]}]}`), 2)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for _, data := range []string{"", "{}", `{"cluster_statuses":[{"host_statuses":[]}]}`} {
		if err := verifyHosts([]byte(data), 2); err == nil {
			t.Errorf("%q passes", data)
		}
	}
}

func TestFairleadIsMeasuredOnlyWithMetrics(t *testing.T) {
	if err := verifyMetrics([]byte("# TYPE fairlead_requests_total counter\nfairlead_requests_total{code=\"200\"} 5\n")); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", "# TYPE fairlead_requests_total counter\n", "fairlead_requests_total{code=\"200\"} 0\n"} {
		if err := verifyMetrics([]byte(text)); err == nil {
			t.Errorf("%q passes", text)
		}
	}
}

func TestTheMeshIsMeasuredOnlyIfItMultiplexes(t *testing.T) {
	for idle, want := range map[int]bool{0: false, 1: true, 8: true, 9: false, 32: false} {
		err := verifyMultiplexed(fmt.Appendf(nil, `{"cluster_statuses":[{"host_statuses":[{"cx_idle":%d}]}]}`, idle))
		if (err == nil) != want {
			t.Errorf("%d connections: %v", idle, err)
		}
	}
	if err := verifyMultiplexed([]byte("{}")); err == nil {
		t.Error("no cluster passes")
	}
}

package main

import (
	"errors"
	"testing"
	"time"
)

func TestOnlyWhatTheRulesPermitIsExplained(t *testing.T) {
	zero := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return zero.Add(time.Duration(seconds * float64(time.Second))) }
	killed := event{at: at(10), lost: at(10.5), until: at(12), what: "killed", service: web, instance: "web-1", kills: true}
	app := killed
	app.app = true
	left := event{at: at(10), lost: at(11), until: at(13), what: "left", service: web, instance: "web-1", stops: true, app: true}
	leftRPC := event{at: at(10), lost: at(11), until: at(13), what: "left", service: rpc, instance: "rpc-1", stops: true, app: true}
	stopped := event{at: at(10), lost: at(13), until: at(14), what: "stopped", service: web, instance: "web-1", stops: true}
	frozen := event{at: at(10), until: at(14), what: "frozen", service: web, instance: "web-1"}
	for name, c := range map[string]struct {
		failure failure
		event   event
		want    bool
	}{
		"a POST under way at an instance that is killed":                 {failure{began: at(9.9), at: at(10.1), service: web, reason: "upstream_reset"}, killed, true},
		"a POST under way at one that drains":                            {failure{began: at(9.9), at: at(10.1), service: web, reason: "upstream_reset"}, stopped, false},
		"a POST under way at one that is frozen":                         {failure{began: at(9.9), at: at(10.1), service: web, reason: "upstream_reset"}, frozen, false},
		"a POST under way at another service":                            {failure{began: at(9.9), at: at(10.1), service: rpc, reason: "upstream_reset"}, killed, false},
		"a POST under way at another instance":                           {failure{began: at(9.9), at: at(10.1), service: web, instance: "web-2", reason: "upstream_reset"}, killed, false},
		"a POST that began long after":                                   {failure{began: at(15), at: at(15.1), service: web, reason: "upstream_reset"}, killed, false},
		"a POST that ended before":                                       {failure{began: at(9), at: at(9.9), service: web, reason: "upstream_reset"}, killed, false},
		"a POST that could not be connected":                             {failure{began: at(9.9), at: at(10.1), service: web, reason: "connect_failed"}, killed, false},
		"a POST without a reason":                                        {failure{began: at(9.9), at: at(10.1), service: web}, killed, false},
		"a small POST that is not delivered":                             {failure{began: at(11), at: at(11.1), service: web, reason: "not_delivered"}, app, false},
		"a large POST that is not delivered":                             {failure{began: at(11), at: at(11.1), service: web, reason: "not_delivered", large: true}, app, true},
		"a large POST that is not delivered when it is back":             {failure{began: at(15), at: at(15.1), service: web, reason: "not_delivered", large: true}, app, false},
		"a GET under way at an instance that is killed":                  {failure{began: at(9.9), at: at(10.1), service: web, reason: "upstream_reset", idempotent: true}, killed, false},
		"a GET whose response had begun":                                 {failure{began: at(9.9), at: at(10.1), service: web, instance: "web-1", idempotent: true, begun: true}, killed, true},
		"other bytes through it":                                         {failure{began: at(1), at: at(13), service: web, instance: "web-1", begun: true, wrong: true}, killed, false},
		"a long stream through it":                                       {failure{began: at(1), at: at(13), service: web, instance: "web-1", begun: true}, killed, true},
		"a long stream through another":                                  {failure{began: at(1), at: at(13), service: web, instance: "web-2", begun: true}, killed, false},
		"a long stream that breaks when its time to end is over":         {failure{began: at(1), at: at(13.5), service: web, instance: "web-1", begun: true}, stopped, true},
		"a long stream that breaks and is seen late":                     {failure{began: at(1), at: at(25), service: web, instance: "web-1", begun: true}, stopped, true},
		"a large POST that a killed sidecar does not deliver":            {failure{began: at(11), at: at(11.1), service: web, reason: "not_delivered", large: true}, killed, false},
		"a POST on a connection that an application closes as it leaves": {failure{began: at(10), at: at(10.1), service: web, reason: "upstream_reset"}, left, true},
		"a call on a connection that an application closes as it leaves": {failure{began: at(10), at: at(10.1), service: rpc, reason: "upstream_reset"}, leftRPC, false},
		"a relayed connection to an application that is killed":          {failure{began: at(1), at: at(13), service: web, instance: "web-1", begun: true, direct: true}, app, true},
		"a relayed connection when a sidecar is killed":                  {failure{began: at(1), at: at(13), service: web, instance: "web-1", begun: true, direct: true}, killed, false},
		"a connection of TCP that begins while an application is down":   {failure{began: at(11), at: at(11.1), service: web, begun: true, relayed: true}, app, true},
		"one that begins when it is back":                                {failure{began: at(15), at: at(15.1), service: web, begun: true, relayed: true}, app, false},
		"one that begins while a sidecar is down":                        {failure{began: at(13), at: at(13.1), service: web, begun: true, relayed: true}, killed, false},
		"one that goes directly to an application that is down":          {failure{began: at(13), at: at(13.1), service: web, begun: true, direct: true}, app, false},
		"a long stream through one that is frozen":                       {failure{began: at(1), at: at(12), service: web, instance: "web-1", begun: true}, frozen, false},
	} {
		t.Run(name, func(t *testing.T) {
			why, got := explain(c.failure, []event{c.event})
			if got != c.want || got && why != c.event.what {
				t.Errorf("explained %t, by %q, want %t", got, why, c.want)
			}
		})
	}
}

func TestLedgerSortsWhatFailedByKind(t *testing.T) {
	l := newLedger()
	lost, over := l.began(event{what: "SIGKILL", service: web, instance: "web-1", kills: true})
	lost()
	l.succeeded("POST", 3)
	l.failed(failure{kind: "POST", began: time.Now(), service: web, reason: "upstream_reset"}, errors.New("502"))
	l.failed(failure{kind: "POST", began: time.Now(), service: web, reason: "connect_failed"}, errors.New("503"))
	over()
	tallies, unexplained := l.judge()
	if len(tallies) != 1 || tallies[0].Succeeded != 3 || tallies[0].Explained["upstream_reset upon SIGKILL"] != 1 || tallies[0].Unexplained != 1 {
		t.Errorf("%+v", tallies)
	}
	if len(unexplained) != 1 {
		t.Errorf("%q", unexplained)
	}
}

func TestChangesMayFailOnlyWhileTheControlPlaneIsNotItself(t *testing.T) {
	l := newLedger()
	_, _ = l.began(event{what: "SIGKILL", service: web, instance: "web-1", kills: true})
	if l.disturbed(time.Now()) {
		t.Error("an instance was taken for the control plane")
	}
	_, over := l.began(event{what: "SIGSTOP of the control plane"})
	if !l.disturbed(time.Now()) {
		t.Error("it is frozen, and was taken for well")
	}
	over()
	if l.disturbed(time.Now().Add(2 * slack)) {
		t.Error("it is well again, and was taken for frozen")
	}
}

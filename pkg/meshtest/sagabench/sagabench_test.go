package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
)

func TestASampleIsOfTheSagasThatEndedWithinIt(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	begin := reading{at: at(1), usage: measure.Usage{CPU: time.Second}, stats: stats{Calls: 100, Took: time.Second}}
	end := reading{at: at(3), usage: measure.Usage{CPU: 3 * time.Second, RSS: 7}, stats: stats{Calls: 112, Took: time.Second + 12*time.Millisecond}}
	all := []carried{
		{at: at(0.9), took: time.Hour}, // during the warm-up
		{at: at(1.5), took: 30 * time.Millisecond}, {at: at(2), took: 60 * time.Millisecond}, {at: at(2.1), took: 90 * time.Millisecond}, {at: at(2.9), took: 300 * time.Millisecond},
		{at: at(2.5), took: time.Millisecond, err: errors.New("refused")},
		{at: at(3.1), took: time.Hour},
	}
	got, err := sampleOf(begin, end, 2, all)
	want := sample{Clients: 2, Sagas: 4, Failed: 1, PerSecond: 2, OverheadP50: 60./3 - 1, OverheadP99: 90./3 - 1, CPUPerSaga: 500_000, ParticipantsUS: 1000, RSS: 7}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	failed := carried{at: at(2), err: errors.New("refused")}
	if _, err := sampleOf(begin, end, 2, append(all, failed, failed)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("more failed than there are clients: %v", err)
	}
	if _, err := sampleOf(begin, end, 2, nil); err == nil {
		t.Error("there is a sample of no sagas")
	}
	if _, err := sampleOf(begin, reading{at: end.at, stats: begin.stats}, 1, all); err == nil || !strings.Contains(err.Error(), "calls") {
		t.Errorf("sagas without calls: %v", err)
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	var samples []sample
	for round, slow := range []float64{1, 2, 4} { // of a machine that gets slower
		for _, s := range []struct {
			name string
			rate float64
		}{{nameFairlead, 3000}, {nameDTM, 1000}} {
			samples = append(samples, sample{System: s.name, Clients: barClients, Round: round + 1, Sagas: 10, PerSecond: s.rate / slow, CPUPerSaga: 1e6 / s.rate * slow, RSS: 50e6})
		}
	}
	r := result{Figures: summarize(samples), Rounds: 3, Recovery: &recovery{Open: 10, Called: 3.5}, Flood: &flood{Submitted: 5, Accepted: 3, Refused: 2}}
	f := r.Figures[0]
	if len(r.Figures) != 2 || f.System != nameFairlead || f.Sagas != 30 || f.Ratios[nameDTM] != (measure.Spread{Median: 3, Min: 3, Max: 3}) || f.PerSecond.Median != 1500 {
		t.Errorf("%+v", r.Figures)
	}
	text := markdown(&r)
	for _, want := range []string{"| 256 | 3.00 (3.00–3.00) | – |", "≥ 2: met | ≥ 5: **missed** |", "3.50 s (must ≤ 3s: **missed**)", "3 were taken, and every one of them completed; 2 were refused"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestStatesAreReadFromMetrics(t *testing.T) {
	got, err := statesIn("# HELP fairlead_sagas x\nfairlead_sagas{state=\"running\"} 3\nfairlead_sagas{state=\"completed\"} 1e+04\nfairlead_saga_shards 8\n")
	if err != nil || len(got) != 2 || got["running"] != 3 || got["completed"] != 10_000 {
		t.Error(got, err)
	}
	if got, err := statesIn("fairlead_sagas{state=\"running\"} x\n"); err == nil {
		t.Error(got)
	}
}

func TestParticipantsTellWhoWasCalledByWhichCoordinator(t *testing.T) {
	p := &participants{seen: map[string]string{}, busy: true}
	call := func(handler http.HandlerFunc, key, fence string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
		r.Header.Set("Idempotency-Key", key)
		r.Header.Set("Saga-Fence", fence)
		w := httptest.NewRecorder()
		handler(w, r)
		return w
	}
	if w := call(p.maybe, "a/b/action", "7"); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Error(w.Code, w.Header())
	}
	p.busy = false
	call(p.maybe, "a/b/action", "9")
	if w := call(p.maybe, "c/b/action", "9"); w.Code != http.StatusOK {
		t.Error(w.Code)
	}
	if w := call(p.act, "a/a/action", "7"); w.Code != http.StatusOK || w.Body.String() != `{"id":42}` {
		t.Error(w.Code, w.Body)
	}
	w := httptest.NewRecorder()
	p.stats(w, nil)
	if !strings.Contains(w.Body.String(), `"calls":4`) || !strings.Contains(w.Body.String(), `"keys":{"9":2}`) {
		t.Error(w.Body)
	}
}

func TestFlagsThatCannotBeMeantAreRefused(t *testing.T) {
	for _, args := range [][]string{{"x"}, {"-rounds", "0"}, {"-duration", "1ms"}, {"-clients", "1,x"}, {"-parts", "all"}, {"-systems", "seata"}, {"-open", "0"}, {"-work", "-1s"}} {
		var out bytes.Buffer
		if code := execute(args, &out, &out); code != 2 || out.Len() == 0 {
			t.Errorf("%v: %d, %s", args, code, out.String())
		}
	}
	var out bytes.Buffer
	if code := execute([]string{"-help"}, &out, &out); code != 0 || !strings.Contains(out.String(), "Systems: fairlead, dtm, dtm-sync.") {
		t.Error(code, out.String())
	}
}

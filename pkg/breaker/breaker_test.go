package breaker

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOpensByFailuresInARow(t *testing.T) {
	t.Parallel()
	b := mustNew(t, plain())
	for range 10 { // a success ends the row, an ignored outcome does not lengthen it
		send(t, b, Failure, 0)
		send(t, b, Ignored, 0)
		send(t, b, Success, 0)
	}
	mustBe(t, b, Closed, 0)
	send(t, b, Failure, 0)
	send(t, b, Ignored, 0)
	send(t, b, Failure, 0)
	mustBe(t, b, Open, 0)
	mustRefuse(t, b, 99*ms)
	if got := b.ReadyAt(); got != 100*ms {
		t.Errorf("ready at %d, want 100 ms", got)
	}
}

func TestOpensByRatioFromMinimumVolumeOn(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name                string
		successes, failures int
		want                State
	}{
		{"all fail, one short of the minimum", 0, 9, Closed},
		{"all fail, minimum reached", 0, 10, Open},
		{"just below the ratio", 11, 10, Closed},
		{"at the ratio", 10, 10, Open},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := mustNew(t, byRatio())
			for range tc.successes {
				send(t, b, Success, 0)
			}
			for range tc.failures {
				send(t, b, Failure, 0)
			}
			mustBe(t, b, tc.want, 0)
		})
	}
}

func TestRatioForgetsWhatLeftTheWindow(t *testing.T) {
	t.Parallel()
	b := mustNew(t, byRatio())
	for i := range 9 {
		send(t, b, Failure, int64(i)*100*ms) // one in each of nine buckets
	}
	send(t, b, Failure, 1000*ms) // the first has left: nine again
	mustBe(t, b, Closed, 1000*ms)
	send(t, b, Failure, 1001*ms)
	mustBe(t, b, Open, 1001*ms)
}

func TestIdleGapForgetsEverything(t *testing.T) {
	t.Parallel()
	b := mustNew(t, byRatio())
	for range 9 {
		send(t, b, Failure, 0)
	}
	send(t, b, Failure, 3600*1000*ms)
	mustBe(t, b, Closed, 3600*1000*ms)
	if s := b.Snapshot(3600 * 1000 * ms); s.WindowRequests != 1 || s.WindowFailures != 1 {
		t.Errorf("%+v", s)
	}
}

func TestClosingForgetsTheEvidence(t *testing.T) {
	t.Parallel()
	b := mustNew(t, byRatio())
	for range 10 {
		send(t, b, Failure, 0)
	}
	send(t, b, Success, 100*ms) // the probe
	mustBe(t, b, Closed, 100*ms)
	send(t, b, Failure, 100*ms)
	mustBe(t, b, Closed, 100*ms)
	if s := b.Snapshot(100 * ms); s.WindowRequests != 1 {
		t.Errorf("%+v", s)
	}
}

func TestOpenTimeDoublesUpToTheCap(t *testing.T) {
	t.Parallel()
	c := plain()
	c.MaxOpenTime = 700 * time.Millisecond // which doubling does not hit
	b := mustNew(t, c)
	trip(t, b, 0)
	now := int64(0)
	for i, want := range []int64{100, 200, 400, 700, 700, 700} {
		if got := b.ReadyAt() - now; got != want*ms {
			t.Fatalf("opening %d lasts %d ms, want %d", i+1, got/ms, want)
		}
		mustRefuse(t, b, b.ReadyAt()-1)
		now = b.ReadyAt()
		send(t, b, Failure, now) // the probe
	}
}

func TestOpenTimeStartsAgainAfterAQuietTime(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		quiet int64
		want  int64
	}{
		{"trips again soon", 799 * ms, 200 * ms},
		{"stayed closed for MaxOpenTime", 800 * ms, 100 * ms},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := mustNew(t, plain())
			trip(t, b, 0)
			send(t, b, Success, 100*ms)
			again := 100*ms + tc.quiet
			trip(t, b, again)
			if got := b.ReadyAt() - again; got != tc.want {
				t.Errorf("lasts %d ms, want %d", got/ms, tc.want/ms)
			}
		})
	}
}

func TestJitterShortensAndNeverExceedsTheCap(t *testing.T) {
	t.Parallel()
	c := plain()
	c.Jitter = 0.25
	for _, tc := range []struct {
		trips  uint32
		random float64
		want   int64
	}{
		{1, 0, 100 * ms}, {1, 0.5, 87*ms + ms/2}, {1, 1, 75 * ms},
		{4, 0, 800 * ms}, {math.MaxUint32, 0, 800 * ms}, {math.MaxUint32, 1, 600 * ms},
	} {
		if got := c.openTime(tc.trips, tc.random); got != tc.want {
			t.Errorf("openTime(%d, %v) = %d, want %d", tc.trips, tc.random, got, tc.want)
		}
	}
	seen := map[int64]bool{}
	for range 20 {
		b := mustNew(t, c)
		trip(t, b, 0)
		seen[b.ReadyAt()] = true
	}
	if len(seen) < 15 {
		t.Errorf("20 breakers that open together come back at %d different times", len(seen))
	}
}

func TestHalfOpenLetsABoundedNumberOfProbesThrough(t *testing.T) {
	t.Parallel()
	c := plain()
	c.HalfOpenProbes, c.HalfOpenSuccesses = 3, 5
	b := mustNew(t, c)
	trip(t, b, 0)
	mustBe(t, b, Open, 99*ms)
	mustBe(t, b, HalfOpen, 100*ms)
	var out []Permit
	for range 3 {
		p := mustAcquire(t, b, 100*ms)
		if !p.Probe() {
			t.Error("half-open granted what is no probe")
		}
		out = append(out, p)
	}
	mustRefuse(t, b, 149*ms)
	if got := b.ReadyAt(); got != 150*ms {
		t.Errorf("ready at %d ms, want the end of the first lease", got/ms)
	}
	for _, p := range out { // each report makes one place
		b.Done(p, Success, 120*ms)
		mustAcquire(t, b, 120*ms)
		mustRefuse(t, b, 120*ms)
	}
	b.Done(out[0], Success, 120*ms) // a second report of a probe is not counted
	if s := b.Snapshot(120 * ms); s.ProbeSuccesses != 3 || s.ProbesOut != 3 {
		t.Errorf("%+v", s)
	}
}

func TestEnoughSuccessesCloseAndOneFailureReopens(t *testing.T) {
	t.Parallel()
	c := plain()
	c.HalfOpenSuccesses = 2
	b := mustNew(t, c)
	trip(t, b, 0)
	send(t, b, Success, 100*ms)
	mustBe(t, b, HalfOpen, 100*ms)
	send(t, b, Failure, 100*ms)
	mustBe(t, b, Open, 100*ms)
	send(t, b, Success, 300*ms)
	mustBe(t, b, HalfOpen, 300*ms) // earlier successes were forgotten
	send(t, b, Success, 300*ms)
	mustBe(t, b, Closed, 300*ms)
}

func TestExpiredProbeThatLostNoPlaceCounts(t *testing.T) {
	t.Parallel()
	b := mustNew(t, plain())
	trip(t, b, 0)
	p := mustAcquire(t, b, 100*ms)
	b.Done(p, Success, 500*ms)
	mustBe(t, b, Closed, 500*ms)
}

func TestLateSuccessOfAnEarlierClosedStateIsNotCounted(t *testing.T) {
	t.Parallel()
	c := byRatio()
	c.ConsecutiveFailures = 2
	b := mustNew(t, c)
	old := mustAcquire(t, b, 0)
	trip(t, b, 0)
	send(t, b, Success, 100*ms)
	send(t, b, Failure, 100*ms)
	b.Done(old, Success, 100*ms)
	b.Done(old, Failure, 100*ms)
	if s := b.Snapshot(100 * ms); s.ConsecutiveFailures != 1 || s.WindowRequests != 1 {
		t.Errorf("%+v", s)
	}
}

func TestClockSteppingBackFreesThePlaceOfAProbe(t *testing.T) {
	t.Parallel()
	const day = 24 * 3600 * 1000 * ms
	b := mustNew(t, plain())
	trip(t, b, day)
	lost := mustAcquire(t, b, day+100*ms)
	p := mustAcquire(t, b, 0)
	mustRefuse(t, b, 0)
	b.Done(lost, Ignored, 0)
	mustRefuse(t, b, 0)
	b.Done(p, Success, 0)
	mustBe(t, b, Closed, 0)
}

func TestZeroPermitIsGoodForNothing(t *testing.T) {
	t.Parallel()
	b := mustNew(t, plain())
	for range 5 {
		b.Done(Permit{}, Failure, 0)
	}
	mustBe(t, b, Closed, 0)
}

func TestSetConfigKeepsStateAndEvidence(t *testing.T) {
	t.Parallel()
	c := byRatio()
	b := mustNew(t, c)
	for range 9 {
		send(t, b, Failure, 0)
	}
	c.MinimumRequests = 5
	if err := b.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	mustBe(t, b, Closed, 0) // looked at with the next outcome
	send(t, b, Failure, 0)
	mustBe(t, b, Open, 0)
	c.OpenTime = time.Second
	c.MaxOpenTime = time.Second
	if err := b.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, b, 99*ms)
	mustAcquire(t, b, 100*ms)
	mustRefuse(t, b, 100*ms)
	c.HalfOpenProbes = 2
	if err := b.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	mustAcquire(t, b, 100*ms) // the second place is there at once
	mustRefuse(t, b, 100*ms)
	if err := b.SetConfig(Config{}); err == nil {
		t.Error("took a config that opens by nothing")
	}
	mustRefuse(t, b, 100*ms)
}

func TestValidateNamesEveryFaultyField(t *testing.T) {
	t.Parallel()
	if err := Default().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	bad := Config{
		ConsecutiveFailures: -1, FailureRatio: 1.5, MinimumRequests: 0, Window: time.Millisecond, OpenTime: 0,
		MaxOpenTime: 48 * time.Hour, Jitter: math.NaN(), HalfOpenProbes: 0, HalfOpenSuccesses: 1001, ProbeLease: -1, FairTime: -1,
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	var got []string
	for line := range strings.Lines(err.Error()) {
		got = append(got, strings.Fields(line)[0])
	}
	want := []string{
		"ConsecutiveFailures", "FailureRatio", "MinimumRequests", "Window", "OpenTime", "MaxOpenTime",
		"Jitter", "HalfOpenProbes", "HalfOpenSuccesses", "ProbeLease", "FairTime",
	}
	if !slices.Equal(got, want) {
		t.Errorf("faults in %v\nwant %v\n%v", got, want, err)
	}
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "nothing would open") {
		t.Errorf("New without a rule: %v", err)
	}
}

func TestSnapshotTellsTheWholeStory(t *testing.T) {
	t.Parallel()
	c := plain()
	c.FailureRatio, c.MinimumRequests, c.Window = 1, 100, time.Second
	c.HalfOpenProbes, c.HalfOpenSuccesses = 2, 3
	b := mustNew(t, c)
	send(t, b, Success, 0)
	send(t, b, Failure, 0)
	if got, want := b.Snapshot(0), (Snapshot{ConsecutiveFailures: 1, WindowRequests: 2, WindowFailures: 1}); got != want {
		t.Errorf("closed:\n got %+v\nwant %+v", got, want)
	}
	send(t, b, Failure, 0)
	if got, want := b.Snapshot(0), (Snapshot{State: Open, WindowRequests: 3, WindowFailures: 2, ConsecutiveTrips: 1, Trips: 1, ReadyAt: 100 * ms}); got != want {
		t.Errorf("open:\n got %+v\nwant %+v", got, want)
	}
	send(t, b, Success, 100*ms)
	mustAcquire(t, b, 100*ms)
	if got, want := b.Snapshot(2000*ms), (Snapshot{State: HalfOpen, ConsecutiveTrips: 1, Trips: 1, ProbesOut: 1, ProbeSuccesses: 1}); got != want {
		t.Errorf("half-open:\n got %+v\nwant %+v", got, want)
	}
}

func TestAcquireAndDoneDoNotAllocate(t *testing.T) {
	c := byRatio()
	c.ConsecutiveFailures = 2
	b := mustNew(t, c, WithShare(mustShare(t, 50, 2)))
	now := int64(0)
	for name, f := range map[string]func(){
		"success": func() { now += ms; send(t, b, Success, now) },
		"ignored": func() { now += ms; send(t, b, Ignored, now) },
		"open, refused, probed, closed": func() {
			trip(t, b, now)
			mustRefuse(t, b, now)
			now = b.ReadyAt()
			send(t, b, Success, now)
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestSequenceAndGenerationSurviveWrapping(t *testing.T) {
	t.Parallel()
	if got := makeWord(math.MaxUint32, Open, 7).next(Closed); got != makeWord(1, Closed, 0) {
		t.Errorf("generation after the last is %#x", got)
	}
	if got := makeWord(5, Closed, countMask).withCount(countMask + 1); got != makeWord(5, Closed, countMask) {
		t.Errorf("count after the last is %#x", got)
	}
}

// Where answers take longer than a lease and requests go on coming, each probe loses
// its place before it reports. The endpoint is well all the same.
func TestProbesThatTakeLongerThanTheirLeasesCount(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		outcome Outcome
		want    State
	}{{Success, Closed}, {Failure, Open}} {
		b := mustNew(t, plain())
		trip(t, b, 0)
		slow := mustAcquire(t, b, 100*ms)
		mustAcquire(t, b, 150*ms)
		mustAcquire(t, b, 200*ms)
		b.Done(slow, c.outcome, 220*ms)
		mustBe(t, b, c.want, 220*ms)
	}
}

func TestProbesThatNeverReportAreRememberedInABoundedNumber(t *testing.T) {
	t.Parallel()
	b := mustNew(t, plain())
	trip(t, b, 0)
	var out []Permit
	for i := range int64(10 * maxOverdue) {
		out = append(out, mustAcquire(t, b, 100*ms+i*50*ms))
	}
	if len(b.overdue) != maxOverdue {
		t.Errorf("%d are remembered", len(b.overdue))
	}
	b.Done(out[0], Success, time.Hour.Nanoseconds())
	mustBe(t, b, HalfOpen, 0)
	b.Done(out[len(out)-2], Success, time.Hour.Nanoseconds())
	mustBe(t, b, Closed, 0)
}

func TestShorterOpenTimeShortensARunningOneAndALongerOneDoesNot(t *testing.T) {
	t.Parallel()
	c := plain()
	c.OpenTime, c.MaxOpenTime = time.Minute, time.Hour
	b := mustNew(t, c)
	trip(t, b, 0)
	at := b.ReadyAt()
	send(t, b, Failure, at) // so that the open time has doubled
	c.OpenTime, c.MaxOpenTime = 2*time.Minute, 2*time.Hour
	if err := b.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	if got := time.Duration(b.ReadyAt() - at); got != 2*time.Minute {
		t.Errorf("it lasts %v", got)
	}
	c.OpenTime, c.MaxOpenTime = time.Second, time.Minute
	if err := b.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	if got := time.Duration(b.ReadyAt() - at); got != 2*time.Second {
		t.Errorf("it lasts %v", got)
	}
}

func TestAProbeThatYieldsLetsAnotherBeOutAndCountsWhenItReports(t *testing.T) {
	for outcome, want := range map[Outcome]State{Success: Closed, Failure: Open, Ignored: HalfOpen} {
		b := mustNew(t, plain())
		trip(t, b, 0)
		slow := mustAcquire(t, b, 100*ms)
		mustRefuse(t, b, 101*ms)
		b.Yield(slow)
		b.Yield(slow) // once more does nothing
		other := mustAcquire(t, b, 101*ms)
		mustRefuse(t, b, 101*ms)
		b.Done(slow, outcome, 102*ms)
		mustBe(t, b, want, 102*ms)
		if want == HalfOpen {
			mustRefuse(t, b, 102*ms) // the other's place is its own
			b.Done(other, Success, 103*ms)
			mustBe(t, b, Closed, 103*ms)
		}
	}
}

func TestWhatIsNoProbeDoesNotYield(t *testing.T) {
	b := mustNew(t, plain())
	closed := mustAcquire(t, b, 0)
	trip(t, b, 0)
	probe := mustAcquire(t, b, 100*ms)
	b.Yield(closed)
	b.Yield(Permit{})
	mustRefuse(t, b, 101*ms)
	b.Done(probe, Failure, 101*ms)
	b.Yield(probe) // of another time
	mustRefuse(t, b, 102*ms)
	mustBe(t, b, Open, 102*ms)
}

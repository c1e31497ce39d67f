package health

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reports runs a checker over answers, one letter each (+ well, - failing), and
// returns the states reported: after which answer, and which (H or U).
func reports(t *testing.T, config Config, answers string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	probe := func(context.Context) error {
		if asked == len(answers) {
			cancel()
			return errors.New("must not be counted")
		}
		asked++
		if answers[asked-1] == '-' {
			return errors.New("broken")
		}
		return nil
	}
	got := []byte(strings.Repeat(".", len(answers)))
	checker, err := New(config, probe, func(state mesh.Health, _ string) {
		got[asked-1] = state.String()[0]
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := checker.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestAnswersBecomeStates(t *testing.T) {
	for _, c := range []struct {
		name               string
		healthy, unhealthy int
		answers, want      string
	}{
		{"the first success decides at once", 3, 3, "+++", "H.."},
		{"the first failure decides at once", 3, 3, "---", "U.."},
		{"before the first health, one success is enough", 3, 3, "---+", "U..H"},
		{"one failure fewer than the threshold changes nothing", 2, 3, "+--+--+", "H......"},
		{"failures in a row make unhealthy", 2, 3, "+---", "H..U"},
		{"a success in between begins the count again", 2, 3, "+--+---", "H.....U"},
		{"having been well, successes in a row make healthy", 2, 3, "+---+-++", "H..U...H"},
		{"thresholds of one follow every answer", 1, 1, "+-+-", "HUHU"},
		{"a state is reported once", 1, 1, "++--++", "H.U.H."},
		{"zero means the defaults, 2 and 3", 0, 0, "+---++", "H..U.H"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := reports(t, Config{HealthyThreshold: c.healthy, UnhealthyThreshold: c.unhealthy}, c.answers)
				if got != c.want {
					t.Errorf("answers %s: reports %s, want %s", c.answers, got, c.want)
				}
			})
		})
	}
}

// times returns when, since the start, the first n checks began.
func times(t *testing.T, config Config, n int, probe func(context.Context)) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	var at []time.Duration
	checker, err := New(config, func(ctx context.Context) error {
		at = append(at, time.Since(start))
		if len(at) == n {
			cancel()
		}
		probe(ctx)
		return ctx.Err()
	}, func(mesh.Health, string) {})
	if err != nil {
		t.Fatal(err)
	}
	_ = checker.Run(ctx)
	return at
}

func TestTheIntervalCountsFromTheEndOfACheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Config{Interval: time.Second, Timeout: time.Second, Jitter: -1}
		at := times(t, config, 3, func(context.Context) { time.Sleep(300 * time.Millisecond) })
		if at[0] != 0 || at[1] != 1300*time.Millisecond || at[2] != 2600*time.Millisecond {
			t.Errorf("checks at %v", at)
		}
	})
}

func TestJitterAddsUpToItsShareOfTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := times(t, Config{Interval: time.Second, Jitter: 0.5}, 200, func(context.Context) {})
		shortest, longest := time.Hour, time.Duration(0)
		for i := 1; i < len(at); i++ {
			shortest, longest = min(shortest, at[i]-at[i-1]), max(longest, at[i]-at[i-1])
		}
		if shortest < time.Second || longest > 1500*time.Millisecond {
			t.Errorf("waits of %v to %v, want 1s to 1.5s", shortest, longest)
		}
		// 199 draws all in the same half: 2⁻¹⁹⁸.
		if shortest > 1250*time.Millisecond || longest < 1250*time.Millisecond {
			t.Errorf("waits of %v to %v do not spread", shortest, longest)
		}
	})
}

func TestInitialJitterDelaysTheFirstCheckOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := times(t, Config{Interval: time.Second, Jitter: -1, InitialJitter: time.Hour}, 2, func(context.Context) {})
		if at[0] == 0 || at[0] > time.Hour || at[1]-at[0] != time.Second {
			t.Errorf("checks at %v", at)
		}
	})
}

func TestACheckThatHangsFailsAtItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		checker, err := New(Config{Timeout: 3 * time.Second}, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}, func(state mesh.Health, detail string) {
			if state != mesh.HealthUnhealthy || !strings.Contains(detail, "no answer within 3s") {
				t.Errorf("reported %v %q", state, detail)
			}
			if d := time.Since(start); d != 3*time.Second {
				t.Errorf("reported after %v", d)
			}
			cancel()
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := checker.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestTheEndOfTheContextIsNoFailureOfTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		checker, err := New(Config{}, func(ctx context.Context) error {
			cancel()
			return ctx.Err()
		}, func(state mesh.Health, detail string) {
			t.Errorf("reported %v %q", state, detail)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := checker.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestTheDetailIsOneShortPrintableLine(t *testing.T) {
	got := detail(errors.New("a\nb\x1b[31m\xff\u2028" + strings.Repeat("é", 1000)))
	if !strings.HasPrefix(got, "a?b?[31m??é") {
		t.Errorf("detail %q", got[:40])
	}
	if len(got) > maxDetail+len("…") || !strings.HasSuffix(got, "é…") {
		t.Errorf("%d bytes, ending %q", len(got), got[len(got)-7:])
	}
}

func TestABadConfigNamesAllItsFaults(t *testing.T) {
	_, err := New(Config{
		Interval:           time.Millisecond,
		Timeout:            -1,
		Jitter:             1.5,
		InitialJitter:      -1,
		HealthyThreshold:   -1,
		UnhealthyThreshold: 1001,
	}, nil, nil)
	if err == nil {
		t.Fatal("no error")
	}
	for _, field := range []string{"interval", "timeout", "jitter", "initial jitter", "healthy threshold", "unhealthy threshold"} {
		if !strings.Contains(err.Error(), field+" ") {
			t.Errorf("%q does not name %q", err, field)
		}
	}
	if _, err := New(Config{Jitter: math.NaN()}, nil, nil); err == nil {
		t.Error("a jitter that is no number was taken")
	}
}

package main

import (
	"strings"
	"testing"
)

func TestTheDemoTakesAboutAsLongAsItIsTold(t *testing.T) {
	for _, test := range []struct {
		seconds string
		smoke   bool
		pace    float64
		endless bool
	}{
		{"", false, 2, true},
		{"34", false, 1, false},
		{"68", false, 2, false},
		{"5", false, fastest, false},
		{"9999", false, slowest, false},
		{"9999", true, 0.8, false}, // what asserts has its own pace
	} {
		if pace, endless, err := paceOf(test.seconds, test.smoke); err != nil || pace != test.pace || endless != test.endless {
			t.Errorf("%q: pace %v, endless %t, %v", test.seconds, pace, endless, err)
		}
	}
	for _, seconds := range []string{"abc", "0", "-3", "NaN", "30s"} {
		if _, _, err := paceOf(seconds, false); err == nil || !strings.Contains(err.Error(), `DEMO_SECONDS is "`+seconds) {
			t.Errorf("%q: %v", seconds, err)
		}
	}
}

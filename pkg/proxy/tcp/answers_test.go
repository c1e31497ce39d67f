package tcp

import (
	"net/netip"
	"testing"
)

func TestAnswersAreReplacedForgottenAndBounded(t *testing.T) {
	var a answers
	at := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 80)
	}
	if got := a.get(at(0), 0); got != unanswered {
		t.Errorf("%d before anything is known", got)
	}
	a.learn(at(0), serverFirst, 0)
	a.learn(at(1), notOpaque, 0)
	if a.get(at(0), answerTime-1) != serverFirst || a.get(at(1), 1) != notOpaque || a.get(at(0), answerTime) != unanswered {
		t.Error("an answer is not known for as long as it should be, or longer")
	}
	a.learn(at(0), notOpaque, 5)
	if a.get(at(0), 6) != notOpaque {
		t.Error("what proved wrong is still known")
	}
	a.learn(at(0), unanswered, 7)
	if a.get(at(0), 8) != unanswered || len(a.known) != 1 {
		t.Error("what proved wrong is not unlearnt")
	}
	for n := range 3 * maxAnswers {
		a.learn(at(n), serverFirst, 9)
		if a.get(at(n), 10) != serverFirst {
			t.Fatalf("the newest of %d is not known", n)
		}
	}
	if len(a.known) != maxAnswers {
		t.Errorf("%d are remembered", len(a.known))
	}
}

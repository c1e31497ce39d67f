package freeze_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeze"
)

func TestAFrozenProcessSaysNothingUntilItGoesOn(t *testing.T) {
	c := exec.Command("cat")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	c.Stdout = w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	freeze.Process(t, c.Process)
	if _, err := io.WriteString(in, "line\n"); err != nil {
		t.Fatal(err)
	}
	_ = r.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := r.Read(make([]byte, 1)); n > 0 || !os.IsTimeout(err) {
		t.Errorf("it says something: %d, %v", n, err)
	}
	if err := c.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "line\n" {
		t.Errorf("%q, %v", line, err)
	}
	_ = in.Close()
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

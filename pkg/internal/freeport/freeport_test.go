package freeport_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
)

func TestAPortThatIsFoundCanBeListenedOnAndIsNotFoundAgain(t *testing.T) {
	found := map[int]bool{}
	for range 1000 {
		port := freeport.For(t)
		if found[port] || port < 15_000 || port >= 32_000 {
			t.Fatalf("port %d", port)
		}
		found[port] = true
	}
	listened := 0
	for port := range found {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue // somebody who does not ask here was faster
		}
		_ = l.Close()
		listened++
	}
	if listened == 0 {
		t.Error("none could be listened on")
	}
}

// With what this process has found, another would find some of it again in nearly every run, if it could.
func TestAPortThatIsFoundIsNotFoundByAnotherProcess(t *testing.T) {
	const env = "FAIRLEAD_FREEPORT_CHILD"
	if os.Getenv(env) != "" {
		for range 200 {
			fmt.Println("port", freeport.For(t))
		}
		return
	}
	mine := map[string]bool{}
	for range 1000 {
		mine[fmt.Sprintf("port %d", freeport.For(t))] = true
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), env+"=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := 0
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); mine[line] {
			t.Errorf("%s was found twice", line)
		}
		if strings.HasPrefix(line, "port ") {
			found++
		}
	}
	if found != 200 {
		t.Errorf("the other process found %d ports:\n%s", found, out)
	}
}

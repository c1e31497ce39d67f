// Package freeze is for tests of what becomes of those who wait for a process that does nothing any more.
package freeze

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Process stops all threads of a process, which SIGCONT lets go on, and waits until they have: SIGSTOP does not, and one of
// them may have done meanwhile what the test says that it cannot.
func Process(t testing.TB, p *os.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !stopped(p.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d does not stop", p.Pid)
		}
	}
}

// stopped reports whether all threads have stopped, as far as that can be known.
func stopped(pid int) bool {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	all, err := os.ReadDir(tasks)
	if err != nil {
		return true // not Linux: it will be soon
	}
	for _, task := range all {
		stat, _ := os.ReadFile(filepath.Join(tasks, task.Name(), "stat"))
		if _, state, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

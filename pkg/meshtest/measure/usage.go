package measure

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on all
// architectures of Linux that Go has (time(7)).
const tick = 10 * time.Millisecond

// Usage is what some processes have used.
type Usage struct {
	Processes int
	CPU       time.Duration // user and system, with children that have ended
	RSS       int64         // bytes; pages that two of the processes share count twice
	Anonymous int64         // bytes of RSS that belong to no file
}

// Plus returns the sum of both.
func (u Usage) Plus(v Usage) Usage {
	return Usage{Processes: u.Processes + v.Processes, CPU: u.CPU + v.CPU, RSS: u.RSS + v.RSS, Anonymous: u.Anonymous + v.Anonymous}
}

// GroupUsage adds up the processes of a group. It fails if there are none.
func GroupUsage(group int) (Usage, error) { return groupUsage("/proc", group) }

// TreeUsage adds up a process and those below it, whatever groups they are in: those of PostgreSQL are each in their own. It fails if the process has ended.
func TreeUsage(pid int) (Usage, error) { return treeUsage("/proc", pid) }

func groupUsage(proc string, group int) (Usage, error) {
	all, err := readStats(proc)
	if err != nil {
		return Usage{}, err
	}
	var sum Usage
	for _, s := range all {
		if s.group != group {
			continue
		}
		if sum, err = s.addTo(sum, proc); err != nil {
			return Usage{}, err
		}
	}
	if sum.Processes == 0 {
		return Usage{}, fmt.Errorf("process group %d has ended", group)
	}
	return sum, nil
}

func treeUsage(proc string, pid int) (Usage, error) {
	all, err := readStats(proc)
	if err != nil {
		return Usage{}, err
	}
	children := map[int][]stat{} // by parent
	tree := []stat{}
	for _, s := range all {
		children[s.parent] = append(children[s.parent], s)
		if s.pid == pid {
			tree = append(tree, s)
		}
	}
	var sum Usage
	for ; len(tree) > 0; tree = tree[1:] {
		if sum, err = tree[0].addTo(sum, proc); err != nil {
			return Usage{}, err
		}
		tree = append(tree, children[tree[0].pid]...)
	}
	if sum.Processes == 0 {
		return Usage{}, fmt.Errorf("process %d has ended", pid)
	}
	return sum, nil
}

// stat is what matters of /proc/PID/stat.
type stat struct {
	pid, parent, group int
	cpu                time.Duration
}

// gone reports whether an error is of a process that has ended meanwhile.
func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// readStats reads those of all processes.
func readStats(proc string) ([]stat, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var all []stat
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		path := filepath.Join(proc, e.Name(), "stat")
		line, err := os.ReadFile(path)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s, err := parseStat(string(line))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		s.pid = pid
		all = append(all, s)
	}
	return all, nil
}

// addTo adds what the process uses, if it has not ended meanwhile.
func (s stat) addTo(sum Usage, proc string) (Usage, error) {
	path := filepath.Join(proc, strconv.Itoa(s.pid), "status")
	status, err := os.ReadFile(path)
	if gone(err) {
		return sum, nil
	}
	if err != nil {
		return sum, err
	}
	u := Usage{Processes: 1, CPU: s.cpu}
	if u.RSS, err = statusBytes(status, "VmRSS"); err != nil {
		return sum, fmt.Errorf("%s: %w", path, err)
	}
	if u.Anonymous, err = statusBytes(status, "RssAnon"); err != nil {
		return sum, fmt.Errorf("%s: %w", path, err)
	}
	return sum.Plus(u), nil
}

// parseStat reads ppid, pgrp and the sum of utime, stime, cutime and cstime: the fields 4,
// 5 and 14 to 17 of /proc/PID/stat, proc_pid_stat(5). Field 2 is a name in parentheses, which may
// have spaces and parentheses in it.
func parseStat(line string) (s stat, err error) {
	end := strings.LastIndexByte(line, ')')
	if end < 0 {
		return s, fmt.Errorf("no name in %q", line)
	}
	const third = 3 // number of the first field after the name
	fields := strings.Fields(line[end+1:])
	if len(fields) <= 17-third {
		return s, fmt.Errorf("only %d fields in %q", len(fields), line)
	}
	if s.parent, err = strconv.Atoi(fields[4-third]); err != nil {
		return s, fmt.Errorf("ppid: %w", err)
	}
	if s.group, err = strconv.Atoi(fields[5-third]); err != nil {
		return s, fmt.Errorf("pgrp: %w", err)
	}
	for n := 14; n <= 17; n++ {
		ticks, err := strconv.ParseInt(fields[n-third], 10, 64)
		if err != nil {
			return s, fmt.Errorf("field %d: %w", n, err)
		}
		s.cpu += time.Duration(ticks) * tick
	}
	return s, nil
}

// statusBytes reads a line like "VmRSS:	    1234 kB" of /proc/PID/status. A process
// that has ended and was not waited for has none: that is 0.
func statusBytes(status []byte, key string) (int64, error) {
	for s := bufio.NewScanner(bytes.NewReader(status)); s.Scan(); {
		rest, ok := strings.CutPrefix(s.Text(), key+":")
		if !ok {
			continue
		}
		number, ok := strings.CutSuffix(strings.TrimSpace(rest), " kB")
		if !ok {
			return 0, fmt.Errorf("no kB in %q", s.Text())
		}
		kb, err := strconv.ParseInt(number, 10, 64)
		return kb << 10, err
	}
	return 0, nil
}

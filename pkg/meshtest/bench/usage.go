package main

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

// usage is what the processes of a group have used.
type usage struct {
	processes int
	cpu       time.Duration // user and system, with children that have ended
	rss       int64         // bytes; pages that two of the processes share count twice
	anonymous int64         // bytes of rss that belong to no file
}

func (u usage) plus(v usage) usage {
	return usage{processes: u.processes + v.processes, cpu: u.cpu + v.cpu, rss: u.rss + v.rss, anonymous: u.anonymous + v.anonymous}
}

// groupUsage adds up the processes of a group. proc is /proc, but in tests.
func groupUsage(proc string, group int) (usage, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return usage{}, err
	}
	var sum usage
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		u, err := processUsage(filepath.Join(proc, e.Name()), group)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, errOtherGroup) {
			continue // one that ended meanwhile, or is not ours
		}
		if err != nil {
			return usage{}, err
		}
		sum = sum.plus(u)
	}
	if sum.processes == 0 {
		return usage{}, fmt.Errorf("process group %d has ended", group)
	}
	return sum, nil
}

var errOtherGroup = errors.New("in another process group")

func processUsage(dir string, group int) (usage, error) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return usage{}, err
	}
	cpu, pgrp, err := parseStat(string(stat))
	if err != nil {
		return usage{}, fmt.Errorf("%s/stat: %w", dir, err)
	}
	if pgrp != group {
		return usage{}, errOtherGroup
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return usage{}, err
	}
	u := usage{processes: 1, cpu: cpu}
	if u.rss, err = statusBytes(status, "VmRSS"); err != nil {
		return usage{}, fmt.Errorf("%s/status: %w", dir, err)
	}
	if u.anonymous, err = statusBytes(status, "RssAnon"); err != nil {
		return usage{}, fmt.Errorf("%s/status: %w", dir, err)
	}
	return u, nil
}

// parseStat reads pgrp and the sum of utime, stime, cutime and cstime: the fields 5
// and 14 to 17 of /proc/PID/stat, proc_pid_stat(5). Field 2 is a name in parentheses, which may
// have spaces and parentheses in it.
func parseStat(line string) (cpu time.Duration, pgrp int, err error) {
	end := strings.LastIndexByte(line, ')')
	if end < 0 {
		return 0, 0, fmt.Errorf("no name in %q", line)
	}
	const third = 3 // number of the first field after the name
	fields := strings.Fields(line[end+1:])
	if len(fields) <= 17-third {
		return 0, 0, fmt.Errorf("only %d fields in %q", len(fields), line)
	}
	if pgrp, err = strconv.Atoi(fields[5-third]); err != nil {
		return 0, 0, fmt.Errorf("pgrp: %w", err)
	}
	for n := 14; n <= 17; n++ {
		ticks, err := strconv.ParseInt(fields[n-third], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("field %d: %w", n, err)
		}
		cpu += time.Duration(ticks) * tick
	}
	return cpu, pgrp, nil
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

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// tools are the programs of the run.
type tools struct {
	found     map[string]string // absolute path by name; no entry if it is not installed
	wrkScript string            // path of wrk.lua; set when the run has a folder
}

// path is empty if the program is not installed.
func (t tools) path(name string) string { return t.found[name] }

// findTools looks for all programs and fails without those that every proxy of a chosen
// suite needs.
func findTools(o options, chosen []suite) (tools, error) {
	if runtime.NumCPU() < 2 {
		return tools{}, errors.New("two cores are needed: one for the proxy, one for the load")
	}
	t := tools{found: map[string]string{}}
	for _, name := range []string{"nginx", "haproxy", "envoy", "wrk", "h2load", "taskset"} {
		if path, ok := lookFor(name, o.peers); ok {
			t.found[name] = path
		}
	}
	sidecar, err := filepath.Abs(o.sidecar)
	if err != nil {
		return tools{}, err
	}
	if _, err := os.Stat(sidecar); err != nil {
		return tools{}, fmt.Errorf("%w: make build makes it", err)
	}
	t.found["sidecar"] = sidecar
	if t.found["bench"], err = os.Executable(); err != nil { // service and caller of gRPC
		return tools{}, err
	}
	if t.path("taskset") == "" {
		return tools{}, errors.New("taskset is not installed, and no run can do without: make bench-peers installs it")
	}
	for _, s := range chosen {
		for _, name := range []string{s.backend.binary, s.generator} {
			if t.path(name) == "" {
				return tools{}, fmt.Errorf("%s is not installed, and %s cannot be measured without: make bench-peers installs it", name, s.title)
			}
		}
	}
	return t, nil
}

// lookFor searches the folder, PATH, and where Debian has what root runs.
func lookFor(name, folder string) (string, bool) {
	for _, candidate := range []string{filepath.Join(folder, name), name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		path, err := exec.LookPath(candidate)
		if err != nil {
			continue
		}
		if path, err = filepath.Abs(path); err == nil {
			return path, true
		}
	}
	return "", false
}

// versionOf is the line in which a program says its version.
func versionOf(ctx context.Context, path string, args []string) (string, error) {
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, out)
	}
	lines := strings.Split(string(out), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "version") })
	if i < 0 {
		return "", fmt.Errorf("%s says no version: %q", path, out)
	}
	return strings.TrimSpace(strings.ReplaceAll(lines[i], path, "")), nil
}

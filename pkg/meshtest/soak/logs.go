package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// complaints are what no process of the mesh may log, whatever happens to it.
func complaints() []string {
	return []string{"panic: ", "fatal error: ", "WARNING: DATA RACE", "level=ERROR", "breaks HTTP/2"}
}

// scanLogs returns what the logs in a folder complain of, the first few lines of each.
func scanLogs(dir string) (found []string, err error) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, err
	}
	for _, path := range logs {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		n := 0
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() && n < 5 {
			for _, c := range complaints() {
				if strings.Contains(lines.Text(), c) {
					n++
					found = append(found, fmt.Sprintf("%s: %.300s", filepath.Base(path), lines.Text()))
					break
				}
			}
		}
		_ = f.Close() // it was only read
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return found, nil
}

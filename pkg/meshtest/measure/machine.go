package measure

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Machine is where a benchmark ran.
type Machine struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	// LoadAverage is that of the minute before the run: near 0 if nobody else was there.
	LoadAverage string `json:"load_average"`
}

// Quiet is false if others kept a core busy before the run.
func (m Machine) Quiet() bool {
	average, err := strconv.ParseFloat(m.LoadAverage, 64)
	return err != nil || average < 1
}

// DescribeMachine leaves empty what the system does not tell.
func DescribeMachine() Machine {
	m := Machine{Cores: runtime.NumCPU()}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(kernel))
	}
	if average, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.LoadAverage, _, _ = strings.Cut(string(average), " ")
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, ok := strings.Cut(string(info), "model name"); ok {
			line, _, _ := strings.Cut(after, "\n")
			m.CPU = strings.TrimLeft(line, "\t :")
		}
	}
	return m
}

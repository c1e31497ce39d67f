package codec

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxFaults bounds the faults that an [Error] lists.
const MaxFaults = 32

// notSupported is said of everything outside of the subset.
const notSupported = "not supported by Fairlead"

// Fault is one reason why something was refused.
type Fault struct {
	// Path leads to the field, in the names of Envoy's API reference:
	// static_resources.clusters[2].lb_subset_config. It is "" where the whole is
	// meant. What is inside an Any follows without a step of its own, as in YAML.
	Path string
	// Line is where the field, or what should hold it, begins in the file, from 1;
	// 0 where there is no file.
	Line   int
	Reason string
}

// String returns "line 7: path: reason" without the parts that are not known.
func (f Fault) String() string {
	var b strings.Builder
	if f.Line > 0 {
		b.WriteString("line " + strconv.Itoa(f.Line) + ": ")
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	return b.String() + f.Reason
}

// Error says why a resource or a file was refused.
type Error struct {
	Faults  []Fault // at least one, at most MaxFaults
	Omitted int     // how many more there are
}

// Error returns one line per fault.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Faults)+1)
	for _, f := range e.Faults {
		lines = append(lines, f.String())
	}
	if e.Omitted > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", e.Omitted))
	}
	return strings.Join(lines, "\n")
}

// faults collects.
type faults struct {
	list    []Fault
	omitted int
}

// add notes a fault. One above or below a path that has a fault already is its
// consequence, and is not told again.
func (f *faults) add(path, format string, args ...any) {
	for _, told := range f.list {
		if within(told.Path, path) || within(path, told.Path) {
			return
		}
	}
	if len(f.list) == MaxFaults {
		f.omitted++
		return
	}
	f.list = append(f.list, Fault{Path: path, Reason: fmt.Sprintf(format, args...)})
}

func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	return &Error{Faults: f.list, Omitted: f.omitted}
}

// within reports whether path is root or below it.
func within(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (rest == "" || root == "" || rest[0] == '.' || rest[0] == '[')
}

// field appends a field's name to a path.
func field(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// item appends an index to a path.
func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// entry appends a map's key to a path.
func entry(path, key string) string { return path + "[" + strconv.Quote(clip(key)) + "]" }

// clip keeps what strangers wrote from filling a log.
func clip(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

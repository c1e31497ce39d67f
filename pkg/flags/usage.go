package flags

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	// usageWidth is where the explanation of a flag is wrapped, in columns.
	usageWidth  = 80
	usageIndent = "        "
)

// printUsage is cobra's usage with one difference that its template cannot
// express: a flag takes a line for its name, some for its meaning and one for
// its default and its environment variable, empty defaults included.
func printUsage(c *cobra.Command) error {
	var b bytes.Buffer
	b.WriteString("Usage:\n")
	if c.Runnable() {
		fmt.Fprintf(&b, "  %s\n", c.UseLine())
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s COMMAND\n", c.CommandPath())
	}
	if c.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\nCommands:\n")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(&b, "  %-*s %s\n", sub.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
	printFlags(&b, "Flags", c.LocalFlags())
	printFlags(&b, "Global flags", c.InheritedFlags())
	_, err := c.OutOrStderr().Write(b.Bytes())
	return err
}

func printFlags(w io.Writer, title string, set *pflag.FlagSet) {
	if !set.HasAvailableFlags() {
		return
	}
	_, _ = fmt.Fprintf(w, "\n%s:\n", title)
	set.VisitAll(func(flag *pflag.Flag) {
		if !flag.Hidden && flag.Deprecated == "" {
			printFlag(w, flag)
		}
	})
}

func printFlag(w io.Writer, flag *pflag.Flag) {
	unit, usage := pflag.UnquoteUsage(flag)
	name := "--" + flag.Name
	if flag.Shorthand != "" {
		name = "-" + flag.Shorthand + ", " + name
	}
	_, _ = fmt.Fprintf(w, "  %s\n", strings.TrimSpace(name+" "+unit))
	for _, line := range wrap(usage, usageWidth-len(usageIndent)) {
		_, _ = fmt.Fprintf(w, "%s%s\n", usageIndent, line)
	}
	if hasVariable(flag) {
		_, _ = fmt.Fprintf(w, "%sdefault %s; environment %s\n", usageIndent, shown(flag), Variable(flag.Name))
	}
}

// shown is the default as people would write it.
func shown(flag *pflag.Flag) string {
	if flag.DefValue == "" || flag.DefValue == "[]" {
		return "none"
	}
	return flag.DefValue
}

// wrap breaks text into lines of at most width columns, where words allow.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

package flags

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes of [Execute].
const (
	ExitOK      = 0
	ExitFailure = 1 // the command ran and failed
	ExitUsage   = 2 // it was not called correctly, and did not run
)

// UsageError is returned by a command that finds, only once it runs, that it
// was not called correctly: settings that exclude each other, for instance.
type UsageError struct{ Err error }

// Usagef returns a [UsageError] with the words of [fmt.Errorf].
func Usagef(format string, a ...any) error { return &UsageError{fmt.Errorf(format, a...)} }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *UsageError) Unwrap() error { return e.Err }

// ExitError is returned by a command that ran, and whose exit code says what it
// found. Code is 3 to 125, since shells use what is above.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *ExitError) Unwrap() error { return e.Err }

// runError marks the errors of commands that ran: all others are about usage.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

// Execute runs the command that the arguments of the process name and returns
// the exit code. An error is printed as one message that begins with "error: ",
// followed by where to find help if the command was not called correctly.
//
// A command takes no arguments unless its Args says so. Execute replaces how
// root and its subcommands print help and errors; it is called once. root's
// version is [Version] unless it has one.
func Execute(root *cobra.Command) int {
	bind(root)
	command, err := root.ExecuteC()
	if err == nil {
		return ExitOK
	}
	var ran runError
	var usage *UsageError
	if errors.As(err, &ran) && !errors.As(err, &usage) {
		printError(command.ErrOrStderr(), err)
		var exit *ExitError
		if errors.As(err, &exit) {
			return exit.Code
		}
		return ExitFailure
	}
	printError(command.ErrOrStderr(), err)
	_, _ = fmt.Fprintf(command.ErrOrStderr(), "run '%s --help' for usage\n", command.CommandPath())
	return ExitUsage
}

// printError indents the lines after the first, which joined errors have. A
// standard error that cannot be written to leaves nobody to tell.
func printError(w io.Writer, err error) {
	first, more, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	_, _ = fmt.Fprintf(w, "error: %s\n", first)
	for line := range strings.Lines(more) {
		_, _ = fmt.Fprintln(w, strings.TrimRight("       "+line, " \n"))
	}
}

func bind(root *cobra.Command) {
	root.SilenceErrors = true
	root.SilenceUsage = true
	if root.Version == "" {
		root.Version = Version()
	}
	root.SetUsageFunc(printUsage)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return explain(err) })
	if !hasHook(root) {
		root.PersistentPreRunE = func(*cobra.Command, []string) error { return nil }
	}
	bindTree(root)
}

// bindTree wraps what cobra calls of a command and of those below it: the hook
// that runs before it applies the environment first, and what its run returns
// is marked as a failure. Of all hooks on the way up cobra runs the nearest
// only, so each is wrapped.
func bindTree(command *cobra.Command) {
	if hasHook(command) {
		then := command.PersistentPreRunE
		if then == nil {
			then = withoutError(command.PersistentPreRun)
		}
		command.PersistentPreRunE = func(c *cobra.Command, args []string) error {
			if err := applyEnvironment(c.Flags()); err != nil {
				return err
			}
			return then(c, args)
		}
	}
	if command.Runnable() {
		then := command.RunE
		if then == nil {
			then = withoutError(command.Run)
		}
		command.RunE = func(c *cobra.Command, args []string) error {
			if err := then(c, args); err != nil {
				return runError{err}
			}
			return nil
		}
		if command.Args == nil {
			command.Args = noArguments
		}
	}
	for _, c := range command.Commands() {
		bindTree(c)
	}
}

func hasHook(c *cobra.Command) bool { return c.PersistentPreRunE != nil || c.PersistentPreRun != nil }

func withoutError(run func(*cobra.Command, []string)) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		run(c, args)
		return nil
	}
}

// noArguments is cobra.NoArgs without calling an argument a command.
func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	return nil
}

// explain says which flag got which value and why it cannot be, in fewer words
// than pflag.
func explain(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	return fmt.Errorf("--%s %q: %w", invalid.GetFlag().Name, invalid.GetValue(), reason(invalid.Unwrap()))
}

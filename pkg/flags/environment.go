package flags

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// prefix begins the name of every environment variable.
const prefix = "FAIRLEAD_"

// Variable returns the name of the environment variable of a flag.
func Variable(flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// hasVariable tells settings from what only a person at a terminal asks for.
func hasVariable(flag *pflag.Flag) bool {
	return flag.Name != "help" && flag.Name != "version"
}

// applyEnvironment sets the flags that the command line did not set and whose
// variable is not empty. The error names all variables that cannot be read.
func applyEnvironment(set *pflag.FlagSet) error {
	var faults []error
	set.VisitAll(func(flag *pflag.Flag) {
		value := os.Getenv(Variable(flag.Name))
		if flag.Changed || value == "" || !hasVariable(flag) {
			return
		}
		if err := set.Set(flag.Name, value); err != nil {
			var invalid *pflag.InvalidValueError
			if errors.As(err, &invalid) {
				err = invalid.Unwrap()
			}
			faults = append(faults, fmt.Errorf("%s %q: %w", Variable(flag.Name), value, reason(err)))
		}
	})
	return errors.Join(faults...)
}

// reason says in plain words what strconv found wrong.
func reason(err error) error {
	var number *strconv.NumError
	switch {
	case !errors.As(err, &number):
		return err
	case number.Func == "ParseBool":
		return fmt.Errorf("want true or false: %w", number.Err)
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("too large or too small a number: %w", number.Err)
	default:
		return fmt.Errorf("want a number: %w", number.Err)
	}
}

package meshctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	sagas "github.com/fairlead-mesh/fairlead/pkg/saga/client"
)

// Exit codes of saga wait, beside those of package flags: what became of a saga that is not completed.
const (
	exitCompensated = 3
	exitParked      = 4
	exitGoesOn      = 5 // the time was over first
)

// maxFile bounds a file with a definition. It is more than the control plane takes, which says itself how much that is.
const maxFile = 1 << 20

// sagaCommands is what the commands about sagas share.
type sagaCommands struct {
	*client
	address flags.Address
}

func (c *client) saga() *cobra.Command {
	s := &sagaCommands{client: c, address: "127.0.0.1:15014"}
	cmd := &cobra.Command{
		Use:   "saga",
		Short: "Start sagas, see where they stand, and decide what a person has to",
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return flags.Usagef("there is no command %q for sagas", args[0])
			}
			return flags.Usagef("say which command")
		},
	}
	cmd.PersistentFlags().Var(&s.address, "control-plane-http", "the control plane's HTTP listener, which serves sagas")
	cmd.AddCommand(s.start(), s.list(), s.show(), s.wait(),
		s.verb("retry", "Call at once what waits to be called, with all its attempts before it", nil),
		s.verb("skip", "Say that a step does not matter: it is neither done nor undone from here on", nil),
		s.resolve(),
		s.verb("resume", "Go on with a parked saga", nil),
		s.verb("abort", "Undo what was done, as long as the pivot has not happened and cannot have", nil))
	return cmd
}

func (s *sagaCommands) start() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:     "start -f FILE",
		Short:   "Start a saga, or see where it stands if it was started already",
		Example: "  meshctl saga start -f order-42.yaml\n  make-order | meshctl saga start -f -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return flags.Usagef("--file is required: a definition in JSON or YAML, or - for standard input")
			}
			definition, err := read(cmd.InOrStdin(), file)
			if err != nil {
				return err
			}
			return s.answer(cmd.Context(), func(ctx context.Context, api *sagas.Client) (*sagas.Saga, error) {
				return api.StartJSON(ctx, definition)
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the saga's definition, in JSON or YAML; - is standard input")
	return cmd
}

// read reads a definition. What begins with { is JSON, and is sent as it is; the rest is YAML.
func read(stdin io.Reader, file string) (definition []byte, err error) {
	in := stdin
	if file == "-" {
		file = "standard input"
	} else {
		f, err := os.Open(file) //nolint:gosec // it is the user who names it
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))) // the mark that some editors put in front
	switch {
	case err != nil:
		return nil, fmt.Errorf("--file: %w", err)
	case len(text) > maxFile:
		return nil, fmt.Errorf("--file: %s has more than %d bytes, and so is no definition", file, maxFile)
	case len(text) == 0:
		return nil, fmt.Errorf("--file: %s is empty", file)
	case text[0] == '{':
		return text, nil
	}
	if definition, err = jsonOf(text); err != nil {
		return nil, fmt.Errorf("--file: %s: %w", file, err)
	}
	return definition, nil
}

func (s *sagaCommands) list() *cobra.Command {
	var state, label string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List sagas, by id: those that are open, and those that ended within the retention time",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if label != "" && !strings.Contains(label, "=") {
				return flags.Usagef("--label %q: want NAME=VALUE", label)
			}
			name, value, _ := strings.Cut(label, "=")
			query := sagas.Query{State: saga.State(state), Label: name, Value: value}
			return s.pages(cmd.Context(), query)
		},
	}
	cmd.Flags().Var(flags.OneOf(&state, "", "running", "compensating", "completed", "compensated", "parked"), "state", "only those in this state (default: all)")
	cmd.Flags().StringVar(&label, "label", "", "only those with this label, as NAME=VALUE")
	return cmd
}

// pages shows what a list has on all its pages.
func (s *sagaCommands) pages(ctx context.Context, query sagas.Query) error {
	var views []*sagas.Summary
	err := s.ask(ctx, func(ctx context.Context, api *sagas.Client) error {
		for v, err := range api.List(ctx, query) {
			if err != nil {
				return err
			}
			views = append(views, v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s.format == table {
		return writeTable(s.out, sagaRows(views, s.now()))
	}
	var all struct {
		Sagas []json.RawMessage `json:"sagas"`
	}
	all.Sagas = []json.RawMessage{}
	for _, v := range views {
		all.Sagas = append(all.Sagas, v.Raw)
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return s.raw(b)
}

func (s *sagaCommands) show() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show where a saga and its steps stand, and what people did to it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkID(args[0]); err != nil {
				return err
			}
			return s.answer(cmd.Context(), func(ctx context.Context, api *sagas.Client) (*sagas.Saga, error) { return api.Get(ctx, args[0]) })
		},
	}
}

func (s *sagaCommands) wait() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait ID",
		Short: "Wait until a saga has ended or is parked, and show it",
		Long: fmt.Sprintf("wait waits until a saga has ended or is parked, and shows it. Its exit code is 0 if the saga is completed, %d if\n"+
			"compensated, %d if parked, and %d if it went on when the time was over.", exitCompensated, exitParked, exitGoesOn),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkID(args[0]); err != nil {
				return err
			}
			if timeout <= 0 {
				return flags.Usagef("--timeout is %v: it must be more than 0", timeout)
			}
			v, err := s.await(cmd.Context(), args[0], timeout)
			if err != nil {
				return err
			}
			if err := s.print(v); err != nil {
				return err
			}
			return became(v, timeout)
		},
	}
	// Of the same name as that of all commands: here it is what people mean by it.
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait")
	return cmd
}

// became is nil if a saga is completed, or says with an exit code what it is instead.
func became(v *sagas.Saga, timeout time.Duration) error {
	end := func(code int, format string, args ...any) error {
		return &flags.ExitError{Code: code, Err: fmt.Errorf(format, args...)}
	}
	switch v.State {
	case saga.Completed:
		return nil
	case saga.Compensated:
		return end(exitCompensated, "saga %s is compensated: %s", plain(v.ID), plain(v.Reason))
	case saga.Parked:
		return end(exitParked, "saga %s is parked, for a person to decide: %s", plain(v.ID), plain(v.Reason))
	default:
		return end(exitGoesOn, "saga %s is still %s after %v (--timeout)", plain(v.ID), plain(string(v.State)), timeout)
	}
}

// said is what a person says of what he or she does.
type said struct{ step, as, by, note string }

func (s *sagaCommands) resolve() *cobra.Command {
	var as string
	cmd := s.verb("resolve", "Say what became of a step that a person has looked after", &as)
	cmd.Flags().Var(flags.OneOf(&as, "", "done", "refused", "compensated"), "as", "what became of it")
	return cmd
}

// verb returns the command of something that people do to a saga. as is of resolve alone.
func (s *sagaCommands) verb(name, short string, as *string) *cobra.Command {
	var n said
	cmd := &cobra.Command{Use: name + " ID", Short: short, Args: cobra.ExactArgs(1)}
	if name == "skip" || name == "resolve" {
		cmd.Use, cmd.Args = name+" ID STEP", cobra.ExactArgs(2)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		if len(args) == 2 {
			n.step = args[1]
		}
		if as != nil {
			if n.as = *as; n.as == "" {
				return flags.Usagef("--as is required: done, refused or compensated")
			}
		}
		if n.by == "" {
			var err error
			if n.by, err = me(); err != nil {
				return err
			}
		}
		var no *sagas.Error
		err := s.answer(cmd.Context(), func(ctx context.Context, api *sagas.Client) (*sagas.Saga, error) {
			v, err := do(ctx, api, name, args[0], n)
			errors.As(err, &no)
			return v, err
		})
		if no != nil && no.Sent && errors.Is(no, sagas.ErrUnavailable) {
			return fmt.Errorf("%w; see with meshctl saga show whether it was done, before you repeat it", err)
		}
		return err
	}
	cmd.Flags().StringVar(&n.by, "by", "", "who does it (default: the name of the user)")
	cmd.Flags().StringVar(&n.note, "note", "", "why, for those who look at the saga later")
	return cmd
}

// me is the name of the user.
func me() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", flags.Usagef("--by is required, since the name of the user cannot be found out: %w", err)
	}
	return u.Username, nil
}

// do does what a person says to a saga.
func do(ctx context.Context, api *sagas.Client, name, id string, n said) (*sagas.Saga, error) {
	note := sagas.Note{By: n.by, Note: n.note}
	switch name {
	case "retry":
		return api.Retry(ctx, id, note)
	case "skip":
		return api.Skip(ctx, id, n.step, note)
	case "resolve":
		return api.Resolve(ctx, id, n.step, saga.StepState(n.as), note)
	case "resume":
		return api.Resume(ctx, id, note)
	default:
		return api.Abort(ctx, id, note)
	}
}

// checkID refuses what can be no id of a saga before anybody is asked.
func checkID(id string) error {
	switch {
	case id == "":
		return flags.Usagef("the id of the saga is empty")
	case !saga.IsName(id):
		return flags.Usagef("%s is no id of a saga: letters, digits, and - _ . in between, %d bytes at the most", strconv.Quote(id), saga.MaxNameBytes)
	}
	return nil
}

// answer asks, and shows the saga that is the answer.
func (s *sagaCommands) answer(ctx context.Context, do func(context.Context, *sagas.Client) (*sagas.Saga, error)) error {
	var v *sagas.Saga
	err := s.ask(ctx, func(ctx context.Context, api *sagas.Client) (err error) {
		v, err = do(ctx, api)
		return err
	})
	if err != nil {
		return err
	}
	return s.print(v)
}

// print shows a saga in the format that was asked for.
func (s *sagaCommands) print(v *sagas.Saga) error {
	if s.format != table {
		return s.raw(v.Raw)
	}
	return writeSaga(s.out, v, s.now())
}

// raw writes what the API answered as JSON, or as a YAML document.
func (s *sagaCommands) raw(b []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return err
	}
	if s.format == asJSON {
		_, err := fmt.Fprintln(s.out, line.String())
		return err
	}
	y, err := yamlOf(line.Bytes())
	if err == nil {
		_, err = fmt.Fprintf(s.out, "---\n%s", y)
	}
	return err
}

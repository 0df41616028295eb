package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/node"
)

// streams is what a command reads, writes and is told by the system.
type streams struct {
	in       io.Reader
	out, err io.Writer
	terminal bool // err is one
	env      []string
}

func system() streams {
	return streams{in: os.Stdin, out: os.Stdout, err: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd())), env: os.Environ()}
}

func (s streams) getenv(name string) string {
	value := ""
	for _, e := range s.env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// app is one run of the command.
type app struct {
	streams
	json    bool
	quiet   bool
	home    string // --home
	started bool   // the command line was understood: errors are no longer about usage
	config  settings
}

// run is the whole command, for main and for tests.
func run(ctx context.Context, args []string, s streams) int {
	a := &app{streams: s}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	code := a.exitCode(err)
	a.fail(cmd, err, code)
	return code
}

// fail tells an error: for people, or as JSON.
func (a *app) fail(cmd *cobra.Command, err error, code int) {
	var quiet silentError
	if errors.As(err, &quiet) {
		return
	}
	if a.json {
		out := struct {
			Error string `json:"error"`
			Exit  int    `json:"exit"`
		}{err.Error(), code}
		if b, merr := json.Marshal(out); merr == nil {
			fmt.Fprintln(a.err, string(b))
			return
		}
	}
	fmt.Fprintln(a.err, "kith:", err)
	if code == exitUsage && cmd != nil {
		fmt.Fprintf(a.err, "'%s --help' tells how to use it\n", cmd.CommandPath())
	}
}

// homeDir is the node's folder: --home, KITH_HOME, $XDG_DATA_HOME/kith, or the
// system's place for a user's data.
func (a *app) homeDir() (node.Home, error) {
	for _, dir := range []string{a.home, a.getenv("KITH_HOME")} {
		if dir != "" {
			abs, err := filepath.Abs(dir)
			return node.Home(abs), err
		}
	}
	base := a.getenv("XDG_DATA_HOME")
	if base == "" && runtime.GOOS == "windows" {
		base = a.getenv("LOCALAPPDATA")
	}
	if base == "" {
		user := a.getenv("HOME")
		if runtime.GOOS == "windows" {
			user = a.getenv("USERPROFILE")
		}
		if user == "" {
			return "", usagef("no home folder: set --home or KITH_HOME")
		}
		base = filepath.Join(user, ".local", "share")
	}
	return node.Home(filepath.Join(base, "kith")), nil
}

// client returns a client of the node that is meant: the one at --api, or the
// one that runs on the home.
func (a *app) client(cmd *cobra.Command) (*client.Client, error) {
	if err := a.load(cmd); err != nil {
		return nil, err
	}
	home, err := a.homeDir()
	if err != nil {
		return nil, err
	}
	token, err := a.token(home)
	if err != nil {
		return nil, err
	}
	if a.config.API != "" {
		if token == "" {
			return nil, usagef("no token for the API at %s: give --token-file or KITH_TOKEN; 'kith token' on that node prints it", a.config.API)
		}
		c, err := client.New(a.config.API, token)
		return c, asUsage(err)
	}
	at, err := home.ReadAPIAddress()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &client.NotReachableError{Address: "home " + string(home), Err: errors.New("no node runs there")}
	case err != nil:
		return nil, err
	case token == "":
		return nil, fmt.Errorf("%s has no token: start the node again", home)
	}
	return client.New(at.Address, token)
}

// token finds the API's bearer token without making one; "" is none.
func (a *app) token(home node.Home) (string, error) {
	if a.config.TokenFile != "" {
		b, err := os.ReadFile(a.config.TokenFile)
		if err != nil {
			return "", fmt.Errorf("token-file: %w", err)
		}
		return strings.TrimSpace(string(b)), nil
	}
	if t := a.getenv("KITH_TOKEN"); t != "" {
		return t, nil
	}
	if _, err := os.Stat(home.APIToken()); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return home.LoadAPIToken()
}

// root is the whole command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "kith",
		Short: "A peer-to-peer compute mesh",
		Long: `kith joins machines into a mesh of equal peers that run each other's jobs.

Exit codes: 0 done, 1 failed, 2 usage, 3 node not reachable, 4 refused.
Settings: flag, then KITH_* environment, then config.yaml, then default.`,
		Example: `  kith init && kith up                  # first machine
  kith invite create                    # prints a line
  kith up --join kith1...               # second machine
  kith run count.wasm --input book.txt --split lines:1000`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRun: func(*cobra.Command, []string) { a.started = true },
		RunE:             func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print JSON")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print no progress")
	f.StringVar(&a.home, "home", "", "the node's folder (KITH_HOME)")
	addSettings(f, clientSettings)
	root.AddGroup(
		&cobra.Group{ID: "node", Title: "This node:"}, &cobra.Group{ID: "mesh", Title: "The mesh:"},
		&cobra.Group{ID: "data", Title: "Data:"}, &cobra.Group{ID: "jobs", Title: "Jobs:"})
	group := func(id string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("node", a.initCmd(), a.upCmd(), a.downCmd(), a.statusCmd(), a.doctorCmd(), a.healthCmd(), a.idCmd(), a.tokenCmd(), a.pauseCmd(), a.resumeCmd(), a.versionCmd())
	group("mesh", a.inviteCmd(), a.peersCmd(), a.demoCmd(), a.benchCmd())
	group("data", a.addCmd(), a.getCmd(), a.catCmd(), a.lsCmd(), a.pinCmd(), a.unpinCmd(), a.gcCmd(), a.carCmd())
	group("jobs", a.runCmd(), a.submitCmd(), a.publishCmd(), a.jobsCmd(), a.jobCmd(), a.logsCmd(), a.resultsCmd(), a.cancelCmd(), a.whyCmd())
	completion(root)
	tellUse(root)
	return root
}

// tellUse makes errors about arguments show what is wanted.
func tellUse(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			var told usageError
			if err == nil || errors.As(err, &told) {
				return err
			}
			return usagef("%w: want '%s'", err, strings.TrimSuffix(cmd.UseLine(), " [flags]"))
		}
	}
	for _, c := range cmd.Commands() {
		tellUse(c)
	}
}

// completion gives cobra's own commands what ours have.
func completion(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Example = "  kith help run"
			c.Run, c.RunE = nil, func(_ *cobra.Command, args []string) error {
				about, _, err := root.Find(args)
				if err != nil {
					return asUsage(err)
				}
				about.InitDefaultHelpFlag()
				return about.Help()
			}
		case "completion":
			c.Example = "  kith completion bash > /etc/bash_completion.d/kith"
			c.Args, c.RunE = cobra.NoArgs, needSubcommand
			for _, shell := range c.Commands() {
				shell.Example = "  kith completion " + shell.Name()
			}
		}
	}
}

// needSubcommand is what a command that only groups others does.
func needSubcommand(cmd *cobra.Command, _ []string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usagef("%s: name one of: %s", cmd.Name(), strings.Join(names, ", "))
}

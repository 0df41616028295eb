package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "rewrite docs/cli.md")

const docsFile = "../../docs/cli.md"

// walk visits every command that a user sees.
func walk(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			walk(c, f)
		}
	}
}

func testApp(env ...string) (*app, *bytes.Buffer, *bytes.Buffer) {
	var out, errs bytes.Buffer
	return &app{streams: streams{in: strings.NewReader(""), out: &out, err: &errs, env: env}}, &out, &errs
}

func TestEveryCommandTellsHowToUseIt(t *testing.T) {
	a, _, _ := testApp()
	seen := 0
	walk(a.root(), func(c *cobra.Command) {
		seen++
		path := c.CommandPath()
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s: short %q, example %q", path, c.Short, c.Example)
		}
		for _, line := range strings.Split(c.Example, "\n") {
			if !strings.Contains(c.Example, "kith") || !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: example line %q: two spaces, then the command", path, line)
			}
		}
		if c.Parent() == nil || c.Parent().Name() == "completion" {
			return
		}
		if c.Args == nil && c.Name() != "help" {
			t.Errorf("%s takes any arguments", path)
		}
		if c.Flags().Lookup("json") == nil && c.InheritedFlags().Lookup("json") == nil {
			t.Errorf("%s has no --json", path)
		}
	})
	if seen < 40 {
		t.Errorf("only %d commands", seen)
	}
}

// TestDocs keeps docs/cli.md what the commands are. go generate rewrites it.
func TestDocs(t *testing.T) {
	var b bytes.Buffer
	writeDocs(&b)
	if *update {
		if err := os.WriteFile(docsFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Errorf("%s is stale: run go generate ./cmd/kith", docsFile)
	}
}

func writeDocs(w io.Writer) {
	a, _, _ := testApp()
	root := a.root()
	fmt.Fprint(w, "# The kith command\n\nGenerated from the command itself by `go generate ./cmd/kith`; `kith COMMAND --help` prints the same.\n\n")
	fmt.Fprint(w, root.Long, "\n\n## Settings\n\nFlags of `kith up` and the two that say which node is meant may also stand in the environment or in\n`$XDG_CONFIG_HOME/kith/config.yaml` or `<home>/config.yaml` (the home's wins). Unknown keys are errors.\n\n")
	fmt.Fprint(w, "| key | flag | environment | |\n|---|---|---|---|\n")
	for _, s := range append(append([]setting(nil), clientSettings...), upSettings...) {
		fmt.Fprintf(w, "| `%s` | `--%s` | `%s` | %s |\n", s.key, s.flag, s.env(), s.usage)
	}
	fmt.Fprint(w, "\n`KITH_HOME` is the home (`--home`), `KITH_TOKEN` the API's token.\n")
	fmt.Fprint(w, "\n## Flags of every command\n\n```\n", root.PersistentFlags().FlagUsages(), "```\n")
	walk(root, func(c *cobra.Command) {
		if c == root || (c.Parent().Name() == "completion") {
			return
		}
		fmt.Fprintf(w, "\n## %s\n\n%s.\n", c.CommandPath(), c.Short)
		if c.Long != "" && c.Name() != "completion" {
			fmt.Fprintf(w, "\n```\n%s\n```\n", strings.TrimSpace(c.Long))
		}
		fmt.Fprintf(w, "\n```\n%s\n```\n\nExample:\n\n```\n%s\n```\n", c.UseLine(), c.Example)
		if flags := c.LocalNonPersistentFlags().FlagUsages(); flags != "" && c.Name() != "completion" && c.Name() != "help" {
			fmt.Fprintf(w, "\n```\n%s```\n", flags)
		}
	})
}

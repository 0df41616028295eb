package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// settings is what flags, environment and the config file come to.
type settings struct {
	API       string
	TokenFile string

	Listen    []string
	NoQUIC    bool
	APIListen string
	APIHosts  []string
	Init      bool
	Join      string
	JoinFile  string
	InviteOut string
	CPU       string
	Memory    string
	Disk      string
	Light     bool
	LogLevel  string
	LogFormat string
}

// setting is one key: apiListen in the file, --api-listen, KITH_API_LISTEN.
type setting struct {
	key   string
	flag  string
	def   any // its type is the setting's: string, bool or []string
	usage string
}

func (s setting) env() string { return "KITH_" + strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_")) }

// clientSettings say which node a command talks to.
var clientSettings = []setting{
	{"api", "api", "", "address of the node's API, host:port; default: of the node that runs on the home"},
	{"tokenFile", "token-file", "", "file that holds that API's token; KITH_TOKEN holds the token itself"},
}

// upSettings say how a node runs.
var upSettings = []setting{
	{"listen", "listen", []string(nil), "multiaddr for peers, may be repeated (default: TCP and QUIC on port 4101 of every interface)"},
	{"noQuic", "no-quic", false, "listen on TCP only"},
	{"apiListen", "api-listen", "127.0.0.1:7770", "host:port of the local API"},
	{"apiHosts", "api-host", []string(nil), "further name that requests may use for the API, may be repeated"},
	{"init", "init", false, "make a mesh when the home belongs to none"},
	{"join", "join", "", "invite line, or 'lan' for a mesh on this network that is marked open; used when the home belongs to no mesh"},
	{"joinFile", "join-file", "", "file that holds, or will hold, an invite line"},
	{"inviteOut", "invite-out", "", "file to write an invite line to, for many nodes to join with"},
	{"cpu", "cpu", "", "what tasks may take of the CPU: a share such as 50% or a number of cores (default 50%)"},
	{"memory", "memory", "", "memory for tasks: a size such as 2GiB or a share (default 50%)"},
	{"disk", "disk", "", "disk for blocks: a size such as 20GiB or a share of the volume (default 10%)"},
	{"light", "light", false, "run no job service: take no work, adopt no jobs"},
	{"logLevel", "log-level", "info", "debug, info, warn or error"},
	{"logFormat", "log-format", "text", "text or json"},
}

// settingMark tells a setting's flag from one of the same name, as the --cpu of
// 'kith run' is.
const settingMark = "kith-setting"

// addSettings declares flags for settings.
func addSettings(f *pflag.FlagSet, list []setting) {
	for _, s := range list {
		usage := s.usage + " (" + s.env() + ")"
		switch def := s.def.(type) {
		case string:
			f.String(s.flag, def, usage)
		case bool:
			f.Bool(s.flag, def, usage)
		case []string:
			f.StringArray(s.flag, def, usage)
		}
		f.Lookup(s.flag).Annotations = map[string][]string{settingMark: {s.key}}
	}
}

// otherEnv are KITH_ variables that are no settings.
var otherEnv = []string{"KITH_HOME", "KITH_TOKEN"}

// load fills a.config. It reads each source once.
func (a *app) load(cmd *cobra.Command) error {
	all := slices.Concat(clientSettings, upSettings)
	k := koanf.New(".")
	defaults := map[string]any{}
	for _, s := range all {
		defaults[s.key] = s.def
	}
	if err := k.Load(confmap.Provider(defaults, ""), nil); err != nil {
		return err
	}
	if err := a.loadFiles(k, all); err != nil {
		return err
	}
	if err := a.loadEnv(k, all); err != nil {
		return err
	}
	flags := map[string]any{}
	for _, s := range all {
		if f := cmd.Flags().Lookup(s.flag); f != nil && f.Changed && f.Annotations[settingMark] != nil {
			v, err := s.fromFlag(cmd.Flags())
			if err != nil {
				return err
			}
			flags[s.key] = v
		}
	}
	if err := k.Load(confmap.Provider(flags, ""), nil); err != nil {
		return err
	}
	a.config = settings{
		API: k.String("api"), TokenFile: k.String("tokenFile"),
		Listen: k.Strings("listen"), NoQUIC: k.Bool("noQuic"), APIListen: k.String("apiListen"), APIHosts: k.Strings("apiHosts"),
		Init: k.Bool("init"), Join: k.String("join"), JoinFile: k.String("joinFile"), InviteOut: k.String("inviteOut"),
		CPU: k.String("cpu"), Memory: k.String("memory"), Disk: k.String("disk"), Light: k.Bool("light"),
		LogLevel: k.String("logLevel"), LogFormat: k.String("logFormat"),
	}
	return nil
}

func (s setting) fromFlag(f *pflag.FlagSet) (any, error) {
	switch s.def.(type) {
	case bool:
		return f.GetBool(s.flag)
	case []string:
		return f.GetStringArray(s.flag)
	}
	return f.GetString(s.flag)
}

// loadFiles reads the user's config file, then the home's, which wins.
func (a *app) loadFiles(k *koanf.Koanf, all []setting) error {
	var paths []string
	base := a.getenv("XDG_CONFIG_HOME")
	if base == "" && a.getenv("HOME") != "" {
		base = filepath.Join(a.getenv("HOME"), ".config")
	}
	if base != "" {
		paths = append(paths, filepath.Join(base, "kith", "config.yaml"))
	}
	home, err := a.homeDir()
	if err != nil {
		return err
	}
	paths = append(paths, filepath.Join(string(home), "config.yaml"))
	for _, path := range paths {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		one := koanf.New(".")
		if err := one.Load(file.Provider(path), yaml.Parser()); err != nil {
			return usagef("config file %s: %w", path, err)
		}
		values := map[string]any{}
		var faults []error
		for key, raw := range one.Raw() {
			i := slices.IndexFunc(all, func(s setting) bool { return s.key == key })
			if i < 0 {
				faults = append(faults, unknownKey(key, all))
				continue
			}
			v, err := all[i].fromFile(raw)
			if err != nil {
				faults = append(faults, err)
			}
			values[key] = v
		}
		if len(faults) > 0 {
			slices.SortFunc(faults, func(x, y error) int { return strings.Compare(x.Error(), y.Error()) })
			return usagef("config file %s:\n%w", path, errors.Join(faults...))
		}
		if err := k.Load(confmap.Provider(values, ""), nil); err != nil {
			return err
		}
	}
	return nil
}

func unknownKey(key string, all []setting) error {
	var keys []string
	for _, s := range all {
		keys = append(keys, s.key)
	}
	if near := nearest(key, keys); near != "" {
		return fmt.Errorf("unknown key %q: did you mean %s?", key, near)
	}
	return fmt.Errorf("unknown key %q: the keys are %s", key, strings.Join(keys, ", "))
}

// fromFile checks a value's type.
func (s setting) fromFile(raw any) (any, error) {
	switch s.def.(type) {
	case bool:
		if b, ok := raw.(bool); ok {
			return b, nil
		}
		return nil, fmt.Errorf("%s: %v is not true or false", s.key, raw)
	case []string:
		if one, ok := raw.(string); ok {
			return []string{one}, nil
		}
		list, ok := raw.([]any)
		var out []string
		for _, e := range list {
			text, isText := e.(string)
			ok = ok && isText
			out = append(out, text)
		}
		if !ok {
			return nil, fmt.Errorf("%s: %v is not a list of texts", s.key, raw)
		}
		return out, nil
	}
	switch v := raw.(type) {
	case string:
		return v, nil
	case int, float64:
		return fmt.Sprint(v), nil
	}
	return nil, fmt.Errorf("%s: %v is not a text", s.key, raw)
}

// loadEnv reads KITH_ variables. One that looks like a mistyped setting is an
// error; others belong to somebody else (a service named kith in Kubernetes has
// dozens).
func (a *app) loadEnv(k *koanf.Koanf, all []setting) error {
	byEnv := map[string]setting{}
	names := slices.Clone(otherEnv)
	for _, s := range all {
		byEnv[s.env()] = s
		names = append(names, s.env())
	}
	var faults []error
	p := env.Provider(".", env.Opt{Prefix: "KITH_", EnvironFunc: func() []string { return a.env }, TransformFunc: func(name, value string) (string, any) {
		s, ok := byEnv[name]
		if !ok {
			if near := nearest(name, names); near != "" && near != name {
				faults = append(faults, fmt.Errorf("environment variable %s is not known: did you mean %s?", name, near))
			}
			return "", nil
		}
		switch s.def.(type) {
		case bool:
			b, err := strconv.ParseBool(value)
			if err != nil {
				faults = append(faults, fmt.Errorf("environment variable %s: %q is not true or false", name, value))
			}
			return s.key, b
		case []string:
			return s.key, strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
		}
		return s.key, value
	}})
	if err := k.Load(p, nil); err != nil {
		return err
	}
	return asUsage(errors.Join(faults...))
}

// nearest returns the known word that is at most two edits away, "" if none is.
func nearest(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := edits(strings.ToLower(word), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

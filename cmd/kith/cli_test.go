package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// kithWith runs a command line with only env as its environment.
func kithWith(t *testing.T, env []string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, streams{in: strings.NewReader(""), out: &o, err: &e, env: env})
	return code, o.String(), e.String()
}

// fakeAPI answers every request with one answer.
func fakeAPI(t *testing.T, status int, body any) (env []string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if status >= 400 {
			w.Header().Set("Content-Type", "application/problem+json")
		}
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	return []string{"KITH_HOME=" + t.TempDir(), "KITH_API=" + srv.Listener.Addr().String(), "KITH_TOKEN=0123456789abcdef"}
}

func TestExitCodes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	home := []string{"KITH_HOME=" + t.TempDir()}
	for _, tt := range []struct {
		name string
		env  []string
		args string
		code int
		says string
	}{
		{"done", fakeAPI(t, 200, api.List[api.Peer]{Items: []api.Peer{}}), "peers", exitDone, ""},
		{"not found", fakeAPI(t, 404, api.NotFound("look around", "no job x")), "job 7f3a", exitFailed, "no job x (look around)"},
		{"failed", fakeAPI(t, 500, api.NewError(500, "internal", "", "boom")), "status", exitFailed, "boom"},
		{"bad request", fakeAPI(t, 422, api.Invalid("", "limit: 0")), "jobs", exitUsage, "limit: 0"},
		{"no token", fakeAPI(t, 401, api.NewError(401, "unauthorized", "kith token", "needs a token")), "status", exitRefused, "needs a token"},
		{"forbidden", fakeAPI(t, 403, api.Refused(tasks.NotMember, "", "not a member")), "status", exitRefused, "not a member"},
		{"busy", fakeAPI(t, 429, api.Busy(tasks.OriginBusy, time.Second, "full")), "status", exitRefused, "full"},
		{"no node on the home", home, "status", exitNotReachable, "kith up"},
		{"nobody at the address", append(home, "KITH_TOKEN=x", "KITH_API="+nobody), "status", exitNotReachable, nobody},
		{"API without a token", append(home, "KITH_API="+nobody), "status", exitUsage, "--token-file"},
		{"bad address", append(home, "KITH_API=nowhere", "KITH_TOKEN=x"), "status", exitUsage, "nowhere"},
		{"unknown command", home, "staus", exitUsage, "status"},
		{"unknown flag", home, "status --jsn", exitUsage, "--jsn"},
		{"unknown subcommand", home, "invite make", exitUsage, "make"},
		{"subcommand missing", home, "invite", exitUsage, "create, ls, revoke"},
		{"argument missing", home, "get", exitUsage, "want 'kith get CID[/PATH]'"},
		{"help about nothing", home, "help frobnicate", exitUsage, "frobnicate"},
		{"argument too many", home, "status now", exitUsage, "now"},
		{"flag value", home, "invite create --uses many", exitUsage, "many"},
		{"value out of range", home, "invite create --uses 0", exitUsage, "--uses 0"},
		{"not a CID", home, "cat hello/x", exitUsage, `"hello" is not a CID`},
		{"pause time", home, "pause soon", exitUsage, `"soon"`},
		{"no mesh", home, "up", exitUsage, "kith init"},
		{"init and join", home, "up --init --join lan", exitUsage, "one of them"},
		{"bad cpu", home, "up --cpu 500%", exitUsage, `cpu: cpu share "500%"`},
		{"bad level", home, "up --log-level loud", exitUsage, "loud"},
		{"bad delay", home, "up --delay x", exitUsage, "127.0.0.1:4102=20ms"},
		{"no program", home, "run", exitUsage, "PROGRAM"},
		{"two programs", home, "run a.wasm b.wasm", exitUsage, "after --"},
		{"program not there", home, "run nope.wasm --tasks 1", exitNotReachable, ""},
		{"spec not there", home, "submit nope.yaml", exitUsage, "nope.yaml"},
		{"split without input", home, "run x.wasm --split lines:5", exitUsage, "without --input"},
		{"bad split", home, "run x.wasm --input y --split lines:x", exitUsage, "lines:x"},
		{"bad memory", home, "run x.wasm --memory lots", exitUsage, "lots"},
		{"too many replicas", home, "run x.wasm --replicas 1000", exitUsage, "1000"},
		{"cat as JSON", home, "cat bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku --json", exitUsage, "--json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := kithWith(t, tt.env, strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(errs, tt.says) {
				t.Errorf("exit %d, want %d; stderr %q should tell %q; stdout %q", code, tt.code, errs, tt.says, out)
			}
			if code == exitUsage && !strings.Contains(tt.args, "--json") && !strings.Contains(errs, "--help") {
				t.Errorf("no word about --help: %q", errs)
			}
		})
	}
}

func TestErrorsAsJSON(t *testing.T) {
	code, _, errs := kithWith(t, []string{"KITH_HOME=" + t.TempDir()}, "status", "--json")
	var e struct {
		Error string
		Exit  int
	}
	if err := json.Unmarshal([]byte(errs), &e); err != nil || e.Exit != code || code != exitNotReachable || e.Error == "" {
		t.Errorf("%d %q %v", code, errs, err)
	}
}

// A setting comes from the flag, then the environment, then the home's file,
// then the user's, then the default.
func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	home, xdg := filepath.Join(dir, "home"), filepath.Join(dir, "xdg")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"KITH_HOME=" + home, "XDG_CONFIG_HOME=" + xdg}
	read := func(env []string, args ...string) settings {
		t.Helper()
		a, _, _ := testApp(env...)
		cmd := a.upCmd()
		cmd.Flags().String("api", "", "")
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		if err := a.load(cmd); err != nil {
			t.Fatal(err)
		}
		return a.config
	}
	step := func(want, got string) {
		t.Helper()
		if got != want {
			t.Errorf("apiListen %q, want %q", got, want)
		}
	}
	step("127.0.0.1:7770", read(env).APIListen)
	write(filepath.Join(xdg, "kith/config.yaml"), "apiListen: user:1\nlisten: [/a, /b]\ncpu: 2\nlight: true\n")
	step("user:1", read(env).APIListen)
	write(filepath.Join(home, "config.yaml"), "apiListen: home:1\nlisten: /c\n")
	step("home:1", read(env).APIListen)
	if c := read(env); c.CPU != "2" || !c.Light || !slices.Equal(c.Listen, []string{"/c"}) {
		t.Errorf("%+v", c)
	}
	env = append(env, "KITH_API_LISTEN=env:1", "KITH_LISTEN=/d,/e", "KITH_LIGHT=false")
	if c := read(env); c.Light || !slices.Equal(c.Listen, []string{"/d", "/e"}) {
		t.Errorf("%+v", c)
	}
	step("env:1", read(env).APIListen)
	step("flag:1", read(env, "--api-listen", "flag:1").APIListen)
}

func TestBadSettings(t *testing.T) {
	home := t.TempDir()
	for _, tt := range []struct {
		file, env string
		says      []string
	}{
		{file: "apiListn: x\nfrobnicate: 1\n", says: []string{`unknown key "apiListn": did you mean apiListen?`, `unknown key "frobnicate": the keys are api,`, "config.yaml"}},
		{file: "light: perhaps\n", says: []string{"light: perhaps is not true or false"}},
		{file: "listen: {a: b}\n", says: []string{"listen: map[a:b] is not a list of texts"}},
		{file: "cpu: [1]\n", says: []string{"cpu: [1] is not a text"}},
		{file: "cpu: [1\n", says: []string{"config.yaml"}},
		{env: "KITH_API_LISTN=x", says: []string{"KITH_API_LISTN is not known: did you mean KITH_API_LISTEN?"}},
		{env: "KITH_LIGHT=perhaps", says: []string{`KITH_LIGHT: "perhaps" is not true or false`}},
	} {
		if err := os.WriteFile(filepath.Join(home, "config.yaml"), []byte(tt.file), 0o644); err != nil {
			t.Fatal(err)
		}
		code, _, errs := kithWith(t, []string{"KITH_HOME=" + home, tt.env}, "status")
		if code != exitUsage {
			t.Errorf("%+v: exit %d", tt, code)
		}
		for _, want := range tt.says {
			if !strings.Contains(errs, want) {
				t.Errorf("%+v: error %q lacks %q", tt, errs, want)
			}
		}
	}
	// What other software puts there is not ours to judge.
	if code, _, errs := kithWith(t, []string{"KITH_HOME=" + t.TempDir(), "KITH_SERVICE_PORT_HTTP=80"}, "status"); code != exitNotReachable {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestHomes(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		flag, want string
		env        []string
	}{
		{dir + "/flag", dir + "/flag", []string{"KITH_HOME=" + dir + "/env"}},
		{"", dir + "/env", []string{"KITH_HOME=" + dir + "/env", "XDG_DATA_HOME=" + dir}},
		{"", dir + "/kith", []string{"XDG_DATA_HOME=" + dir, "HOME=/nowhere"}},
	} {
		a, _, _ := testApp(tt.env...)
		a.home = tt.flag
		if got, err := a.homeDir(); err != nil || string(got) != filepath.Clean(tt.want) {
			t.Errorf("%+v: %s %v", tt, got, err)
		}
	}
	a, _, _ := testApp()
	if _, err := a.homeDir(); err == nil || !strings.Contains(err.Error(), "KITH_HOME") {
		t.Errorf("no home: %v", err)
	}
}

func TestRunSpec(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "a=b.txt")
	if err := os.WriteFile(odd, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	const c = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	for _, tt := range []struct {
		args string
		want func(tasks.Spec) bool
	}{
		{"p/my count.wasm", func(s tasks.Spec) bool { return s.Name == "my-count" && s.Verify.Mode == tasks.VerifyNone }},
		{c, func(s tasks.Spec) bool { return s.Name == "" && s.Program == c }},
		{"x.wasm|--input|in.txt", func(s tasks.Spec) bool {
			return s.Inputs[0] == tasks.Input{Source: "in.txt", Split: tasks.Split{By: tasks.SplitFiles}}
		}},
		{"x.wasm|--input|in.txt|--split|lines:5", func(s tasks.Spec) bool { return s.Inputs[0].Split == tasks.Split{By: tasks.SplitLines, Size: 5} }},
		{"x.wasm|--input|d/in.txt|--tasks|4", func(s tasks.Spec) bool {
			return s.Tasks == 4 && s.Inputs[0] == tasks.Input{Name: "in.txt", Source: "d/in.txt"}
		}},
		{"x.wasm|--input|d/in.txt|--split|none", func(s tasks.Spec) bool { return s.Inputs[0].Name == "in.txt" }},
		{"x.wasm|--input|stop=words.txt|-i|text", func(s tasks.Spec) bool {
			return s.Inputs[0] == tasks.Input{Name: "stop", Source: "words.txt"} && s.Inputs[1].Split.By == tasks.SplitFiles
		}},
		{"x.wasm|--input|" + odd, func(s tasks.Spec) bool { return string(s.Inputs[0].Source) == odd }},
		{"x.wasm|--replicas|3|--reduce|y.wasm|--reduce-arg|-n", func(s tasks.Spec) bool {
			return s.Verify == tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 3} && s.Reduce.Program == "y.wasm" && s.Reduce.Args[0] == "-n"
		}},
		{"x.wasm|-e|A=1=2|--memory|64Mi|--timeout|2s|--max-rtt|80ms|--", func(s tasks.Spec) bool {
			return s.Env["A"] == "1=2" && s.Resources.Memory == 64<<20 && s.Resources.Timeout == 2*time.Second && s.Locality.MaxRTT == 80*time.Millisecond
		}},
	} {
		var o runOptions
		a, _, _ := testApp()
		cmd := a.runCmd()
		cmd.ResetFlags()
		o.flags(cmd.Flags())
		if err := cmd.ParseFlags(strings.Split(tt.args, "|")); err != nil {
			t.Fatal(err)
		}
		s, err := o.spec(cmd.Flags().Args()[0], nil)
		if err != nil || !tt.want(s) {
			t.Errorf("%s: %+v %v", tt.args, s, err)
		}
		if err := checkSpec(s); err != nil {
			t.Errorf("%s: %v", tt.args, err)
		}
	}
}

// Without a terminal, progress is lines, and the last one always shows.
func TestPlainProgress(t *testing.T) {
	a, out, errs := testApp()
	p := a.progress("fetch", true)
	for i := range int64(1000) {
		p.report(i<<10, 1000<<10)
	}
	p.report(1000<<10, 1000<<10)
	p.end()
	lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
	if len(lines) > 3 || lines[len(lines)-1] != "fetch: 1000.0 KiB of 1000.0 KiB (100%)" || out.Len() != 0 {
		t.Errorf("%q %q", lines, out)
	}
	for _, change := range []func(*app){func(a *app) { a.json = true }, func(a *app) { a.quiet = true }} {
		a, _, errs := testApp()
		change(a)
		a.progress("fetch", true).report(1, 1)
		a.note("hello")
		if errs.Len() != 0 {
			t.Errorf("%q", errs)
		}
	}
}

func TestBarOnTerminals(t *testing.T) {
	a, _, errs := testApp()
	a.terminal = true
	p := a.progress("fetch", true)
	p.report(0, 100)
	p.reportMore(50, 100, "half")
	p.report(100, 200)
	p.end()
	if !strings.Contains(errs.String(), "fetch") {
		t.Errorf("%q", errs)
	}
}

func TestFormats(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for got, want := range map[string]string{
		size(0): "0 B", size(1023): "1023 B", size(1536): "1.5 KiB", size(3 << 40): "3.0 TiB", size(1 << 60): "1048576.0 TiB",
		ago(now.Add(-90*time.Minute), now): "1h30m ago", ago(time.Time{}, now): "-", until(now.Add(49*time.Hour), now): "in 2d", until(now, now): "now",
		millis(0): "-", millis(1.23): "1.2ms", millis(123.4): "123ms", plural(1, "pin"): "1 pin", plural(2, "pin"): "2 pins",
		short("12D3KooWabcdefghij"): "…cdefghij",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestCompletionAsksTheNode(t *testing.T) {
	env := fakeAPI(t, 200, api.List[api.Job]{Items: []api.Job{{ID: strings.Repeat("a", 52), Name: "count", State: "running"}}})
	code, out, _ := kithWith(t, env, "__complete", "job", "aa")
	if code != 0 || !strings.HasPrefix(out, "aaaaaaaaaaaa\tcount, running\n") {
		t.Errorf("%d %q", code, out)
	}
	if code, out, _ := kithWith(t, []string{"KITH_HOME=" + t.TempDir()}, "__complete", "job", ""); code != 0 || !strings.HasPrefix(out, ":4") {
		t.Errorf("without a node: %d %q", code, out)
	}
}

func TestInterruptedRunSaysThatTheJobGoesOn(t *testing.T) {
	a, _, _ := testApp()
	a.started = true
	if code := a.exitCode(context.Canceled); code != exitFailed {
		t.Errorf("exit %d", code)
	}
}

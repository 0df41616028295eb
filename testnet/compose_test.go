package testnet

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
)

// composeLines a task make 800 tasks: docker takes its time to kill.
const composeLines = 50

// TestCompose builds the image, brings the compose testnet up, runs the word
// count through its published API, kills a container half-way and cuts another
// off its network, and heals the cut.
func TestCompose(t *testing.T) {
	compose := composeCommand(t)
	image := buildImage(t.Context(), t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	_, port, err := net.SplitHostPort(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	project := fmt.Sprintf("kithtest%d", os.Getpid())
	env := append(os.Environ(), "KITH_API_PORT="+port, "KITH_IMAGE="+image)
	up := func(ctx context.Context, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(ctx, compose[0], append(append(compose[1:len(compose):len(compose)], "-p", project, "-f", "compose.yaml"), args...)...)
		cmd.Env = env
		return output(t, cmd)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if t.Failed() {
			t.Log(up(ctx, "logs", "--no-color", "--tail", "40"))
		}
		up(ctx, "down", "-v", "--timeout", "2")
		docker(ctx, t, "rmi", image)
	})
	up(ctx, "up", "-d")
	containers := map[string]string{}
	for i := 1; i <= 5; i++ {
		service := fmt.Sprintf("node%d", i)
		containers[service] = strings.TrimSpace(docker(ctx, t, "ps", "-q",
			"-f", "label=com.docker.compose.project="+project, "-f", "label=com.docker.compose.service="+service))
	}
	exec1 := func(args ...string) string {
		t.Helper()
		return docker(ctx, t, append([]string{"exec", containers["node1"], "/kith"}, args...)...)
	}
	exec1("peers", "--wait", "4", "--timeout", "90s")
	c, err := client.New("127.0.0.1:"+port, strings.TrimSpace(exec1("token")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := mustNotServe(ctx, "127.0.0.1:"+port); err != nil {
		t.Error(err)
	}

	peerOf := map[string]string{} // peer ID to service
	for service, id := range containers {
		peer := strings.TrimSpace(docker(ctx, t, "exec", id, "/kith", "id", "--json"))
		_, rest, ok := strings.Cut(peer, `"peer":`)
		if !ok {
			t.Fatalf("kith id --json in %s: %s", service, peer)
		}
		peerOf[strings.Split(rest, `"`)[1]] = service
	}
	id, text, err := submitWordCount(ctx, c, composeLines)
	if err != nil {
		t.Fatal(err)
	}
	var killed, cut string
	job, err := followJob(ctx, c, string(id), func(j api.Job) {
		if killed != "" || j.Tasks == 0 || 3*j.Done < j.Tasks {
			return
		}
		// The two that hold the most, and are not the origin.
		var most, second api.Worker
		for _, w := range j.Workers {
			switch {
			case w.Peer == j.Origin || w.Holds == 0:
			case w.Holds > most.Holds:
				most, second = w, most
			case w.Holds > second.Holds:
				second = w
			}
		}
		if second.Holds == 0 {
			return
		}
		killed, cut = peerOf[most.Peer], peerOf[second.Peer]
		docker(ctx, t, "kill", containers[killed])
		docker(ctx, t, "network", "disconnect", project+"_mesh", containers[cut])
		t.Logf("at %d of %d tasks: killed %s, which held %d, and cut off %s, which held %d", j.Done, j.Tasks, killed, most.Holds, cut, second.Holds)
	})
	if err != nil {
		t.Fatal(err)
	}
	if job.State != "done" || killed == "" {
		t.Fatalf("job is %s (%s) after %d of %d tasks; killed %q", job.State, job.Detail, job.Done, job.Tasks, killed)
	}
	if job.Releases+job.Copies == 0 {
		t.Error("nothing was leased again, though a container was killed and another cut off")
	}
	got, want, err := counts(ctx, c, cidOf(job), text)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the mesh counted %d different words, a plain count %d", len(got), len(want))
	}
	docker(ctx, t, "network", "connect", project+"_mesh", containers[cut])
	docker(ctx, t, "start", containers[killed])
	exec1("peers", "--wait", "4", "--timeout", "90s")
}

// mustNotServe checks that the published API refuses who has no token.
func mustNotServe(ctx context.Context, addr string) (*client.Client, error) {
	c, err := client.New(addr, "not the token of this node")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Status(ctx); err == nil {
		return nil, fmt.Errorf("the API at %s answered without its token", addr)
	}
	return nil, nil
}

// composeCommand finds a Docker engine that answers and a compose tool.
func composeCommand(t *testing.T) []string {
	t.Helper()
	if testing.Short() {
		t.Skip("short: starts five containers")
	}
	if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
		t.Skipf("no Docker engine answers: %v: %s", err, out)
	}
	if exec.Command("docker", "compose", "version").Run() == nil {
		return []string{"docker", "compose"}
	}
	if _, err := exec.LookPath("docker-compose"); err != nil {
		t.Fatal("a Docker engine answers, but neither `docker compose` nor docker-compose is installed")
	}
	return []string{"docker-compose"}
}

// buildImage builds the static binary and the image around it.
func buildImage(ctx context.Context, t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("image")); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "kith"), "../cmd/kith")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	output(t, build)
	image := fmt.Sprintf("kith-test:%d", os.Getpid())
	docker(ctx, t, "build", "-q", "-t", image, dir)
	return image
}

func docker(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	return output(t, exec.CommandContext(ctx, "docker", args...))
}

// output runs a command that must succeed and returns what it printed.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

func freePort(t *testing.T) string {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
}

// followJob polls a job until it is over, and shows each state to see.
func followJob(ctx context.Context, c *client.Client, id string, see func(api.Job)) (api.Job, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		job, err := c.Job(ctx, id)
		if err != nil {
			return job, fmt.Errorf("job: %w", err)
		}
		see(job)
		if job.Over() {
			return job, nil
		}
		select {
		case <-ctx.Done():
			return job, ctx.Err()
		case <-tick.C:
		}
	}
}

package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
)

// EchoArg, as the first argument of our binary, makes it the other end of the
// stream that calls are measured on: main then does nothing but
// os.Exit(EchoMain()).
const EchoArg = "__echo"

const (
	echoProtocol protocol.ID = "/kith-bench/echo/1.0.0"
	echoBytes    int         = 256 // of a request, and of its answer
	echoAtOnce   int         = 10  // requests on their way
)

// echoIdentity is what a child is told on standard input.
type echoIdentity struct {
	Mesh  auth.MeshID
	Key   []byte
	Token auth.Token
}

// EchoMain answers requests until standard input ends. It gives the exit code.
func EchoMain() int {
	if err := serveEcho(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kith echo:", err)
		return 1
	}
	return 0
}

func serveEcho(in io.Reader, out io.Writer) error {
	d := json.NewDecoder(in)
	var id echoIdentity
	if err := d.Decode(&id); err != nil {
		return fmt.Errorf("read who to be: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h, stop, err := echoHost(ctx, id)
	if err != nil {
		return err
	}
	h.Gated().SetStreamHandler(echoProtocol, func(s network.Stream) {
		var b [echoBytes]byte
		for {
			if _, err := io.ReadFull(s, b[:]); err != nil {
				_ = s.Reset() // the other end is done
				return
			}
			if _, err := s.Write(b[:]); err != nil {
				_ = s.Reset()
				return
			}
		}
	})
	if err := json.NewEncoder(out).Encode(peer.AddrInfo{ID: h.ID(), Addrs: h.Reachability().Listening}); err != nil {
		return errors.Join(err, stop())
	}
	_, err = io.Copy(io.Discard, in) // ends with our parent
	return errors.Join(err, stop())
}

// echoHost runs a host on loopback over TCP alone.
func echoHost(ctx context.Context, id echoIdentity) (h *p2p.Host, stop func() error, err error) {
	key, err := crypto.UnmarshalPrivateKey(id.Key)
	if err != nil {
		return nil, nil, err
	}
	h, err = p2p.New(p2p.Config{Key: key, Mesh: id.Mesh, Token: id.Token, NoQUIC: true, NoRelay: true, NoPortMap: true, NoMDNS: true,
		Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	select {
	case <-h.Ready():
		return h, func() error { cancel(); return <-done }, nil
	case err := <-done:
		cancel()
		return nil, nil, err
	}
}

// echo is a stream to another process that answers all that it is sent.
type echo struct {
	cmd   *exec.Cmd
	stdin io.Closer
	s     network.Stream
	stop  func() error // of this end's host
}

// startEcho starts the child and opens the stream.
func startEcho(ctx context.Context, exe string) (e *echo, err error) {
	ours, theirs, err := echoMesh()
	if err != nil {
		return nil, fmt.Errorf("stream-rpc: %w", err)
	}
	h, stop, err := echoHost(ctx, ours)
	if err != nil {
		return nil, fmt.Errorf("stream-rpc: %w", err)
	}
	e = &echo{cmd: exec.Command(exe, EchoArg), stop: stop}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("stream-rpc: %w", err), e.close())
		}
	}()
	e.cmd.Stderr = os.Stderr
	in, err := e.cmd.StdinPipe()
	if err != nil {
		return e, err
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return e, err
	}
	if err := e.cmd.Start(); err != nil {
		return e, err
	}
	e.stdin = in
	if err := json.NewEncoder(in).Encode(theirs); err != nil {
		return e, err
	}
	var at peer.AddrInfo
	if err := json.NewDecoder(out).Decode(&at); err != nil {
		return e, fmt.Errorf("the other end did not start: %w", err)
	}
	if err := h.Connect(ctx, at); err != nil {
		return e, err
	}
	e.s, err = h.Gated().NewStream(ctx, at.ID, echoProtocol)
	return e, err
}

// echoMesh makes two members of a new mesh.
func echoMesh() (a, b echoIdentity, err error) {
	root, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return a, b, err
	}
	mesh, err := auth.MeshOf(pub)
	if err != nil {
		return a, b, err
	}
	for _, m := range []*echoIdentity{&a, &b} {
		key, pub, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			return a, b, err
		}
		id, err := peer.IDFromPublicKey(pub)
		if err != nil {
			return a, b, err
		}
		m.Mesh = mesh
		if m.Key, err = crypto.MarshalPrivateKey(key); err != nil {
			return a, b, err
		}
		if m.Token, err = auth.Mint(root, auth.Subject{Peer: id, Rights: auth.MemberRights, Expires: time.Now().Add(24 * time.Hour)}); err != nil {
			return a, b, err
		}
	}
	return a, b, nil
}

// rate tells requests answered a second: echoBytes each, echoAtOnce on their way,
// each written by itself.
func (e *echo) rate(long time.Duration) (float64, error) {
	room := make(chan struct{}, echoAtOnce)
	var wg sync.WaitGroup
	var sendErr error
	begin := time.Now()
	wg.Go(func() {
		defer close(room)
		var b [echoBytes]byte
		for time.Since(begin) < long {
			room <- struct{}{}
			if _, sendErr = e.s.Write(b[:]); sendErr != nil {
				_ = e.s.Reset()
				return
			}
		}
	})
	n := 0
	var b [echoBytes]byte
	var err error
	for range room { // one token for each request that was begun
		if err == nil {
			if _, err = io.ReadFull(e.s, b[:]); err == nil {
				n++
			} else {
				_ = e.s.Reset()
			}
		}
	}
	took := time.Since(begin).Seconds()
	wg.Wait()
	if err := errors.Join(sendErr, err); err != nil {
		return 0, fmt.Errorf("stream-rpc: %w", err)
	}
	return float64(n) / took, nil
}

// close ends both ends.
func (e *echo) close() error {
	if e.s != nil {
		_ = e.s.Reset()
	}
	var errs []error
	if e.stdin != nil {
		e.stdin.Close() // ends the child
		errs = append(errs, e.cmd.Wait())
	}
	return errors.Join(append(errs, e.stop())...)
}

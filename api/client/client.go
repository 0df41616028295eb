// Package client speaks to a node's local API. The kith command does all its
// work through it.
//
// It keeps nothing on disk but what Get is asked to write, and it never talks to
// any host but the one address that it was given.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/kith-mesh/kith/api"
)

// Client talks to one node.
type Client struct {
	address string
	token   string
	http    *http.Client
}

// New returns a client of the API at host:port. Nothing is sent before the
// first call. An address that names every interface, as a listener's may, is
// taken as this machine.
func New(address, token string) (*Client, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("API address %q is not host:port such as 127.0.0.1:7770: %w", address, err)
	}
	if ip, err := netip.ParseAddr(host); host == "" || (err == nil && ip.IsUnspecified()) {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &Client{address: address, token: token, http: &http.Client{
		Transport: &http.Transport{ // no proxy: a token for loopback must not travel
			DialContext:           dialer.DialContext,
			ExpectContinueTimeout: time.Second,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   4,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the API does not redirect") },
	}}, nil
}

// Address is the host:port that the client talks to.
func (c *Client) Address() string { return c.address }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// maxAnswer bounds a JSON answer, and one line of a streamed one.
const maxAnswer = 64 << 20

// request is one call: what goes out, and how.
type request struct {
	method string
	path   string
	query  url.Values
	header http.Header
	body   io.Reader
	size   int64 // of body; -1: not known
}

// send returns an answer of status 2xx, whose body the caller closes.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: c.address, Path: r.path, RawQuery: r.query.Encode()}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), r.body)
	if err != nil {
		return nil, fmt.Errorf("API address %q: %w", c.address, err)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if r.body != nil && r.size != 0 {
		req.ContentLength = r.size
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &NotReachableError{Address: c.address, Err: unwrapURL(err)}
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readProblem(resp)
}

func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func readProblem(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	e := new(api.Error)
	if err == nil && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(b, e) == nil && e.Detail != "" {
		return e
	}
	return api.NewError(resp.StatusCode, api.ReasonInternal, "is this a kith API, of the same version?",
		"%s %s answered %s: %.200q", resp.Request.Method, resp.Request.URL.Path, resp.Status, b)
}

// call sends in as JSON when it is not nil and decodes the answer into out when
// that is not nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	r := request{method: method, path: path, query: query, header: http.Header{}}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		r.body, r.size = bytes.NewReader(b), int64(len(b))
		r.header.Set("Content-Type", "application/json")
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	return decode(ctx, c, resp, out)
}

func decode(ctx context.Context, c *Client, resp *http.Response, out any) error {
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return &NotReachableError{Address: c.address, Err: fmt.Errorf("answer cut: %w", err)}
	case len(b) > maxAnswer:
		return fmt.Errorf("%s answered more than %d bytes", resp.Request.URL.Path, maxAnswer)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s answered what is not valid: %w: is the node of the same version?", resp.Request.URL.Path, err)
	}
	return nil
}

// list calls a route that answers with items.
func list[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	var l api.List[T]
	err := c.call(ctx, http.MethodGet, path, query, nil, &l)
	return l.Items, err
}

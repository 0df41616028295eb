package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// Progress is told how many bytes of total have moved; total 0 is not known. It
// may be nil.
type Progress func(done, total int64)

func (p Progress) tell(done, total int64) {
	if p != nil {
		p(done, total)
	}
}

func dataPath(root tasks.CID, verb string) string {
	p := "/api/v1/data/" + string(root)
	if verb != "" {
		p += "/" + verb
	}
	return p
}

func inside(path string) url.Values { return query(api.Content{Path: path}) }

// query names a path inside a root, and whom to ask first.
func query(c api.Content) url.Values {
	q := url.Values{"from": c.From}
	if c.Path != "" {
		q.Set("path", c.Path)
	}
	return q
}

func optionQuery(o api.AddOptions) url.Values {
	q := url.Values{"pin": {strconv.FormatBool(o.Pin)}}
	if o.Name != "" {
		q.Set("name", o.Name)
	}
	if o.Audience != "" {
		q.Set("audience", string(o.Audience))
	}
	if o.Chunk > 0 {
		q.Set("chunk", strconv.FormatInt(o.Chunk, 10))
	}
	if o.Keep > 0 {
		q.Set("keep", o.Keep.String())
	}
	return q
}

// upload streams a body to the node.
func (c *Client) upload(ctx context.Context, path, media string, r io.Reader, size int64, opts api.AddOptions, out any) error {
	resp, err := c.send(ctx, request{
		method: http.MethodPost, path: path, query: optionQuery(opts), body: r, size: size,
		header: http.Header{"Content-Type": {media}, "Expect": {"100-continue"}},
	})
	if err != nil {
		return err
	}
	return decode(ctx, c, resp, out)
}

// AddFile stores a stream of size bytes (-1: not known) as one file.
func (c *Client) AddFile(ctx context.Context, r io.Reader, size int64, opts api.AddOptions) (out api.Root, err error) {
	if size == 0 {
		r = http.NoBody
	}
	return out, c.upload(ctx, "/api/v1/data", api.MediaBytes, r, size, opts, &out)
}

// Cat reads length bytes (-1: to the end) of a file from offset. The caller
// closes what it returns.
func (c *Client) Cat(ctx context.Context, root tasks.CID, path string, offset, length int64) (io.ReadCloser, error) {
	h := http.Header{}
	if length == 0 {
		return http.NoBody, nil
	}
	if offset > 0 || length > 0 {
		span := fmt.Sprintf("bytes=%d-", offset)
		if length > 0 {
			span += strconv.FormatInt(offset+length-1, 10)
		}
		h.Set("Range", span)
	}
	resp, err := c.send(ctx, request{method: http.MethodGet, path: dataPath(root, ""), query: inside(path), header: h})
	if err != nil {
		return nil, err
	}
	if got := resp.ContentLength; length > 0 && got >= 0 && got < length {
		resp.Body.Close()
		return nil, api.BadRange("%s ends %d bytes before the span %d+%d does", root, length-got, offset, length)
	}
	return resp.Body, nil
}

// List gives the entry itself and what is in it, or all below it.
func (c *Client) List(ctx context.Context, root tasks.CID, path string, recursive bool, f func(api.Entry) error) error {
	q := inside(path)
	q.Set("recursive", strconv.FormatBool(recursive))
	resp, err := c.send(ctx, request{method: http.MethodGet, path: dataPath(root, "ls"), query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return lines(ctx, c, resp.Body, f)
}

// Stat says what the content is.
func (c *Client) Stat(ctx context.Context, of api.Content) (e api.Entry, err error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: dataPath(of.Root, "ls"), query: query(of)})
	if err != nil {
		return e, err
	}
	defer resp.Body.Close() // a folder's entries come after itself
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxLine)).Decode(&e); err != nil {
		return e, cut(ctx, c, err)
	}
	return e, nil
}

// maxLine is the longest line of an answer, in bytes.
const maxLine = 1 << 20

// lines decodes one JSON value a line.
func lines[T any](ctx context.Context, c *Client, r io.Reader, f func(T) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	for s.Scan() {
		var v T
		if err := json.Unmarshal(s.Bytes(), &v); err != nil {
			return fmt.Errorf("answer not valid: %w: is the node of the same version?", err)
		}
		if err := f(v); err != nil {
			return err
		}
	}
	return cut(ctx, c, s.Err())
}

// cut says what a stream that ended early came from.
func cut(ctx context.Context, c *Client, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, bufio.ErrTooLong):
		return err
	}
	return &NotReachableError{Address: c.address, Err: fmt.Errorf("stream cut: %w", err)}
}

// Fetch makes content whole on the node.
func (c *Client) Fetch(ctx context.Context, of api.Content, progress Progress) (api.Root, error) {
	resp, err := c.send(ctx, request{method: http.MethodPost, path: dataPath(of.Root, "fetch"), query: query(of)})
	if err != nil {
		return api.Root{}, err
	}
	defer resp.Body.Close()
	var got *api.Root
	err = lines(ctx, c, resp.Body, func(l api.FetchLine) error {
		switch {
		case l.Error != nil:
			return l.Error
		case l.Root != nil:
			got = l.Root
		case l.Progress != nil:
			progress.tell(l.Progress.Done, l.Progress.Total)
		}
		return nil
	})
	if err == nil && got == nil {
		err = cut(ctx, c, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return api.Root{}, err
	}
	return *got, nil
}

// Pin fetches content whole and keeps it; keep 0 is for ever.
func (c *Client) Pin(ctx context.Context, root tasks.CID, keep time.Duration) (out api.Root, err error) {
	q := url.Values{}
	if keep > 0 {
		q.Set("keep", keep.String())
	}
	return out, c.call(ctx, http.MethodPut, dataPath(root, "pin"), q, nil, &out)
}

// Unpin lets gc take content.
func (c *Client) Unpin(ctx context.Context, root tasks.CID) error {
	return c.call(ctx, http.MethodDelete, dataPath(root, "pin"), nil, nil, nil)
}

// Pins lists the roots that gc leaves alone.
func (c *Client) Pins(ctx context.Context) ([]api.Pin, error) {
	return list[api.Pin](ctx, c, "/api/v1/data/pins", nil)
}

// GC removes what is neither pinned nor in use.
func (c *Client) GC(ctx context.Context) (out api.GCReport, err error) {
	return out, c.call(ctx, http.MethodPost, "/api/v1/data/gc", nil, nil, &out)
}

// ExportCAR writes content as a CARv1 stream.
func (c *Client) ExportCAR(ctx context.Context, root tasks.CID, w io.Writer) (int64, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: dataPath(root, "car")})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	out := &sink{w: w}
	n, err := io.Copy(out, resp.Body)
	if out.err != nil {
		return n, out.err
	}
	return n, cut(ctx, c, err)
}

// ImportCAR stores a CAR stream and pins its roots when opts say so.
func (c *Client) ImportCAR(ctx context.Context, r io.Reader, size int64, opts api.AddOptions) ([]api.Root, error) {
	var out api.List[api.Root]
	err := c.upload(ctx, "/api/v1/data/car", api.MediaCAR, r, size, opts, &out)
	return out.Items, err
}

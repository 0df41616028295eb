package client

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/kith-mesh/kith/api"
)

// canned answers every request with the same bytes.
type canned struct {
	status int
	media  string
	body   []byte
}

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: c.status, Status: http.StatusText(c.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {c.media}}, Body: io.NopCloser(bytes.NewReader(c.body)), ContentLength: -1, Request: r}, nil
}

// Whatever answers at the node's address, a request ends with a value or an
// error; a problem keeps its status.
func FuzzAnswers(f *testing.F) {
	for _, v := range []any{api.Status{Version: "1"}, api.FetchLine{Progress: &api.Progress{Done: 1, Total: 2}}, api.FetchLine{Root: &api.Root{CID: "x"}},
		api.FetchLine{Error: api.NotFound("h", "gone")}, api.Invalid("hint", "detail"), api.List[api.Pin]{Items: []api.Pin{{CID: "x"}}}, nil} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
		f.Add(append(b, append([]byte("\n"), b...)...), true)
		f.Add(append([]byte("event: job\ndata: "), b...), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, refused bool) {
		c, err := New("127.0.0.1:1", "token")
		if err != nil {
			t.Fatal(err)
		}
		answer := canned{http.StatusOK, "application/json", body}
		if refused {
			answer = canned{http.StatusConflict, "application/problem+json", body}
		}
		c.http = &http.Client{Transport: answer}
		_, err = c.Status(t.Context())
		if refused && err == nil {
			t.Error("a refusal became a status")
		}
		if got, err := c.Fetch(t.Context(), api.Content{Root: "x"}, nil); err == nil && (refused || !json.Valid(bytes.TrimSpace(lastLine(body)))) {
			t.Errorf("fetched %+v", got)
		}
		if e, err := c.Stat(t.Context(), api.Content{Root: "x"}); refused && err == nil {
			t.Errorf("a refusal became %+v", e)
		}
		n := 0
		err = c.events(t.Context(), url.Values{}, nil, func(api.Event) error { n++; return nil })
		if n > bytes.Count(body, []byte("data: ")) || refused && err == nil {
			t.Errorf("%d events, %v", n, err)
		}
	})
}

func lastLine(b []byte) []byte {
	b = bytes.TrimRight(b, "\r\n")
	return b[bytes.LastIndexByte(b, '\n')+1:]
}

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// route is what every operation says of itself.
type route struct {
	method, path string
	id, tag      string
	summary      string
	description  string
	status       int           // of success; default 200
	timeout      time.Duration // of the whole answer; default 30 s; streams have none
	limit        int64         // bytes of body; default 64 KiB; streams: -1, none
	needs        string        // the ability, when it may be missing
	missing      bool          // it is
}

func (r route) operation() huma.Operation {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if r.limit == 0 {
		r.limit = 64 << 10
	}
	op := huma.Operation{
		Method: r.method, Path: r.path, OperationID: r.id, Tags: []string{r.tag},
		Summary: r.summary, Description: r.description, DefaultStatus: r.status,
		MaxBodyBytes: r.limit, BodyReadTimeout: -1, // guard's reader has the deadline
		RejectUnknownQueryParameters: true,
	}
	if open[r.path] {
		op.Security = []map[string][]string{}
	}
	return op
}

func (r route) check() error {
	if r.missing {
		return NewError(http.StatusNotImplemented, ReasonNotServed,
			"ask a node that does: a light node (--light) runs no job service", "this node does not serve %s", r.needs)
	}
	return nil
}

// reply is a JSON answer.
type reply[O any] struct{ Body O }

// handle registers a route that answers with JSON.
func handle[I, O any](s *Server, r route, f func(context.Context, *I) (O, error)) {
	if r.timeout == 0 {
		r.timeout = 30 * time.Second
	}
	huma.Register(s.huma, r.operation(), func(ctx context.Context, in *I) (*reply[O], error) {
		ctx, cancel := context.WithTimeout(ctx, r.timeout)
		defer cancel()
		err := r.check()
		if err == nil {
			var out O
			if out, err = f(ctx, in); err == nil {
				return &reply[O]{out}, nil
			}
		}
		return nil, s.tell(r, err)
	})
}

// handleEmpty registers a route whose success has no body.
func handleEmpty[I any](s *Server, r route, f func(context.Context, *I) error) {
	if r.status == 0 {
		r.status = http.StatusNoContent
	}
	if r.timeout == 0 {
		r.timeout = 30 * time.Second
	}
	huma.Register(s.huma, r.operation(), func(ctx context.Context, in *I) (*struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, r.timeout)
		defer cancel()
		err := r.check()
		if err == nil {
			err = f(ctx, in)
		}
		if err != nil {
			return nil, s.tell(r, err)
		}
		return &struct{}{}, nil
	})
}

// tell logs a failure of the node's own, and makes every failure a problem.
func (s *Server) tell(r route, err error) *Error {
	e := problem(err)
	if e.Reason == ReasonInternal {
		s.cfg.Log.Error("api request failed", "route", r.method+" "+r.path, "err", err)
	}
	return e
}

// body documents what a stream takes or gives.
type body struct {
	media  string
	schema *huma.Schema
	text   string
}

func bytesBody(media, text string) body {
	return body{media, &huma.Schema{Type: huma.TypeString, Format: "binary"}, text}
}

// handleStream registers a route that reads its request or writes its answer as
// it goes. An error after the first byte of an answer cuts the connection, so
// that no client takes half for the whole.
func (s *Server) handleStream(r route, params []*huma.Param, in, out []body, f func(w http.ResponseWriter, req *http.Request) error) {
	if r.limit == 0 {
		r.limit = -1
	}
	op := r.operation()
	op.Parameters = params
	if len(in) > 0 {
		op.RequestBody = &huma.RequestBody{Required: true, Content: content(in)}
	}
	problemSchema := s.huma.OpenAPI().Components.Schemas.Schema(errorType, true, "Error")
	op.Responses = map[string]*huma.Response{
		"default": {Description: "Error", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problemSchema}}},
	}
	ok := &huma.Response{Description: http.StatusText(op.DefaultStatus), Content: content(out)}
	if len(out) > 0 && out[0].text != "" {
		ok.Description = out[0].text
	}
	op.Responses[itoa(op.DefaultStatus)] = ok
	s.huma.OpenAPI().AddOperation(&op)
	known := map[string]bool{}
	for _, p := range params {
		known[p.Name] = p.In == "query"
	}
	s.huma.Adapter().Handle(&op, func(ctx huma.Context) {
		req, w := humago.Unwrap(ctx)
		if r.limit > 0 {
			req.Body = http.MaxBytesReader(w, req.Body, r.limit)
		}
		err := r.check()
		for name := range req.URL.Query() {
			if err == nil && !known[name] {
				err = Invalid("GET /openapi.json names the parameters of each route", "query parameter %q is not known to %s %s", name, r.method, r.path)
			}
		}
		if err == nil {
			err = f(w, req)
		}
		if err == nil {
			return
		}
		e := s.tell(r, err)
		if m, ok := w.(*meter); ok && m.status != 0 {
			s.cfg.Log.Warn("api stream cut", "route", r.method+" "+r.path, "err", err)
			panic(http.ErrAbortHandler)
		}
		writeError(w, e)
	})
}

func content(bodies []body) map[string]*huma.MediaType {
	m := map[string]*huma.MediaType{}
	for _, b := range bodies {
		m[b.media] = &huma.MediaType{Schema: b.schema}
	}
	return m
}

func pathParam(name, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
}

func queryParam(name, typ, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: doc, Schema: &huma.Schema{Type: typ}}
}

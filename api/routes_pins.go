package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

var (
	rootType  = reflect.TypeFor[Root]()
	rootsType = reflect.TypeFor[List[Root]]()
	entryType = reflect.TypeFor[Entry]()
	fetchType = reflect.TypeFor[FetchLine]()
	eventType = reflect.TypeFor[Event]()
)

// longest bounds routes that move content before they answer.
const longest = 24 * time.Hour

func (s *Server) pinRoutes() {
	b := s.cfg.Backend.Pins
	pins := func(method, path, id, summary string) route {
		return route{method: method, path: path, id: id, tag: "data", summary: summary, needs: "pins", missing: b == nil}
	}
	type one struct {
		CID string `path:"cid" doc:"root CID"`
	}
	type pin struct {
		CID  string `path:"cid" doc:"root CID"`
		Keep string `query:"keep" doc:"a duration; empty: for ever"`
	}
	r := pins("PUT", "/api/v1/data/{cid}/pin", "pin", "Fetch content whole and keep it")
	r.timeout = longest
	handle(s, r, func(ctx context.Context, in *pin) (Root, error) {
		root, err := parseCID(in.CID)
		if err != nil {
			return Root{}, err
		}
		keep, err := parseDuration("keep", in.Keep)
		if err != nil {
			return Root{}, err
		}
		return b.Pin(ctx, root, keep)
	})
	handleEmpty(s, pins("DELETE", "/api/v1/data/{cid}/pin", "unpin", "Let gc take content"),
		func(ctx context.Context, in *one) error {
			root, err := parseCID(in.CID)
			if err != nil {
				return err
			}
			return b.Unpin(ctx, root)
		})
	handle(s, pins("GET", "/api/v1/data/pins", "pins", "Roots that gc leaves alone"),
		func(ctx context.Context, _ *struct{}) (List[Pin], error) { return listOf(b.Pins(ctx)) })
	r = pins("POST", "/api/v1/data/gc", "gc", "Remove what is neither pinned nor in use")
	r.timeout = longest
	handle(s, r, func(ctx context.Context, _ *struct{}) (GCReport, error) { return b.GC(ctx) })
	s.archiveRoutes()
}

func (s *Server) archiveRoutes() {
	b := s.cfg.Backend.Archive
	s.handleStream(route{method: "GET", path: "/api/v1/data/{cid}/car", id: "car-export", tag: "data", summary: "Read content as a CARv1 stream",
		needs: "archives", missing: b == nil},
		[]*huma.Param{cidParam}, nil, []body{bytesBody(MediaCAR, "")}, func(w http.ResponseWriter, r *http.Request) error {
			root, err := parseCID(r.PathValue("cid"))
			if err != nil {
				return err
			}
			if d := s.cfg.Backend.Data; d != nil { // what nobody has is a problem, not a cut stream
				if _, err := d.Stat(r.Context(), Content{Root: root}); err != nil {
					return err
				}
			}
			w.Header().Set("Content-Type", MediaCAR)
			return b.ExportCAR(r.Context(), root, w)
		})
	out := []body{{media: "application/json", schema: s.huma.OpenAPI().Components.Schemas.Schema(rootsType, true, "Roots"), text: "Stored"}}
	s.handleStream(route{method: "POST", path: "/api/v1/data/car", id: "car-import", tag: "data", status: http.StatusCreated,
		summary: "Store the blocks of a CAR stream and pin its roots", needs: "archives", missing: b == nil},
		optionParams, []body{bytesBody(MediaCAR, "")}, out, func(w http.ResponseWriter, r *http.Request) error {
			opts, err := s.addOptions(r)
			if err != nil {
				return err
			}
			if media := r.Header.Get("Content-Type"); media != MediaCAR {
				return NewError(http.StatusUnsupportedMediaType, ReasonMediaType, "send "+MediaCAR, "content type %q is not taken", media)
			}
			roots, err := listOf(b.ImportCAR(r.Context(), r.Body, opts))
			if err != nil {
				return fmt.Errorf("import CAR: %w", err)
			}
			return writeJSON(w, http.StatusCreated, roots)
		})
}

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

func (s *Server) eventRoutes() {
	schema := s.huma.OpenAPI().Components.Schemas.Schema(eventType, true, "Event")
	s.handleStream(route{method: "GET", path: "/api/v1/events", id: "events", tag: "events", summary: "What happens, as server-sent events",
		description: "Each event's data is one JSON object, its event name the object's kind. Comments keep an idle stream alive. After kind 'lost', or when the stream ends, ask for the state again.",
		needs:       "events", missing: s.cfg.Backend.Events == nil},
		[]*huma.Param{
			queryParam("job", huma.TypeString, "only this job's events; a whole ID"),
			queryParam("after", huma.TypeInteger, "events with a higher ID, as far as they are still known"),
			{Name: "Last-Event-ID", In: "header", Schema: stringSchema, Description: "as after"},
		}, nil, []body{{media: "text/event-stream", schema: schema}}, s.events)
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	after, err := lastEvent(r)
	if err != nil {
		return err
	}
	select {
	case s.subscribers <- struct{}{}:
		defer func() { <-s.subscribers }()
	default:
		return Busy(0, 5*time.Second, "%d event streams are open already", cap(s.subscribers))
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ch, err := s.cfg.Backend.Events.Subscribe(ctx, after)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	ctl := http.NewResponseController(w)
	send := func(format string, args ...any) error {
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return err
		}
		return ctl.Flush()
	}
	if err := send(": kith\n\n"); err != nil {
		return nil // the client has gone
	}
	job := r.URL.Query().Get("job")
	beat := time.NewTicker(s.cfg.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case e, ok := <-ch:
			if !ok {
				return nil
			}
			if job != "" && e.Job != job && e.Kind != EventLost {
				continue
			}
			data, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if err := send("id: %d\nevent: %s\ndata: %s\n\n", e.ID, e.Kind, data); err != nil {
				return nil
			}
		case <-beat.C:
			if err := send(": alive\n\n"); err != nil {
				return nil
			}
		case <-ctx.Done():
			return nil
		case <-s.stopping:
			return nil
		}
	}
}

func lastEvent(r *http.Request) (uint64, error) {
	text := r.URL.Query().Get("after")
	if text == "" {
		text = r.Header.Get("Last-Event-ID")
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, Invalid("send the ID of the last event that you saw", "after: %q is not an event's ID", text)
	}
	return n, nil
}

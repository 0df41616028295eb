package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// List wraps the elements of a JSON answer, so that fields can be added to it.
type List[T any] struct {
	Items []T `json:"items" nullable:"false"`
}

func listOf[T any](items []T, err error) (List[T], error) {
	if items == nil {
		items = []T{}
	}
	return List[T]{items}, err
}

func (s *Server) nodeRoutes() {
	b := s.cfg.Backend
	handle(s, route{method: "GET", path: "/api/v1/id", id: "id", tag: "node", summary: "Who the node is"},
		func(ctx context.Context, _ *struct{}) (Identity, error) { return b.Node.ID(ctx) })
	handle(s, route{method: "GET", path: "/api/v1/status", id: "status", tag: "node", summary: "How the node is"},
		func(ctx context.Context, _ *struct{}) (Status, error) { return b.Node.Status(ctx) })
	handleEmpty(s, route{method: "POST", path: "/api/v1/down", id: "down", tag: "node", summary: "Shut the node down",
		status: http.StatusAccepted, needs: "shutdown", missing: b.Stop == nil},
		func(ctx context.Context, _ *struct{}) error { return b.Stop.Stop(ctx) })
	handle(s, route{method: "GET", path: "/api/v1/doctor", id: "doctor", tag: "node", summary: "Try each step that a working node needs",
		timeout: 2 * time.Minute, needs: "doctor", missing: b.Doctor == nil},
		func(ctx context.Context, _ *struct{}) (List[Check], error) { return listOf(b.Doctor.Doctor(ctx)) })
	handle(s, route{method: "GET", path: "/api/v1/peers", id: "peers", tag: "mesh", summary: "Members that the node knows",
		needs: "peers", missing: b.Peers == nil},
		func(ctx context.Context, _ *struct{}) (List[Peer], error) { return listOf(b.Peers.Peers(ctx)) })
	s.inviteRoutes()
	s.policyRoutes()
}

func (s *Server) inviteRoutes() {
	b := s.cfg.Backend.Invites
	type create struct{ Body InviteRequest }
	type one struct {
		ID string `path:"id" maxLength:"64"`
	}
	handle(s, route{method: "POST", path: "/api/v1/invites", id: "invite-create", tag: "mesh", summary: "Make an invite",
		description: "The only answer that holds the secret line.", status: http.StatusCreated, needs: "invites", missing: b == nil},
		func(ctx context.Context, in *create) (Invite, error) { return b.CreateInvite(ctx, in.Body) })
	handle(s, route{method: "GET", path: "/api/v1/invites", id: "invite-list", tag: "mesh", summary: "Invites that this node redeems",
		needs: "invites", missing: b == nil},
		func(ctx context.Context, _ *struct{}) (List[Invite], error) { return listOf(b.Invites(ctx)) })
	handleEmpty(s, route{method: "DELETE", path: "/api/v1/invites/{id}", id: "invite-revoke", tag: "mesh", summary: "End an invite",
		needs: "invites", missing: b == nil},
		func(ctx context.Context, in *one) error { return b.RevokeInvite(ctx, in.ID) })
}

func (s *Server) policyRoutes() {
	b := s.cfg.Backend.Policy
	type pause struct {
		Body struct {
			For string `json:"for,omitempty" example:"2h" doc:"a duration; empty: until resumed"`
		}
	}
	handle(s, route{method: "GET", path: "/api/v1/policy", id: "policy", tag: "policy", summary: "What the device's owner allows",
		needs: "policy", missing: b == nil},
		func(ctx context.Context, _ *struct{}) (Policy, error) { return b.Policy(ctx) })
	handle(s, route{method: "POST", path: "/api/v1/policy/pause", id: "pause", tag: "policy", summary: "Take no new work",
		needs: "policy", missing: b == nil},
		func(ctx context.Context, in *pause) (Policy, error) {
			d, err := parseDuration("for", in.Body.For)
			if err != nil {
				return Policy{}, err
			}
			return b.Pause(ctx, d)
		})
	handle(s, route{method: "POST", path: "/api/v1/policy/resume", id: "resume", tag: "policy", summary: "Take work again",
		needs: "policy", missing: b == nil},
		func(ctx context.Context, _ *struct{}) (Policy, error) { return b.Resume(ctx) })
}

// parseDuration reads a duration that may be left out.
func parseDuration(name, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, Invalid("write it as 90s, 30m or 24h", "%s: %q is not a duration", name, text)
	}
	return d, nil
}

// opsRoutes are for machines that watch the node.
func (s *Server) opsRoutes() {
	text := []body{{media: "text/plain", schema: stringSchema}}
	s.handleStream(route{method: "GET", path: "/healthz", id: "healthz", tag: "ops", summary: "The process serves requests", description: "Needs no token."},
		nil, nil, text, func(w http.ResponseWriter, _ *http.Request) error { return plain(w, "ok\n") })
	s.handleStream(route{method: "GET", path: "/readyz", id: "readyz", tag: "ops", summary: "The node works",
		description: "503 says what is missing. Needs no token."},
		nil, nil, text, func(w http.ResponseWriter, r *http.Request) error {
			ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
			defer cancel()
			if err := s.cfg.Backend.Node.Ready(ctx); err != nil {
				return Unavailable("'kith doctor' tells more", "not ready: %v", err)
			}
			return plain(w, "ready\n")
		})
	metrics := route{method: "GET", path: "/metrics", id: "metrics", tag: "ops", summary: "Prometheus metrics", needs: "metrics", missing: s.cfg.Gatherer == nil}
	s.handleStream(metrics, nil, nil, text, func(w http.ResponseWriter, r *http.Request) error {
		promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{}).ServeHTTP(w, r)
		return nil
	})
	s.handleStream(route{method: "GET", path: "/openapi.json", id: "openapi", tag: "ops", summary: "This document"},
		nil, nil, []body{{media: "application/json", schema: objectSchema}}, func(w http.ResponseWriter, _ *http.Request) error {
			b, err := s.OpenAPI()
			if err != nil {
				return err
			}
			w.Header().Set("Content-Type", "application/json")
			_, err = w.Write(b)
			return err
		})
}

func plain(w http.ResponseWriter, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := w.Write([]byte(text))
	return err
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}

package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/kith-mesh/kith/api"
)

// ID says who the node is.
func (c *Client) ID(ctx context.Context) (out api.Identity, err error) {
	return out, c.call(ctx, http.MethodGet, "/api/v1/id", nil, nil, &out)
}

// Status says how the node is.
func (c *Client) Status(ctx context.Context) (out api.Status, err error) {
	return out, c.call(ctx, http.MethodGet, "/api/v1/status", nil, nil, &out)
}

// Ready is nil when the node works. It needs no token.
func (c *Client) Ready(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/readyz", nil, nil, nil)
}

// Down asks the node to shut down.
func (c *Client) Down(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/api/v1/down", nil, nil, nil)
}

// Doctor has the node try each step that it needs to work.
func (c *Client) Doctor(ctx context.Context) ([]api.Check, error) {
	return list[api.Check](ctx, c, "/api/v1/doctor", nil)
}

// Peers lists the members that the node knows.
func (c *Client) Peers(ctx context.Context) ([]api.Peer, error) {
	return list[api.Peer](ctx, c, "/api/v1/peers", nil)
}

// CreateInvite makes an invite; its Line is in this answer alone.
func (c *Client) CreateInvite(ctx context.Context, req api.InviteRequest) (out api.Invite, err error) {
	return out, c.call(ctx, http.MethodPost, "/api/v1/invites", nil, req, &out)
}

// Invites lists the invites that the node redeems.
func (c *Client) Invites(ctx context.Context) ([]api.Invite, error) {
	return list[api.Invite](ctx, c, "/api/v1/invites", nil)
}

// RevokeInvite ends an invite.
func (c *Client) RevokeInvite(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/api/v1/invites/"+url.PathEscape(id), nil, nil, nil)
}

// Policy says what the node's device gives.
func (c *Client) Policy(ctx context.Context) (out api.Policy, err error) {
	return out, c.call(ctx, http.MethodGet, "/api/v1/policy", nil, nil, &out)
}

// Pause makes the node take no new work for d; 0: until Resume.
func (c *Client) Pause(ctx context.Context, d time.Duration) (out api.Policy, err error) {
	in := map[string]string{}
	if d > 0 {
		in["for"] = d.String()
	}
	return out, c.call(ctx, http.MethodPost, "/api/v1/policy/pause", nil, in, &out)
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context) (out api.Policy, err error) {
	return out, c.call(ctx, http.MethodPost, "/api/v1/policy/resume", nil, nil, &out)
}

// Metrics reads what the node counts, in Prometheus's families by name.
func (c *Client) Metrics(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/metrics"})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the metrics of %s: %w", c.address, err)
	}
	return families, nil
}

package client

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

func jobPath(id, verb string) string {
	p := "/api/v1/jobs/" + url.PathEscape(id)
	if verb != "" {
		p += "/" + verb
	}
	return p
}

// Submit makes the node the origin of a job whose program and inputs are CIDs.
// The job is durable when it returns.
func (c *Client) Submit(ctx context.Context, spec tasks.Spec) (tasks.JobID, error) {
	return c.post(ctx, "/api/v1/jobs", nil, spec)
}

// Publish sends a job to the mesh for any host to adopt.
func (c *Client) Publish(ctx context.Context, spec tasks.Spec, opts api.PublishOptions) (tasks.JobID, error) {
	return c.post(ctx, "/api/v1/jobs/publish", url.Values{"byCID": {strconv.FormatBool(opts.ByCID)}}, spec)
}

func (c *Client) post(ctx context.Context, path string, q url.Values, spec tasks.Spec) (tasks.JobID, error) {
	text, err := tasks.FormatSpec(spec)
	if err != nil {
		return "", fmt.Errorf("job spec: %w", err)
	}
	resp, err := c.send(ctx, request{method: http.MethodPost, path: path, query: q, body: bytes.NewReader(text), size: int64(len(text)),
		header: http.Header{"Content-Type": {"application/yaml"}}})
	if err != nil {
		return "", err
	}
	var out api.Submitted
	err = decode(ctx, c, resp, &out)
	return tasks.JobID(out.ID), err
}

// Jobs lists jobs, newest first; state "" is any.
func (c *Client) Jobs(ctx context.Context, state string, limit int) ([]api.Job, error) {
	q := url.Values{}
	if state != "" {
		q.Set("state", state)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return list[api.Job](ctx, c, "/api/v1/jobs", q)
}

// Job shows one job. Here and below an ID may be abbreviated.
func (c *Client) Job(ctx context.Context, id string) (out api.Job, err error) {
	return out, c.call(ctx, http.MethodGet, jobPath(id, ""), nil, nil, &out)
}

// Tasks gives up to limit of a job's tasks from the offset-th on, and how many
// there are.
func (c *Client) Tasks(ctx context.Context, id string, offset, limit int) ([]api.Task, int, error) {
	var out api.TaskPage
	q := url.Values{"offset": {strconv.Itoa(offset)}, "limit": {strconv.Itoa(limit)}}
	err := c.call(ctx, http.MethodGet, jobPath(id, "tasks"), q, nil, &out)
	return out.Items, out.Total, err
}

// AllTasks gives every task of a job.
func (c *Client) AllTasks(ctx context.Context, id string) ([]api.Task, error) {
	var all []api.Task
	for {
		page, total, err := c.Tasks(ctx, id, len(all), api.MaxPage)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(all) >= total || len(page) == 0 {
			return all, nil
		}
	}
}

// Logs gives the end of a task's stderr, one for each attempt.
func (c *Client) Logs(ctx context.Context, id, stage string, index uint32) ([]api.Log, error) {
	return list[api.Log](ctx, c, jobPath(id, "logs"), url.Values{"stage": {stage}, "index": {strconv.FormatUint(uint64(index), 10)}})
}

// Results says what a job came to.
func (c *Client) Results(ctx context.Context, id string) (out api.Output, err error) {
	return out, c.call(ctx, http.MethodGet, jobPath(id, "results"), nil, nil, &out)
}

// Cancel stops a job.
func (c *Client) Cancel(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPost, jobPath(id, "cancel"), nil, nil, nil)
}

// Why says what a job waits for.
func (c *Client) Why(ctx context.Context, id string) ([]api.Wait, error) {
	return list[api.Wait](ctx, c, jobPath(id, "why"), nil)
}

package api

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kith-mesh/kith/tasks"
)

// Limits of job routes.
const (
	MaxSpec  = tasks.MaxSpecBytes
	MaxPage  = 1000 // tasks in one answer
	idLength = 52   // characters of a whole job ID
)

// Submitted is the answer to a job that was taken.
type Submitted struct {
	ID string `json:"id"`
}

// TaskPage is a part of a job's tasks.
type TaskPage struct {
	Items []Task `json:"items" nullable:"false"`
	Total int    `json:"total" doc:"tasks in all"`
}

type jobInput struct {
	ID string `path:"id" minLength:"4" maxLength:"64" doc:"a job's ID, or a beginning of it that no other has"`
}

func (s *Server) jobRoutes() {
	s.submitRoutes()
	b := s.cfg.Backend.Jobs
	jobs := func(method, path, id, summary string) route {
		return route{method: method, path: path, id: id, tag: "jobs", summary: summary, needs: "jobs", missing: b == nil}
	}
	type list struct {
		State string `query:"state" enum:"published,kept,splitting,running,assembling,done,failed,cancelled" doc:"only jobs in this state"`
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}
	handle(s, jobs("GET", "/api/v1/jobs", "jobs", "Jobs that this node holds or published, newest first"),
		func(ctx context.Context, in *list) (List[Job], error) {
			all, err := b.List(ctx)
			kept := []Job{}
			for _, j := range all {
				if len(kept) < in.Limit && (in.State == "" || j.State == in.State) {
					kept = append(kept, j)
				}
			}
			return List[Job]{kept}, err
		})
	handle(s, jobs("GET", "/api/v1/jobs/{id}", "job", "One job"),
		func(ctx context.Context, in *jobInput) (Job, error) {
			id, err := s.resolve(ctx, in.ID)
			if err != nil {
				return Job{}, err
			}
			return b.Job(ctx, id)
		})
	handleEmpty(s, jobs("POST", "/api/v1/jobs/{id}/cancel", "cancel", "Stop a job"),
		func(ctx context.Context, in *jobInput) error {
			id, err := s.resolve(ctx, in.ID)
			if err != nil {
				return err
			}
			return b.Cancel(ctx, id)
		})
	handle(s, jobs("GET", "/api/v1/jobs/{id}/why", "why", "What a job waits for, and when it is tried again"),
		func(ctx context.Context, in *jobInput) (List[Wait], error) {
			id, err := s.resolve(ctx, in.ID)
			if err != nil {
				return List[Wait]{}, err
			}
			return listOf(b.Why(ctx, id))
		})
	s.resultRoutes()
}

func (s *Server) resultRoutes() {
	b := s.cfg.Backend.Results
	results := func(path, id, summary string) route {
		return route{method: "GET", path: path, id: id, tag: "jobs", summary: summary, needs: "results", missing: b == nil || s.cfg.Backend.Jobs == nil}
	}
	type page struct {
		ID     string `path:"id" minLength:"4" maxLength:"64" doc:"a job's ID, or a beginning of it that no other has"`
		Offset int    `query:"offset" minimum:"0" maximum:"100000000"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"1000"`
	}
	handle(s, results("/api/v1/jobs/{id}/tasks", "tasks", "A job's tasks and where they ran"),
		func(ctx context.Context, in *page) (TaskPage, error) {
			id, err := s.resolve(ctx, in.ID)
			if err != nil {
				return TaskPage{}, err
			}
			items, total, err := b.Tasks(ctx, id, in.Offset, in.Limit)
			if items == nil {
				items = []Task{}
			}
			return TaskPage{items, total}, err
		})
	type logs struct {
		ID    string `path:"id" minLength:"4" maxLength:"64" doc:"a job's ID, or a beginning of it that no other has"`
		Stage string `query:"stage" enum:"map,reduce" default:"map"`
		Index uint32 `query:"index" doc:"the task's number"`
	}
	handle(s, results("/api/v1/jobs/{id}/logs", "logs", "The end of a task's stderr, one for each attempt"),
		func(ctx context.Context, in *logs) (List[Log], error) {
			id, err := s.resolve(ctx, in.ID)
			if err != nil {
				return List[Log]{}, err
			}
			ref := tasks.Ref{Index: in.Index}
			if in.Stage == "reduce" {
				ref.Stage = tasks.StageReduce
			}
			return listOf(b.Logs(ctx, id, ref))
		})
	handle(s, results("/api/v1/jobs/{id}/results", "results", "What a job came to"),
		func(ctx context.Context, in *jobInput) (Output, error) {
			id, err := s.resolve(ctx, in.ID)
			if err != nil {
				return Output{}, err
			}
			return b.Results(ctx, id)
		})
}

// resolve turns an abbreviated job ID into the one that it begins.
func (s *Server) resolve(ctx context.Context, text string) (tasks.JobID, error) {
	if len(text) == idLength {
		return tasks.JobID(text), nil
	}
	jobs, err := s.cfg.Backend.Jobs.List(ctx)
	if err != nil {
		return "", err
	}
	var found []string
	for _, j := range jobs {
		if strings.HasPrefix(j.ID, text) {
			found = append(found, j.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", NotFound("'kith jobs' lists the jobs of this node", "no job %s here", text)
	case 1:
		return tasks.JobID(found[0]), nil
	}
	return "", Invalid("write more of it", "job %s could be %d jobs: %s", text, len(found), strings.Join(found[:min(len(found), 4)], ", "))
}

func (s *Server) submitRoutes() {
	b := s.cfg.Backend.Submit
	schemas := s.huma.OpenAPI().Components.Schemas
	spec := schemas.Schema(specType, true, "JobSpec")
	in := []body{{media: "application/json", schema: spec}, {media: "application/yaml", schema: spec}}
	out := []body{{media: "application/json", schema: schemas.Schema(submittedType, true, "Submitted"), text: "The job is durable"}}
	base := route{method: "POST", tag: "jobs", status: http.StatusCreated, limit: MaxSpec, needs: "job submission", missing: b == nil}

	submit := base
	submit.path, submit.id, submit.summary = "/api/v1/jobs", "submit", "Submit a job with this node as its origin"
	submit.description = "The body is a job spec, as JSON or YAML; program and inputs are CIDs."
	s.handleStream(submit, nil, in, out, func(w http.ResponseWriter, r *http.Request) error {
		return s.take(w, r, b.Submit)
	})
	publish := base
	publish.path, publish.id, publish.summary = "/api/v1/jobs/publish", "publish", "Publish a job for any host of the mesh to adopt"
	publish.description = "Program and inputs travel inline when they are small together, and by CID otherwise."
	s.handleStream(publish, []*huma.Param{queryParam("byCID", huma.TypeBoolean, "never carry anything inline")}, in, out,
		func(w http.ResponseWriter, r *http.Request) error {
			byCID, err := boolQuery(r, "byCID", false)
			if err != nil {
				return err
			}
			return s.take(w, r, func(ctx context.Context, spec tasks.Spec) (tasks.JobID, error) {
				return b.Publish(ctx, spec, PublishOptions{ByCID: byCID})
			})
		})
}

func (s *Server) take(w http.ResponseWriter, r *http.Request, f func(context.Context, tasks.Spec) (tasks.JobID, error)) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	spec, err := ParseSpec(raw)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Minute)
	defer cancel()
	id, err := f(ctx, spec)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, Submitted{string(id)})
}

func boolQuery(r *http.Request, name string, def bool) (bool, error) {
	text := cmp.Or(r.URL.Query().Get(name), strconv.FormatBool(def))
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, Invalid("write true or false", "%s: %q is not a boolean", name, text)
	}
	return v, nil
}

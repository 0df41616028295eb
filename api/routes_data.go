package api

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/tasks"
)

// Media types of data routes.
const (
	MediaTar    = "application/x-tar"
	MediaCAR    = "application/vnd.ipld.car"
	MediaBytes  = "application/octet-stream"
	MediaNDJSON = "application/x-ndjson"
)

// FetchLine is one line of a fetch's answer: progress until, last, a root or an
// error.
type FetchLine struct {
	Progress *Progress `json:"progress,omitempty"`
	Root     *Root     `json:"root,omitempty"`
	Error    *Error    `json:"error,omitempty"`
}

var (
	cidParam     = pathParam("cid", "root CID")
	insideParam  = queryParam("path", huma.TypeString, "a path inside the root")
	optionParams = []*huma.Param{
		queryParam("name", huma.TypeString, "what to call it in listings"),
		{Name: "audience", In: "query", Description: "who may fetch it; default mesh",
			Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"job", "mesh", "public"}}},
		queryParam("chunk", huma.TypeInteger, "bytes a leaf"),
		queryParam("pin", huma.TypeBoolean, "keep it until unpinned; default true"),
		queryParam("keep", huma.TypeString, "without a pin, how long to keep it: a duration"),
	}
)

func (s *Server) dataRoutes() {
	b, up := s.cfg.Backend.Data, s.cfg.Backend.Uploads
	schemas := s.huma.OpenAPI().Components.Schemas
	root := []body{{media: "application/json", schema: schemas.Schema(rootType, true, "Root"), text: "Stored"}}
	s.handleStream(route{method: "POST", path: "/api/v1/data", id: "add", tag: "data", status: http.StatusCreated,
		summary: "Store a file, or a folder as a tar stream", needs: "uploads", missing: up == nil},
		optionParams, []body{bytesBody(MediaBytes, ""), bytesBody(MediaTar, "")}, root, s.add)

	data := func(method, path, id, summary string) route {
		return route{method: method, path: path, id: id, tag: "data", summary: summary, needs: "data", missing: b == nil}
	}
	from := &huma.Param{Name: "from", In: "query", Description: "multiaddrs, ending in /p2p/ID, of peers to ask first, at most 64; they need not be members",
		Schema: &huma.Schema{Type: huma.TypeArray, Items: stringSchema}}
	cat := data("GET", "/api/v1/data/{cid}", "cat", "Read a file")
	cat.description = "Fetches from the mesh what is not here. Takes one byte range."
	s.handleStream(cat, []*huma.Param{cidParam, insideParam, from, {Name: "Range", In: "header", Schema: stringSchema, Description: "bytes=FROM-TO"}},
		nil, []body{bytesBody(MediaBytes, "")}, s.cat)
	s.handleStream(data("GET", "/api/v1/data/{cid}/tar", "get", "Read a file or folder as a tar stream"),
		[]*huma.Param{cidParam, insideParam, from}, nil, []body{bytesBody(MediaTar, "")}, s.tar)
	s.handleStream(data("GET", "/api/v1/data/{cid}/ls", "ls", "List a folder"),
		[]*huma.Param{cidParam, insideParam, from, queryParam("recursive", huma.TypeBoolean, "all below it")},
		nil, []body{{media: MediaNDJSON, schema: schemas.Schema(entryType, true, "Entry"), text: "One entry a line"}}, s.list)
	s.handleStream(data("POST", "/api/v1/data/{cid}/fetch", "fetch", "Make content whole on this node"),
		[]*huma.Param{cidParam, insideParam, from}, nil,
		[]body{{media: MediaNDJSON, schema: schemas.Schema(fetchType, true, "FetchLine"), text: "Progress lines, then the root or an error"}}, s.fetch)
}

// maxFrom is how many peers one request may name.
const maxFrom = 64

// target reads what content a request names.
func target(r *http.Request) (c Content, err error) {
	if c.Root, err = parseCID(r.PathValue("cid")); err != nil {
		return c, err
	}
	q := r.URL.Query()
	if c.From = q["from"]; len(c.From) > maxFrom {
		return c, Invalid("name a few that are known to have it", "from: %d peers, the most is %d", len(c.From), maxFrom)
	}
	if c.Path = q.Get("path"); c.Path != "" {
		c.Path, err = cleanPath(c.Path)
	}
	return c, err
}

func parseCID(text string) (tasks.CID, error) {
	if len(text) > 128 {
		return "", Invalid("copy it from what 'kith add' printed", "CID of %d characters is too long", len(text))
	}
	c, err := cid.Decode(text)
	if err != nil {
		return "", Invalid("copy it from what 'kith add' printed", "%q is not a CID: %v", text, err)
	}
	return tasks.CID(c.String()), nil
}

// cleanPath refuses what could leave a folder or mean two things.
func cleanPath(p string) (string, error) {
	trimmed := strings.TrimSuffix(strings.TrimPrefix(p, "./"), "/")
	switch {
	case len(p) > 4096:
		return "", Invalid("", "path of %d bytes is longer than 4096", len(p))
	case trimmed == "", trimmed == ".", strings.ContainsAny(p, "\x00\\"), path.Clean("/"+trimmed) != "/"+trimmed:
		return "", Invalid("write it relative to the folder, with single slashes and without .. parts", "path %q is not valid", p)
	}
	return trimmed, nil
}

func (s *Server) addOptions(r *http.Request) (AddOptions, error) {
	q := r.URL.Query()
	o := AddOptions{Name: q.Get("name"), Audience: Audience(q.Get("audience"))}
	var faults []error
	switch o.Audience {
	case "":
		o.Audience = AudienceMesh
	case AudienceJob, AudienceMesh, AudiencePublic:
	default:
		faults = append(faults, fmt.Errorf("audience: %q is none of job, mesh, public", o.Audience))
	}
	if len(o.Name) > 255 {
		faults = append(faults, fmt.Errorf("name: %d bytes are more than 255", len(o.Name)))
	}
	if text := q.Get("chunk"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1024 || n > 2<<20 {
			faults = append(faults, fmt.Errorf("chunk: %q is not between 1024 and %d bytes", text, 2<<20))
		}
		o.Chunk = n
	}
	var err error
	if o.Pin, err = boolQuery(r, "pin", true); err != nil {
		faults = append(faults, err)
	}
	if o.Keep, err = parseDuration("keep", q.Get("keep")); err != nil {
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return o, Invalid("", "%v", err)
	}
	return o, nil
}

func (s *Server) add(w http.ResponseWriter, r *http.Request) error {
	opts, err := s.addOptions(r)
	if err != nil {
		return err
	}
	up := s.cfg.Backend.Uploads
	var root Root
	switch media := r.Header.Get("Content-Type"); media {
	case MediaBytes:
		root, err = up.AddFile(r.Context(), r.Body, opts)
	case MediaTar:
		root, err = up.AddFolder(r.Context(), tarFiles(r.Body), opts)
	default:
		return NewError(http.StatusUnsupportedMediaType, ReasonMediaType, "send a file as "+MediaBytes+" or a folder as "+MediaTar, "content type %q is not taken", media)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, root)
}

// maxEntries bounds the paths that an upload makes us remember.
const maxEntries = 1 << 20

// tarFiles reads a tar stream as files with clean paths that come once.
func tarFiles(r io.Reader) func() (File, error) {
	t, seen := tar.NewReader(r), map[string]bool{}
	return func() (File, error) {
		for {
			h, err := t.Next()
			if errors.Is(err, io.EOF) {
				return File{}, io.EOF
			}
			if err != nil {
				return File{}, Invalid("", "tar stream: %v", err)
			}
			if h.Typeflag == tar.TypeDir && (h.Name == "./" || h.Name == ".") {
				continue // the folder itself
			}
			name, err := cleanPath(h.Name)
			if err != nil {
				return File{}, err
			}
			if seen[name] {
				return File{}, Invalid("", "tar stream: %q comes twice", name)
			}
			if len(seen) == maxEntries {
				return File{}, NewError(http.StatusRequestEntityTooLarge, ReasonTooLarge, "add it in parts", "folder has more than %d entries", maxEntries)
			}
			// A few bytes of a sparse file stand for as many zeros as they like.
			if _, sparse := h.PAXRecords["GNU.sparse.map"]; sparse || h.PAXRecords["GNU.sparse.major"] != "" {
				return File{}, Invalid("send it without holes", "tar stream: %q is sparse", name)
			}
			seen[name] = true
			f := File{Path: name, Exec: h.Mode&0o111 != 0, Size: h.Size, Body: t}
			switch h.Typeflag {
			case tar.TypeReg:
			case tar.TypeDir:
				f.Dir, f.Exec, f.Size, f.Body = true, false, 0, nil
			default:
				return File{}, Invalid("send files and folders only", "tar stream: %q is of type %q", name, h.Typeflag)
			}
			return f, nil
		}
	}
}

// cat answers with one file or a range of it.
func (s *Server) cat(w http.ResponseWriter, r *http.Request) error {
	c, err := target(r)
	if err != nil {
		return err
	}
	e, err := s.cfg.Backend.Data.Stat(r.Context(), c)
	if err != nil {
		return err
	}
	if e.Dir {
		return Conflict("list it with 'kith ls', read it whole with 'kith get'", "%s is a folder", c)
	}
	offset, length, partial, err := byteRange(r.Header.Get("Range"), e.Size)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", MediaBytes)
	h.Set("Accept-Ranges", "bytes")
	h.Set("ETag", strconv.Quote(e.CID))
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	status := http.StatusOK
	if partial {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, offset+length-1, e.Size))
		status = http.StatusPartialContent
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(status)
		return nil
	}
	content, err := s.cfg.Backend.Data.Open(r.Context(), c, offset, length)
	if err != nil {
		h.Del("Content-Range")
		return err
	}
	defer content.Close()
	// The first bytes come before the status, so that content that nobody has
	// is a problem, not a cut connection.
	first := make([]byte, min(length, 64<<10))
	n, err := io.ReadFull(content, first)
	if err != nil {
		h.Del("Content-Range")
		return fmt.Errorf("read %s: %w", c, err)
	}
	w.WriteHeader(status)
	if _, err := w.Write(first[:n]); err != nil {
		return err
	}
	rest, err := io.Copy(w, content)
	if err == nil && rest != length-int64(n) {
		err = fmt.Errorf("read %s: %w", c, io.ErrUnexpectedEOF)
	}
	return err
}

// byteRange reads a Range header of one range; others are answered whole, as
// RFC 9110 allows.
func byteRange(header string, size int64) (offset, length int64, partial bool, err error) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	if !ok || strings.Contains(spec, ",") {
		return 0, size, false, nil
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	bad := BadRange("range %q is not in a file of %d bytes", header, size)
	bad.Hint = "ask for bytes=FROM-TO with FROM below the file's size"
	if !ok {
		return 0, 0, false, bad
	}
	if from == "" { // the last bytes
		n, err := strconv.ParseUint(to, 10, 63)
		if err != nil || n == 0 || size == 0 {
			return 0, 0, false, bad
		}
		n = min(n, uint64(size))
		return size - int64(n), int64(n), true, nil
	}
	a, err := strconv.ParseUint(from, 10, 63)
	if err != nil || int64(a) >= size {
		return 0, 0, false, bad
	}
	last := uint64(size - 1)
	if to != "" {
		if last, err = strconv.ParseUint(to, 10, 63); err != nil || last < a {
			return 0, 0, false, bad
		}
		last = min(last, uint64(size-1))
	}
	return int64(a), int64(last-a) + 1, true, nil
}

// tar answers with files and folders under the root's own name "content".
func (s *Server) tar(w http.ResponseWriter, r *http.Request) error {
	c, err := target(r)
	if err != nil {
		return err
	}
	data := s.cfg.Backend.Data
	top, err := data.Stat(r.Context(), c)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", MediaTar)
	t := tar.NewWriter(w)
	put := func(e Entry) error {
		h := &tar.Header{Name: path.Join("content", e.Path), Mode: 0o644, Size: e.Size, Typeflag: tar.TypeReg, Format: tar.FormatPAX, ModTime: time.Unix(0, 0)}
		if e.Exec {
			h.Mode = 0o755
		}
		switch {
		case e.Dir:
			h.Typeflag, h.Size, h.Mode = tar.TypeDir, 0, 0o755
			h.Name += "/"
		case e.Link != "":
			h.Typeflag, h.Size, h.Linkname = tar.TypeSymlink, 0, e.Link
		}
		if h.Typeflag != tar.TypeReg || e.Size == 0 {
			return t.WriteHeader(h)
		}
		// Before the header, so that content that nobody has is a problem, not a
		// cut connection.
		content, err := data.Open(r.Context(), Content{c.Root, path.Join(c.Path, e.Path), c.From}, 0, -1)
		if err != nil {
			return err
		}
		defer content.Close()
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err = io.Copy(t, content)
		return err
	}
	if top.Dir {
		err = data.Walk(r.Context(), c, true, put)
	} else { // a file's bytes go out as they come in
		top.Path = ""
		err = put(top)
	}
	if err != nil {
		return err
	}
	return t.Close()
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) error {
	c, err := target(r)
	if err != nil {
		return err
	}
	recursive, err := boolQuery(r, "recursive", false)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", MediaNDJSON)
	enc := json.NewEncoder(w)
	return s.cfg.Backend.Data.Walk(r.Context(), c, recursive, func(e Entry) error { return enc.Encode(e) })
}

// fetch tells progress at most ten times a second.
func (s *Server) fetch(w http.ResponseWriter, r *http.Request) error {
	c, err := target(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", MediaNDJSON)
	enc, ctl := json.NewEncoder(w), http.NewResponseController(w)
	var last time.Time
	got, err := s.cfg.Backend.Data.Fetch(r.Context(), c, func(pr Progress) {
		if time.Since(last) < 100*time.Millisecond {
			return
		}
		last = time.Now()
		if enc.Encode(FetchLine{Progress: &pr}) == nil {
			_ = ctl.Flush() // a client that has gone ends r.Context()
		}
	})
	if err != nil {
		if w.(*meter).status == 0 {
			return err
		}
		return enc.Encode(FetchLine{Error: problem(err)})
	}
	return enc.Encode(FetchLine{Root: &got})
}

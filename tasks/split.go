package tasks

import "io"

// CutLines cuts r into runs of size lines and gives emit each run's offset and
// length. A line ends with its "\n"; a last line without one counts. No byte is
// lost or given twice, and the memory used does not depend on r. An empty r has
// no run. It returns the bytes read.
func CutLines(r io.Reader, size int64, emit func(offset, length int64) error) (int64, error) {
	return 0, nil
}

// CutBytes cuts total bytes into runs of size bytes, the last one shorter.
func CutBytes(total, size int64, emit func(offset, length int64) error) error { return nil }

// File is one file of a source.
type File struct {
	Path string // inside the root; "" when the root is the file
	Size int64
}

// Source is an input of a job as the origin finds it in its store.
type Source struct {
	Input Input  // Source holds the root's CID
	Files []File // in the order of their paths; a folder's files, or the one file
}

// PlanTasks cuts a job's inputs into its map tasks. open reads one whole file of
// a root; it is called for splits by lines only. Tasks come in the order of
// inputs, files and offsets. An input that is not split goes whole to every
// task. A job always has one task at the least; more than MaxTasks is an error.
func PlanTasks(s Spec, sources []Source, open func(root CID, path string) (io.ReadCloser, error)) ([]Task, error) {
	return nil, nil
}

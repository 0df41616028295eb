//go:build !unix

package runner

// confine takes away what a child never needs: here the job object that it is in
// and its priority class do all there is.
func confine() (*walls, error) { return &walls{reached: []string{"job object"}}, nil }

// close shuts the child in before it runs anything.
func (*walls) close(loadMessage) error { return nil }

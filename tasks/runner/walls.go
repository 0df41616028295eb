package runner

import "strings"

// walls are what stands between a child and its host, as far as this system has
// them.
type walls struct{ reached []string }

func (w *walls) add(name string) { w.reached = append(w.reached, name) }

func (w *walls) String() string { return strings.Join(append([]string{"process"}, w.reached...), ", ") }

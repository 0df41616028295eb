package market

import (
	"fmt"
	"slices"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// Of the jobs in hand half may be published ones, and an eighth those of one
// submitter: others' jobs do not shut out what is handed to this node. Those that
// this node is the origin of and that have no room wait, in the order they came;
// their number is bounded by MaxAdoptions.
func (c Config) maxAdopted() int { return max(c.MaxJobs/2, 1) }
func (c Config) maxOfOne() int   { return max(c.MaxJobs/8, 1) }

// adopted is a published job that this node is the origin of.
type adopted struct {
	id tasks.JobID
	by tasks.PeerID
}

// reserve counts a job that is about to be one in hand.
func (s *Service) reserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.desks)+s.adding >= s.cfg.MaxJobs {
		return &BusyError{RetryAfter: 10 * time.Second}
	}
	s.adding++
	return nil
}

func (s *Service) unreserve() {
	s.mu.Lock()
	s.adding--
	s.mu.Unlock()
}

// takeUp takes a published job in hand, or makes it wait until there is room, or
// until the desk of an older term is gone.
func (s *Service) takeUp(a adopted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.adopted, a) {
		s.adopted = append(s.adopted, a)
	}
	s.takeNext()
}

// putOff forgets a job that waits to be taken in hand: it is another's now, or
// nobody's.
func (s *Service) putOff(id tasks.JobID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopted = slices.DeleteFunc(s.adopted, func(a adopted) bool { return a.id == id })
}

// takeNext takes in hand what waits and has room now. It is called with the lock
// held.
func (s *Service) takeNext() {
	s.adopted = slices.DeleteFunc(s.adopted, func(a adopted) bool {
		if s.desks[a.id] != nil || s.noRoomFor(a.by) != "" {
			return false
		}
		s.open(a.id, a.by)
		return true
	})
}

// noRoomFor says why no published job of a submitter can be taken in hand now. It
// is called with the lock held.
func (s *Service) noRoomFor(by tasks.PeerID) string {
	all, mine := 0, 0
	for _, d := range s.desks {
		if d.by != "" {
			all++
		}
		if d.by == by {
			mine++
		}
	}
	switch {
	case mine >= s.cfg.maxOfOne():
		return fmt.Sprintf("this node works on %d published jobs of this submitter, and on no more at once", mine)
	case all >= s.cfg.maxAdopted():
		return fmt.Sprintf("this node works on %d published jobs, and on no more at once", all)
	case len(s.desks)+s.adding >= s.cfg.MaxJobs:
		return fmt.Sprintf("this node works on %d jobs, and on no more at once", len(s.desks))
	}
	return ""
}

// putOffFor says why a published job that this node is the origin of is not in
// hand; "" when it does not wait for that.
func (s *Service) putOffFor(id tasks.JobID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, a := range s.adopted {
		if a.id != id {
			continue
		}
		if why := s.noRoomFor(a.by); why != "" {
			return fmt.Sprintf("%s (reason %d, %s); this one is the %dth that waits", why, tasks.OriginBusy, tasks.OriginBusy, i+1)
		}
	}
	return ""
}

package sim

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// Load is a stream of jobs of one task: when each is submitted, where, and how
// long it takes whoever runs it. Nodes run one task at a time.
type Load struct {
	Latency *Latency
	Nodes   int
	Jobs    []Arrival
	Warm    int // so many of the first are not measured
}

// Arrival is one job of a load.
type Arrival struct {
	At      time.Duration // since the load began
	Origin  int
	Service time.Duration
}

// LoadConfig draws a Load.
type LoadConfig struct {
	Seed           uint64
	Nodes          int
	Latency        *Latency
	Share          float64 // of what all nodes can do; 0.7
	Origins        []int   // who submits, evenly; nil: everyone
	Warm, Measured int
}

// NewLoad draws Poisson arrivals and exponential service times of 1 s in the
// mean.
func NewLoad(c LoadConfig) Load {
	rng := rand.New(rand.NewPCG(c.Seed, 5))
	l := Load{Latency: c.Latency, Nodes: c.Nodes, Warm: c.Warm}
	at := 0.0
	for range c.Warm + c.Measured {
		at += rng.ExpFloat64() / (c.Share * float64(c.Nodes))
		a := Arrival{At: time.Duration(at * float64(time.Second)), Origin: rng.IntN(c.Nodes),
			Service: time.Duration(rng.ExpFloat64() * float64(time.Second))}
		if c.Origins != nil {
			a.Origin = c.Origins[a.Origin%len(c.Origins)]
		}
		l.Jobs = append(l.Jobs, a)
	}
	return l
}

// Placed is where one job of a load went, and how long it took from its arrival
// to its result.
type Placed struct {
	Worker     int
	Completion time.Duration
}

// away is the round trip that a job's way costs; none at home.
func (l Load) away(origin, worker int) time.Duration {
	if origin == worker {
		return 0
	}
	return l.Latency.RTT(origin, worker)
}

// queues simulates nodes that each run one task after the other in the order in
// which the jobs were submitted. choose names the worker of a job from what is known
// at its arrival: when a task that comes to a node now would have its answer
// here, its service left out.
func (l Load) queues(choose func(origin int, delay func(worker int) time.Duration) int) []Placed {
	free := make([]time.Duration, l.Nodes)
	out := make([]Placed, len(l.Jobs))
	for i, j := range l.Jobs {
		start := func(w int) time.Duration { return max(j.At+l.away(j.Origin, w)/2, free[w]) }
		delay := func(w int) time.Duration { return start(w) + l.away(j.Origin, w)/2 - j.At }
		w := choose(j.Origin, delay)
		out[i] = Placed{w, delay(w) + j.Service}
		free[w] = start(w) + j.Service
	}
	return out
}

// Random gives each job to anyone.
func (l Load) Random(seed uint64) []Placed {
	rng := rand.New(rand.NewPCG(seed, 6))
	return l.queues(func(int, func(int) time.Duration) int { return rng.IntN(l.Nodes) })
}

// Oracle knows all queues and round trips and takes the least sum of both.
func (l Load) Oracle() []Placed {
	return l.queues(func(_ int, delay func(int) time.Duration) int {
		best := 0
		for w := range l.Nodes {
			if delay(w) < delay(best) {
				best = w
			}
		}
		return best
	})
}

// Means are over the measured jobs: the round trip from origin to worker and
// the time from arrival to result, in seconds.
func (l Load) Means(ps []Placed) (rtt, completion float64) {
	for i := l.Warm; i < len(ps); i++ {
		rtt += l.away(l.Jobs[i].Origin, ps[i].Worker).Seconds()
		completion += ps[i].Completion.Seconds()
	}
	n := float64(len(ps) - l.Warm)
	return rtt / n, completion / n
}

// ServiceOf is the Config.Service that takes as long as a load says: each job
// names its place in it. One without arguments is none of the load's: 1 s.
func (l Load) ServiceOf(_ int, x tasks.Execution) time.Duration {
	if len(x.Args) == 0 {
		return time.Second
	}
	i, err := strconv.Atoi(x.Args[0])
	if err != nil {
		panic(err) // Bear made it
	}
	return l.Jobs[i].Service
}

// Bear puts a load on the mesh, whose Config.Service must be the load's, and
// gives where its jobs went and what the measured ones cost in messages.
func (m *Mesh) Bear(l Load) (ps []Placed, cost Traffic) {
	m.t.Helper()
	ps = make([]Placed, len(l.Jobs))
	programs := map[int]tasks.Spec{}
	for _, j := range l.Jobs {
		if _, ok := programs[j.Origin]; !ok {
			programs[j.Origin] = m.Nodes[j.Origin].Numbers(1)
		}
	}
	began := time.Now()
	var before Traffic
	var jobs sync.WaitGroup
	for i, j := range l.Jobs {
		<-time.After(time.Until(began.Add(j.At)))
		if i == l.Warm {
			before = m.Traffic()
		}
		n := m.Nodes[j.Origin]
		spec := programs[j.Origin]
		spec.Args = []string{strconv.Itoa(i)}
		jobs.Go(func() {
			id, err := n.Market().Submit(m.background(), spec)
			if err != nil {
				m.t.Errorf("submit on node %d: %v", n.Index, err)
				return
			}
			v, err := n.Market().Wait(m.background(), id)
			if err != nil || v.Status.State != tasks.Done {
				m.t.Errorf("job on node %d: %v, %v: %v", n.Index, v.Status.State, v.Status.Detail, err)
				return
			}
			ps[i].Completion = time.Since(began.Add(l.Jobs[i].At))
			for _, w := range v.Status.Workers {
				if w.Accepted > 0 {
					ps[i].Worker = m.Index(w.Worker)
				}
			}
		})
	}
	cost = m.Traffic().Sub(before)
	jobs.Wait()
	return ps, cost
}

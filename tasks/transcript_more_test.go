package tasks_test

import (
	"time"

	"github.com/kith-mesh/kith/tasks"
)

func (s *script) workerCommand(name string, a args) {
	origin, job := tasks.PeerID(a.str("origin", "o")), tasks.JobID(a.str("job", "job"))
	lease, ref := tasks.LeaseID(a.str("lease", "l1")), a.ref("task")
	needs := tasks.Resources{CPU: float64(a.num("cpu", 1)), Memory: int64(a.num("memory", 1))}
	switch name {
	case "offer":
		s.workerStep(tasks.OfferIn{RTT: a.dur("rtt"), Able: tasks.Reason(a.num("able", 0)), Probe: a.has("probe"),
			Offer: tasks.Offer{Job: job, Origin: origin, Program: "p", Needs: needs, MaxRTT: a.dur("maxrtt")}})
	case "lease":
		l := tasks.Lease{ID: lease, Job: job, Origin: origin, Worker: tasks.PeerID(a.str("for", "me")), Program: "p",
			Needs: needs, Duration: 6 * time.Second, Grace: time.Minute, Tasks: 100, Commit: a.has("commit")}
		first := a.num("task", 0)
		for i := range a.num("n", 1) {
			l.Assignments = append(l.Assignments, tasks.Assignment{Task: tasks.Task{Ref: tasks.Ref{Index: uint32(first + i)}}})
		}
		s.workerStep(tasks.LeaseIn{Lease: l})
	case "revoke":
		ev := tasks.RevokeIn{Origin: origin, Job: job, Lease: lease}
		if a.has("task") {
			ev.Refs = []tasks.Ref{ref}
		}
		s.workerStep(ev)
	case "renew":
		s.workerStep(tasks.RenewIn{Origin: origin, Job: job, Leases: []tasks.LeaseID{lease}})
	case "ran":
		out := tasks.Outcome{Reason: tasks.Reason(a.num("reason", 0)), Detail: a.str("detail", ""), Log: []byte(a.str("log", ""))}
		if out.Reason == tasks.OK {
			out.Output = tasks.CID(a.str("out", "x"))
		}
		s.workerStep(tasks.Ran{Origin: origin, Job: job, Lease: lease, Ref: ref, Outcome: out})
	case "verdict":
		s.workerStep(tasks.VerdictsIn{Origin: origin, Verdicts: []tasks.Verdict{{Job: job, Ref: ref, Lease: lease, Worker: "me",
			Status: tasks.VerdictStatus(a.num("status", uint64(tasks.Accepted))), Reason: tasks.Reason(a.num("reason", 0))}}})
	case "reveal":
		s.workerStep(tasks.RevealIn{Origin: origin, Job: job, Lease: lease, Ref: ref})
	case "delivered":
		s.workerStep(tasks.Delivered{Origin: origin, Job: job, Unkept: a.has("unkept")})
	case "undelivered":
		s.workerStep(tasks.DeliverFailed{Origin: origin, Job: job, Reason: tasks.Reason(a.num("reason", 0)), RetryAfter: a.dur("retry")})
	case "seen":
		s.workerStep(tasks.OriginSeen{Origin: origin})
	case "limits":
		ev := tasks.SetLimits{Slots: uint32(a.num("slots", 1)), Paused: a.has("paused")}
		if d := a.dur("for"); d > 0 {
			ev.Until = s.now.Add(d)
		}
		s.workerStep(ev)
	case "tick":
		s.workerStep(tasks.WorkerTick{})
	case "status":
		x := s.worker.Status()
		s.printf("%d running of %d, %d queued, %d receipts, queue %v, %d jobs, paused %v, done %d, failed %d, rejected %d, lost %v",
			x.Running, x.Slots, x.Queued, x.Receipts, x.Queue.Round(time.Millisecond), x.Jobs, x.Paused, x.Done, x.Failed, x.Rejected, x.Lost)
	default:
		s.t.Fatalf("unknown command %s", name)
	}
}

func (s *script) workerStep(ev tasks.WorkerEvent) {
	for _, e := range s.worker.Step(s.now, ev) {
		switch e := e.(type) {
		case tasks.SendBid:
			s.printf("bid to %s for %s: %d slots, queue %v", e.To, e.Bid.Job, e.Bid.Slots, e.Bid.Queue.Round(time.Millisecond))
		case tasks.Refuse:
			s.printf("refuse %s %s %s: %v, retry after %v", e.To, e.Job, e.Lease, e.Reason, e.RetryAfter.Round(time.Millisecond))
		case tasks.Start:
			s.printf("start %s %s of %s", e.Lease, refText(e.Execution.Ref), e.Execution.Job)
		case tasks.Stop:
			s.printf("stop %s %s", e.Lease, refText(e.Ref))
		case tasks.Deliver:
			s.printf("deliver to %s: held %v, running %d, want %d, queue %v", e.To, e.Report.Held, len(e.Report.Running), e.Report.Want, e.Report.Queue.Round(time.Millisecond))
			for _, r := range e.Commits {
				s.printf("  commit %s %s", r.Lease, refText(r.Ref))
			}
			for _, r := range e.Reveals {
				s.printf("  reveal %s %s: %v %s", r.Lease, refText(r.Ref), r.Reason, r.Output)
			}
			for _, r := range e.Receipts {
				s.printf("  receipt %s %s: %v %s %s", r.Lease, refText(r.Ref), r.Reason, r.Output, r.Log)
			}
		case tasks.ReleaseOutput:
			s.printf("release output %s of %s", e.Output, e.Job)
		case tasks.ReleaseJob:
			s.printf("release job %s of %s", e.Job, e.Origin)
		default:
			s.t.Fatalf("unknown effect %T", e)
		}
	}
	if err := s.worker.Check(); err != nil {
		s.t.Fatalf("after %T: %v", ev, err)
	}
	s.printf("at %s, next %s", s.at(s.now), s.at(s.worker.Next()))
}

func (s *script) newHost(a args) {
	var err error
	s.adopt, err = tasks.NewAdoption(tasks.AdoptionConfig{Self: tasks.PeerID(a.str("self", "h")), Rand: s.rng, Hosts: int(a.num("hosts", 1))}, "job", "user", s.now)
	s.must(err)
	s.adoptStep(tasks.AdoptionTick{})
}

// backHost is a host that was origin at a term and was away.
func (s *script) backHost(a args) {
	var err error
	s.adopt, err = tasks.RestoreAdoption(tasks.AdoptionConfig{Self: tasks.PeerID(a.str("self", "h")), Rand: s.rng}, "job", "user",
		tasks.AdoptionRecord{Adopted: true, Term: a.num("term", 1), Yielded: a.num("yielded", 0)}, s.now)
	s.must(err)
	s.adoptStep(tasks.AdoptionTick{})
}

func (s *script) adoptCommand(name string, a args) {
	from := tasks.PeerID(a.str("from", "x"))
	switch name {
	case "claim":
		s.adoptStep(tasks.NoticeIn{Notice: tasks.Notice{Job: "job", Kind: tasks.NoticeClaim, From: from}})
	case "origin-notice":
		s.adoptStep(tasks.NoticeIn{Notice: tasks.Notice{Job: "job", Kind: tasks.NoticeOrigin, From: from, Term: a.num("term", 1)}})
	case "answered":
		s.adoptStep(tasks.NoticeIn{Notice: tasks.Notice{Job: "job", Kind: tasks.NoticeAnswered, From: from}})
	case "resubmitted":
		s.adoptStep(tasks.Resubmitted{})
	case "holder":
		s.adoptStep(tasks.HolderTold{Origin: tasks.PeerID(a.str("origin", "")), Term: a.num("term", 0), State: tasks.State(a.num("state", 0))})
	case "over":
		s.adoptStep(tasks.JobOver{Answer: tasks.JobAnswer{Job: "job", State: tasks.Done, Output: "x"}})
	case "taken":
		s.adoptStep(tasks.AnswerTaken{})
	case "untaken":
		s.adoptStep(tasks.AnswerFailed{})
	case "tick":
		s.adoptStep(tasks.AdoptionTick{})
	default:
		s.t.Fatalf("unknown command %s", name)
	}
}

func (s *script) adoptStep(ev tasks.AdoptionEvent) {
	for _, e := range s.adopt.Step(s.now, ev) {
		switch e := e.(type) {
		case tasks.Adopt:
			s.printf("adopt")
		case tasks.SendNotice:
			s.printf("say %s", map[tasks.NoticeKind]string{1: "claim", 2: "origin", 3: "answered"}[e.Notice.Kind])
		case tasks.BecomeOrigin:
			s.printf("become origin at term %d", e.Term)
		case tasks.Yield:
			s.printf("yield to %s at term %d", e.To, e.Term)
		case tasks.SendAnswer:
			s.printf("send answer %s", e.Answer.Output)
		case tasks.AskHolder:
			s.printf("ask the submitter who holds it")
		case tasks.Resume:
			s.printf("resume")
		case tasks.Forget:
			s.printf("forget: %s", e)
		default:
			s.t.Fatalf("unknown effect %T", e)
		}
	}
	role, term, origin := s.adopt.Role()
	s.printf("at %s, next %s, %s, term %d, origin %q", s.at(s.now), s.at(s.adopt.Next()),
		map[tasks.Role]string{1: "listener", 2: "keeper", 3: "origin", 4: "done"}[role], term, origin)
}

func (s *script) submitCommand(name string, a args) {
	origin := tasks.PeerID(a.str("origin", "o"))
	answer := tasks.JobAnswer{Job: "job", Term: a.num("term", 1), Origin: origin, State: tasks.State(a.num("state", uint64(tasks.Done))), Reason: tasks.Reason(a.num("reason", 0))}
	if answer.State == tasks.Done {
		answer.Output = tasks.CID(a.str("out", "x"))
	}
	switch name {
	case "heard":
		s.submitStep(tasks.OriginHeard{Notice: tasks.Notice{Job: "job", Kind: tasks.NoticeOrigin, From: origin, Term: answer.Term}})
	case "answer":
		s.submitStep(tasks.AnswerIn{Answer: answer})
	case "kept":
		s.submitStep(tasks.OutputKept{Answer: answer, OK: true})
	case "unkept":
		s.submitStep(tasks.OutputKept{Answer: answer, Detail: a.str("detail", "")})
	case "tick":
		s.submitStep(tasks.SubmissionTick{})
	case "why":
		for _, x := range s.submit.Why(s.now) {
			s.printf("%s; next %s", x.Text, s.at(x.Next))
		}
	default:
		s.t.Fatalf("unknown command %s", name)
	}
}

func (s *script) submitStep(ev tasks.SubmissionEvent) {
	for _, e := range s.submit.Step(s.now, ev) {
		switch e := e.(type) {
		case tasks.PublishSubmission:
			s.printf("publish, attempt %d", e.Attempt)
		case tasks.KeepOutput:
			s.printf("keep %s from %s", e.Answer.Output, e.Answer.Origin)
		case tasks.AcceptAnswer:
			s.printf("accept %v %s of %s at term %d", e.Answer.State, e.Answer.Output, e.Answer.Origin, e.Answer.Term)
		case tasks.TellAnswered:
			s.printf("tell %s: accepted %v", e.To, e.Accepted)
		case tasks.AskAgain:
			s.printf("ask %s again: %s", e.To, e.Detail)
		case tasks.PublishAnswered:
			s.printf("publish answered")
		default:
			s.t.Fatalf("unknown effect %T", e)
		}
	}
	s.printf("at %s, next %s", s.at(s.now), s.at(s.submit.Next()))
}

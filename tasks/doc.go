// Package tasks holds the nouns of work in a mesh — job, task, offer, bid,
// lease, receipt, verdict — and the state machines that move them.
//
// Everything here is pure: a machine takes an event and a time and returns
// effects. The package never opens a socket, starts a goroutine, reads a clock
// or draws from a global random source; tasks/market does the talking.
//
// # Driving a machine
//
// There are four: [Origin] (one a job that this node decides), [Worker] (one a
// node), [Adoption] (one a published job that this node may come to hold) and
// [Submission] (one a job that this node published). All are driven alike.
//
//   - One goroutine owns a machine. It calls Step with each event, and with the
//     machine's tick event when Next is reached; a zero Next means that no time
//     matters until an event comes. The first call is a tick.
//   - now must never go back: it is read from one monotonic clock.
//   - Effects are carried out in the order given. An effect marked durable in
//     its comment is committed to disk before any later effect of the same or a
//     later Step is let out as a message. Many Steps may share one commit: run
//     them, gather the effects, commit, then send. That order is all that crash
//     safety needs: what a peer was told is always on disk.
//   - A machine that is restored from disk after a crash may repeat messages.
//     Every message is safe to repeat.
//   - Effects that start slow work (Hold, Assemble, Start, Deliver) owe the
//     machine exactly one answering event, named in their comments.
package tasks

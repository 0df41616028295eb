// Package market moves work between peers: it drives the state machines of
// package tasks, one goroutine each, makes durable what they decide, and only
// then says it to others. An origin offers and leases through it, a worker bids
// and delivers, a host adopts published jobs and answers them.
//
// It never decides who gets a task or whether an answer is good, never touches a
// disk or runs a program itself: Store, Runner, Data and Publisher do.
package market

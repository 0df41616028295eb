// Package interop tests kith against other people's software, by real
// processes on loopback: a stock Kubo, built from its Go module, which go.mod
// pins. It is a module of its own, so that what Kubo needs stays out of ours,
// and nothing of ours is imported: both sides are met as their users meet them.
package interop

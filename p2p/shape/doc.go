// Package shape makes connections slower: a delay line under a net.Conn, and a
// limit on how fast one is read. The demo and the benchmarks put distance
// between nodes of one machine with it; nothing else does, and without a table
// of delays no connection is wrapped.
//
// The delay lies below libp2p, at the side that dials, in both directions: bytes
// written at t leave at t+delay, bytes that come in at t are readable at
// t+delay, in order, and a dial takes a round trip. A pair's round trip is so
// twice the one-way delay that the dialler's table has for the other's address;
// the listener's side adds nothing. What is in the line is bounded (InFlight),
// not throttled: a longer delay does not lower the rate until delay times rate
// exceeds it.
//
// It shapes TCP alone. With libp2p:
//
//	libp2p.Transport(tcp.NewTCPTransport, tcp.WithDialerForAddr(shape.Dialer(delays)))
//
// and QUIC off. Traps: libp2p then dials by this dialler only and reuses no
// listening port; the other side sees the kernel's own close at once when the
// process dies, not a delay later.
//
// # Ownership
//
// A delayed connection has two goroutines; Close lets out what was written
// (at most the delay and a second), ends both, and then returns.
package shape

// Package memnet is an in-memory libp2p transport for simulated meshes: whole
// hosts in one process, real or (in testing/synctest) virtual time, with a
// latency per pair, an uplink rate per node, and faults on demand. It is for
// tests; it never opens a socket and authenticates nobody but by handing each
// side the other's public key.
//
// A Network is the wire. A node is an IPv4 address on it (IP gives public ones,
// each in a /16 of its own, so that libp2p's and our own filters of private
// addresses stay on). A host gets its transport by
//
//	net := memnet.New(memnet.Config{Latency: latency})
//	libp2p.New(
//		libp2p.Identity(key),
//		libp2p.Transport(net.Transport(memnet.IP(0))),
//		libp2p.NoSecurity, // the transport is already upgraded: no upgrader runs
//		libp2p.ListenAddrs(memnet.Listen(memnet.IP(0))),
//	)
//
// # What is modelled
//
//   - Latency(from, to) is asked for every write, so it may answer differently
//     while the mesh runs. Bytes of one direction of a connection arrive in the
//     order they were written, as TCP's would, across all its streams.
//   - A dial costs one round trip; opening a stream costs none.
//   - All that a node sends shares its uplink, first come first served.
//   - A stream takes Window bytes that the other side has not read, then Write
//     blocks. Credit comes back without delay.
//   - Half-close, reset with an error code, deadlines, a bound on streams that
//     nobody accepted yet.
//   - Cut and CutOff hold bytes as lost packets would be held: Heal sends them
//     again. After Config.Silence without a heal both sides get a reset. Dials
//     over a cut time out.
//   - Kill is a machine that lost power: what it sends vanishes, its peers write
//     into the void until Silence is over. Crash is a process that died on a
//     living machine: the kernel resets its connections at once.
//
// There is no loss, no handshake, no bandwidth between a pair below the
// uplink's, and no slow start.
//
// # Cost
//
// No goroutine for each connection, stream or message: a segment carries its
// time of arrival and waits in the reader's queue, and a blocked call owns the
// one timer that wakes it. An idle connection is two small structs (the swarm on
// top of it keeps one goroutine for each side in AcceptStream).
//
// # Traps
//
//   - In a synctest bubble build the Network, the hosts and everything else
//     inside, and close the hosts before the bubble's function returns. Close
//     ends whatever is still open.
//   - Latency runs under a lock of the network: it must not call into it.
//   - Messages are Write calls. Multistream, identify and protocol framing all
//     count; for one protocol's messages count at that protocol.
//   - After Kill or Crash close the dead host yourself (its goroutines are still
//     there); it will fail fast and its goodbyes go nowhere. A new host on the
//     same address brings the node back.
package memnet

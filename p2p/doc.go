// Package p2p is a node's place in its mesh: its identity, one libp2p host, the
// membership gate in front of every protocol, request and stream framing,
// reachability, and the neighbourhood.
//
// Every other package declares its protocols as Protocol values and reaches
// peers through Host. The package never learns what the protocols carry, and it
// never serves a peer that has not shown a member token, but for the few
// protocols that say Open.
package p2p

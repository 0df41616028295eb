// Package sim is the simulated mesh: whole nodes, as node.New makes them, over
// p2p/memnet in the virtual time of testing/synctest. It is a package for tests
// and never touches a socket, a disk or a child process.
//
// Run builds a mesh inside a bubble, lets it settle and hands it to a function:
//
//	sim.Run(t, sim.Config{Nodes: 5}, func(m *sim.Mesh) {
//		n := m.Nodes[0]
//		id := n.Submit(n.WordCount(text, 20))
//		view := n.Await(id, time.Minute)
//	})
//
// # What differs from a real node
//
//   - The network: see p2p/memnet. Latency is a matrix (Continents) that may
//     change while the mesh runs. No NAT, relay, mDNS, connection manager.
//   - The runner: programs are Go functions of this process, named by the bytes
//     that a real node would compile, and take a virtual service time. The same
//     program and input give the same output on every node, but on a liar.
//   - State and blocks are in memory, and outlive Stop, Crash and Kill: a node
//     that starts again has the key, the database and the blocks that it had.
//   - A warm start (the default) gives every node all addresses and its place in
//     the routing tables, as testnet.md measured it; a cold one gives it node 0.
//
// # Cost and traps
//
// A hundred nodes take 5 MB each while they live, and 10 s of CPU for the first
// minute of virtual time and 2 s for each later one, most of it while the
// neighbourhood forms. Five take a fifth of a second for a whole test. Sets of
// outcomes repeat from run to run, their order does not: assert sets and bounds.
// All goroutines must end before the bubble does; Run sees to those of the mesh.
// Call t.Fatal from the function's own goroutine alone. The context of a t from
// outside of the bubble must not be used inside: its end would close a channel of
// the bubble, which is fatal to all tests.
package sim

// Package testnet runs meshes of real processes and containers on one machine:
// the demo that `kith demo` shows, and the compose file with its test.
//
// Process and StartMesh are what tests and benches start nodes with. Nothing here
// reaches into a node: it starts the binary and talks to its API.
package testnet

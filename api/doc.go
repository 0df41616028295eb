// Package api serves a node's local HTTP API: JSON over loopback, described by
// an OpenAPI 3.1 document, guarded by a bearer token and a check of the Host
// header. It declares the abilities that it needs from a node in Backend and
// knows nothing of how a node has them.
//
// It never talks to other nodes, never holds a whole file in memory, and never
// answers anything but liveness without the token.
package api

// Package auth decides who may do what in a mesh. A token is a short chain of
// signed grants that starts at the mesh's root key and only ever narrows; a
// charter is what the root says of the mesh itself; an invite is one line that
// its issuer redeems for a token.
//
// The package is pure: it reads no clock, opens no socket and keeps no state.
// Whoever calls it passes the time, and counts how often an invite was used.
package auth

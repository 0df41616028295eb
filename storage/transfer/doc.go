// Package transfer moves blocks between nodes: it fetches spans of roots from
// several peers at once, verifying every block, and serves what this node has
// to those whom its audience names.
//
// Between members bytes go by the bulk protocol: one stream a peer, on which a
// window of blocks is asked for and streamed back in order. Bitswap serves
// mesh and public blocks to anything that speaks it, and fetches from those
// that speak nothing else.
//
// It never decides what to keep: a fetched root that nobody pins or uses is
// the collector's.
package transfer

// Package storage keeps content-addressed data on disk: blocks that hash to
// their CID, files and folders over them (UnixFS), pins that say what to keep,
// audiences that say who may have it, and a collector for the rest.
//
// A block is written and flushed before anything that names it is committed to
// the database, so after a crash what was acknowledged is there and whole; what
// was not is garbage that the next collection removes. Every read is verified:
// by its hash, or, for whoever hashes it again, by a checksum.
//
// It never opens a network connection and never decides who a peer is: the
// transfer package asks it what belongs to which root, and for which audience.
package storage

// Package pack keeps many byte strings under their keys in a few large files,
// packs, which are written at their end alone. A write costs its bytes; the
// flush that makes it survive a crash is shared by all who wait for one.
//
// A pack is a head and records, each with a checksum of its head and of its
// data. When it has grown to its size, an index of its records is put at its
// end and it never changes again; a pack without a whole index is read from its
// start at Open, and cut after its last whole record. What was acknowledged lies
// before that point, since one flush covers all before it, unless the disk spoiled
// it: what is not whole is passed over, by its head if that is whole, or else by a
// search for the next record that is. A pack of which the disk can't read all is not
// changed at all: another time it may.
//
// Where each record lies is kept in memory, some 60 bytes a key. What is deleted
// is forgotten there, and the disk's room comes back by Compact, which copies
// what is left of a pack to the newest one and removes the file. A crash before
// that brings deleted records back, so a caller must be able to see that they
// are garbage.
//
// It knows nothing of CIDs and hashes. One process at a time may open a folder.
package pack

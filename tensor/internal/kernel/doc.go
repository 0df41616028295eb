// Package kernel holds tensor's loops over float32 slices, one set for each
// instruction set, and picks the set that a machine runs.
//
// Every loop here gives the same bits on every set, for any blocking and any
// number of threads. It knows no tensors, starts nothing and checks no shapes:
// its callers do.
package kernel

// Package tensor is what kith computes with on one device: dense tensors, their
// element types, and kernels for every CPU.
//
// Kernels are exact by construction unless their class says otherwise: the same
// operands give the same bits for any number of threads, any blocking and every
// instruction set, so that strangers' results can be compared bit for bit.
//
// It imports nothing else of kith, opens no file and reads no clock.
package tensor

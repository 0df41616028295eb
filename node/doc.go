// Package node puts a kith together: it opens the home and the one database,
// wires every other package from leaf to top, starts and stops them in order,
// and answers the local API.
//
// It decides nothing about jobs, peers or blocks: that is the packages' own.
package node

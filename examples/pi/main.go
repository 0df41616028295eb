// Command pi estimates pi by throwing N random points at the unit square, N
// being its argument. Its randomness is the task's own seed, so every replica
// throws the same points. It prints "inside thrown"; pisum adds such lines up.
package main

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"os"
	"strconv"
)

func main() {
	n := int64(1_000_000)
	if len(os.Args) > 1 {
		var err error
		if n, err = strconv.ParseInt(os.Args[1], 10, 64); err != nil || n < 1 {
			fail("want a number of points of 1 or more, not " + strconv.Quote(os.Args[1]))
		}
	}
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		fail("seed: " + err.Error())
	}
	points := mathrand.NewChaCha8(seed)
	var inside int64
	for range n {
		v := points.Uint64()
		// 31-bit coordinates: the sum of their squares fits 64 bits, exactly.
		x, y := v>>33, v&(1<<31-1)
		if x*x+y*y < 1<<62 {
			inside++
		}
	}
	os.Stdout.WriteString(strconv.FormatInt(inside, 10) + " " + strconv.FormatInt(n, 10) + "\n")
}

func fail(why string) {
	os.Stderr.WriteString("pi: " + why + "\n")
	os.Exit(1)
}

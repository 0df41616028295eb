// Command primes counts the primes below N, its argument, in this task's share
// of the numbers, and prints "from to count". Each task sieves the segment that
// KITH_TASK and KITH_TASKS give it. With a second argument "list" it prints the
// primes themselves, one a line.
package main

import (
	"bufio"
	"os"
	"strconv"
)

// segment is how many numbers are sieved at once.
const segment = 1 << 18

func main() {
	if len(os.Args) < 2 {
		fail("want the number below which to count, for example 10000000")
	}
	limit, err := strconv.ParseUint(os.Args[1], 10, 64)
	if err != nil || limit > 1<<40 {
		fail("want a number of at most 1099511627776, not " + strconv.Quote(os.Args[1]))
	}
	task, tasks := env("KITH_TASK", 0), env("KITH_TASKS", 1)
	if tasks == 0 || task >= tasks {
		fail("KITH_TASK is not below KITH_TASKS")
	}
	from, to := share(limit, task, tasks), share(limit, task+1, tasks)
	out := bufio.NewWriter(os.Stdout)
	list := len(os.Args) > 2 && os.Args[2] == "list"
	count := 0
	sieve(from, to, func(p uint64) {
		count++
		if list {
			out.WriteString(strconv.FormatUint(p, 10) + "\n")
		}
	})
	if !list {
		out.WriteString(strconv.FormatUint(from, 10) + " " + strconv.FormatUint(to, 10) + " " + strconv.Itoa(count) + "\n")
	}
	if err := out.Flush(); err != nil {
		fail("write: " + err.Error())
	}
}

// share is where the i-th of n equal parts of limit begins.
func share(limit, i, n uint64) uint64 { return limit/n*i + min(i, limit%n) }

// sieve calls found for every prime in [from, to), ascending.
func sieve(from, to uint64, found func(uint64)) {
	root := uint64(1)
	for root*root < to {
		root++
	}
	var small []uint64 // primes up to root
	composite := make([]bool, root+1)
	for p := uint64(2); p <= root; p++ {
		if composite[p] {
			continue
		}
		small = append(small, p)
		for m := p * p; m <= root; m += p {
			composite[m] = true
		}
	}
	marks := make([]bool, segment)
	for low := max(from, 2); low < to; low += segment {
		high := min(low+segment, to)
		clear(marks)
		for _, p := range small {
			if p*p >= high {
				break
			}
			for m := max(p*p, (low+p-1)/p*p); m < high; m += p {
				marks[m-low] = true
			}
		}
		for n := low; n < high; n++ {
			if !marks[n-low] {
				found(n)
			}
		}
	}
}

func env(name string, absent uint64) uint64 {
	text, ok := os.LookupEnv(name)
	if !ok {
		return absent
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		fail(name + " is not a number: " + strconv.Quote(text))
	}
	return n
}

func fail(why string) {
	os.Stderr.WriteString("primes: " + why + "\n")
	os.Exit(1)
}

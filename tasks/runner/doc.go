// Package runner runs one task under hard limits: a WASI preview 1 module in a
// re-executed child process of our own binary.
//
// # What a program sees
//
// Standard input is the task's split and standard output its output. What it
// writes to standard error is its log, of which the tail is kept. /in holds the
// named inputs, read-only; links out of them lead nowhere. Files and folders
// that it makes in /out are moved to Task.Out when it ends well; /out has no
// links, and times and permissions there don't stick. The environment is the
// spec's plus KITH_JOB, KITH_TASK (the index) and KITH_TASKS. There is no
// network.
//
// # The same for every replica
//
// The clock starts at a fixed instant, moves a microsecond at each reading and
// by what the program sleeps, so sleeping costs nothing. Random bytes come from
// ChaCha8 seeded by Seed(job, task). Inode numbers, times and the order of
// folder listings don't depend on the host. Whether memory grows depends on the
// task's limit alone. What is left to the program is the bits of NaNs, which
// wasm does not fix: a program that hashes or prints raw float bits canonicalises
// NaNs first. A nondeterministic task gets the host's clock and fresh randomness
// instead.
//
// # Limits
//
// Each has its tasks.Reason: memory (wasm pages, and the child's resident size
// beyond what it held before the task), wall time, CPU time, and the bytes of
// standard output and /out together. The parent meters the child from outside
// and kills it, so a program that spins can't escape; the kernel kills the
// child when the node dies, be it by SIGKILL: by the parent-death signal on
// linux and freebsd, a job object on windows, and elsewhere a guard process that
// watches a pipe which only the node holds. A hard CPU limit in the child is the
// last resort.
//
// # Walls
//
// A child compiles its program, from bytes that it does not trust, in Go code
// alone, and writes the result to the shared cache. Then it shuts itself in, and
// only then runs it: on linux with rlimits, no-new-privs, landlock (its inputs to
// read, its own folder to write, nothing else) and a list of system calls that
// has no socket, no program to start and no other process in it. So a program
// that broke out of wasm could not poison the cache. It serves one job, program,
// memory limit and set of inputs until it ends. Runner.Isolation says how much of
// this the system had.
//
// The package never fetches or stores anything and never opens a socket.
package runner

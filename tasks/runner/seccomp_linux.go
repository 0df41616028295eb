//go:build linux && (amd64 || arm64)

package runner

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allowed are the system calls that a loaded child needs: its runtime's, and
// reading and writing files. There is no socket, no program to start, no other
// process to touch among them.
var allowed = []uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64,
	unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_STATX, unix.SYS_LSEEK, unix.SYS_GETDENTS64,
	unix.SYS_FTRUNCATE, unix.SYS_UNLINKAT, unix.SYS_READLINKAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_FCNTL,
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MREMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK,
	unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES,
	unix.SYS_GETTIMEOFDAY, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETRANDOM,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_RESTART_SYSCALL, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETRUSAGE, unix.SYS_GETRLIMIT, unix.SYS_TGKILL,
	unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PPOLL,
	unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_MEMBARRIER, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
}

// Offsets in struct seccomp_data, and what a filter returns.
const (
	dataNumber = 0
	dataArch   = 4
	dataArg0   = 16 // low half on these little-endian machines

	returnAllow = unix.SECCOMP_RET_ALLOW
	returnKill  = unix.SECCOMP_RET_KILL_PROCESS
	returnPerm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	returnNone  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// filter builds the program: other architectures' calls kill, a new thread is
// allowed, a new process is not, signals go to this process only.
func filter(arch uint32, calls []uint32, pid int) []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		bits   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		answer = unix.BPF_RET | unix.BPF_K
	)
	f := []unix.SockFilter{
		{Code: load, K: dataArch},
		{Code: equal, Jt: 1, K: arch},
		{Code: answer, K: returnKill},
		{Code: load, K: dataNumber},
		{Code: equal, Jf: 1, K: unix.SYS_CLONE3}, // its flags can't be read: Go and libc fall back to clone
		{Code: answer, K: returnNone},
		{Code: equal, Jf: 4, K: unix.SYS_CLONE},
		{Code: load, K: dataArg0},
		{Code: bits, Jf: 1, K: unix.CLONE_THREAD},
		{Code: answer, K: returnAllow},
		{Code: answer, K: returnPerm},
		{Code: equal, Jf: 4, K: unix.SYS_TGKILL},
		{Code: load, K: dataArg0},
		{Code: equal, Jf: 1, K: uint32(pid)},
		{Code: answer, K: returnAllow},
		{Code: answer, K: returnPerm},
	}
	for _, nr := range calls {
		if nr != unix.SYS_TGKILL {
			f = append(f, unix.SockFilter{Code: equal, Jf: 1, K: nr}, unix.SockFilter{Code: answer, K: returnAllow})
		}
	}
	return append(f, unix.SockFilter{Code: answer, K: returnPerm})
}

// seccomp leaves every thread the allowed calls alone. A kernel without it is
// no error.
func (w *walls) seccomp() error {
	arch := uint32(unix.AUDIT_ARCH_X86_64)
	if runtime.GOARCH == "arm64" {
		arch = unix.AUDIT_ARCH_AARCH64
	}
	f := filter(arch, append(allowed, allowedHere...), unix.Getpid())
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	switch errno {
	case 0:
		w.add("seccomp")
		return nil
	case unix.ENOSYS, unix.EINVAL: // not in this kernel
		return nil
	}
	return fmt.Errorf("seccomp: %w", errno)
}

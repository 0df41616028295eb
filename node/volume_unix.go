//go:build unix

package node

import "golang.org/x/sys/unix"

// volume returns the bytes in all, and free to us, of dir's file system.
func volume(dir string) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Blocks) * int64(st.Bsize), int64(st.Bavail) * int64(st.Bsize), nil
}

package node

import "golang.org/x/sys/windows"

// volume returns the bytes in all, and free to us, of dir's volume.
func volume(dir string) (total, free int64, err error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, err
	}
	var avail, all uint64
	if err := windows.GetDiskFreeSpaceEx(name, &avail, &all, nil); err != nil {
		return 0, 0, err
	}
	return int64(all), int64(avail), nil
}

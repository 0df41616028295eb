package bench

import "golang.org/x/sys/windows"

func diskFree(dir string) (int64, error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var avail uint64
	err = windows.GetDiskFreeSpaceEx(p, &avail, nil, nil)
	return int64(avail), err
}

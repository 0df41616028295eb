package node

import "io/fs"

// tooOpen can't tell on Windows: rights there are access lists, inherited from
// the user's profile folder.
func tooOpen(fs.FileMode) bool { return false }

// syncDir has no counterpart on Windows, where the rename is journalled.
func syncDir(string) error { return nil }

// Package pb holds the generated wire types of tasks/wire, which alone uses them.
package pb

//go:generate protoc --go_out=. --go_opt=paths=source_relative tasks.proto

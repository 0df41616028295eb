// Package pb holds the protobuf messages of tokens, charters and invites.
package pb

//go:generate protoc --go_out=. --go_opt=paths=source_relative auth.proto

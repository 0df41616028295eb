// Package pb holds the protobuf messages of p2p's own protocols.
package pb

//go:generate sh -c "protoc --go_out=. --go_opt=paths=source_relative *.proto"

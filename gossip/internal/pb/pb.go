// Package pb holds the protobuf messages of package gossip.
package pb

//go:generate sh -c "protoc --go_out=. --go_opt=paths=source_relative *.proto"

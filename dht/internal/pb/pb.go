// Package pb is the wire format of mesh records.
package pb

//go:generate sh -c "protoc --go_out=. --go_opt=paths=source_relative *.proto"

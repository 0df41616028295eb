// Package pb is the bulk protocol's wire format.
package pb

//go:generate sh -c "protoc --go_out=. --go_opt=paths=source_relative *.proto"

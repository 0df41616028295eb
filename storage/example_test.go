package storage_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log"
	"strings"

	_ "modernc.org/sqlite"

	"github.com/kith-mesh/kith/storage"
)

func Example() {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	s, err := storage.Open(storage.Config{DB: db}) // Dir names a folder on disk
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	ctx := context.Background()
	root, err := s.AddReader(ctx, strings.NewReader("to be, or not to be"), storage.AddOptions{Name: "hamlet"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(root.CID, root.Size)

	r, err := s.Open(ctx, root.CID, "", 3, 2) // a span
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", b)
	// Output:
	// bafkreidq7bjtdczjitrs6cmdserndhkricamno5jh4myo6rmfkzzdrsswa 19
	// be
}

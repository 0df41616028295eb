package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	carstorage "github.com/ipld/go-car/v2/storage"
)

const (
	maxCARRoots  = 256
	maxCARHeader = 32 << 10
)

// ExportCAR writes root as a CAR (version 1) file: each block once, every one
// after its parent. All of root must be stored.
func (s *Store) ExportCAR(ctx context.Context, root cid.Cid, w io.Writer) error {
	defer s.Use(root)()
	p, err := NewPlan(Whole(root))
	if err != nil {
		return fmt.Errorf("export car: %w", err)
	}
	out, err := carstorage.NewWritable(w, []cid.Cid{root}, carv2.WriteAsCarV1(true))
	if err != nil {
		return fmt.Errorf("export car: %w", err)
	}
	for {
		n, ok := p.Next()
		if !ok {
			break
		}
		data, err := s.Get(ctx, n.CID)
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("%w: %w", err, ErrIncomplete)
		}
		if err == nil {
			err = out.Put(ctx, n.CID.KeyString(), data)
		}
		if err == nil {
			err = p.Got(n.CID, len(data), data)
		}
		if err != nil {
			return fmt.Errorf("export car of %s: %w", root, err)
		}
	}
	if err := out.Finalize(); err != nil {
		return fmt.Errorf("export car of %s: %w", root, err)
	}
	return nil
}

// ImportOptions for a CAR file.
type ImportOptions struct {
	Name     string
	Audience Audience  // of its roots; default Mesh
	Owner    Owner     // pins its roots; default User
	Until    time.Time // of the pins
	Progress func(done, total int64)
}

// ImportCAR reads a CAR file of version 1 or 2, verifies every block, and pins
// its roots, of which all blocks must be in the file or stored already. If it
// fails, the blocks it wrote are left to the collector.
func (s *Store) ImportCAR(ctx context.Context, r io.Reader, o ImportOptions) (roots []Root, err error) {
	ao, err := AddOptions{Name: o.Name, Audience: o.Audience, Owner: o.Owner, Until: o.Until}.filled()
	if err != nil {
		return nil, fmt.Errorf("import car: %w", err)
	}
	cr := &countReader{ctx: ctx, r: r, a: &adder{o: AddOptions{Progress: o.Progress, total: -1}}}
	br, err := carv2.NewBlockReader(cr, carv2.MaxAllowedHeaderSize(maxCARHeader),
		carv2.MaxAllowedSectionSize(MaxBlock+256), carv2.WithTrustedCAR(true)) // Put verifies
	if err != nil {
		return nil, fmt.Errorf("import car: %w", err)
	}
	if n := len(br.Roots); n == 0 || n > maxCARRoots {
		return nil, fmt.Errorf("import car: it has %d roots, want 1 to %d", n, maxCARRoots)
	}
	w := s.begin()
	defer w.Close()
	for {
		b, err := br.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = w.Put(ctx, b.Cid(), b.RawData())
		}
		if err != nil {
			return nil, fmt.Errorf("import car: %w", err)
		}
	}
	if err := w.Flush(ctx); err != nil {
		return nil, fmt.Errorf("import car: %w", err)
	}
	defer s.Use(br.Roots...)()
	for _, c := range br.Roots {
		e, err := s.Stat(ctx, c, "")
		if err != nil {
			return nil, fmt.Errorf("import car: root %s: %w", c, err)
		}
		root := Root{CID: c, Name: ao.Name, Size: e.Size, Files: 1, Audience: ao.Audience, Added: s.cfg.Now()}
		if e.Type == Folder {
			root.Size, root.Files = 0, 0
			err = s.Walk(ctx, c, "", func(e Entry) error {
				if e.Type == File {
					root.Size += e.Size
					root.Files++
				}
				return nil
			})
		}
		if err == nil {
			err = s.pin(ctx, root, ao.Owner, ao.Until)
		}
		if err != nil {
			return nil, fmt.Errorf("import car: root %s: %w", c, err)
		}
		roots = append(roots, root)
	}
	return roots, nil
}

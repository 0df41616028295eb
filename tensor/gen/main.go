// Command gen writes the assembly of tensor/internal/kernel. Run it from
// there by go generate; what it writes is committed.
//
//	gen PART FOLDER    writes PART_amd64.s and PART_amd64.go; of neon, for arm64
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

var parts = map[string]func(*build.Context){
	"each":   each,
	"gemm":   gemm,
	"pack":   pack,
	"reduce": reduce,
	"spin":   spin,
}

func main() {
	if len(os.Args) != 3 || parts[os.Args[1]] == nil && os.Args[1] != "neon" {
		fmt.Fprintln(os.Stderr, "usage: gen each|gemm|neon|pack|reduce|spin FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func write(part, folder string) error {
	if part == "neon" {
		asm, stubs := neon()
		return errors.Join(os.WriteFile(filepath.Join(folder, "neon_arm64.s"), []byte(asm), 0o644),
			os.WriteFile(filepath.Join(folder, "neon_arm64.go"), []byte(stubs), 0o644))
	}
	ctx := build.NewContext()
	ctx.ConstraintExpr("amd64")
	parts[part](ctx)
	file, err := ctx.Result()
	if err != nil {
		return err
	}
	if err := pass.Compile.Execute(file); err != nil {
		return err
	}
	for _, f := range file.Functions() {
		f.Nodes = slices.DeleteFunc(f.Nodes, idle)
	}
	cfg := printer.Config{Name: "gen", Argv: []string{"gen", part}, Pkg: "kernel"}
	for name, p := range map[string]printer.Printer{part + "_amd64.s": printer.NewGoAsm(cfg), part + "_amd64.go": printer.NewStubs(cfg)} {
		b, err := p.Print(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// idle reports a move of a register to itself, which allocation left.
func idle(n ir.Node) bool {
	i, ok := n.(*ir.Instruction)
	return ok && i.Opcode == "VMOVAPS" && i.Operands[0] == i.Operands[1]
}

// begin starts a function.
func begin(ctx *build.Context, name, signature string, doc ...string) {
	ctx.Function(name)
	ctx.Attributes(attr.NOSPLIT)
	ctx.SignatureExpr(signature)
	ctx.Doc(doc...)
	ctx.Pragma("noescape")
}

// argument is where an argument stands.
func argument(ctx *build.Context, name string) operand.Mem {
	at, err := ctx.Param(name).Resolve()
	if err != nil {
		panic(err) // it stands in the signature
	}
	return at.Addr
}

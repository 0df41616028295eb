package tasks_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

func Example() {
	// A shell owns the clock and the network; the machine only decides.
	now := time.Unix(0, 0)
	job := tasks.Job{ID: "job", Term: 1, Spec: tasks.Spec{Program: "bafyprogram"}.WithDefaults()}
	origin, err := tasks.NewOrigin(tasks.OriginConfig{Self: "me", Rand: rand.New(rand.NewPCG(1, 1))}, job, []tasks.Task{{}})
	if err != nil {
		fmt.Println(err)
		return
	}
	show := func(effects []tasks.Effect) {
		for _, e := range effects {
			switch e := e.(type) {
			case tasks.Announce:
				fmt.Printf("offer %d task within %v\n", e.Offer.Waiting, e.Offer.Radius)
			case tasks.Grant:
				fmt.Printf("lease %s to %s\n", e.Lease.ID, e.Lease.Worker)
			case tasks.Hold:
				fmt.Printf("store %s\n", e.Output)
			case tasks.Decide:
				fmt.Printf("commit the result of %v, then tell %s\n", e.Result.Ref.Stage, e.Verdicts[0].Worker)
			case tasks.Assemble:
				fmt.Println("assemble")
			case tasks.Finish:
				fmt.Println(e.State)
			}
		}
	}
	show(origin.Step(now, tasks.Tick{}))
	show(origin.Step(now.Add(40*time.Millisecond), tasks.BidIn{
		Bid:      tasks.Bid{Job: "job", Worker: "ann", Slots: 1},
		Standing: tasks.Standing{RTT: 10 * time.Millisecond},
	}))
	show(origin.Step(now.Add(time.Second), tasks.ReceiptIn{Receipt: tasks.Receipt{
		Job: "job", Lease: "t1-1", Worker: "ann", Output: "bafyoutput", Inline: []byte("42"),
	}}))
	show(origin.Step(now.Add(time.Second), tasks.HeldOutput{Worker: "ann", Output: "bafyoutput", Size: 2}))
	show(origin.Step(now.Add(time.Second), tasks.Assembled{Output: "bafyall", Size: 2}))
	// Output:
	// offer 1 task within 50ms
	// lease t1-1 to ann
	// store bafyoutput
	// commit the result of map, then tell ann
	// assemble
	// done
}

func ExampleParseSpec() {
	spec, err := tasks.ParseSpec([]byte("program: ./count.wasm\ninputs: [{source: ./books, split: lines:1000}]\n"))
	fmt.Println(spec.Program, tasks.FormatSplit(spec.Inputs[0].Split), err)
	_, err = tasks.ParseSpec([]byte("program: a\nresources: {memroy: 1Gi}\n"))
	fmt.Println(err)
	// Output:
	// ./count.wasm lines:1000 <nil>
	// job spec: line 2: resources.memroy: unknown key: did you mean memory?
}

func ExampleCutLines() {
	text := "one\ntwo\nthree\nfour\nfive"
	_, err := tasks.CutLines(strings.NewReader(text), 2, func(offset, length int64) error {
		fmt.Printf("%q\n", text[offset:offset+length])
		return nil
	})
	fmt.Println(err)
	// Output:
	// "one\ntwo\n"
	// "three\nfour\n"
	// "five"
	// <nil>
}

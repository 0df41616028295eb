package sim_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/testnet/sim"
)

// text has n lines of a few words.
func text(n int) string {
	words := strings.Fields("the mesh runs near work first and loses nothing that it accepted")
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s %s %s\n", words[i%len(words)], words[i*i%len(words)], words[i*7/3%len(words)])
	}
	return b.String()
}

func TestJobAcrossTheMesh(t *testing.T) {
	sim.Run(t, sim.Config{}, func(m *sim.Mesh) {
		n := m.Nodes[1]
		body := text(400)
		id := n.Submit(n.WordCount(body, 10))
		v := n.Await(id, 5*time.Minute)
		if got := n.Output(v); got != sim.CountWords(body) {
			t.Errorf("counted\n%s\nwant\n%s", got, sim.CountWords(body))
		}
		t.Logf("%+v", v.Status)
	})
}

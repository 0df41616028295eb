package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/testnet"
)

// joins lets new members in by invites of the first node, each good for one, and
// tries each with a second one. What comes of it goes into a log of its own.
func (r *run) joins(ctx context.Context) (err error) {
	log, _, err := OpenLog(r.log("joins"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Append(Entry{Op: Finished}), log.Close()) }()
	issuer := r.nodes[0]
	c, err := dial(issuer.Home, issuer.API)
	if err != nil {
		return err
	}
	for n := 0; ctx.Err() == nil; n++ {
		inv, err := ask(ctx, func(ctx context.Context) (api.Invite, error) {
			return c.CreateInvite(ctx, api.InviteRequest{Uses: 1, Local: true, Rights: []string{"submit"}, Name: fmt.Sprintf("join-%d", n)})
		})
		if err != nil {
			return err
		}
		homes, err := testnet.NewProcesses(filepath.Join(r.Dir, fmt.Sprintf("join%d", n)), 2)
		if err != nil {
			return err
		}
		in := false
		for i, home := range homes {
			for try := 0; try < 4 && ctx.Err() == nil && (i == 0 && !in || i == 1 && try < 1); try++ {
				key := fmt.Sprintf("join-%d-%d-%d", n, i, try)
				if err := log.Append(Entry{Op: Intent, Key: key, CID: inv.ID, Want: &Want{Kind: WantJoin}}); err != nil {
					return err
				}
				e := Entry{Op: Acked, Key: key, CID: inv.ID}
				if e.Node, err = r.join(ctx, home, inv.Line); err != nil {
					e.Op, e.Text = Failed, err.Error()
				}
				in = in || err == nil
				if err := log.Append(e); err != nil {
					return err
				}
			}
			if err := os.RemoveAll(home.Home); err != nil {
				return err
			}
		}
		r.mu.Lock()
		covered := r.aim.covered("state/redeem")
		r.mu.Unlock()
		if covered {
			wait(ctx, 5*time.Second)
		}
	}
	return nil
}

// join starts a node of a new home with an invite, until it is up or ends.
func (r *run) join(ctx context.Context, p *testnet.Process, line string) (peer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	if err := p.Start(r.Exe, "--join", line, "--light"); err != nil {
		return "", err
	}
	err = p.Ready(ctx)
	return p.ID, errors.Join(err, p.Kill())
}

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/node/policy"
	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/tasks"
)

// settingPause is where a pause outlives the process.
const settingPause = "policy.pause"

// pause is what is kept of a pause.
type pause struct {
	Version int       `json:"version"`
	Until   time.Time `json:"until,omitzero"` // zero: until resumed
}

// loadPolicy is the config's policy with the pause that was set before.
func (n *Node) loadPolicy(ctx context.Context) (policy.Policy, error) {
	p := n.cfg.Policy.Fill()
	b, err := n.state.Get(ctx, settingPause)
	if errors.Is(err, state.ErrNotFound) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	var kept pause
	if err := json.Unmarshal(b, &kept); err != nil {
		return p, fmt.Errorf("node: setting %s: %w", settingPause, err)
	}
	p.Paused, p.Until = true, kept.Until
	if !p.PausedAt(n.cfg.Now()) {
		p = p.Resume()
	}
	return p, nil
}

func (n *Node) currentPolicy() policy.Policy {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.policy
}

// machine is what there is to give; a simulated node has one core.
func (n *Node) machine() (policy.Machine, error) {
	if n.cfg.Seams.Network != nil {
		return policy.Machine{Cores: 2, Memory: 8 << 30, Disk: 1 << 40}, nil
	}
	return machine(n.cfg.Home)
}

// capacity is what others are told.
func (n *Node) capacity() p2p.Capacity {
	return p2p.Capacity{
		Cores: n.limits.Cores, Memory: n.limits.Memory, Disk: n.limits.Disk, Kinds: n.kinds(),
		Paused: n.currentPolicy().PausedAt(n.cfg.Now()), Rights: n.member.grant.Rights, Full: n.isFull(),
	}
}

// workLimits is what the market may run at once.
func (n *Node) workLimits() tasks.SetLimits {
	p := n.currentPolicy()
	l := tasks.SetLimits{Slots: uint32(n.limits.Slots), Memory: n.limits.Memory, Full: n.isFull(), Paused: p.PausedAt(n.cfg.Now())}
	if l.Paused {
		l.Until = p.Until
	}
	return l
}

// changePolicy makes what f says of the policy durable, then puts it in force.
func (n *Node) changePolicy(ctx context.Context, f func(policy.Policy) (policy.Policy, error)) error {
	n.changing.Lock() // two changes at once would lose one
	defer n.changing.Unlock()
	old := n.currentPolicy()
	p, err := f(old)
	if err != nil {
		return err
	}
	var b []byte
	if p.Paused {
		if b, err = json.Marshal(pause{Version: 1, Until: p.Until}); err != nil {
			return err
		}
	}
	if err := n.state.Set(ctx, settingPause, b); err != nil {
		return err
	}
	n.mu.Lock()
	n.policy = p
	n.mu.Unlock()
	n.enforcePolicy()
	if old.Paused != p.Paused {
		n.events.policy(p.Paused)
	}
	return nil
}

// enforcePolicy tells the market and the mesh.
func (n *Node) enforcePolicy() {
	n.enforcing.Lock() // the last of two at once must tell what is so
	defer n.enforcing.Unlock()
	n.host.SetCapacity(n.capacity())
	n.market.SetLimits(n.workLimits())
}

// Policy shows what the owner allows.
func (n *Node) Policy(context.Context) (api.Policy, error) { return n.showPolicy(), nil }

func (n *Node) showPolicy() api.Policy {
	p := n.currentPolicy()
	out := api.Policy{CPU: p.CPU.String(), Cores: n.limits.Cores, Slots: n.limits.Slots, Memory: n.limits.Memory, Disk: n.limits.Disk}
	if p.PausedAt(n.cfg.Now()) {
		out.Paused, out.Until = true, p.Until
	}
	return out
}

// Pause takes no new work for d, or until Resume when d is 0.
func (n *Node) Pause(ctx context.Context, d time.Duration) (api.Policy, error) {
	err := n.changePolicy(ctx, func(p policy.Policy) (policy.Policy, error) {
		p, err := p.Pause(n.cfg.Now(), d)
		if err != nil {
			err = api.Invalid("for example 2h, or nothing to pause until resumed", "%v", err)
		}
		return p, err
	})
	return n.showPolicy(), err
}

// Resume ends a pause.
func (n *Node) Resume(ctx context.Context) (api.Policy, error) {
	err := n.changePolicy(ctx, func(p policy.Policy) (policy.Policy, error) { return p.Resume(), nil })
	return n.showPolicy(), err
}

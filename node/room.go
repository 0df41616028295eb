package node

import (
	"errors"

	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/storage"
)

// workRoom is what must fit into the store for a node to take a job or work.
const workRoom = 1 << 20

// isFull says of an error that something could not be written for lack of room.
func isFull(err error) bool {
	return storage.IsFull(err) || errors.Is(err, state.ErrFull)
}

// room says why this node can take no more work for lack of room, or nil. When
// that changes, others are told, and housekeeping collects.
func (n *Node) room() error {
	err := n.store.Room(workRoom)
	full := isFull(err)
	n.mu.Lock()
	changed := n.full != full
	n.full = full
	n.mu.Unlock()
	if changed {
		n.enforcePolicy()
		if full {
			n.log.Warn("no room for more work", "err", err)
		} else {
			n.log.Info("room again")
		}
	}
	if !full {
		return nil // what else is wrong with the store shows in its use
	}
	select {
	case n.crowded <- struct{}{}:
	default:
	}
	return err
}

func (n *Node) isFull() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.full
}

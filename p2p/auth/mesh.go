package auth

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// MeshID names a mesh: the SHA-256 of its root public key in libp2p's
// encoding, as lower-case base32 without padding.
type MeshID string

var lower32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

const meshIDLen = 52 // 32 bytes in base32

// prefixLen characters are 80 bits: enough that nobody finds a second root key
// with the same prefix.
const prefixLen = 16

// MeshOf returns the ID of the mesh whose root has this public key.
func MeshOf(root crypto.PubKey) (MeshID, error) {
	if root == nil {
		return "", errors.New("mesh ID: no root public key")
	}
	b, err := crypto.MarshalPublicKey(root)
	if err != nil {
		return "", fmt.Errorf("mesh ID: %w", err)
	}
	sum := sha256.Sum256(b)
	return MeshID(lower32.EncodeToString(sum[:])), nil
}

// ParseMeshID checks a mesh ID that came from outside.
func ParseMeshID(s string) (MeshID, error) {
	if len(s) != meshIDLen {
		return "", fmt.Errorf("mesh ID %q: %d characters, want %d", clip(s), len(s), meshIDLen)
	}
	if _, err := lower32.DecodeString(s); err != nil {
		return "", fmt.Errorf("mesh ID %q: only a-z and 2-7 are allowed", clip(s))
	}
	return MeshID(s), nil
}

// Prefix is the part that stands in protocol IDs.
func (m MeshID) Prefix() string {
	if len(m) < prefixLen {
		return string(m)
	}
	return string(m[:prefixLen])
}

// String returns the whole ID.
func (m MeshID) String() string { return string(m) }

// clip keeps hostile input short in error texts.
func clip(s string) string {
	const max = 64
	s = strings.ToValidUTF8(s, "?")
	if len(s) > max {
		return strings.ToValidUTF8(s[:max], "") + "..."
	}
	return s
}

package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
)

const secretLen = 32

// Secret is an invite's bearer secret. It can't be printed by accident and
// can't be compared with ==; the issuer stores only its Hash.
type Secret struct {
	_ [0]func()
	b [secretLen]byte
}

// NewSecret draws a secret from the system's randomness.
func NewSecret() Secret {
	var s Secret
	rand.Read(s.b[:])
	return s
}

// SecretFromBytes takes over the bytes that Reveal gave.
func SecretFromBytes(b []byte) (Secret, error) {
	var s Secret
	if len(b) != secretLen {
		return s, fmt.Errorf("invite secret of %d bytes, want %d", len(b), secretLen)
	}
	copy(s.b[:], b)
	return s, nil
}

// Reveal returns the secret's bytes, to be sent to the issuer and nobody else.
func (s Secret) Reveal() []byte { return s.b[:] }

// Hash is what the issuer keeps, and finds the invite by.
func (s Secret) Hash() [32]byte {
	return sha256.Sum256(append([]byte("kith-invite-v1:"), s.b[:]...))
}

// Equal compares in constant time.
func (s Secret) Equal(o Secret) bool { return subtle.ConstantTimeCompare(s.b[:], o.b[:]) == 1 }

// IsZero reports a secret that was never set.
func (s Secret) IsZero() bool { return s.Equal(Secret{}) }

const hidden = "[secret]"

// Format hides the secret under every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// String hides the secret.
func (s Secret) String() string { return hidden }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

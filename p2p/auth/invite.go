package auth

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"github.com/kith-mesh/kith/p2p/auth/internal/pb"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
)

const (
	invitePrefix  = "kith1"
	checksumLen   = 4
	maxInvite     = 12 << 10 // bytes before encoding
	maxInviteLine = len(invitePrefix) + (maxInvite+checksumLen+binary.MaxVarintLen32)*4/3 + 4

	// MaxRecords bounds the signed peer records in an invite.
	MaxRecords = 4
	// MaxRecord bounds one signed peer record, in bytes.
	MaxRecord = 2 << 10
)

// What a redeemer answers when it does not redeem.
var (
	ErrInviteUnknown = errors.New("the issuer does not know this invite: it was revoked, or made by another home")
	ErrInviteSpent   = errors.New("this invite was used as often as it allows: ask for a new one")
	ErrInviteExpired = errors.New("this invite has expired: ask for a new one")
	ErrInviteRevoked = errors.New("this invite was revoked")
)

// Invite is what a newcomer needs: where to go and what to show there.
type Invite struct {
	Mesh    MeshID
	Issuer  peer.ID
	Records [][]byte // signed peer records; the issuer's first
	Secret  Secret
	Expires time.Time
	Rights  Rights // what the newcomer will get; the issuer's own count decides
}

// String is the whole invite as one line that can be pasted. It holds the
// secret: print it only to whoever asked for it.
func (i Invite) String() string {
	b, err := proto.Marshal(&pb.Invite{
		Mesh: string(i.Mesh), Issuer: []byte(i.Issuer), Records: i.Records,
		Secret: i.Secret.Reveal(), Expires: i.Expires.Unix(), Rights: uint32(i.Rights),
	})
	if err != nil { // only strings that are not UTF-8, which ParseMeshID keeps out
		return invitePrefix
	}
	line := binary.AppendUvarint(nil, uint64(len(b)))
	line = append(line, b...)
	sum := sha256.Sum256(line)
	line = append(line, sum[:checksumLen]...)
	return invitePrefix + base64.RawURLEncoding.EncodeToString(line)
}

// LogValue keeps the secret out of logs.
func (i Invite) LogValue() slog.Value {
	return slog.GroupValue(slog.String("mesh", i.Mesh.Prefix()), slog.String("issuer", i.Issuer.String()),
		slog.Time("expires", i.Expires), slog.String("rights", i.Rights.String()))
}

// ParseInvite reads the line that String made. Blanks and line breaks that a
// terminal put into it don't matter.
func ParseInvite(line string) (Invite, error) {
	if len(line) > 2*maxInviteLine {
		return Invite{}, fmt.Errorf("invite: %d characters, the most is %d", len(line), maxInviteLine)
	}
	line = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, line)
	line = strings.Trim(line, `"'`)
	rest, ok := strings.CutPrefix(line, invitePrefix)
	if !ok {
		return Invite{}, fmt.Errorf("invite: it must begin with %q: paste the whole line that `kith invite create` printed", invitePrefix)
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	var bad base64.CorruptInputError
	if errors.As(err, &bad) && int(bad) < len(rest) && !inAlphabet(rest[bad]) {
		return Invite{}, fmt.Errorf("invite: character %d (%q) does not belong to it: paste the line again", len(invitePrefix)+int(bad)+1, rest[bad])
	}
	if err != nil { // a length that no whole line has: judge what there is
		b, _ = base64.RawURLEncoding.DecodeString(rest[:len(rest)/4*4])
	}
	size, n := binary.Uvarint(b)
	if n <= 0 || size > maxInvite {
		return Invite{}, errors.New("invite: the line is damaged or cut off: paste it again, whole")
	}
	want := n + int(size) + checksumLen
	if len(b) < want {
		return Invite{}, fmt.Errorf("invite: the line is cut off after %d of %d characters: paste it again, whole",
			len(line), len(invitePrefix)+base64.RawURLEncoding.EncodedLen(want))
	}
	if len(b) > want || err != nil {
		return Invite{}, errors.New("invite: there is something after the line's end: paste the line alone")
	}
	sum := sha256.Sum256(b[:n+int(size)])
	if !bytes.Equal(sum[:checksumLen], b[want-checksumLen:]) {
		return Invite{}, errors.New("invite: a character is wrong (the checksum does not match): paste the line again")
	}
	return decodeInvite(b[n : n+int(size)])
}

func inAlphabet(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

func decodeInvite(b []byte) (Invite, error) {
	var msg pb.Invite
	if err := proto.Unmarshal(b, &msg); err != nil {
		return Invite{}, fmt.Errorf("invite: %w", err)
	}
	mesh, err := ParseMeshID(msg.Mesh)
	if err != nil {
		return Invite{}, fmt.Errorf("invite: %w", err)
	}
	issuer, err := peer.IDFromBytes(msg.Issuer)
	if err != nil {
		return Invite{}, fmt.Errorf("invite: issuer: %w", err)
	}
	secret, err := SecretFromBytes(msg.Secret)
	if err != nil {
		return Invite{}, fmt.Errorf("invite: %w", err)
	}
	if n := len(msg.Records); n == 0 || n > MaxRecords {
		return Invite{}, fmt.Errorf("invite: %d signed addresses, want 1 to %d", n, MaxRecords)
	}
	for _, r := range msg.Records {
		if len(r) == 0 || len(r) > MaxRecord {
			return Invite{}, fmt.Errorf("invite: a signed address of %d bytes, the most is %d", len(r), MaxRecord)
		}
	}
	if msg.Expires <= 0 || msg.Expires > maxUnix {
		return Invite{}, errors.New("invite: its expiry is out of range")
	}
	return Invite{
		Mesh: mesh, Issuer: issuer, Records: msg.Records, Secret: secret,
		Expires: time.Unix(msg.Expires, 0), Rights: Rights(msg.Rights) & AllRights,
	}, nil
}

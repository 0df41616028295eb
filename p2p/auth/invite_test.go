package auth

import (
	"strings"
	"testing"
	"time"
)

func someInvite(t testing.TB) Invite {
	t.Helper()
	root, issuer := newNode(t, 1), newNode(t, 2)
	secret, err := SecretFromBytes([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return Invite{Mesh: meshOf(t, root), Issuer: issuer.id, Records: [][]byte{[]byte("a record"), []byte("another")},
		Secret: secret, Expires: now.Add(time.Hour), Rights: MemberRights}
}

func TestInviteLine(t *testing.T) {
	want := someInvite(t)
	line := want.String()
	if strings.ContainsAny(line, " \n\t\"'") || !strings.HasPrefix(line, "kith1") {
		t.Errorf("line %q", line)
	}
	for name, s := range map[string]string{"as it is": line, "blanks": "  " + line + "\n", "wrapped": line[:40] + "\n  " + line[40:80] + "\r\n" + line[80:], "quoted": `"` + line + `"`} {
		got, err := ParseInvite(s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Mesh != want.Mesh || got.Issuer != want.Issuer || !got.Secret.Equal(want.Secret) || !got.Expires.Equal(want.Expires) ||
			got.Rights != want.Rights || len(got.Records) != 2 || string(got.Records[1]) != "another" {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestInviteErrorsSayWhat(t *testing.T) {
	line := someInvite(t).String()
	other := "A"
	if line[30] == 'A' {
		other = "B"
	}
	for _, c := range []struct{ name, in, says string }{
		{"nothing", "", "kith1"},
		{"an address", "/ip4/1.2.3.4/tcp/4101", "whole line"},
		{"half", line[:len(line)/2], "cut off after"},
		{"one short", line[:len(line)-1], "cut off"},
		{"four short", line[:len(line)-4], "cut off"},
		{"prefix only", "kith1", "cut off"},
		{"a letter changed", line[:30] + other + line[31:], "checksum"},
		{"a stray character", line[:50] + "!" + line[51:], `'!'`},
		{"twice", line + line, "after the line's end"},
		{"something behind", line + "AAAA", "after the line's end"},
		{"endless", "kith1" + strings.Repeat("A", 3*maxInviteLine), "the most is"},
	} {
		if _, err := ParseInvite(c.in); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for i := len("kith1"); i < len(line); i++ {
		if _, err := ParseInvite(line[:i]); err == nil {
			t.Fatalf("the first %d of %d characters were taken for an invite", i, len(line))
		}
	}
}

func FuzzInvite(f *testing.F) {
	line := someInvite(f).String()
	f.Add(line)
	f.Add(line[:50])
	f.Add("kith1")
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseInvite(s)
		if err != nil {
			return
		}
		if back, err := ParseInvite(i.String()); err != nil || back.Mesh != i.Mesh || !back.Secret.Equal(i.Secret) {
			t.Fatalf("%+v became %+v, %v", i, back, err)
		}
	})
}

func FuzzInviteBytes(f *testing.F) {
	f.Add([]byte{0x0a, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if i, err := decodeInvite(b); err == nil && len(i.Records) > MaxRecords {
			t.Fatalf("%d records", len(i.Records))
		}
	})
}

func FuzzToken(f *testing.F) {
	root, member := newNode(f, 1), newNode(f, 2)
	mesh := meshOf(f, root)
	f.Add([]byte(mint(f, root, member, Work, time.Hour)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Token(b).Verify(mesh, member.id, now, nil)
		if err == nil && (g.Rights != Work || g.Depth != 1) {
			t.Fatalf("forged %+v", g)
		}
	})
}

func FuzzCharter(f *testing.F) {
	root := newNode(f, 1)
	b, err := Charter{Name: "x", Issued: now}.Sign(root.key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCharter(b); err == nil && c.Mesh == meshOf(t, root) && c.Name != "x" {
			t.Fatalf("forged %+v", c)
		}
	})
}

package event

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestGuardKnowsWhatIsPublic(t *testing.T) {
	g, err := newGuard([]string{"10.1.0.0/16", "192.168.7.7", "fd00::/8", "intern.example.com", "*.corp.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		addr string
		ok   bool
	}{
		{"8.8.8.8", true}, {"2606:4700::1111", true}, {"64:ff9b::808:808", true}, {"2002:808:808::1", true},
		{"127.0.0.1", false}, {"127.9.9.9", false}, {"::1", false}, {"::ffff:127.0.0.1", false}, {"::ffff:169.254.169.254", false},
		{"169.254.169.254", false}, {"fe80::1", false}, {"fe80::1%eth0", false}, {"10.0.0.1", false}, {"172.16.0.1", false}, {"192.168.0.1", false},
		{"100.64.0.1", false}, {"0.0.0.0", false}, {"::", false}, {"::7f00:1", false}, {"224.0.0.1", false}, {"255.255.255.255", false}, {"198.18.0.1", false},
		{"64:ff9b::7f00:1", false}, {"64:ff9b::a9fe:a9fe", false}, {"2002:7f00:1::", false}, {"2001:0:1::1", false}, {"fec0::1", false}, {"168.63.129.16", false},
		{"10.1.2.3", true}, {"::ffff:10.1.2.3", true}, {"192.168.7.7", true}, {"192.168.7.8", false}, {"fd00:ec2::254", true}, {"fc00::1", false},
	} {
		if err := g.address(netip.MustParseAddr(test.addr)); (err == nil) != test.ok {
			t.Errorf("%s: %v, want allowed %t", test.addr, err, test.ok)
		}
	}
	for host, ok := range map[string]bool{
		"intern.example.com": true, "INTERN.example.com.": true, "a.corp.example.com": true, "corp.example.com": false, "example.com": false, "xcorp.example.com": false,
	} {
		if g.host(host) != ok {
			t.Errorf("host %s: allowed %t", host, !ok)
		}
	}
	for _, bad := range []string{"", "http://x", "a b", "x:80", "*", "a.*.b", "10.0.0.0/33"} {
		if _, err := newGuard([]string{bad}); err == nil {
			t.Errorf("allow %q was taken", bad)
		}
	}
}

// nameServer answers every question for an IPv4 address with one.
func nameServer(t *testing.T, addr [4]byte) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) == 0 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Additionals = true, nil
			if q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: addr}}}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from) // a lost answer is asked for again
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// The name is a public one; what it resolves to is not.
func TestGuardChecksWhatANameResolvesTo(t *testing.T) {
	server := httptest.NewServer(nil)
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dialer := net.Dialer{Resolver: nameServer(t, [4]byte{127, 0, 0, 1})}
	for allow, ok := range map[string]bool{"": false, "10.0.0.0/8": false, "127.0.0.0/8": true, "rebind.example.com": true} {
		var list []string
		if allow != "" {
			list = []string{allow}
		}
		g, err := newGuard(list)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := g.dial(dialer)(t.Context(), "tcp", "rebind.example.com:"+port)
		if forbidden := (*forbiddenError)(nil); ok != (err == nil) || !ok && !errors.As(err, &forbidden) {
			t.Errorf("allow %q: %v, want connected %t", allow, err, ok)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

func FuzzGuard(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "::ffff:7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "8.8.8.8"} {
		f.Add(s)
	}
	g, err := newGuard(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		addr, err := netip.ParseAddr(text)
		if err != nil || g.address(addr) != nil {
			return
		}
		plain := addr.Unmap()
		if plain.IsLoopback() || plain.IsPrivate() || plain.IsLinkLocalUnicast() || plain.IsUnspecified() || plain.IsMulticast() {
			t.Errorf("%s is allowed", text)
		}
	})
}

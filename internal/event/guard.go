package event

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
)

// guard decides which addresses webhooks may call. Whoever may subscribe to
// events chooses the URL; without a guard the node would call for him what only
// the node can reach: services on its own machine, its network, and the
// metadata service of its cloud.
//
// The address is checked when the connection is made, after the name has been
// resolved: a name that is resolved anew to another address, and a redirect, are
// checked like everything else.
type guard struct {
	hosts  []string // lower-case; *.example.com for all names below
	ranges []netip.Prefix
}

// newGuard reads what the operator allows: host names, addresses and CIDR ranges.
func newGuard(allow []string) (*guard, error) {
	g := new(guard)
	for _, entry := range allow {
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			g.ranges = append(g.ranges, prefix.Masked())
			continue
		}
		if addr, err := netip.ParseAddr(entry); err == nil {
			g.ranges = append(g.ranges, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		if entry == "" || strings.ContainsAny(entry, "/: ") || strings.Contains(strings.TrimPrefix(entry, "*."), "*") {
			return nil, fmt.Errorf("events.webhooks.allow: %q is no host name (hook.example.com, *.example.com), IP address or CIDR range (10.1.0.0/16)", entry)
		}
		g.hosts = append(g.hosts, strings.ToLower(entry))
	}
	return g, nil
}

// forbidden are the ranges that are not the public Internet, beyond those that
// netip knows by name.
var forbidden = prefixes(
	"0.0.0.0/8",        // this network
	"100.64.0.0/10",    // shared by carriers
	"192.0.0.0/24",     // protocol assignments
	"192.88.99.0/24",   // 6to4 relays
	"198.18.0.0/15",    // benchmarks
	"240.0.0.0/4",      // reserved, and broadcast
	"168.63.129.16/32", // a cloud's platform service under a public address
	"::/96",            // IPv4-compatible
	"64:ff9b:1::/48",   // local NAT64
	"100::/64",         // discard
	"2001::/32",        // Teredo, which carries IPv4 addresses
	"fec0::/10",        // site-local
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, text := range list {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

// carriers are IPv6 ranges in whose addresses an IPv4 address stands, from the
// byte given.
var carriers = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4
}

// isPublic says whether an address is one of the public Internet.
func isPublic(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	for _, c := range carriers {
		if c.prefix.Contains(addr) {
			b := addr.As16()
			return isPublic(netip.AddrFrom4([4]byte(b[c.at : c.at+4])))
		}
	}
	return !slices.ContainsFunc(forbidden, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// address refuses an address that is neither public nor allowed.
func (g *guard) address(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if isPublic(addr) || slices.ContainsFunc(g.ranges, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return nil
	}
	return &forbiddenError{addr}
}

// host says whether a host is allowed by its name, wherever that leads.
func (g *guard) host(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return slices.ContainsFunc(g.hosts, func(h string) bool {
		below, wild := strings.CutPrefix(h, "*")
		return h == name || wild && strings.HasSuffix(name, below) && len(name) > len(below)
	})
}

// literal refuses a host that is written as an address which may not be called,
// or as a name of this machine: what can be told without resolving it.
func (g *guard) literal(host string) error {
	if g.host(host) {
		return nil
	}
	lower := strings.ToLower(strings.TrimSuffix(host, "."))
	if lower == "localhost" || strings.HasSuffix(lower, ".localhost") {
		return g.address(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return g.address(addr)
	}
	return nil
}

// resolve refuses a host any of whose addresses may not be called: for requests
// through a proxy, which resolves the name itself.
func (g *guard) resolve(ctx context.Context, host string) error {
	if g.host(host) {
		return nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		if err := g.address(addr); err != nil {
			return err
		}
	}
	return nil
}

// dial connects to host:port, to addresses that may be called only.
func (g *guard) dial(d net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		d := d
		if !g.host(host) {
			d.Control = func(_, resolved string, _ syscall.RawConn) error {
				at, err := netip.ParseAddrPort(resolved)
				if err != nil {
					return err
				}
				return g.address(at.Addr())
			}
		}
		return d.DialContext(ctx, network, address)
	}
}

// forbiddenError is a target that the guard refuses.
type forbiddenError struct{ addr netip.Addr }

func (e *forbiddenError) Error() string {
	return fmt.Sprintf("webhooks may not call %s, which is not a public address; the operator can allow it, its range or its host name in events.webhooks.allow", e.addr)
}

package api_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/nodetest"
)

// benchSite is a client of the API of a member over a real connection.
func benchSite(b *testing.B, members int) (*nodetest.Member, *client.Client) {
	b.Helper()
	m := nodetest.Network(b, members).Members[0]
	handler := api.New(api.Deps{
		Namespace: m.Namespace, DB: m.DB, Messages: m.Messages, Network: m.Network, Log: m.Events, Subscriptions: m.Subscriptions,
		WebSockets: event.NewWebSockets(event.WebSocketConfig{}, m.Subscriptions), Blobs: m.Blobs, Contracts: m.Contracts, ClaimOrg: m.ClaimOrg, ClaimNode: m.ClaimNode,
	}).Public
	server := httptest.NewServer(handler)
	b.Cleanup(server.Close)
	c, err := client.New(server.URL)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return m, c
}

// BenchmarkAccept measures accepted broadcasts with 50 clients at a time.
func BenchmarkAccept(b *testing.B) {
	_, c := benchSite(b, 1)
	data, err := client.Value(map[string]string{"k": "0123456789012345678901234567890123456789"})
	if err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(25)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Broadcast(context.Background(), client.NewMessage{Data: []client.DataRef{data}}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkConfirm measures broadcasts that wait for their confirmation, one
// after the other and with 50 clients at a time.
func BenchmarkConfirm(b *testing.B) {
	for _, clients := range []int{1, 50} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			_, c := benchSite(b, 2)
			data, err := client.Value(1)
			if err != nil {
				b.Fatal(err)
			}
			send := func() {
				if _, err := c.Broadcast(context.Background(), client.NewMessage{Data: []client.DataRef{data}}, client.Confirm()); err != nil {
					b.Error(err)
				}
			}
			b.ResetTimer()
			if clients == 1 {
				for b.Loop() {
					send()
				}
				return
			}
			b.SetParallelism(clients / 2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					send()
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// BenchmarkList measures a page of messages, and a count of nothing.
func BenchmarkList(b *testing.B) {
	m, c := benchSite(b, 1)
	for i := range 1000 {
		m.Broadcast(fmt.Sprintf(`{"i":%d}`, i), "t")
	}
	b.Run("messages", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Messages(b.Context(), url.Values{"limit": {"25"}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Count(b.Context(), "groups", nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

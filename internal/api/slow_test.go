package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/nodetest"
)

// A client that stops in the middle of a body is answered and let go; one that
// stops reading is cut off.
func TestStalled(t *testing.T) {
	t.Parallel()
	network := nodetest.Network(t, 1)
	patient := serve(t, network.Members[0], nil)
	s := serve(t, network.Members[0], func(d *api.Deps) { d.Limits.Stall = 50 * time.Millisecond })
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for _, head := range []string{
		"POST /api/v1/messages/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
		"POST /api/v1/data HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 1000\r\n\r\n--B\r\nContent-Disposition: form-data; filename=\"f\"\r\n\r\nabc",
	} {
		conn := dial()
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("half a body is answered with %s", resp.Status)
		}
	}

	body, kind := form(t, make([]byte, 32<<20), "big") // more than the buffers of a connection
	d := into[object](patient.do("POST", "data", body, "Content-Type", kind).is(201, ""))
	conn := dial()
	if _, err := fmt.Fprintf(conn, "GET /api/v1/data/%s/blob HTTP/1.1\r\nHost: localhost\r\n\r\n", d["id"]); err != nil {
		t.Fatal(err)
	}
	// Reading goes on only when the node has given up.
	for !strings.Contains(string(s.get(s.stats+"/metrics").body), `operation="getDataBlob"`) {
	}
	if n, err := io.Copy(io.Discard, conn); n >= 32<<20 {
		t.Errorf("%d bytes came to a client that did not read (%v)", n, err)
	}
	// A client that reads gets all of it.
	if got := patient.get(fmt.Sprintf("data/%s/blob", d["id"])).is(200, ""); len(got.body) != 32<<20 {
		t.Errorf("%d bytes came", len(got.body))
	}
}

// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
)

// writeBuffer bounds the bytes that the kernel keeps for a client that does not read, which it does for a while after
// the connection is closed.
const writeBuffer = 16 << 10

// limitedListener keeps at most limit connections open. A further one closes the oldest connection of the client
// address that has the most.
type limitedListener struct {
	net.Listener
	limit int

	mu       sync.Mutex
	open     int
	accepted int64
	clients  map[string][]*connection // the open connections by client address, oldest first
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := accepted.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(writeBuffer) // fails if the client has closed the connection
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &connection{Conn: accepted, listener: l, client: clientOf(accepted), closed: ctx, cancel: cancel}
	if replaced := l.add(c); replaced != nil {
		replaced.reset()
	}
	return c, nil
}

// clientOf returns the IP address of a client.
func clientOf(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return c.RemoteAddr().String()
	}
	return host
}

// add adds a connection and returns the one that it replaces, if any.
func (l *limitedListener) add(c *connection) *connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted++
	c.number = l.accepted
	l.clients[c.client] = append(l.clients[c.client], c)
	l.open++
	if l.open <= l.limit {
		return nil
	}
	var most []*connection
	for _, connections := range l.clients {
		if n := len(connections) - len(most); n > 0 || n == 0 && connections[0].number < most[0].number {
			most = connections
		}
	}
	oldest := most[0]
	l.remove(oldest)
	return oldest
}

// remove removes a connection that is open. The listener is locked.
func (l *limitedListener) remove(c *connection) {
	rest := l.clients[c.client]
	i := slices.Index(rest, c)
	if i < 0 {
		return
	}
	l.open--
	if len(rest) == 1 {
		delete(l.clients, c.client)
		return
	}
	l.clients[c.client] = slices.Delete(rest, i, i+1)
}

// connection is a connection that counts until it is closed.
type connection struct {
	net.Conn
	listener *limitedListener
	client   string
	number   int64           // in the order of acceptance
	closed   context.Context //nolint:containedctx // ends when the connection is closed
	cancel   context.CancelFunc
}

// withConnection returns a context that ends when the connection is closed, too. net/http does not cancel the context of
// a request whose client has sent another one behind it.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	limited, ok := c.(*connection)
	if !ok {
		return ctx
	}
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(limited.closed, cancel)
	return ctx
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.listener.mu.Lock()
	c.listener.remove(c)
	c.listener.mu.Unlock()
	c.cancel()
	return c.Conn.Close()
}

// reset closes the connection and discards what the client has not read.
func (c *connection) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails if the connection is closed
	}
	c.cancel()
	_ = c.Conn.Close() // the handler gets the error of a closed connection
}

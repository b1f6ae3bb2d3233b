package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// wire is a connection that asks one thing after the other, with as little work of its
// own as can be: it shares the processors with who answers.
type wire struct {
	address string
	conn    net.Conn // nil: none yet, or it broke
	in      *bufio.Reader
	body    []byte
}

// answer is what a wire was told. Its body counts until the next question.
type answer struct {
	status int
	mark   string // X-Cache
	body   []byte
}

// question is a request in bytes.
func question(address, path string, header http.Header) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", path, address)
	_ = header.Write(&b) // a buffer takes everything
	b.WriteString("\r\n")
	return b.Bytes()
}

// ask sends a question and reads the answer. After an error the next one goes over a
// new connection.
func (w *wire) ask(ctx context.Context, question []byte) (a answer, err error) {
	if w.conn == nil {
		if w.conn, err = new(net.Dialer).DialContext(ctx, "tcp", w.address); err != nil {
			return answer{}, fmt.Errorf("connect: %w", err)
		}
		w.in = bufio.NewReaderSize(w.conn, 8<<10)
	}
	if err = w.conn.SetDeadline(time.Now().Add(patience)); err == nil {
		if _, err = w.conn.Write(question); err == nil {
			a, err = w.read()
		}
	}
	if err != nil {
		w.close()
		return answer{}, fmt.Errorf("ask: %w", err)
	}
	return a, nil
}

func (w *wire) read() (answer, error) {
	line, err := w.in.ReadSlice('\n')
	if err != nil {
		return answer{}, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return answer{}, fmt.Errorf("%q begins no answer", line)
	}
	a := answer{}
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return answer{}, fmt.Errorf("%q begins no answer", line)
	}
	size := -1
	for {
		if line, err = w.in.ReadSlice('\n'); err != nil {
			return answer{}, err
		}
		name, value, found := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(": "))
		switch {
		case len(name) == 0:
			return w.readBody(a, size)
		case found && bytes.EqualFold(name, []byte("Content-Length")):
			if size, err = strconv.Atoi(string(value)); err != nil {
				return answer{}, fmt.Errorf("%q is no length", value)
			}
		case found && bytes.EqualFold(name, []byte("X-Cache")):
			a.mark = string(value)
		}
	}
}

// readBody reads what follows the header; nothing follows that of a 304.
func (w *wire) readBody(a answer, size int) (answer, error) {
	if a.status == http.StatusNotModified {
		return a, nil
	}
	if size < 0 {
		return answer{}, errors.New("an answer that does not say how long it is")
	}
	if cap(w.body) < size {
		w.body = make([]byte, size)
	}
	a.body = w.body[:size]
	_, err := io.ReadFull(w.in, a.body)
	return a, err
}

func (w *wire) close() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

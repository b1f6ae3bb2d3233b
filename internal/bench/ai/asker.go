package ai

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// asker is one connection to the API, or to the model itself, with as little of a client as will do: what it
// costs is in every figure.
type asker struct {
	conn net.Conn
	in   *bufio.Reader
}

func dial(ctx context.Context, address string) (*asker, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &asker{conn: conn, in: bufio.NewReader(conn)}, nil
}

func (a *asker) close() { _ = a.conn.Close() } // nothing is waiting to be written

// requestFor is a request for a completion, as it goes over the wire.
func (b *bed) requestFor(prompt string, stream bool) []byte {
	body, err := json.Marshal(map[string]any{
		"model": "writer", "stream": stream, "temperature": 0.7,
		"messages": []any{map[string]string{"role": "system", "content": "You write books."}, map[string]string{"role": "user", "content": prompt}},
	})
	if err != nil {
		panic(err) // it is made of texts
	}
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		b.token, len(body), body)
}

// ask sends a request and returns the header and body of the answer.
func (a *asker) ask(request []byte) (http.Header, []byte, error) {
	answer, err := a.begin(request)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("it is answered with %s: %s", answer.Status, body)
	}
	return answer.Header, body, err
}

// begin sends a request and reads the header of the answer.
func (a *asker) begin(request []byte) (*http.Response, error) {
	if _, err := a.conn.Write(request); err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	answer, err := http.ReadResponse(a.in, nil)
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	return answer, nil
}

// listen asks for a stream and tells of each word when it has come.
func (a *asker) listen(request []byte, word func(text string)) error {
	answer, err := a.begin(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		switch {
		case !ok:
			continue
		case string(data) == "[DONE]":
			return nil
		}
		text, err := contentOf(data)
		if err != nil {
			return err
		}
		if text != "" {
			word(text)
		}
	}
	return errors.Join(errors.New("a stream ended before its end"), lines.Err())
}

// contentOf is the text of a chunk.
func contentOf(data []byte) (string, error) {
	var chunk struct {
		Choices []struct {
			Delta struct {
				Content string `json:"content"`
			} `json:"delta"`
		} `json:"choices"`
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(data, &chunk); err != nil {
		return "", fmt.Errorf("read a chunk: %w", err)
	}
	if chunk.Error != nil {
		return "", fmt.Errorf("a stream ended with %s", chunk.Error)
	}
	var text strings.Builder
	for _, choice := range chunk.Choices {
		text.WriteString(choice.Delta.Content)
	}
	return text.String(), nil
}

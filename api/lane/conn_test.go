package lane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// client is the other end of a connection.
type client struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func (f *front) client(t *testing.T) *client {
	t.Helper()
	conn := f.dial()
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, Conn: conn, in: bufio.NewReader(conn)}
}

// ask sends something and returns the answer with its body.
func (c *client) ask(text string) (*http.Response, string) {
	c.t.Helper()
	c.say(text)
	return c.hear()
}

// say sends something once the server has nothing left to do: net/http would else
// take a part of it while it ends what was before.
func (c *client) say(text string) {
	c.t.Helper()
	synctest.Wait()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) hear() (*http.Response, string) {
	c.t.Helper()
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return r, string(body)
}

// ends waits for the connection to end and returns how long that took.
func (c *client) ends() time.Duration {
	c.t.Helper()
	begun := time.Now()
	if said, err := io.ReadAll(c.in); len(said) > 0 || err != nil {
		c.t.Errorf("before the end: %q %v", said, err)
	}
	return time.Since(begun)
}

// TestWhichRequestsTheLaneAnswers counts them one by one.
func TestWhichRequestsTheLaneAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(http.HandlerFunc(echo), true)
		defer f.stop(t)
		c := f.client(t)
		for i, step := range []struct {
			text   string
			status int
			lane   uint64 // after it
		}{
			{plainGet, 200, 0}, // the first is net/http's
			{plainGet, 200, 1},
			{"GET /same HTTP/1.1\r\nHost: x\r\n\r\n", 304, 2},
			{"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n", 404, 3},
			{"GET /declined HTTP/1.1\r\nHost: x\r\n\r\n", 200, 3},
			{"GET /odd/length HTTP/1.1\r\nHost: x\r\n\r\n", 200, 3},
			{"GET /odd/type HTTP/1.1\r\nHost: x\r\n\r\n", 200, 3},
			{plainGet, 200, 4}, // and what comes after one of net/http's
			{"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", 200, 4},
			{plainGet, 200, 5},
			{plainPost, 200, 6},
			{plainPost, 200, 7},
			{"POST /declined HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", 200, 7},
			{"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", 200, 8},
			{"GET /stream/long HTTP/1.1\r\nHost: x\r\n\r\n", 200, 9},
			{"GET /odd/stream/late HTTP/1.1\r\nHost: x\r\n\r\n", 200, 9},
			{"GET /stream/nothing HTTP/1.1\r\nHost: x\r\n\r\n", 200, 10},
			{"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n" + strings.Repeat("a", 4000), 200, 11},
			{"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n" + strings.Repeat("a", 4096), 200, 11}, // longer than the buffer
		} {
			r, _ := c.ask(step.text)
			synctest.Wait()
			if r.StatusCode != step.status || f.lane.Answered() != step.lane {
				t.Fatalf("%d. %q: %d, %d by the lane", i, step.text, r.StatusCode, f.lane.Answered())
			}
		}
		c.ask(lastGet)
		c.ends()
	})
}

// A body that looks like a request is a body, also when it comes alone.
func TestABodyIsNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(http.HandlerFunc(echo), true)
		defer f.stop(t)
		c := f.client(t)
		c.ask(plainGet)
		for _, head := range []string{
			fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(plainGet)),
			fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", len(plainGet)),
			"POST /echo HTTP/1.1\r\n", // or a header
		} {
			c.say(head)
			c.say(plainGet)
			switch {
			case strings.Contains(head, "chunked"):
				c.say("\r\n0\r\n\r\n")
			case !strings.Contains(head, "Host"):
				if r, _ := c.hear(); r.StatusCode != http.StatusBadRequest {
					t.Errorf("%d", r.StatusCode)
				}
				continue
			}
			if _, said := c.hear(); !strings.Contains(said, `"body":"GET /plain HTTP/1.1`) {
				t.Errorf("%q: %s", head, said)
			}
		}
		if n := f.lane.Answered(); n != 0 {
			t.Errorf("the lane answered %d", n)
		}
	})
}

// What net/http has of a request already is not the lane's to pass over: neither a few
// bytes, nor whole lines, which it has taken out of its buffer.
func TestWhatHasBegunIsNoRequest(t *testing.T) {
	for begun, want := range map[string]string{
		"X": `"method":"XGET"`, "PRI": `"method":"PRIGET"`, "PURGE": `"method":"PURGEGET"`, "GET /plain HTTP/1.1\r\n": "400 Bad Request",
		"GET /plain HTTP/1.1\r\nCookie: ": `"Cookie":["GET /plain HTTP/1.1"]`,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := serve(http.HandlerFunc(echo), true)
			defer f.stop(t)
			for _, together := range []bool{true, false} {
				c := f.client(t)
				if c.ask(plainGet); together { // with the end of a request, and then alone
					c.say(plainGet + begun)
					c.hear()
				} else {
					c.say(begun)
				}
				if _, said := c.ask(plainGet); !strings.Contains(said, want) {
					t.Errorf("after %q, %t: %s", begun, together, said)
				}
			}
			if n := f.lane.Answered(); n != 0 {
				t.Errorf("after %q the lane answered %d", begun, n)
			}
		})
	}
}

// TestNothingIsAnsweredAfterTheEnd on a connection that was closed while it was read.
func TestNothingIsAnsweredAfterTheEnd(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	c := &conn{Conn: theirs, lane: New(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it is asked") }))}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if answered, err := c.answer([]byte(plainGet)); answered || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%t %v", answered, err)
	}
}

// TestRestIsCountedFromTheLastAnswer asks for longer than a connection may rest, and
// then rests.
func TestRestIsCountedFromTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(http.HandlerFunc(echo), true)
		defer f.stop(t)
		c := f.client(t)
		for range 20 {
			c.ask(plainGet)
			time.Sleep(idleTime / 2) // by the bubble's clock
		}
		if rest := c.ends() + idleTime/2; rest < idleTime || rest > idleTime+idleTime/32 {
			t.Errorf("it was left alone for %s", rest)
		}
		if n := f.lane.Answered(); n != 19 {
			t.Errorf("the lane answered %d", n)
		}
	})
}

// TestSlowRequestsEnd sends a part of a request after the lane has been at work for
// long: its time counts from its first bytes, as ever.
func TestSlowRequestsEnd(t *testing.T) {
	const rest = idleTime * 2 / 3
	synctest.Test(t, func(t *testing.T) {
		f := serve(http.HandlerFunc(echo), true)
		defer f.stop(t)
		for _, one := range []struct {
			part        string
			least, most time.Duration
		}{
			{"GET /plain HTTP/1.1\r\nHost: x\r\n", headerTime, headerTime},
			{plainGet + "GET /plain HTTP/1.1\r\n", headerTime, headerTime},
			{"GET", idleTime - rest, idleTime + idleTime/32 - rest}, // of less than four bytes net/http takes no notice
			{"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcd", readTime, readTime + time.Second},
		} {
			c := f.client(t)
			for range 5 {
				c.ask(plainGet)
				time.Sleep(rest) // by the bubble's clock
			}
			c.say(one.part)
			begun := time.Now()
			said, _ := io.ReadAll(c.in)
			if took := time.Since(begun); took < one.least || took > one.most {
				t.Errorf("%q took %s; %q", one.part, took, said)
			}
		}
	})
}

// TestWhoDoesNotReadIsLeft answers somebody who takes nothing, or a part.
func TestWhoDoesNotReadIsLeft(t *testing.T) {
	long := strings.Repeat("x", 4*gathered)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", fmt.Sprint(len(long)))
		w.Write([]byte(long[:10]))
		w.Write([]byte(long[10:]))
	})
	synctest.Test(t, func(t *testing.T) {
		f := serve(handler, true)
		defer f.stop(t)
		for _, part := range []int64{0, 100, gathered + 1, 3 * gathered} {
			c := f.client(t)
			for _, text := range []string{plainGet, plainGet, "GET /plain?net/http HTTP/1.1\r\nHost: x\r\n\r\n"} {
				if _, said := c.ask(text); said != long {
					t.Fatalf("%d bytes", len(said))
				}
			}
			c.say(plainGet)
			if _, err := io.CopyN(io.Discard, c.Conn, part); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * writeTime) // by the bubble's clock
			if n, err := io.Copy(io.Discard, c.Conn); n > 0 || err != nil {
				t.Errorf("%d more bytes came after a minute, %v", n, err)
			}
		}
		if n := f.lane.Answered(); n != 8 {
			t.Errorf("the lane answered %d", n)
		}
	})
}

// gate is a handler that waits within an answer until it is let through.
type gate struct{ in, out chan struct{} }

func (g gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if In(r.Context()) {
		g.in <- struct{}{}
		<-g.out
	}
	echo(w, r)
}

// TestShutdownLetsAnswersOut ends the server while an answer is under way.
func TestShutdownLetsAnswersOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate{make(chan struct{}), make(chan struct{})}
		f := serve(g, true)
		resting, asking := f.client(t), f.client(t)
		resting.ask(plainGet)
		asking.ask(plainGet)
		asking.say(plainGet)
		<-g.in
		if err := f.server.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		resting.ends()
		waited := make(chan error, 1)
		go func() { waited <- f.lane.Wait(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-waited:
			t.Fatalf("nobody has waited for the answer: %v", err)
		default:
		}
		close(g.out)
		if r, said := asking.hear(); r.StatusCode != http.StatusOK || !r.Close || !strings.HasSuffix(said, "}") {
			t.Errorf("%+v %s", r, said)
		}
		asking.ends()
		if err := <-waited; err != nil {
			t.Error(err)
		}
		if err := f.lane.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		<-f.ended
	})
}

// TestWaitHasAnEnd gives an answer up that nobody takes.
func TestWaitHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(http.HandlerFunc(echo), true)
		c := f.client(t)
		c.ask(plainGet)
		c.say(plainGet)
		synctest.Wait() // it is being sent
		if err := f.server.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		bounded, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.lane.Wait(bounded); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		c.ends()
		if err := f.lane.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		<-f.ended
	})
}

// TestPanicsEndTheConnection as they do without a lane.
func TestPanicsEndTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if In(r.Context()) {
				panic(http.ErrAbortHandler)
			}
			echo(w, r)
		}), true)
		defer f.stop(t)
		c := f.client(t)
		c.ask(plainGet)
		c.say(plainGet)
		c.ends()
	})
}

// TestAShortBodyEndsTheConnection, or what comes next would be taken for its rest.
func TestAShortBodyEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(http.HandlerFunc(echo), true)
		defer f.stop(t)
		c := f.client(t)
		c.ask(plainGet)
		c.say("GET /odd/short HTTP/1.1\r\nHost: x\r\n\r\n")
		r, err := http.ReadResponse(c.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if said, err := io.ReadAll(r.Body); !errors.Is(err, io.ErrUnexpectedEOF) || int64(len(said)) != r.ContentLength-1 {
			t.Errorf("%d bytes of %d, %v", len(said), r.ContentLength, err)
		}
	})
}

// TestHijackedConnectionsAreLeftAlone: what is sent on one looks like a request.
func TestHijackedConnectionsAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/mine" || In(r.Context()) {
				echo(w, r)
				return
			}
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.Copy(conn, io.LimitReader(buffered, int64(len(plainGet)))) // what came is what goes
		}), true)
		defer f.stop(t)
		c := f.client(t)
		c.ask(plainGet)
		c.say("GET /mine HTTP/1.1\r\nHost: x\r\nPrefer: a\r\n\r\n")
		c.say(plainGet)
		if said, err := io.ReadAll(c.in); string(said) != plainGet || err != nil {
			t.Errorf("%q %v", said, err)
		}
	})
}

package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// plainBodies are requests that are read without encoding/json, and others.
var plainBodies = []string{
	asking("a title", ""), asking("a title", `,"stream":true,"user":"ann","n":1`), " {\n \"messages\" : [ { \"role\" : \"user\" , \"content\" : \"\\\"a\\\\\" } ] , \"stream\" : null } ",
	asking(`\\`, ""), asking(`\\\" ]}`, ""), `{"messages":[{"content":[{"text":"a","type":"text"}],"role":"user"},{"role":"tool","content":null}],"x":{"stream":true,"a":[[],{}]}}`,
	`{}`, `[]`, ``, `null`, `{"messages":null}`, `{"messages":[]}`, `{"messages":[null]}`, `{"messages":[{}]}`, `{"messages":{}}`, `{"messages":[{"role":""}]}`, `{"messages":[{"role":"\u0000"}]}`,
	`{"messages":[{"role":"user","content":[1]}]}`, `{"messages":[{"r\u006fle":"user"}]}`, `{"messages":[{"role":"user","c\u006fntent":[1]}]}`,
	`{"m\u0065ssages":[{"role":"user"}]}`, `{"messages":[{"role":"user"}],"str\u0065am":true}`,
	`{"messages":[{"role":"user","role":null}]}`, `{"messages":[{"role":"user"}],"stream":true,"stream":false}`, `{"messages":[{"role":"user"}],"Stream":true}`, `{"messages":[{"role":"user"}],"stream":1}`,
	`{"messages":[{"role":"user"}],"stream":"true"}`, `{"messages":[{"role":"user"}],"user":"\u0061\ud83d\ude00"}`, "{\"messages\":[{\"role\":\"user\"}],\"user\":\"\xff\"}", `{"messages":[{"role":"user"}],"user":7}`,
	`{"messages":[{"role":"user"}],"model":""}`, `{"messages":[{"role":"user"}],"model":[]}`, `{"messages":[{"role":"user"}],"n":1.0}`, `{"messages":[{"role":"user"}],"n":2}`, `{"messages":[{"role":"user"}],"n":"1"}`,
	`{"messages":[{"role":"user"}],"stream":true,"stream_options":{"include_usage":true}}`, `{"messages":[{"role":"user"}],"stream_options":{}}`, `{"messages":[{"role":"user"}],"stream":true,"stream_options":[]}`,
	`{"messages":[{"role":"user"}],"prompt":null}`, `{"messages":[{"role":"user"}],"modalities":["text"]}`, `{"messages":[{"role":"user"}],"modalities":["audio"]}`, `{"messages":[{"role":"user"}],"audio":{}}`,
	`{"messages":[{"role":"user"}]`, `{"messages":[{"role":"user"}]}}`, `{"messages":[{"role":"user"}}]`, `{"messages":[{"role":"user"],"a":{]}}`, `{"messages":[{"role":"user"}],}`, `{"messages":[{"role":"user"},]}`,
	`{"messages":[{"role":"user"}] "a":1}`, `{"messages":[{"role":"user"}],"a":tru"e"}`, `{"messages":[{"role":"user"}],"a":"\`, `{"messages":[{"role":"user"}],"a":"\"`,
}

// toldOf is what a client is told of an error.
func toldOf(err error) string {
	var p *Problem
	if !errors.As(err, &p) {
		return fmt.Sprint(err)
	}
	return string(openAIBody(p))
}

// agree holds how a body is read against how encoding/json has it read, in whole.
func agree(t *testing.T, body []byte) {
	t.Helper()
	var ours, theirs chatMembers
	err := ours.read(body)
	wrong := theirs.readWhole(body)
	if err != nil {
		if wrong == nil || toldOf(err) != toldOf(wrong) {
			t.Fatalf("%q: %v, not %v", body, err, wrong)
		}
		return
	}
	if _, bad := demoModels(t).Question(body); bad == nil && (wrong != nil || ours != theirs) { // else it is refused, and not by this
		t.Fatalf("%q: %+v, not %+v (%v)", body, ours, theirs, wrong)
	}
}

func TestRequestsAreReadAsByEncodingJSON(t *testing.T) {
	for _, body := range plainBodies {
		agree(t, []byte(body))
	}
	if err := new(chatMembers).read([]byte(`{"messages":[{"role":"user"}],"prompt":null}`)); err == nil {
		t.Error("a prompt of null is none")
	}
	for _, body := range plainBodies[:6] {
		var all chatRequest
		var m chatMembers
		if !eachMember([]byte(body), all.add) || m.judge(&all) != nil {
			t.Errorf("%s is not read at once", body)
		}
	}
}

func FuzzRequestsAreReadAsByEncodingJSON(f *testing.F) {
	for _, body := range plainBodies {
		f.Add([]byte(body))
	}
	f.Fuzz(agree)
}

// What is no JSON is said to be none, whoever finds that.
func TestWhatIsNoJSONIsSaidToBeNone(t *testing.T) {
	w := begin(t)
	for _, body := range []string{`{"messages":[{"role":"user"}}]`, `{"messages":[{"role":"user","content":tru}]}`, `{"messages":[{"role":"user"}],"n":01}`, `{"n":2}{`, `{`} {
		a := w.chat(body, "Authorization", token(t, "ann"))
		if _, _, _, said := a.openAI(t); a.StatusCode != http.StatusBadRequest || !strings.Contains(said, "not a JSON object") {
			t.Errorf("%s: %s", body, a.body)
		}
	}
}

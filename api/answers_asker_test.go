package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3/packages/param"

	"mythiccache/cache"
)

// Of what everybody may have the answer of, an event says who asks by a name that only who
// has the secrets could have made; of all else nothing. The answer is the same, whoever asks.
func TestAnEventTellsAskersApart(t *testing.T) {
	w := begin(t, func(o *Options) { o.Models = models(t, "demo", "demo,open", "open") })
	w.answerer(func(q heard) { w.say(q, "Salt") })
	w.ask(`{"prompt":"one","model":"open"}`, "ann").wants(t, 200, nil)
	w.ask(`{"prompt":"two","model":"open"}`, "ann").wants(t, 200, nil)
	w.ask(`{"prompt":"three","model":"open"}`, "bob").wants(t, 200, nil)
	w.ask(`{"prompt":"four"}`, "ann").wants(t, 200, nil)
	w.ask(`{"prompt":"five","model":"open"}`, "ann", "Cache-Control", "no-store").wants(t, 200, nil)
	app := w.openAIClient(eventsToken)
	for _, user := range []string{"", "bob"} {
		params := chatAbout("for " + user)
		if params.Model = "open"; user != "" {
			params.User = param.NewOpt(user)
		}
		if _, err := app.New(t.Context(), params); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, e := range w.events.all() {
		var asked struct {
			Scope, Asker, Awaits, Nonce string
			Request                     json.RawMessage
		}
		if err := json.Unmarshal(e.Data, &asked); err != nil {
			t.Fatal(err)
		}
		names = append(names, asked.Asker)
		key, _, err := cache.AnswerKey("demo", asked.Scope, asked.Request)
		if asked.Nonce != "" {
			key, _, err = cache.OneTimeKey("demo", asked.Scope, asked.Nonce, asked.Request)
		}
		if err != nil || key != asked.Awaits {
			t.Errorf("it awaits %s, not %s (%v)", asked.Awaits, key, err)
		}
	}
	if len(names) != 7 {
		t.Fatalf("the askers are %q", names)
	}
	ann, bob := names[0], names[2]
	if ann == "" || bob == "" || ann == bob || names[1] != ann || names[3]+names[4]+names[5] != "" || names[6] != bob {
		t.Errorf("the askers are %q", names)
	}
	for _, hashed := range []string{"ann", "user:ann", "\x00shared\x00ann"} {
		sum := sha256.Sum256([]byte(hashed))
		if strings.HasPrefix(hex.EncodeToString(sum[:]), ann) {
			t.Errorf("anybody could know that %s is ann", ann)
		}
	}
}

func TestAskersAreKeyed(t *testing.T) {
	one := newAskers("a", "", "c")
	if one.name("ann") != newAskers("a", "", "c").name("ann") {
		t.Error("two processes of one deployment tell two askers")
	}
	for _, other := range []askers{newAskers("a", "c", ""), newAskers("ac", "", ""), newAskers("", "", ""), newAskers()} {
		if one.name("ann") == other.name("ann") {
			t.Error("other secrets make the same name")
		}
	}
	some, more := newAskers("", ""), newAskers("", "")
	if some.name("ann") == more.name("ann") {
		t.Error("without a secret anybody can make the names")
	}
	if name := one.name(cache.AppScope); name != "" {
		t.Errorf("the app is %s", name)
	}
}

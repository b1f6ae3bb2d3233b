package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// greetings has a question of each user of a thing.
const greetings = `
templates:
  greeting:
    on:
      things.asked: {now: true}
      things.changed: thing
    rows: SELECT 'user_' || g AS who, g AS n, id AS thing FROM things, generate_series(1, things.n) g WHERE id = $1 ORDER BY g
    scope: who
    request:
      model: test-model
      temperature: 0.50
      messages:
        - {role: system, content: 'You <greet> & leave.'}
        - {role: user, content: 'Greet {{.who}}, number {{.n}} of {{.thing}}.'}
`

// aheads is warmth with a database, from whose rows questions are made.
type aheads struct {
	*warmth
	*Templates
	world  *world
	counts *TemplateCounts
}

func parseTemplates(t *testing.T, yaml string) *view.Templates {
	t.Helper()
	views, err := view.Parse("views.yaml", []byte(things), nil)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := view.ParseTemplates("warm.yaml", []byte(yaml), views, nil)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func newAheads(t *testing.T, yaml string, change ...func(*TemplatesOptions)) *aheads {
	t.Helper()
	a := &aheads{warmth: newWarmth(t), world: newWorld(t, postgres, things)}
	parsed := parseTemplates(t, yaml)
	var err error
	if a.counts, err = NewTemplateCounts(parsed.Names(), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	o := TemplatesOptions{
		Templates: parsed, View: a.view, Models: testModels(t), Provider: newModel(t, a.model).Name(),
		Publisher: a.publisher, Counts: a.counts, Log: a.logger,
	}
	for _, c := range change {
		c(&o)
	}
	if a.Templates, err = NewTemplates(a.newStore(), a.world.loader, o); err != nil {
		t.Fatal(err)
	}
	if err := a.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *aheads) counted(t *testing.T, outcome string) float64 {
	t.Helper()
	return valueOf(t, a.counts.total.WithLabelValues("greeting", outcome))
}

// wants fails the test unless so many questions had each outcome.
func (a *aheads) wants(t *testing.T, outcomes string) {
	t.Helper()
	var got []string
	for field := range strings.FieldsSeq(outcomes) {
		name, _, _ := strings.Cut(field, "=")
		got = append(got, fmt.Sprintf("%s=%v", name, a.counted(t, name)))
	}
	if said := strings.Join(got, " "); said != outcomes {
		t.Errorf("the questions were %s, not %s", said, outcomes)
	}
}

func begun(thing string) event.Event {
	return event.Event{Type: "things.asked", Subject: thing, Data: json.RawMessage(`{"now":true}`), Time: time.Now()}
}

// length returns how many events there were on topic ai.
func (a *aheads) length() int64 { return a.client.XLen(a.t.Context(), "mythic:{stream}:ai").Val() }

// sent is the request as an app would write it.
func (a *aheads) sent(who, what string) string {
	a.t.Helper()
	body := fmt.Sprintf(`{"messages":[{"content":"You <greet> & leave.","role":"system"},{"content":%q,"role":"user"}],`+
		`"temperature":5e-1,"stream":true,"user":%q,"model":"test-model"}`, what, who)
	request, _, err := testModels(a.t).Request(json.RawMessage(body))
	if err != nil {
		a.t.Fatal(err)
	}
	key, _, err := cache.AnswerKey(newModel(a.t, a.model).Name(), who, request)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func TestTemplatesAskAheadOnce(t *testing.T) {
	t.Parallel()
	a := newAheads(t, greetings)
	a.run(a.warmer(func(o *WarmerOptions) { o.Templates = a.counts }))
	at := a.world.set("a", 3)
	other := begun("a")
	other.Data = json.RawMessage(`{"now":false}`)
	whole := changed("thing", "", at) // of all things, so of none
	whole.View = "thing"
	a.world.ends(a.Handle(t.Context(), messages(begun("a"), begun("a"), other, begun("nothing"), changed("slow", "a", at), whole)), nil, nil, nil, nil, nil, nil)
	testserver.Eventually(t, "all are answered", func() error {
		for n := 1; n <= 3; n++ {
			who := fmt.Sprint("user_", n)
			entry, _, err := a.read(a.sent(who, fmt.Sprintf("Greet %s, number %d of a.", who, n)))
			if err != nil {
				return err
			}
			if entry.Owner != who {
				t.Errorf("the answer of %s belongs to %q", who, entry.Owner)
			}
		}
		return a.settled()
	})
	a.wants(t, "asked=3 made=3 there=0 unfit=0 budget=0")
	// Again, by an event of the app and by the row's change: nothing is asked.
	a.world.ends(a.Handle(t.Context(), messages(begun("a"), changed("thing", "a", at))), nil, nil)
	a.wants(t, "asked=3 made=3 there=3")
	a.world.set("a", 4)
	a.world.ends(a.Handle(t.Context(), messages(changed("thing", "a", at))), nil)
	testserver.Eventually(t, "the fourth is answered", a.settled)
	a.wants(t, "asked=4 made=4 there=6")
	if n := len(a.model.Calls()); n != 4 || a.length() != 4 {
		t.Errorf("the model was called %d times, for %d events", n, a.length())
	}
	if dead := a.dead(); len(dead) > 0 {
		t.Errorf("dead letters: %q", dead)
	}
	if strings.Contains(a.log.String(), "Greet") {
		t.Error("a prompt is in the log")
	}
}

// What happened long ago begins nothing: its answers have come and gone.
func TestTemplatesLetOldEventsBe(t *testing.T) {
	t.Parallel()
	a := newAheads(t, greetings)
	a.world.set("a", 3)
	old, fresh := begun("a"), begun("a")
	old.Time, fresh.Time = time.Now().Add(-a.view.TTL-time.Minute), time.Now().Add(-a.view.TTL/2)
	a.world.ends(a.Handle(t.Context(), messages(old)), nil)
	a.wants(t, "late=1 asked=0")
	a.world.ends(a.Handle(t.Context(), messages(old, fresh)), nil, nil)
	a.wants(t, "late=2 asked=3")
	timeless := begun("a") // its entry says when it was
	timeless.Time = time.Time{}
	id := fmt.Sprintf("%d-0", time.Now().Add(-a.view.TTL-time.Minute).UnixMilli())
	if err := a.client.XAdd(t.Context(), &redis.XAddArgs{Stream: "mythic:{stream}:things", ID: id, Values: timeless.Fields()}).Err(); err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.NewConsumer(a.dial, a.keys, a.Handle, stream.ConsumerOptions{Group: "warm", Topics: []string{"things"}, Log: a.logger})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	testserver.Eventually(t, "the third is passed over", func() error {
		if a.counted(t, "late") != 3 {
			return errNotYet
		}
		return nil
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := a.length(); n != 3 {
		t.Errorf("there are %d questions", n)
	}
}

// What is asked already is not asked again, however often its event comes before the
// model has answered.
func TestTemplatesAskOnceWhileTheModelThinks(t *testing.T) {
	t.Parallel()
	a := newAheads(t, greetings)
	release := make(chan struct{})
	a.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Hold: release} })
	a.world.set("a", 3)
	for range 5 { // nobody reads yet
		a.world.ends(a.Handle(t.Context(), messages(begun("a"))), nil)
	}
	a.wants(t, "asked=3 coming=12 there=0")
	ahead := a.client.Keys(t.Context(), "mythic:ai_line:*:ahead").Val()
	if len(ahead) != 3 || a.length() != 3 {
		t.Errorf("there are %d marks, and %d questions", len(ahead), a.length())
	}
	for _, mark := range ahead {
		if life := a.client.PTTL(t.Context(), mark).Val(); life <= warmAge/2 || life > warmAge {
			t.Errorf("it is noted for %s", life)
		}
	}
	a.run(a.warmer())
	for range 3 {
		<-a.model.Arrived()
	}
	if err := a.client.Del(t.Context(), ahead...).Err(); err != nil { // as if users had asked
		t.Fatal(err)
	}
	a.world.ends(a.Handle(t.Context(), messages(begun("a"))), nil)
	a.wants(t, "asked=3 coming=15 there=0")
	close(release)
	testserver.Eventually(t, "all are answered", a.settled)
	a.world.ends(a.Handle(t.Context(), messages(begun("a"))), nil)
	a.wants(t, "asked=3 coming=15 there=3")
}

// What templates ask is bounded by the budget's part for it, and does not stand in the way
// of who waits.
func TestTemplatesGiveWay(t *testing.T) {
	t.Parallel()
	a := newAheads(t, greetings)
	release := make(chan struct{})
	a.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if strings.HasPrefix(c.Prompt, "Greet") {
			return modelserver.Reply{Hold: release}
		}
		return modelserver.Reply{}
	})
	a.run(a.warmer(budgets(t, "default=10/31d"), func(o *WarmerOptions) { o.Templates, o.WarmInFlight = a.counts, 2 }))
	a.world.set("a", 30)
	a.world.ends(a.Handle(t.Context(), messages(begun("a"))), nil)
	<-a.model.Arrived()
	<-a.model.Arrived()
	a.warmth.publish(asked("user_1", "a title")) // behind thirty others
	testserver.Eventually(t, "who waits is answered", func() error {
		_, _, err := a.read(a.key("user_1", "a title"))
		return err
	})
	close(release)
	testserver.Eventually(t, "all is done", a.settled)
	// Eight calls are for both, and one was that of who waited.
	a.wants(t, "asked=30 made=7 budget=23")
	if n := len(a.model.Calls()); n != 8 {
		t.Errorf("the model was called %d times", n)
	}
}

// What was dropped for the budget is asked again by the next event that comes when there is
// a budget once more, and not ten minutes later.
func TestTemplatesAskAgainWhatWasDropped(t *testing.T) {
	t.Parallel()
	a := newAheads(t, greetings)
	a.world.set("a", 1)
	a.world.ends(a.Handle(t.Context(), messages(begun("a"))), nil)
	key := a.sent("user_1", "Greet user_1, number 1 of a.")
	mark := "mythic:ai_line:{" + key + "}:ahead"
	warmer := a.warmer()
	dropped := func(template string, wait time.Duration, budget bool) time.Duration {
		t.Helper()
		lease, err := a.warmth.store.Lease(t.Context(), a.view, key, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		d := aiData{scope: "user_1", key: key, model: "test-model", warm: true, template: template, entry: "1-0"}
		err = warmer.putOff(t.Context(), d, lease, &notNowError{why: "the budget is spent", wait: wait, budget: budget})
		if (err == nil) != budget {
			t.Fatal(err)
		}
		return a.client.PTTL(t.Context(), mark).Val()
	}
	for _, c := range []struct {
		what     string
		template string
		wait     time.Duration
		budget   bool
		least    time.Duration
		most     time.Duration
	}{
		{"the breaker is open", "greeting", 2 * time.Minute, false, warmAge - time.Minute, warmAge},
		{"the app's own", "", 2 * time.Minute, true, warmAge - time.Minute, warmAge},
		{"a day", "greeting", 24 * time.Hour, true, warmAge - time.Minute, warmAge},
		{"three minutes", "greeting", 3 * time.Minute, true, 2 * time.Minute, 3 * time.Minute},
		{"longer", "greeting", 5 * time.Minute, true, 2 * time.Minute, 3 * time.Minute},
	} {
		if left := dropped(c.template, c.wait, c.budget); left < c.least || left > c.most {
			t.Errorf("%s: it is asked again after %s", c.what, left)
		}
	}
	if err := a.answers.NoteAheadLess(t.Context(), 0, key); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "the note ends", func() error {
		if noted, err := a.answers.Ahead(t.Context(), key); err != nil || noted {
			return errors.Join(errNotYet, err)
		}
		return nil
	})
	a.world.ends(a.Handle(t.Context(), messages(begun("a"))), nil)
	a.wants(t, "asked=2 coming=0")
}

// Rows that make no question are said, and the others asked.
func TestTemplatesSayWhichRowsAreUnfit(t *testing.T) {
	t.Parallel()
	a := newAheads(t, strings.Replace(greetings, "'user_' || g AS who", "nullif('user_' || g, 'user_2') AS who", 1))
	a.most = 3
	a.world.set("a", 5)
	errs := a.Handle(t.Context(), messages(begun("a"), begun("b")))
	a.world.ends(errs, stream.ErrReject, nil)
	if !strings.Contains(errs[0].Error(), "template greeting: 1 of 3 rows make no question: column who, the scope, names nobody") {
		t.Errorf("the error is %v", errs[0])
	}
	a.wants(t, "asked=2 unfit=1 beyond=1")
	// Once is enough.
	a.world.ends(a.Handle(t.Context(), messages(begun("a"))), nil)
	a.wants(t, "unfit=2")
	a.world.set("a", 6)
	a.world.set("c", 2)
	a.world.ends(a.Handle(t.Context(), messages(begun("a"), begun("c"))), nil, stream.ErrReject)
}

// What an event brings upon itself is a dead letter once, however often it is repeated.
func TestTemplatesWriteALetterOnce(t *testing.T) {
	t.Parallel()
	s := &started{template: parseTemplates(t, greetings).All()[0], subject: "a", data: "{}"}
	other := *s
	other.data = "{} "
	var l letters
	now := time.Now()
	for i, c := range []struct {
		s    *started
		why  string
		at   time.Time
		want bool
	}{
		{s, "x", now, true}, {s, "x", now.Add(letterFor - time.Second), false}, {s, "y", now, true}, {&other, "x", now, true},
		{s, "x", now.Add(letterFor), true}, {s, "x", now.Add(letterFor), false},
	} {
		if l.due(c.s, c.why, c.at) != c.want {
			t.Errorf("%d: a letter is due: %v", i, !c.want)
		}
	}
	for i := range maxLetters + 10 {
		if !l.due(s, fmt.Sprint(i), now) {
			t.Fatalf("%d: there is no letter", i)
		}
	}
	if n := len(l.written); n != maxLetters {
		t.Errorf("%d are remembered", n)
	}
	if l.due(s, "last", now.Add(3*letterFor)); len(l.written) != 1 {
		t.Errorf("%d are remembered whose time is over", len(l.written)-1)
	}
}

// A query that turns wrong while it is used holds up its own events alone, and is found
// right again.
func TestTemplatesPassOverAQueryThatTurnsWrong(t *testing.T) {
	t.Parallel()
	a := newAheads(t, greetings+`
  praise:
    on: {things.asked: {now: true}}
    rows: SELECT 'user_1' AS who, $1 AS thing
    scope: who
    request: {prompt: 'Praise {{.thing}}.'}
`)
	a.world.set("a", 1)
	refused := func(says string) {
		t.Helper()
		a.world.ends(a.Handle(t.Context(), messages(begun("a"), begun("b"))), nil, nil)
		select {
		case <-a.Refused():
		default:
			t.Error("nobody is told")
		}
		if n := valueOf(t, a.counts.fit); n != 0 {
			t.Errorf("the templates are usable: %v", n)
		}
		for range 2 {
			a.world.ends(a.Handle(t.Context(), messages(begun("a"))), nil)
			var told *TemplateError
			if err := a.Check(t.Context()); !errors.As(err, &told) || !strings.Contains(err.Error(), says) {
				t.Errorf("Check says %v", err)
			}
		}
		select {
		case <-a.Refused():
			t.Error("it is told twice")
		default:
		}
	}
	right := func() {
		t.Helper()
		if err := a.Check(t.Context()); err != nil || valueOf(t, a.counts.fit) != 1 {
			t.Errorf("it is right, and Check says %v", err)
		}
	}
	a.world.exec("ALTER TABLE things RENAME TO elsewhere")
	refused(`greeting.rows: PostgreSQL says: relation "things" does not exist (SQLSTATE 42P01)`)
	a.wants(t, "asked=0 refused=4")
	praise := func(outcome string) float64 { return valueOf(t, a.counts.total.WithLabelValues("praise", outcome)) }
	if praise("asked") != 2 || praise("coming") != 2 || praise("refused") != 0 {
		t.Errorf("of another %v were asked, %v were coming, and %v refused", praise("asked"), praise("coming"), praise("refused"))
	}
	a.world.exec("ALTER TABLE elsewhere RENAME TO things")
	right()
	a.world.ends(a.Handle(t.Context(), messages(begun("a"))), nil)
	a.wants(t, "asked=1 refused=4")

	// What is wrong within a function looks right.
	a.world.exec("ALTER TABLE things RENAME TO elsewhere")
	a.world.exec(`CREATE FUNCTION gone() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM "gone"); END'`)
	a.world.exec("CREATE VIEW things AS SELECT id, gone() AS n FROM elsewhere")
	refused("greeting.rows: PostgreSQL refuses it in use (SQLSTATE 42P01)")
	a.wants(t, "asked=1 refused=7")
	a.world.exec("CREATE TABLE gone AS SELECT 1 AS one FROM generate_series(1, 2)")
	right()
	a.world.ends(a.Handle(t.Context(), messages(begun("a"))), nil)
	a.wants(t, "asked=2 refused=7 there=0 coming=1")
}

func TestTemplatesWhileServersAreAway(t *testing.T) {
	t.Parallel()
	a := newAheads(t, `
templates:
  greeting:
    on: {things.asked: {}}
    rows: SELECT id AS who, $2::jsonb->>'word' AS word FROM things WHERE n = $1::int
    scope: who
    request: {prompt: 'Say {{.word}}.'}
`)
	a.world.set("a", 7)
	word := event.Event{Type: "things.asked", Subject: "7", Data: json.RawMessage(`{"word":"<hi>"}`)}
	none := event.Event{Type: "things.asked", Subject: "8"}
	errs := a.Handle(t.Context(), messages(word, none, begun("seven")))
	a.world.ends(errs, nil, nil, stream.ErrReject)
	if strings.Contains(errs[2].Error(), `"seven"`) {
		t.Errorf("the error quotes: %v", errs[2])
	}
	a.wants(t, "asked=1 unfit=0")
	a.world.ends(a.Handle(t.Context(), messages(begun("seven"))), nil) // it has its dead letter
	a.redis.Stop()
	a.world.ends(a.Handle(t.Context(), messages(word)), stream.ErrPause)
}

// What is wrong with a template is said before it is used, with its place.
func TestTemplatesAreChecked(t *testing.T) {
	t.Parallel()
	models := func(list, shared string) cache.Models {
		m, err := cache.ParseModels("test-model", list, shared)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	open := models("", "open")
	for name, c := range map[string]struct {
		from, to string
		models   cache.Models
		says     string
	}{
		"unknown model": {"", "", models("test-model=gpt", ""), ""},
		"another model": {"model: test-model", "model: gpt-9", models("test-model", ""), "warm.yaml:9: greeting.request.model is gpt-9, which is not one of AI_MODELS"},
		"not shared":    {"scope: who", "scope: shared", open, "warm.yaml:8: greeting.scope is shared, but the answers of test-model are not: see AI_SHARED_MODELS"},
		"shared":        {"model: test-model", "model: open", open, "warm.yaml:8: greeting.scope is who, but AI_SHARED_MODELS makes the answers of open everybody's: say shared"},
		"n":             {"temperature: 0.50", "n: 2", open, "warm.yaml:9: greeting.request: n is not 1; an answer has one choice"},
		"no messages":   {"messages", "notes", open, "warm.yaml:9: greeting.request: neither prompt nor messages say what is asked"},
	} {
		err := CheckTemplates(parseTemplates(t, strings.Replace(greetings, c.from, c.to, 1)), c.models)
		if fmt.Sprint(err) != c.says && (err != nil || c.says != "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	a := newAheads(t, greetings)
	for name, c := range map[string]struct{ from, to, says string }{
		"syntax":     {"SELECT 'user_'", "SELEKT 'user_'", `warm.yaml:7: greeting.rows: PostgreSQL says: syntax error at or near "'user_'" (SQLSTATE 42601)`},
		"no table":   {"FROM things,", "FROM thongs things,", `relation "thongs" does not exist (SQLSTATE 42P01)`},
		"parameter":  {"WHERE id = $1", "WHERE $1 IS NULL AND id = 3", "operator does not exist"},
		"no scope":   {"scope: who", "scope: whom", "warm.yaml:8: greeting.scope is whom, of which the rows have no column"},
		"no column":  {"{{.thing}}", "{{with .n}}{{$.things}}{{end}}", "warm.yaml:9: greeting.request reads .things, of which the rows have no column"},
		"two of one": {"g AS n", "g AS n, 1 AS n", "warm.yaml:7: greeting.rows has two columns n"},
	} {
		wrong := &Templates{o: a.o, loader: a.world.loader}
		wrong.o.Templates = parseTemplates(t, strings.Replace(greetings, c.from, c.to, 1))
		err := wrong.Check(t.Context())
		var told *TemplateError
		if !errors.As(err, &told) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a.world.pool.Close()
	var told *TemplateError
	if err := a.Check(t.Context()); err == nil || errors.As(err, &told) {
		t.Errorf("without a database it says %v", err)
	}
}

package stream_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"mythiccache/producers/stream"
)

// TestConformance is watermill's own suite, with persistence and consumer groups. All
// subscribers of a test share one group and close with messages in their hands, so
// that what one hands back must reach the next.
//
// Three of its tests stay out. TestPublishSubscribeInOrder: order is not promised.
// TestReconnect: it appends to a slice and reads it in two goroutines, which the race
// detector reports; the nemesis restarts Redis instead. TestNoAck, which wants the
// order of one message at a time, is here with InFlight 1.
func TestConformance(t *testing.T) {
	for name, wire := range map[string]stream.Wire{"plain": stream.WirePlain, "watermill": stream.WireWatermill} {
		t.Run(name, func(t *testing.T) {
			short := wire == stream.WireWatermill // the formats differ in their codec alone
			(&suite{world: newWorld(t, "--appendonly", "no"), wire: wire, short: short}).run(t)
		})
	}
}

// TestConformanceUnderStress runs the suite many times at once beside one Redis.
// Watermill's own stress test, which runs all of its tests with one constructor, has
// no place for groups of their own; STRESS_TEST_COUNT means the same as there, and
// -tags stress gives its deadlines five times their length.
func TestConformanceUnderStress(t *testing.T) {
	count := 2
	if text := os.Getenv("STRESS_TEST_COUNT"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatalf("STRESS_TEST_COUNT: %v", err)
		}
	}
	w := newWorld(t, "--appendonly", "no")
	for n := range count {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			(&suite{world: w, wire: stream.Wire(n % 2)}).run(t)
		})
	}
}

// suite is one run of watermill's tests.
type suite struct {
	*world
	wire  stream.Wire
	short bool // a tenth of the messages
}

func (s *suite) run(t *testing.T) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, tests.TestContext, tests.PubSubConstructor){
		"PublishSubscribe":                  tests.TestPublishSubscribe,
		"ConcurrentSubscribe":               tests.TestConcurrentSubscribe,
		"ConcurrentSubscribeMultipleTopics": tests.TestConcurrentSubscribeMultipleTopics,
		"ResendOnError":                     tests.TestResendOnError,
		"ContinueAfterSubscribeClose":       tests.TestContinueAfterSubscribeClose,
		"ConcurrentClose":                   tests.TestConcurrentClose,
		"ContinueAfterErrors":               tests.TestContinueAfterErrors,
		"PublisherClose":                    tests.TestPublisherClose,
		"Topic":                             tests.TestTopic,
		"MessageCtx":                        tests.TestMessageCtx,
		"SubscribeCtx":                      tests.TestSubscribeCtx,
	} {
		s.one(t, name, func(t *testing.T, c tests.TestContext) {
			t.Helper()
			test(t, c, s.shared)
		})
	}
	s.one(t, "NewSubscriberReceivesOldMessages", func(t *testing.T, c tests.TestContext) {
		t.Helper()
		tests.TestNewSubscriberReceivesOldMessages(t, c, s.fresh)
	})
	s.one(t, "ConsumerGroups", func(t *testing.T, c tests.TestContext) {
		t.Helper()
		tests.TestConsumerGroups(t, c, s.inGroup)
	})
	s.one(t, "NoAck", func(t *testing.T, c tests.TestContext) {
		t.Helper()
		c.Features.GuaranteedOrder = true
		tests.TestNoAck(t, c, s.single)
	})
}

// one runs one of the tests, in a topic of its own.
func (s *suite) one(t *testing.T, name string, test func(*testing.T, tests.TestContext)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		test(t, tests.TestContext{TestID: tests.NewTestID(), Features: tests.Features{
			ConsumerGroups: true, Persistent: true, NewSubscriberReceivesOldMessages: true, ForceShort: s.short,
		}})
	})
}

func (s *suite) construct(t *testing.T, o stream.SubscriberOptions) (message.Publisher, message.Subscriber) {
	t.Helper()
	p, err := stream.NewPublisher(s.dial, s.keys, stream.PublisherOptions{Wire: s.wire})
	if err != nil {
		t.Fatal(err)
	}
	o.MaxDeliveries, o.Backoff = 1000, time.Millisecond
	o.ClaimAfter, o.Grace = 2*time.Second, 100*time.Millisecond
	sub, err := stream.NewSubscriber(s.dial, s.keys, o)
	if err != nil {
		t.Fatal(err)
	}
	return p, sub
}

func (s *suite) inGroup(t *testing.T, group string) (message.Publisher, message.Subscriber) {
	t.Helper()
	return s.construct(t, stream.SubscriberOptions{Group: group})
}

// shared makes subscribers of one group.
func (s *suite) shared(t *testing.T) (message.Publisher, message.Subscriber) {
	t.Helper()
	return s.inGroup(t, "all")
}

// fresh makes each subscriber a group of its own.
func (s *suite) fresh(t *testing.T) (message.Publisher, message.Subscriber) {
	t.Helper()
	return s.inGroup(t, watermill.NewUUID())
}

// single makes subscribers that have one message out at a time.
func (s *suite) single(t *testing.T) (message.Publisher, message.Subscriber) {
	t.Helper()
	return s.construct(t, stream.SubscriberOptions{Group: "all", InFlight: 1})
}

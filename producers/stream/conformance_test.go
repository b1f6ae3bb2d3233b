package stream_test

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"mythiccache/producers/stream"
)

// TestConformance is watermill's own suite without the tests of what nobody
// promises here (order, exactly once). All subscribers of a test share one group
// and close with messages in their hands, so that what one hands back must reach
// the next.
func TestConformance(t *testing.T) {
	for name, wire := range map[string]stream.Wire{"plain": stream.WirePlain, "watermill": stream.WireWatermill} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "--appendonly", "no")
			inGroup := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
				t.Helper()
				p, err := stream.NewPublisher(w.dial, w.keys, stream.PublisherOptions{Wire: wire})
				if err != nil {
					t.Fatal(err)
				}
				s, err := stream.NewSubscriber(w.dial, w.keys, stream.SubscriberOptions{
					Group: group, MaxDeliveries: 1000, Backoff: time.Millisecond,
					ClaimAfter: 2 * time.Second, Grace: 100 * time.Millisecond,
				})
				if err != nil {
					t.Fatal(err)
				}
				return p, s
			}
			shared := func(t *testing.T) (message.Publisher, message.Subscriber) {
				t.Helper()
				return inGroup(t, "all")
			}
			fresh := func(t *testing.T) (message.Publisher, message.Subscriber) {
				t.Helper()
				return inGroup(t, watermill.NewUUID())
			}
			features := tests.Features{
				ConsumerGroups: true, Persistent: true, NewSubscriberReceivesOldMessages: true,
				ForceShort: wire == stream.WireWatermill, // the formats differ in their codec alone
			}
			run := func(name string, test func(*testing.T, tests.TestContext)) {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					test(t, tests.TestContext{TestID: tests.NewTestID(), Features: features})
				})
			}
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
				run(name, func(t *testing.T, c tests.TestContext) {
					t.Helper()
					test(t, c, shared)
				})
			}
			run("NewSubscriberReceivesOldMessages", func(t *testing.T, c tests.TestContext) {
				t.Helper()
				tests.TestNewSubscriberReceivesOldMessages(t, c, fresh)
			})
			run("ConsumerGroups", func(t *testing.T, c tests.TestContext) {
				t.Helper()
				tests.TestConsumerGroups(t, c, inGroup)
			})
		})
	}
}

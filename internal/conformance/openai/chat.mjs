// OpenAI's own client for Node against a running program, as an app would use it. The
// model behind it is the one of the tests, which echoes unless the prompt says otherwise.
//
//   BASE_URL   http://host:port/v1
//   API_KEY    the app's own token
import assert from "node:assert/strict";
import OpenAI, { APIError, AuthenticationError, BadRequestError, NotFoundError } from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const about = (content, more = {}) => ({ model: "writer", messages: [{ role: "user", content }], user: "ann", ...more });
const usage = { stream: true, stream_options: { include_usage: true } };

async function check(name, run) {
  await run();
  console.log(`ok ${name}`);
}

await check("a completion, made and then there", async () => {
  const made = await client.chat.completions.create(about("a title")).withResponse();
  const hit = await client.chat.completions.create(about("a title")).withResponse();
  assert.equal(made.response.headers.get("x-cache"), "MISS");
  assert.equal(hit.response.headers.get("x-cache"), "HIT");
  assert.deepEqual(hit.data, made.data);
  assert.equal(made.data.object, "chat.completion");
  assert.equal(made.data.choices[0].message.content, "You asked: a title");
  assert.equal(made.data.choices[0].finish_reason, "stop");
  assert.ok(made.data.usage.total_tokens > 0);
});

await check("a stream, made and then there", async () => {
  const told = [];
  for (let i = 0; i < 2; i++) {
    let text = "", finish = null, cost = null;
    for await (const chunk of await client.chat.completions.create(about("a stream", usage))) {
      assert.equal(chunk.object, "chat.completion.chunk");
      text += chunk.choices[0]?.delta?.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
      cost = chunk.usage ?? cost;
    }
    told.push({ text, finish, cost: cost.total_tokens });
  }
  assert.equal(told[0].text, "You asked: a stream");
  assert.deepEqual(told[0], told[1]);
});

await check("tools, put together by the client", async () => {
  const tools = [{ type: "function", function: { name: "look", parameters: { type: "object", properties: {} } } }];
  for (let i = 0; i < 2; i++) {
    const whole = await client.chat.completions.stream(about("with tools", { tools, ...usage })).finalChatCompletion();
    const [call] = whole.choices[0].message.tool_calls;
    assert.equal(whole.choices[0].finish_reason, "tool_calls");
    assert.deepEqual({ id: call.id, type: call.type, ...call.function }, { id: "call_1", type: "function", name: "look", arguments: '{"at": "the <sea>"}' });
  }
});

await check("a refusal", async () => {
  const whole = await client.chat.completions.create(about("declined"));
  assert.equal(whole.choices[0].message.refusal, "I would rather not.");
  assert.equal(whole.choices[0].message.content, null);
});

await check("users apart", async () => {
  const response = (await client.chat.completions.create(about("a title", { user: "bob" })).withResponse()).response;
  assert.equal(response.headers.get("x-cache"), "MISS");
});

await check("errors", async () => {
  const stranger = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "nonsense", maxRetries: 0 });
  await assert.rejects(stranger.chat.completions.create(about("x")), (e) => e instanceof AuthenticationError && e.code === "invalid_api_key");
  await assert.rejects(client.chat.completions.create(about("x", { n: 2 })), (e) => e instanceof BadRequestError && e.param === "n");
  await assert.rejects(client.chat.completions.create(about("x", { model: "other" })), (e) => e instanceof NotFoundError && e.code === "model_not_found");
  for (const more of [{}, { stream: true }]) {
    await assert.rejects(client.chat.completions.create(about("too long", more)), (e) => e instanceof BadRequestError && e.code === "context_length_exceeded");
  }
});

await check("an error in the midst of a stream", async () => {
  let text = "";
  await assert.rejects(async () => {
    for await (const chunk of await client.chat.completions.create(about("breaks", { stream: true }))) {
      text += chunk.choices[0]?.delta?.content ?? "";
    }
  }, (e) => e instanceof APIError && e.code === "answer_interrupted");
  assert.ok("one two three four".startsWith(text) && text !== "");
});

await check("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names, ["writer"]);
  assert.equal((await client.models.retrieve("writer")).object, "model");
});

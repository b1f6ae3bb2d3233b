// fastify with ioredis: GET of one key, with the headers of the sample.
// node server.mjs SAMPLE PORT KEY; REDIS_URL says where Redis is.
import { readFileSync } from "node:fs";
import fastify from "fastify";
import Redis from "ioredis";

const [sample, port, key] = process.argv.slice(2);
const redis = new Redis(process.env.REDIS_URL);
const header = Object.fromEntries(
  Object.entries(JSON.parse(readFileSync(sample, "utf8")).header).map(([name, values]) => [name, values.join(", ")]),
);

const server = fastify();
server.get("/", async (request, reply) => {
  const body = await redis.getBuffer(key);
  return reply.headers(header).send(body);
});
await server.listen({ host: "127.0.0.1", port: Number(port) });

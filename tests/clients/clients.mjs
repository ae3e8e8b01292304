// Node's clients against a host that says hello at / and echoes at /echo: `node clients.mjs URL`. Prints `ok` when all is right.

import assert from "node:assert/strict";
import http2 from "node:http2";
import { once } from "node:events";
import { Readable } from "node:stream";
import autocannon from "autocannon";
import { Client, Pool } from "undici";

const url = process.argv[2];
const body = Buffer.from(Array.from({ length: 1 << 20 }, (_, index) => (index * 31) & 255));

async function bytes(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

// undici, with requests in a pipeline, and several connections at once.
const client = new Client(url, { pipelining: 10 });
const answers = await Promise.all(Array.from({ length: 100 }, () => client.request({ method: "GET", path: "/" })));
for (const answer of answers) {
  assert.equal(answer.statusCode, 200);
  assert.equal(await answer.body.text(), "Hello World!");
}
await client.close();
const pool = new Pool(url, { connections: 8 });
for (const sent of [body, Readable.from([body.subarray(0, 1000), body.subarray(1000)])]) {
  const answer = await pool.request({ method: "POST", path: "/echo", body: sent });
  assert.ok((await bytes(answer.body)).equals(body));
}
await pool.close();

// fetch, which is undici too, with a body that streams.
const streamed = await fetch(`${url}/echo`, { method: "POST", body: new Blob([body]).stream(), duplex: "half" });
assert.ok(Buffer.from(await streamed.arrayBuffer()).equals(body));

// Node's own HTTP/2.
const session = http2.connect(url);
const streams = Array.from({ length: 50 }, async () => {
  const stream = session.request({ ":method": "POST", ":path": "/echo" });
  stream.end(body.subarray(0, 100_000));
  assert.ok((await bytes(stream)).equals(body.subarray(0, 100_000)));
});
await Promise.all(streams);
session.close();
await once(session, "close");

// Without a pipeline, in which autocannon does not count its last requests.
const load = await autocannon({ url, connections: 20, amount: 4000 });
assert.deepEqual([load["2xx"], load.non2xx, load.errors, load.timeouts], [4000, 0, 0, 0]);
console.log("ok");

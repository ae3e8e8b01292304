// Hono takes requests as the platform's `fetch` event hands them over.

import { Hono } from "hono";
import { stream } from "hono/streaming";

interface FetchEvent {
  request: Request;
  respondWith(response: Response | Promise<Response>): void;
}

const app = new Hono();

// Each request has a fresh instance, so this is never more than 1.
let visits = 0;

app.get("/", (c) => c.text("Hello World!"));
app.get("/hello/:name", (c) => c.json({ hello: c.req.param("name") }));
app.get("/visits", (c) => c.text(`${++visits}\n`));
app.post("/echo", (c) => new Response(c.req.raw.body));
app.get("/stream", (c) =>
  stream(c, async (out) => {
    for (let i = 1; i <= 3; i++) {
      await out.write(`${i}\n`);
      await out.sleep(100);
    }
  }),
);

addEventListener("fetch", (event) => {
  const { request, respondWith } = event as unknown as FetchEvent;
  respondWith.call(event, app.fetch(request) as Promise<Response>);
});

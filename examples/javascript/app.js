// Says hello to `GET /`, sends back whatever is sent to `POST /echo`, and counts to three at `GET /stream`, as it comes.

function respond(request) {
  const { pathname } = new URL(request.url);
  switch (`${request.method} ${pathname}`) {
    case "GET /":
      return new Response("Hello World!");
    case "POST /echo":
      return new Response(request.body);
    case "GET /stream":
      return new Response(count(3));
    default:
      return new Response("not found\n", { status: 404 });
  }
}

function count(end) {
  const encoder = new TextEncoder();
  return new ReadableStream({
    async start(controller) {
      for (let i = 1; i <= end; i++) {
        controller.enqueue(encoder.encode(`${i}\n`));
        await new Promise((done) => setTimeout(done, 100));
      }
      controller.close();
    },
  });
}

addEventListener("fetch", (event) => event.respondWith(respond(event.request)));

// A hello on Node's own server, without a framework: `node hello_node.js 127.0.0.1:0`.
const { createServer } = require("node:http");

const [host, port] = process.argv[2].split(":");
const server = createServer((_request, response) => {
  response.writeHead(200, { "content-type": "text/plain", "content-length": 12 });
  response.end("Hello World!");
});
server.listen(port, host, () => console.log(`listening on ${host}:${server.address().port}`));

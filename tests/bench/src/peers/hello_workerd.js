// A hello for workerd: hello_workerd.capnp says so.
export default { fetch: () => new Response("Hello World!") };

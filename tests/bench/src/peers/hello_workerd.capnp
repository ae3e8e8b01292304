# A hello on workerd, one worker in one isolate that is kept. The socket's address comes from the command line.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "hello", worker = (
    modules = [(name = "hello", esModule = embed "hello_workerd.js")],
    compatibilityDate = "2026-11-01",
  ))],
  sockets = [(name = "http", http = (), service = "hello")],
);

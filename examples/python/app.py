"""Says hello to `GET /`, and sends back whatever is sent to `POST /echo`, as it comes."""

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    Method_Get,
    Method_Post,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

# What a write may take at most.
CHUNK = 4096


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        match request.method(), request.path_with_query():
            case Method_Get(), "/":
                respond(response_out, 200, [b"Hello World!"])
            case Method_Post(), "/echo":
                respond(response_out, 200, chunks(request))
            case _:
                respond(response_out, 404, [b"not found\n"])


def chunks(request):
    """The body of a request, in pieces."""
    with request.consume() as body, body.stream() as stream:
        while True:
            try:
                yield stream.blocking_read(CHUNK)
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    return
                raise


def respond(response_out, status, chunks):
    """Sends the head at once, then each piece as soon as it is there."""
    response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        for chunk in chunks:
            stream.blocking_write_and_flush(chunk)
    OutgoingBody.finish(body, None)

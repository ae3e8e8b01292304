"""Python's clients against a host that says hello at / and echoes at /echo: `clients.py URL`. Prints `ok` when all is right."""

import sys

import httpx
import requests

URL = sys.argv[1]
BODY = bytes(range(256)) * 4096


def pieces():
    for start in range(0, len(BODY), 50_000):
        yield BODY[start : start + 50_000]


def check(what, found, expected):
    if found != expected:
        sys.exit(f"{what}: expected {expected!r}, found {found!r}"[:500])


with requests.Session() as session:
    for _ in range(20):
        check("requests GET", session.get(URL).text, "Hello World!")
    check("requests HEAD", session.head(URL).headers["content-length"], "12")
    check("requests POST", session.post(URL + "/echo", data=BODY).content == BODY, True)
    check("requests POST in chunks", session.post(URL + "/echo", data=pieces()).content == BODY, True)

for http2 in (False, True):
    with httpx.Client(http1=not http2, http2=http2) as client:
        version = client.get(URL).http_version
        check("httpx version", version, "HTTP/2" if http2 else "HTTP/1.1")
        for _ in range(20):
            check(f"httpx GET, {version}", client.get(URL).text, "Hello World!")
        check(f"httpx POST, {version}", client.post(URL + "/echo", content=BODY).content == BODY, True)
        check(f"httpx POST in chunks, {version}", client.post(URL + "/echo", content=pieces()).content == BODY, True)
        with client.stream("POST", URL + "/echo", content=pieces()) as response:
            check(f"httpx stream, {version}", b"".join(response.iter_raw()) == BODY, True)
print("ok")

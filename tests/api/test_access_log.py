from __future__ import annotations

import logging

from starlette.testclient import TestClient


def test_signatures_stay_out_of_the_access_log(api: TestClient) -> None:
    assert api.get("/healthz").status_code == 200  # the application has started
    log = logging.getLogger("uvicorn.access")
    args = ("127.0.0.1:1", "GET", "/objects/t/x.png?expires=1&signature=abc", "1.1", 200)
    record = log.makeRecord(log.name, logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', args, None)
    assert log.filter(record)
    assert record.getMessage() == '127.0.0.1:1 - "GET /objects/t/x.png HTTP/1.1" 200'

"""Who may ask, and what the server does with what is too much, too slow or broken."""

from __future__ import annotations

import base64
import json
import logging
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from serving_kit import SOURCE, Running, Shade, b64, item, picture, png, reward_of, wait_until

from editr1_plugins.adapters.server.access import is_allowed
from editr1_plugins.adapters.server.settings import ServerSettings
from editr1_plugins.errors import ConfigError

TOKEN = "a-token-of-some-length"


def score(running: Running, rows: list[object], **more: object) -> requests.Response:
    return requests.post(f"{running.url}/score", json={"requests": rows}, timeout=60, **more)  # type: ignore[arg-type]


class TestAccess:
    def test_a_token_is_asked_for_everywhere_but_at_health(self) -> None:
        with Running(reward_of(Shade()), ServerSettings(port=0, token=TOKEN, edit_r1_pickle=True)) as running:
            for route in ("score", "compute", "get_reward", "mode/x"):
                refused = requests.post(f"{running.url}/{route}", data=b"{", timeout=60)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
            for route in ("metrics", "rewards"):
                assert requests.get(f"{running.url}/{route}", timeout=60).status_code == 401
            assert requests.get(f"{running.url}/health", timeout=60).status_code == 200
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            assert score(running, [item(51)], headers=bearer).json()["scores"] == [2.0]
            assert "editr1_requests_total" in requests.get(f"{running.url}/metrics", headers=bearer, timeout=60).text
            # Stock clients, which know no token, take it in their server's address.
            inside = running.url.replace("http://", f"http://any:{TOKEN}@")
            assert requests.post(f"{inside}/score", json={"requests": [item(51)]}, timeout=60).status_code == 200

    @pytest.mark.parametrize(
        "header",
        [
            None,
            "",
            "Bearer",
            "Bearer ",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            f"Token {TOKEN}",
            TOKEN,
            "Basic",
            "Basic !",
            "Basic " + base64.b64encode(TOKEN.encode()).decode(),
            "Basic " + base64.b64encode(b"\xff:\xff").decode(),
            "Bearer \ud800",
        ],
    )
    def test_nothing_but_the_token_will_do(self, header: str | None) -> None:
        assert not is_allowed(header, TOKEN)
        assert is_allowed(header, None)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "judge.example.org"])
    def test_a_host_that_others_reach_needs_a_token(self, host: str) -> None:
        with pytest.raises(ConfigError, match="set a token"):
            ServerSettings(host=host)
        assert ServerSettings(host=host, token=TOKEN).host == host
        assert ServerSettings(host=host, allow_open=True).token is None

    def test_short_tokens_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="at least 16"):
            ServerSettings(token="secret")


def _png_claiming(width: int, height: int) -> bytes:
    """A small file whose header claims many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


class TestImages:
    @pytest.mark.parametrize(
        ("image", "reason"),
        [
            (b64(_png_claiming(60_000, 60_000)), "edited image: the image claims too many pixels"),
            (b64(_png_claiming(5_000, 5_000)), "edited image: the image has 5000x5000 pixels, more than max_pixels"),
            (b64(b"not an image"), "not an image in a supported format"),
            (b64(b""), "empty"),
            (b64(SOURCE[:-30]), "broken or truncated"),
            ("http://example.org/a.png", "is a URL"),
            ("file:///etc/passwd", "is a URL"),
            ("/etc/passwd", "not base64"),
            ("%%%", "not base64"),
            (None, "there is no edited image"),
            (5, "is a int, not base64 text"),
            ({"path": "/etc/passwd"}, "is a dict, not base64 text"),
        ],
    )
    def test_a_bad_one_is_its_items_error(self, served: Running, image: object, reason: str) -> None:
        bad = item(51)
        bad["history"][1]["image_b64"] = image
        answer = score(served, [bad, item(51)]).json()
        assert answer["scores"] == [None, 2.0]
        assert reason in answer["errors"][0]["editr1"]
        assert answer["errors"][0]["editr1"].startswith("bad_request")

    def test_one_whose_middle_is_broken_fails_when_it_is_decoded(self, served: Running) -> None:
        whole = png(picture(51, 64))
        bad = item(51)
        bad["history"][1]["image_b64"] = b64(whole[:60] + bytes(40) + whole[100:])
        answer = score(served, [item(51), bad]).json()
        assert answer["scores"] == [2.0, None]
        assert "bad_request" in answer["errors"][1]["editr1"]

    @pytest.mark.parametrize("text", [None, "", "  ", 5, "x" * 20_001, "\ud800"])
    def test_an_instruction_must_be_text(self, served: Running, text: object) -> None:
        bad = item(51)
        bad["history"][1]["text"] = text
        answer = score(served, [bad, item(51)]).json()
        assert answer["scores"] == [None, 2.0]
        assert "the instruction" in answer["errors"][0]["editr1"]


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[" * 100_000, b'{"requests": [' * 50_000, b"\xff\xfe", b"NaN", b"1" * 9999],
        ids=["empty", "cut", "deep list", "deep object", "no UTF-8", "NaN", "long number"],
    )
    def test_what_is_no_json_object_is_a_400(self, served: Running, body: bytes) -> None:
        response = requests.post(f"{served.url}/score", data=body, timeout=60)
        assert response.status_code == 400
        assert "the body" in response.json()["error"]

    def test_too_large_whether_it_says_so_or_not(self) -> None:
        with Running(reward_of(Shade()), ServerSettings(port=0, max_body=100_000)) as running:
            large = b"x" * 1_000_000
            told = requests.post(f"{running.url}/score", data=large, timeout=60)
            assert told.status_code == 413
            assert "at most 100000" in told.json()["error"]
            in_pieces = requests.post(f"{running.url}/score", data=iter([b"x" * 60_000] * 3), timeout=60)
            assert in_pieces.status_code == 413
            assert score(running, [item(51)]).status_code == 200
            assert "editr1_body_bytes 0.0" in requests.get(f"{running.url}/metrics", timeout=60).text

    def test_many_large_ones_at_a_time_are_told_to_come_again(self) -> None:
        judge = Shade()
        judge.open.clear()
        settings = ServerSettings(port=0, max_body=100_000, max_bodies=100_000)
        padded = {"requests": [item(51)], "padding": "x" * 60_000}
        with Running(reward_of(judge), settings) as running, ThreadPoolExecutor(1) as pool:
            first = pool.submit(requests.post, f"{running.url}/score", json=padded, timeout=60)
            assert judge.entered.wait(60)
            second = requests.post(f"{running.url}/score", json=padded, timeout=60)
            assert second.status_code == 429
            assert int(second.headers["retry-after"]) >= 1
            judge.open.set()
            assert first.result().json()["scores"] == [2.0]

    def test_too_many_edits(self) -> None:
        with Running(reward_of(Shade()), ServerSettings(port=0, max_edits=2)) as running:
            response = score(running, [item(51)] * 3)
            assert response.status_code == 413
            assert "3 edits, at most 2" in response.json()["error"]

    def test_slow_clients_are_dropped(self) -> None:
        with Running(reward_of(Shade()), ServerSettings(port=0, read_timeout=1.5)) as running:
            with socket.create_connection(running.address, timeout=30) as half:
                half.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
                assert b" 408 " in half.recv(1000)
            with socket.create_connection(running.address, timeout=30) as silent:
                silent.sendall(b"POST /sc")
                assert silent.recv(1000) == b""
            assert requests.get(f"{running.url}/health", timeout=60).status_code == 200


class TestBusy:
    def test_a_full_queue_is_429_with_retry_after(self) -> None:
        judge = Shade()
        judge.open.clear()
        settings = ServerSettings(port=0, max_waiting=2, max_edits=2, busy_wait=0.1)
        with Running(reward_of(judge), settings) as running, ThreadPoolExecutor(1) as pool:
            first = pool.submit(score, running, [item(51), item(102)])
            assert judge.entered.wait(60)
            bodies = {"score": {"requests": [item(51)]}, "get_reward": {"labels": [json.dumps(label(51))]}}
            for route, body in bodies.items():
                refused = requests.post(f"{running.url}/{route}", json=body, timeout=60)
                assert refused.status_code == 429
                assert 1 <= int(refused.headers["retry-after"]) <= 60
            judge.open.set()
            assert first.result().json()["scores"] == [2.0, 4.0]
            assert score(running, [item(51)]).status_code == 200

    def test_a_request_waits_for_room(self) -> None:
        judge = Shade()
        judge.open.clear()
        settings = ServerSettings(port=0, max_waiting=2, max_edits=2, busy_wait=60)
        with Running(reward_of(judge), settings) as running, ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(score, running, [item(51 * n)]) for n in range(4)]
            assert judge.entered.wait(60)
            judge.open.set()
            assert [each.result().json()["scores"] for each in waiting] == [[2.0 * n] for n in range(4)]


def label(red: int) -> dict[str, str]:
    return {"source": b64(SOURCE), "edited": b64(png(picture(red))), "instruction": "make it red"}


class TestFaults:
    def test_a_judge_that_raises_costs_its_own_edits_only(self, served: Running) -> None:
        answer = score(served, [item(51), item(51, "raise"), item(102)]).json()
        assert answer["scores"] == [2.0, None, 4.0]
        assert "the judge fell over" in answer["errors"][1]["editr1"]

    def test_edits_of_a_client_that_left_are_not_judged(self) -> None:
        judge = Shade()
        judge.open.clear()
        with Running(reward_of(judge), ServerSettings(port=0, workers=1, max_batch=1)) as running:
            body = json.dumps({"requests": [item(51, f"row {n}") for n in range(3)]}).encode()
            with socket.create_connection(running.address, timeout=30) as leaving:
                leaving.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                assert judge.entered.wait(60)
            abandoned = 'editr1_edits_total{outcome="abandoned"} 3.0'
            wait_until(lambda: abandoned in requests.get(f"{running.url}/metrics", timeout=60).text)
            judge.open.set()
            assert score(running, [item(51, "last")]).json()["scores"] == [2.0]
            assert judge.batches == [["row 0"], ["last"]]
            assert "editr1_waiting_edits 0.0" in requests.get(f"{running.url}/metrics", timeout=60).text

    def test_requests_that_come_together_are_judged_together(self) -> None:
        judge = Shade()
        judge.open.clear()
        with Running(reward_of(judge), ServerSettings(port=0, workers=1)) as running, ThreadPoolExecutor(9) as pool:
            first = pool.submit(score, running, [item(0, "first")])
            assert judge.entered.wait(60)
            others = [pool.submit(score, running, [item(51, "other")]) for _ in range(8)]
            held = "editr1_waiting_edits 9.0"
            wait_until(lambda: held in requests.get(f"{running.url}/metrics", timeout=60).text)
            judge.open.set()
            assert first.result().json()["scores"] == [0.0]
            assert [other.result().json()["scores"] for other in others] == [[2.0]] * 8
            assert [len(batch) for batch in judge.batches] == [1, 8]

    def test_a_request_id_is_kept_and_logs_hold_neither_images_nor_secrets(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        secret = "make-it-secret-and-red"
        with (
            caplog.at_level(logging.DEBUG, "editr1_plugins"),
            Running(reward_of(Shade()), ServerSettings(port=0, token=TOKEN)) as running,
        ):
            headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-ID": "run-7.step-3"}
            response = score(running, [item(51, secret)], headers=headers)
            assert response.headers["x-request-id"] == "run-7.step-3"
            forged = score(running, [item(51, secret)], headers={**headers, "X-Request-ID": "a b\tc"})
            assert forged.headers["x-request-id"] != "a b\tc"
            refused = score(running, [item(51)])
            assert refused.json()["request_id"] == refused.headers["x-request-id"]
        assert "run-7.step-3 POST /score 200 1 edits 0 unscored" in caplog.text
        for hidden in (secret, TOKEN, b64(SOURCE)[:24]):
            assert hidden not in caplog.text

    def test_unknown_paths_and_methods(self, served: Running) -> None:
        assert requests.get(f"{served.url}/score", timeout=60).status_code == 405
        nothing = requests.post(f"{served.url}/nothing", json={}, timeout=60)
        assert nothing.status_code == 404
        assert "/score" in nothing.json()["error"]
        for page in ("docs", "redoc", "openapi.json"):  # they would load scripts from elsewhere
            assert requests.get(f"{served.url}/{page}", timeout=60).status_code == 404

    def test_health_answers_while_judges_work(self) -> None:
        judge = Shade()
        judge.open.clear()
        with Running(reward_of(judge), ServerSettings(port=0)) as running:
            busy = threading.Thread(target=score, args=(running, [item(51)] * 40), daemon=True)
            busy.start()
            assert judge.entered.wait(60)
            started = time.monotonic()
            assert requests.get(f"{running.url}/health", timeout=60).json()["status"] == "ok"
            assert time.monotonic() - started < 30
            judge.open.set()
            busy.join(60)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 70_000}, "port"),
        ({"max_waiting": 1, "max_edits": 2}, "max_waiting"),
        ({"max_bodies": 1}, "max_bodies"),
        ({"workers": 0}, "workers"),
        ({"busy_wait": -1.0}, "busy_wait"),
        ({"read_timeout": 0.0}, "read_timeout"),
        ({"name": "two words"}, "name"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServerSettings(**settings)  # type: ignore[arg-type]

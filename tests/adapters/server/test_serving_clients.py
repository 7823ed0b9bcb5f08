"""What the stock clients of other trainers send, and what they can read: each one's wire contract, written anew.

docs/serving.md says which versions of the real clients were run against the server, and how.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from typing import Any

import pytest
import requests
from PIL import Image
from requests.adapters import HTTPAdapter, Retry
from serving_kit import SOURCE, Running, Shade, b64, encoded, expected, item, picture, png, reward_of

from editr1_plugins import Edit, EditRRMReward
from editr1_plugins.adapters.server.settings import ServerSettings


class UniRL:
    """`RemoteRewardBackend` of UniRL: checks the roster, sends two turns, wants every reward or a reason."""

    def __init__(self, url: str, rewards: tuple[str, ...] = ("editr1",), scorer_version: str | None = None) -> None:
        self.url, self.rewards, self.scorer_version = url, rewards, scorer_version
        roster = requests.get(f"{url}/health", timeout=5).json()["rewards"]
        if missing := [name for name in rewards if name not in roster]:
            raise ValueError(f"{missing} not served")

    def score(self, rows: list[dict[str, Any]], protocol: bool = False) -> list[tuple[float, str | None]]:
        head = {"protocol_version": "1"} if protocol else {}
        response = requests.post(f"{self.url}/score", json={**head, "requests": rows}, timeout=60)
        response.raise_for_status()
        raw = response.json()
        if protocol:
            assert raw["protocol_version"] == "1"
            self._check_identities(rows, raw["identities"])
        return [self._one(result, error) for result, error in zip(raw["results"], raw["errors"], strict=True)]

    def _one(self, result: dict[str, dict[str, float]], error: dict[str, str]) -> tuple[float, str | None]:
        [name] = self.rewards
        if name not in result:
            return 0.0, error.get(name, "missing from server response without error")
        [value] = result[name].values()
        assert isinstance(value, float)
        assert math.isfinite(value)
        return value, None

    def _check_identities(self, rows: list[dict[str, Any]], echoed: list[dict[str, Any]]) -> None:
        for row, echo in zip(rows, echoed, strict=True):
            for key in ("request_id", "sample_id", "group_id", "source_rank", "policy_version", "idempotency_key"):
                assert echo.get(key) == row.get(key)
            if self.scorer_version is not None and echo.get("scorer_version") != self.scorer_version:
                raise ValueError("another scorer_version")


class FlowFactory:
    """`RemoteRewardClient` of Flow-Factory: three tries at once, `error` is raised."""

    def __init__(self, url: str) -> None:
        self.url, self.tries = url, 0
        assert requests.get(f"{url}/health", timeout=5).ok

    def compute(self, prompts: list[str], images: list[Image.Image], sources: list[Image.Image] | None) -> list[float]:
        payload = {
            "prompt": prompts,
            "image": [b64(png(image)) for image in images],
            "video": None,
            "condition_images": [[b64(png(source))] for source in sources] if sources else None,
            "condition_videos": None,
        }
        for attempt in range(3):
            self.tries += 1
            try:
                response = requests.post(f"{self.url}/compute", json=payload, timeout=60)
                response.raise_for_status()
            except requests.RequestException as error:
                if attempt == 2:
                    raise RuntimeError(f"Failed to connect to {self.url}: {error}") from error
                continue
            data = response.json()
            if data.get("error"):
                raise RuntimeError(f"Server error: {data['error']}")
            return [float(reward) for reward in data["rewards"]]
        raise AssertionError("unreachable")


class OpenRLHF:
    """`SingleTurnAgentExecutor` of OpenRLHF: one sample a request; what fails five times leaves no reward."""

    def __init__(self, url: str, pause: float = 0.01) -> None:
        self.url, self.pause, self.tries = f"{url}/get_reward", pause, 0

    def reward(self, prompt: str, label: str) -> dict[str, Any] | None:
        payload = {"query": [prompt + " an answer"], "prompts": [prompt], "labels": [label]}
        for _ in range(5):
            self.tries += 1
            response = requests.post(self.url, json=payload, timeout=180)
            if response.ok:
                found: dict[str, Any] = response.json()
                return found
            time.sleep(self.pause)
        return None


class EditR1:
    """`mllm_score_continue` of PKU Edit-R1: a pickle of JPEGs, waits at 500 and Retry-After, unpickles the rest."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/mode/logits_non_cot"
        self.session = requests.Session()
        retries = Retry(total=1000, backoff_factor=1, status_forcelist=[500], allowed_methods=False)
        self.session.mount("http://", HTTPAdapter(max_retries=retries))

    def scores(self, prompts: list[str], images: list[Image.Image], sources: list[Image.Image]) -> list[float]:
        data = {
            "ref_images": [encoded(source, "JPEG") for source in sources],
            "images": [encoded(image, "JPEG") for image in images],
            "prompts": prompts,
            "metadatas": [{"requirement": "None", "id": number} for number in range(len(prompts))],
        }
        response = self.session.post(self.url, data=pickle.dumps(data), timeout=360)
        scores: list[float] = pickle.loads(response.content)["scores"]  # as that client does
        return scores


class TestUniRL:
    def test_scores_in_order_and_reasons_for_what_has_none(self, served: Running) -> None:
        rows = [item(255), item(0, "refuse"), item(51), {**item(0), "history": item(0)["history"][:1]}, item(102)]
        found = UniRL(served.url).score(rows)
        assert [score for score, _ in found] == [10.0, 0.0, 2.0, 0.0, 4.0]
        reasons = [reason for _, reason in found]
        assert reasons[1] == "refused: not today"
        assert "history needs two turns" in str(reasons[3])
        assert [reasons[row] for row in (0, 2, 4)] == [None] * 3

    def test_a_missing_score_is_null_with_its_reason(self, served: Running) -> None:
        raw = requests.post(f"{served.url}/score", json={"requests": [item(51), item(0, "refuse")]}, timeout=60).json()
        assert raw["scores"] == [2.0, None]
        assert raw["results"] == [{"editr1": {"score": 2.0}}, {}]
        assert raw["errors"] == [{}, {"editr1": "refused: not today"}]
        assert "identities" not in raw

    def test_identities_are_echoed_and_the_scorer_version_is_the_servers(self, served: Running) -> None:
        version = requests.get(f"{served.url}/health", timeout=5).json()["version"]
        rows = [
            item(51, request_id=f"r{n}", sample_id=n, group_id="g", source_rank=3, policy_version=7, unknown="field")
            for n in range(3)
        ]
        rows = [{**row, "scorer_version": version, "idempotency_key": "k"} for row in rows]
        assert UniRL(served.url, scorer_version=version).score(rows, protocol=True) == [(2.0, None)] * 3
        with pytest.raises(ValueError, match="another scorer_version"):
            UniRL(served.url, scorer_version="of another judge").score(rows, protocol=True)

    def test_a_reward_that_is_not_served_is_told(self, served: Running) -> None:
        with pytest.raises(ValueError, match="not served"):
            UniRL(served.url, ("hpsv2",))
        row = {**item(51), "required_rewards": ["editr1", "hpsv2"]}
        raw = requests.post(f"{served.url}/score", json={"requests": [row]}, timeout=60).json()
        assert raw["results"] == [{"editr1": {"score": 2.0}}]
        assert raw["errors"] == [{"hpsv2": "not served here; there is: editr1"}]
        assert requests.get(f"{served.url}/rewards", timeout=5).json() == {"rewards": ["editr1"]}

    def test_what_is_no_request_is_a_400(self, served: Running) -> None:
        for body in ({"requests": 5}, {}, [], {"protocol_version": "2", "requests": []}):
            response = requests.post(f"{served.url}/score", json=body, timeout=60)
            assert response.status_code == 400, response.text
            assert response.json()["error"]
        assert requests.post(f"{served.url}/score", json={"requests": []}, timeout=60).json()["results"] == []


class TestFlowFactory:
    def test_rewards_in_order(self, served: Running) -> None:
        reds = [0, 51, 102, 255]
        client = FlowFactory(served.url)
        images = [picture(red) for red in reds]
        assert client.compute(["make it red"] * 4, images, [picture(9)] * 4) == [expected(red) for red in reds]

    def test_a_missing_score_is_the_mean_of_its_group(self, served: Running) -> None:
        prompts, sources = ["refuse", "other", "refuse"], [picture(9)] * 3
        # "refuse" never has a score here: the mean of the request stands in, but not for most of it.
        rewards = FlowFactory(served.url).compute(["refuse", "a", "a"], [picture(red) for red in (0, 51, 102)], sources)
        assert rewards == [3.0, 2.0, 4.0]
        client = FlowFactory(served.url)
        with pytest.raises(RuntimeError, match="Server error: 2 of 3 edits have no score; edit 0: refused: not today"):
            client.compute(prompts, [picture(0)] * 3, sources)
        assert client.tries == 1

    def test_what_is_wrong_is_told_at_once(self, served: Running) -> None:
        client = FlowFactory(served.url)
        with pytest.raises(RuntimeError, match="Server error: there are no condition_images"):
            client.compute(["make it red"], [picture(9)], None)
        with pytest.raises(RuntimeError, match="'image' has 1 entries, expected 2"):
            client.compute(["make it red"] * 2, [picture(9)], [picture(9)] * 2)
        assert client.tries == 2


class TestOpenRLHF:
    def label(self, red: int, **more: Any) -> str:
        return json.dumps({"source": b64(SOURCE), "edited": b64(png(picture(red))), **more})

    def test_rewards_and_scores(self, served: Running) -> None:
        found = OpenRLHF(served.url).reward("make it red", self.label(51))
        assert found == {"rewards": [2.0], "scores": [0.2], "extra_logs": {"editr1_filled": [0.0]}}

    def test_the_labels_instruction_counts_more_than_the_prompt(self, served: Running) -> None:
        assert OpenRLHF(served.url).reward("refuse", self.label(51, instruction="make it red")) is not None

    def test_what_has_no_score_has_no_reward(self, served: Running) -> None:
        client = OpenRLHF(served.url)
        assert client.reward("refuse", self.label(51)) is None
        assert client.reward("make it red", "not JSON") is None
        assert client.tries == 10

    def test_a_sample_without_a_score_gets_the_mean_of_its_earlier_siblings(self) -> None:
        class Moody(Shade):
            def verify(self, edits: Any, principles: Any) -> Any:
                calls = len(self.batches)
                judged = super().verify(edits, principles)
                return judged if calls < 2 else super().verify([refused(edit) for edit in edits], principles)

        def refused(edit: Edit) -> Edit:
            return Edit(source=edit.source, edited=edit.edited, instruction="refuse")

        with Running(reward_of(Moody()), ServerSettings(port=0)) as running:
            client = OpenRLHF(running.url)
            found = [client.reward("make it red", self.label(red)) for red in (51, 102, 255)]
            assert [reward["rewards"] for reward in found if reward] == [[2.0], [4.0], [3.0]]
            assert found[2] is not None
            assert found[2]["extra_logs"] == {"editr1_filled": [1.0]}
            assert "editr1_filled_total 1.0" in requests.get(f"{running.url}/metrics", timeout=5).text


class TestEditR1:
    def test_scores_of_jpegs(self, served: Running) -> None:
        scores = EditR1(served.url).scores(["a", "b", "c"], [picture(red) for red in (0, 128, 255)], [picture(9)] * 3)
        assert scores == pytest.approx([0, 0.5, 1], abs=0.05)  # JPEG shifts colours

    def test_more_images_than_the_client_can_pair_with_prompts_are_refused(self, served: Running) -> None:
        data = {"ref_images": [SOURCE], "images": [SOURCE], "prompts": ["a", "b"], "metadatas": [{}]}
        response = requests.post(f"{served.url}/mode/x", data=pickle.dumps(data), timeout=60)
        assert response.status_code == 400
        assert "one per image" in response.json()["error"]

    def test_the_route_is_off_unless_asked_for(self) -> None:
        with Running(reward_of(Shade()), ServerSettings(port=0)) as running:
            response = requests.post(f"{running.url}/mode/logits_non_cot", data=pickle.dumps({}), timeout=60)
            assert response.status_code == 404

    def test_more_than_data_is_refused_and_nothing_runs(self, served: Running, tmp_path: Any) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return (open, (str(tmp_path / "made"), "w"))

        data = {"ref_images": [SOURCE], "images": [SOURCE], "prompts": ["a"], "metadatas": [Evil()]}
        response = requests.post(f"{served.url}/mode/x", data=pickle.dumps(data), timeout=60)
        assert response.status_code == 400
        assert "only plain data is read" in response.json()["error"]
        assert not (tmp_path / "made").exists()


def test_scores_are_those_of_the_reward_on_the_same_png(served: Running) -> None:
    from editr1_plugins.images import read_image

    reward = EditRRMReward("measure")
    source, edited = picture(60, 48), picture(160, 48)
    sent = [png(source), png(edited)]
    [direct] = reward.score(
        [Edit(source=read_image(sent[0]), edited=read_image(sent[1]), instruction="make the image brighter")]
    )
    with Running(EditRRMReward("measure"), ServerSettings(port=0)) as running:
        [(score, reason)] = UniRL(running.url).score(
            [
                {
                    "history": [
                        {"text": "make the image brighter", "image_b64": b64(sent[0])},
                        {"text": "make the image brighter", "image_b64": b64(sent[1])},
                    ],
                    "required_rewards": ["editr1"],
                }
            ]
        )
    assert direct.score is not None, direct.failure
    assert (score, reason) == (direct.score, None)  # the very same float


def test_every_image_format_the_reward_reads_is_read(served: Running) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        row = item(255)
        row["history"][1]["image_b64"] = "data:image/x;base64," + b64(encoded(picture(255), kind))
        [(score, reason)] = UniRL(served.url).score([row])
        assert reason is None
        assert score == pytest.approx(10, abs=0.5)

"""push_to_hub against a stub of the hub on this machine."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from shconv import InputError, create_model
from shconv.cli import run
from shconv.pretrained import push_to_hub, save_pretrained
from toys import colour_folder

hub = pytest.importorskip("huggingface_hub")
SMALL: dict[str, Any] = {"num_classes": 3, "stem": "small", "width": 2}


class Stub(BaseHTTPRequestHandler):
    """Makes repositories and takes files, as the hub's API does; `got` holds what it was given."""

    got: dict[str, bytes]
    tokens: list[str | None]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.tokens.append(self.headers.get("Authorization"))
        answer: dict[str, Any] = {"url": "https://huggingface.co/me/net", "name": "me/net"}
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.got[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {
                "success": True,
                "commitOid": "0" * 40,
                "commitUrl": "https://huggingface.co/me/net/commit/" + "0" * 40,
            }
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Stub]]:
    Stub.got, Stub.tokens = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_stub")
    yield Stub
    server.shutdown()


def test_a_folder_and_a_network_arrive_as_save_pretrained_writes_them(stub: type[Stub], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_model("plain10_shc", **SMALL)
    folder = save_pretrained(network, tmp_path / "folder")
    (folder / "private.txt").write_text("stays here")
    assert push_to_hub(folder, "me/net").endswith("/me/net/commit/" + "0" * 40)
    names = ("model.safetensors", "config.json", "README.md")
    assert stub.got == {name: (folder / name).read_bytes() for name in names}
    assert set(stub.tokens) == {"Bearer hf_stub"}
    stub.got.clear()
    push_to_hub(network, "me/net", private=True)
    assert stub.got == {name: (folder / name).read_bytes() for name in names}


def test_a_training_pushes_what_it_made_with_a_card_and_no_path_of_this_machine(
    stub: type[Stub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    colours, out = colour_folder(tmp_path / "colours"), tmp_path / "out"
    command = ["train", "--model", "plain10", "--width", "2", "--epochs", "1", "--batch-size", "12"]
    command += ["--data", f"folder:{colours}", "--out", str(out), "--push-to-hub", "me/net"]
    assert run(command) == 0
    assert "On Hugging Face: https://huggingface.co/me/net/commit/" in capsys.readouterr().out
    assert stub.got["model.safetensors"] == (out / "model.safetensors").read_bytes()
    for name in ("README.md", "config.json"):
        text = stub.got[name].decode()
        assert "folder:colours" in text
        assert str(tmp_path) not in text
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert run(command) == 2  # finished: what is missing is the upload
    assert f'The network is in {out}; shconv.pretrained.push_to_hub("{out}", "me/net")' in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert run([*command[:-2], "--out", str(tmp_path / "new"), "--push-to-hub", "me/net"]) == 2
    assert "there is no token" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()  # said before the training


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="wanted: OWNER/NAME"):
        push_to_hub(tmp_path, "net")
    folder = save_pretrained(create_model("plain10", **SMALL), tmp_path / "folder")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(InputError, match="there is no token"):
        push_to_hub(folder, "me/net")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_stub")
    with pytest.raises(InputError, match=r"no model.safetensors and no config.json"):
        push_to_hub(tmp_path, "me/net")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="did not take me/net"):
        push_to_hub(folder, "me/net")

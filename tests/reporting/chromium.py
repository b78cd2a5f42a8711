"""A headless Chromium that does what a reader would, over the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_PATIENCE_S = 120.0


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.session: str | None = None
        self.requests: list[str] = []
        """addresses that the page asked for"""
        self.problems: list[str] = []
        """errors of scripts and of the console"""

    async def listen(self) -> None:
        """Take what the browser says, until it ends."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            elif said["method"] == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.problems.append(said["params"]["exceptionDetails"]["text"])
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.problems.append(said["params"]["entry"]["text"])

    async def send(self, method: str, **parameters: Any) -> Any:
        """The result of a command."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": self.session} if self.session else {}))
        said = await asyncio.wait_for(self._waiting[number], _PATIENCE_S)
        assert "error" not in said, (method, said["error"])
        return said["result"]

    async def run(self, script: str) -> Any:
        """The value of a script in the page, once its promise is kept."""
        found = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a script says so."""
        await self.run(
            f"new Promise((done) => {{ const look = () => ({condition}) ? done(1) : requestAnimationFrame(look); "
            "look(); })"
        )

    async def choose(self, selector: str, path: Path) -> None:
        """Put a file into a file field."""
        root = (await self.send("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.send("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    async def write(self, selector: str, text: str, *, enter: bool = False) -> None:
        """Type into a field, which is emptied before."""
        await self.run(f"{{ const field = document.querySelector({selector!r}); field.focus(); field.select(); }}")
        if not text:
            await self.send("Input.dispatchKeyEvent", type="keyDown", key="Delete", windowsVirtualKeyCode=46)
        await self.send("Input.insertText", text=text)
        if enter:
            for kind in ("keyDown", "keyUp"):
                await self.send(
                    "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
                )

    async def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def opened(url: str, folder: Path, *, width: int = 1280, dark: bool = False) -> AsyncIterator[Tab]:
    """A page of this width, in `folder` for all that the browser keeps."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *(f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0", "about:blank"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        address = next(found[1] for line in process.stderr if (found := re.search(r"listening on (ws://\S+)", line)))
        async with aiohttp.ClientSession() as client, client.ws_connect(address, max_msg_size=0) as socket:
            tab = Tab(socket)
            listening = asyncio.create_task(tab.listen())
            target = (await tab.send("Target.createTarget", url="about:blank"))["targetId"]
            session = await tab.send("Target.attachToTarget", targetId=target, flatten=True)
            tab.session = session["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                await tab.send(f"{domain}.enable")
            await tab.send(
                "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
            )
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            await tab.send("Emulation.setEmulatedMedia", features=[scheme])
            await tab.send("Page.navigate", url=url)
            await tab.until("document.readyState === 'complete' && document.getElementById('question')")
            yield tab
            listening.cancel()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()

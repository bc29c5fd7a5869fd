#!/usr/bin/env python3
"""How long `GET /system/df` takes with 1,000 images: `benches/df.py WHARF`, as root.

Makes an archive of 1,000 images, which share a base in tens and have a layer each of their own, loads it into a daemon of
its own, and asks 20 times; also how long `images` takes, and whether the sum is what du says.
"""

import hashlib
import http.client
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

IMAGES = 1000


def layer(name, size):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"{name}/{number}")
            info.size = size
            tar.addfile(info, io.BytesIO(name.encode().ljust(size, b".")[:size]))
    return out.getvalue()


def archive(path):
    written = set()
    with tarfile.open(path, "w") as tar:
        def add(name, content):
            if name not in written:
                written.add(name)
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

        manifest = []
        for number in range(IMAGES):
            names, ids = [], []
            for one in (layer(f"base{number // 10}", 20000), layer(f"own{number}", 3000)):
                digest = hashlib.sha256(one).hexdigest()
                add(f"{digest}/layer.tar", one)
                names.append(f"{digest}/layer.tar")
                ids.append(f"sha256:{digest}")
            config = json.dumps({
                "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
                "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"number": str(number)}},
                "rootfs": {"type": "layers", "diff_ids": ids},
                "history": [{"created_by": f"step {step}"} for step in range(2)],
            }).encode()
            name = hashlib.sha256(config).hexdigest() + ".json"
            add(name, config)
            manifest.append({"Config": name, "RepoTags": [f"app{number}:1"], "Layers": names})
        add("manifest.json", json.dumps(manifest).encode())


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("d")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask(sock, method, path, body=None):
    connection = Unix(sock)
    began = time.perf_counter()
    connection.request(method, path, body, {"Content-Type": "application/x-tar"} if body else {})
    answer = connection.getresponse()
    content = answer.read()
    took = time.perf_counter() - began
    assert answer.status == 200, content
    return took, content


def main():
    wharf = sys.argv[1]
    work = tempfile.mkdtemp(prefix="wharf-df-")
    sock, data = f"{work}/sock", f"{work}/data"
    name = os.path.basename(work)
    daemon = subprocess.Popen(
        [wharf, "daemon", "-H", f"unix://{sock}", "--data-root", data, "--exec-root", f"{work}/run",
         "--cgroup-parent", f"/{name}", "--remove-networks-on-exit"],
        stderr=subprocess.DEVNULL)
    try:
        while not os.path.exists(sock):
            assert daemon.poll() is None
            time.sleep(0.01)
        archive(f"{work}/images.tar")
        with open(f"{work}/images.tar", "rb") as images:
            took, _ = ask(sock, "POST", "/images/load?quiet=1", images)
        print(f"load of {IMAGES} images: {took:.1f} s")
        for path in ("/v1.51/system/df", "/images/json"):
            ask(sock, "GET", path)
            times = [1000 * ask(sock, "GET", path)[0] for _ in range(20)]
            print(f"GET {path}: median {statistics.median(times):.1f} ms, worst of 20 {max(times):.1f} ms")
        usage = json.loads(ask(sock, "GET", "/v1.51/system/df?exact=1")[1])
        said = usage["DataRoot"]["Total"]
        du = int(subprocess.run(["du", "-s", "-x", "-B1", data], capture_output=True, check=True).stdout.split()[0])
        print(f"{len(usage['Images'])} images; sum {said}, du {du}: {100 * (said - du) / du:+.2f} %")
    finally:
        daemon.terminate()
        daemon.wait()
        shutil.rmtree(work)


main()

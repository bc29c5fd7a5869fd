#!/usr/bin/env python3
"""g. many of everything: `ps` and the daemon's start with 1,000 stopped containers, memory with 10,000 connections that say nothing.
   engines need sock=PATH; the daemons are ended"""
import http.client, json, signal, socket
from common import *
p = parser(__doc__); p.add_argument('--containers', type=int, default=1000); p.add_argument('--connections', type=int, default=10000)
a = p.parse_args(); E = [e for e in a.engine if 'sock' in e.attr]; rep = Report(f'g. {a.containers} containers, {a.connections} connections', E)
class C(http.client.HTTPConnection):
    def __init__(s, path): super().__init__('d'); s.path = path
    def connect(s): s.sock = socket.socket(socket.AF_UNIX); s.sock.connect(s.path)
def ask(e, m, path, body=None, c=None):
    c = c or C(e.attr['sock']); c.request(m, path, json.dumps(body) if body is not None else None, {'Content-Type': 'application/json'} if body is not None else {})
    r = c.getresponse(); d = r.read()
    if r.status >= 400: raise RuntimeError(f'{e.name} {m} {path}: {r.status} {d[:300]}')
    return d
def daemon(e):
    """the process that listens on the socket"""
    s = socket.socket(socket.AF_UNIX); s.connect(e.attr['sock'])
    return int.from_bytes(s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], 'little')
def rss(pid): return int(re.search(r'VmRSS:\s+(\d+)', open(f'/proc/{pid}/status').read()).group(1)) / 1024
for e in E: rep.add('daemon at rest: RSS', e, rss(daemon(e)), 'MiB')
for e in E:
    c = C(e.attr['sock']); e.enter(); t = time.perf_counter()
    for k in range(a.containers): ask(e, 'POST', f'/v1.41/containers/create?name=many{k}', dict(Image=a.image, Cmd=['true']), c)
    rep.add('create, each (API)', e, (time.perf_counter() - t) * 1e3 / a.containers)
for i in range(a.n):
    for e in E:
        m = run(e, 'ps -a'); rep.add('ps -a', e, m[0]); rep.add('ps -a [CPU]', e, m[1])
        t = time.perf_counter(); ask(e, 'GET', '/v1.41/containers/json?all=1'); rep.add('GET /containers/json?all=1', e, (time.perf_counter() - t) * 1e3)
        t = time.perf_counter(); ask(e, 'GET', '/v1.41/containers/many7/json'); rep.add('inspect (API)', e, (time.perf_counter() - t) * 1e3)
leave()
for e in E:
    pid = daemon(e); before = rss(pid); held = []
    try:
        for _ in range(a.connections):
            s = socket.socket(socket.AF_UNIX); s.connect(e.attr['sock']); held.append(s)
        time.sleep(1); rep.add('each silent connection: RSS', e, (rss(pid) - before) * 1024 / len(held), 'KiB')
    except OSError as error: print(e.name, 'no more than', len(held), 'connections:', error)
    t = time.perf_counter(); ask(e, 'GET', '/_ping'); rep.add('ping beside them', e, (time.perf_counter() - t) * 1e3)
    for s in held: s.close()
for i in range(3):
    for e in E:
        pid = daemon(e); words = open(f'/proc/{pid}/cmdline').read().split('\0')[:-1]; env = dict(v.split('=', 1) for v in open(f'/proc/{pid}/environ').read().split('\0') if '=' in v)
        os.kill(pid, signal.SIGTERM)
        while os.path.exists(f'/proc/{pid}') and open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[0] != 'Z': time.sleep(.01)
        t = time.perf_counter(); new = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try: ask(e, 'GET', '/_ping'); break
            except OSError:
                if new.poll() is not None or time.perf_counter() - t > 120: raise
                time.sleep(.0005)
        rep.add('daemon: start to ready', e, (time.perf_counter() - t) * 1e3)
        e.attr['new'] = new
for e in E:
    for k in range(a.containers): ask(e, 'DELETE', f'/v1.41/containers/many{k}?force=1')
    e.attr['new'].terminate(); e.attr['new'].wait()
rep.show(); print('load', open('/proc/loadavg').read())

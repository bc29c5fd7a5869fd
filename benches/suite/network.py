#!/usr/bin/env python3
"""f. Networks: what one costs at a start, first packets, throughput, connections, names, and thousands of ports.

All traffic is made by the same programs (iperf3, netload.c) in the containers' network namespaces, so no image is measured.
Each figure of throughput has its ratio to plain loopback beside it. `--ports` are published in one range by every engine but
those of `--few`, which get the number that is named there (Docker has two processes for each). Senders have Linux's default
congestion control: with BBR, which some hosts choose, a path without loss is as fast as its estimate and not as the path."""
import json, os, socket
from common import *
p = parser(__doc__)
p.add_argument('--ports', type=int, default=5000); p.add_argument('--few', default='docker=250,podman=250')
p.add_argument('--seconds', type=float, default=2); p.add_argument('--load', required=True, help='netload.c, compiled')
a = p.parse_args(); E = a.engine; rep = Report('f. networks', E)
want = lambda k: not a.only or k in a.only.split(',')
few = dict((w.split('=')[0], int(w.split('=')[1])) for w in filter(None, a.few.split(',')))
is_podman = lambda e: 'podman' in e.cli[0]
rm = lambda e, name: run(e, 'rm -f -t0' if is_podman(e) else 'rm -f', name, check=False)
med = lambda bench, e, unit='ms': statistics.median(rep.d[(bench, unit)][e.name])
lost = set()  # engines that cannot do a part
def part(e, name, f):
    if (e.name, name) in lost: return
    try: f()
    except Exception as error:
        lost.add((e.name, name)); print(f'{e.name}: no {name}: {str(error)[-300:]}')

def within(pid, *words, timeout=60):
    r = subprocess.run(['nsenter', f'--net=/proc/{pid}/ns/net', *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
    if r.returncode: raise RuntimeError(f'{words} -> {r.returncode}: {(r.stderr or r.stdout).decode()[-300:]}')
    return r.stdout.decode()
class Serving:
    """programs that serve in a container's namespace, until the end of the block"""
    def __init__(s, pid):
        s.all = [subprocess.Popen(['nsenter', f'--net=/proc/{pid}/ns/net', *w], stdout=subprocess.DEVNULL) for w in (['iperf3', '-s', '-p', '5201'], [a.load, 'serve', '5202'])]
        time.sleep(.3)
    def __enter__(s): return s
    def __exit__(s, *_):
        for x in s.all: x.terminate(); x.wait()
def gbit(pid, address):
    out = json.loads(within(pid, 'iperf3', '-c', address, '-p', 5201, '-t', a.seconds, '-J', '-C', 'cubic'))
    return out['end']['sum_received']['bits_per_second'] / 1e9
persec = lambda pid, address: float(within(pid, a.load, 'connect', address, 5202, a.seconds))
def pid_of(e, name): return int(run(e, 'inspect -f {{.State.Pid}}', name)[3])
def address_of(pid, link='eth0', family='inet'):
    return json.loads(within(pid, 'ip', '-j', '-4' if family == 'inet' else '-6', 'addr', 'show', 'dev', link))[0]['addr_info'][0]['local']
me = os.getpid()

# A second host: a namespace of its own behind a link.
outside = subprocess.Popen(['unshare', '--net', 'sleep', '100000'])
time.sleep(.2)
for words in (f'ip link add b-out type veth peer name b-in netns {outside.pid}', 'ip addr add 198.51.100.1/24 dev b-out', 'ip link set b-out up'):
    subprocess.run(words.split(), check=True)
for words in ('ip link set lo up', 'ip addr add 198.51.100.2/24 dev b-in', 'ip link set b-in up'): within(outside.pid, *words.split())
try:
    if want('start'):
        listener = socket.create_server(('0.0.0.0', 9998)); gateway = {}; live = []
        for e in E:
            def look(e=e):
                text = run(e, 'run --rm', a.image, 'ip route')[3]
                gateway[e.name] = re.search(r'default via (\S+)', text).group(1); live.append(e)
            part(e, 'start', look)
        for i in range(a.n):
            for e in live:
                T = lambda name, *w: rep.add(name, e, run(e, *w)[0])
                T('run --rm true, bridge', 'run --rm', a.image, 'true')
                T('run --rm true, none', 'run --rm --network none', a.image, 'true')
                T('run --rm -p 127.0.0.1:9099:80', 'run --rm -p 127.0.0.1:9099:80', a.image, 'true')
                T('run --rm -p 9099:80 (IPv6 of the host, too)', 'run --rm -p 9099:80', a.image, 'true')
                t = time.perf_counter()
                c = subprocess.Popen(e.words('run --rm', a.image, f'nc {gateway[e.name]} 9998'), env=e.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                s, _ = listener.accept(); rep.add('run until its first packet out', e, (time.perf_counter() - t) * 1e3); s.close(); c.wait()
                t = time.perf_counter()
                c = subprocess.Popen(e.words('run --rm --name b-first -p 127.0.0.1:9097:80', a.image, 'httpd -f -p 80'), env=e.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                while True:
                    try:
                        with socket.create_connection(('127.0.0.1', 9097), 1) as s:
                            s.sendall(b'GET / HTTP/1.0\r\n\r\n')
                            if s.recv(1): break
                    except OSError: pass
                    if time.perf_counter() - t > 20: raise RuntimeError('no answer at a published port')
                    time.sleep(.0005)
                rep.add('run -p until its first answer', e, (time.perf_counter() - t) * 1e3); rm(e, 'b-first'); c.wait()
        for e in live:
            bridge, none = med('run --rm true, bridge', e), med('run --rm true, none', e)
            rep.add('network part of run (bridge minus none)', e, bridge - none)
            rep.add('what publishing adds, IPv4 alone', e, med('run --rm -p 127.0.0.1:9099:80', e) - bridge)
            rep.add('what publishing adds, both families', e, med('run --rm -p 9099:80 (IPv6 of the host, too)', e) - bridge)
        listener.close()
    if want('flow') or want('dns'):
        pids = {}
        for e in E:
            def make(e=e):
                run(e, 'network rm b-net', check=False); run(e, 'network create b-net')
                port = 7000 + 10 * [x.name for x in E].index(e.name)
                run(e, f'run -d --name b-one --network b-net -p {port}:5201 -p {port + 1}:5202', a.image, 'sleep 100000')
                run(e, 'run -d --name b-two --network b-net', a.image, 'sleep 100000')
                pids[e.name] = (pid_of(e, 'b-one'), pid_of(e, 'b-two'), port)
            part(e, 'network of its own', make)
    if want('flow'):
        for i in range(max(2, a.n // 5)):
            with Serving(me): loop = (gbit(me, '127.0.0.1'), persec(me, '127.0.0.1'))
            for e in E:
                if e.name not in pids: continue
                rep.add('plain loopback', e, loop[0], 'Gbit/s'); rep.add('plain loopback', e, loop[1], 'connections/s')
                one, two, port = pids[e.name]
                with Serving(one):
                    def measure(what, pid, address, at=0):
                        def go():
                            g = float(json.loads(within(pid, 'iperf3', '-c', address, '-p', at or 5201, '-t', a.seconds, '-J', '-C', 'cubic'))['end']['sum_received']['bits_per_second']) / 1e9
                            n = float(within(pid, a.load, 'connect', address, at + 1 if at else 5202, a.seconds))
                            rep.add(what, e, g, 'Gbit/s'); rep.add(what + ' / loopback', e, g / loop[0], 'ratio')
                            rep.add(what, e, n, 'connections/s'); rep.add(what + ' / loopback', e, n / loop[1], 'ratio of conn.')
                        part(e, what, go)
                    measure('container to container', two, address_of(one))
                    measure('published, from 127.0.0.1', me, '127.0.0.1', port)
                    measure('published, from [::1]', me, '::1', port)
                    measure('published, from own address', me, '198.51.100.1', port)
                    measure('published, from another host', outside.pid, '198.51.100.1', port)
    if want('dns'):
        for i in range(max(3, a.n // 4)):
            for e in E:
                if e.name not in pids: continue
                def ask(e=e):
                    pid = pids[e.name][1]
                    server = re.search(r'nameserver (\S+)', run(e, 'exec b-two cat /etc/resolv.conf')[3]).group(1)
                    for window in (1, 16):
                        c0 = e.cpu_ms()
                        n, mid, p99 = map(float, within(pid, a.load, 'dns', server, 'b-one', a.seconds, window).split())
                        rep.add(f'names, {window} at a time', e, n, 'queries/s'); rep.add(f'names, {window} at a time: median', e, mid, 'us'); rep.add(f'names, {window} at a time: p99', e, p99, 'us')
                        rep.add(f'names, {window} at a time: CPU of the engine for each', e, (e.cpu_ms() - c0) * 1e3 / (n * a.seconds), 'us')
                        # A program that does nothing but answer, in the same place: what is left is the kernel's and the client's.
                        floor = subprocess.Popen(['nsenter', f'--net=/proc/{pid}/ns/net', a.load, 'answer', '127.0.0.53'])
                        time.sleep(.2)
                        try: f = float(within(pid, a.load, 'dns', '127.0.0.53', 'b-one', a.seconds, window).split()[0])
                        finally: floor.terminate(); floor.wait()
                        rep.add(f'names, {window} at a time / what a program that only answers has', e, n / f, 'ratio')
                part(e, 'names', ask)
    if want('flow') or want('dns'):
        for e in E:
            for name in ('b-one', 'b-two'): rm(e, name)
            run(e, 'network rm b-net', check=False)
    if want('ports'):
        total = lambda m: sum(v[3] for v in m.values()) / 1024
        for e in E:
            def publish(e=e):
                n = few.get(e.name, a.ports); first = 20000
                base = total(e.mem_kb()); t = time.perf_counter()
                w = run(e, f'run -d --name b-range -p {first}-{first + n - 1}:{first}-{first + n - 1}', a.image, 'sleep 100000')
                pid = pid_of(e, 'b-range')
                server = subprocess.Popen(['nsenter', f'--net=/proc/{pid}/ns/net', a.load, 'serve', str(first + n - 1)])
                time.sleep(.2); within(me, a.load, 'connect', '127.0.0.1', first + n - 1, .2); server.terminate(); server.wait()
                held = total(e.mem_kb()) - base; r = rm(e, 'b-range')
                rep.add('range of ports: number', e, n, 'ports'); rep.add('range of ports: run -d', e, w[0] / 1e3, 's'); rep.add('range of ports: rm -f', e, r[0] / 1e3, 's')
                rep.add('range of ports: memory', e, held, 'MiB')
                rep.add('for each port: run -d', e, w[0] / n * 1e3, 'us'); rep.add('for each port: memory', e, held / n * 1024, 'KiB')
            part(e, 'range of ports', publish)
finally:
    outside.terminate(); outside.wait()
    subprocess.run('ip link del b-out'.split(), stderr=subprocess.DEVNULL)
leave(); rep.show(); print('load', open('/proc/loadavg').read())

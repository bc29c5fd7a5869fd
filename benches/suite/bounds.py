"""What this machine can do, measured in the same run, and how near to it a time is.

BENCH_RATES names the program that measures inflating and hashing by Wharf's own libraries (crates/archive/examples/rates)."""
import json, os, socket, struct, subprocess, time
from common import TMP

MIB = 1 << 20

def disk(mib=256):
    """MB/s of new bytes, on the disk at the end."""
    path = os.path.join(TMP, 'rate'); os.sync()
    data = os.urandom(4 * MIB); began = time.perf_counter()
    with open(path, 'wb', buffering=0) as f:
        for _ in range(mib // 4): f.write(data)
        os.fdatasync(f.fileno())
    took = time.perf_counter() - began; os.remove(path)
    return mib * MIB / 1e6 / took

def loopback(mib=512):
    """MB/s through one TCP connection to this machine; both ends are processes."""
    listener = socket.create_server(('127.0.0.1', 0))
    child = os.fork()
    if child == 0:
        sender = socket.create_connection(listener.getsockname()); data = bytes(MIB)
        for _ in range(mib): sender.sendall(data)
        os._exit(0)
    conn, _ = listener.accept(); buffer = bytearray(MIB); began = time.perf_counter()
    while conn.recv_into(buffer): pass
    took = time.perf_counter() - began; os.waitpid(child, 0)
    return mib * MIB / 1e6 / took

def size(cache):
    """(MB of the layers of `big:v1` as they are sent, MB of their tars)"""
    packed = plain = 0
    for path in [f'{cache}/base.tar.gz'] + [f'{cache}/l{i}.tar.gz' for i in range(7)]:
        packed += os.path.getsize(path)
        with open(path, 'rb') as f: f.seek(-4, 2); plain += struct.unpack('<I', f.read(4))[0]
    return packed / 1e6, plain / 1e6

class Bounds:
    def __init__(s):
        cache = os.path.join(TMP, 'imgcache'); s.rates = {}
        program = os.environ.get('BENCH_RATES')
        if not program or not os.path.exists(f'{cache}/l0.tar.gz'): return
        s.rates = json.loads(subprocess.check_output([program, f'{cache}/l0.tar.gz']))
        # The best of some: others may be at work.
        s.rates.update(disk=max(disk() for _ in range(3)), loopback=max(loopback() for _ in range(3))); s.packed, s.plain = size(cache); s.cores = len(os.sched_getaffinity(0))
        r, z, t, n = s.rates, s.packed, s.plain, s.cores
        # What must be done, on all cores at once; written; sent. The slowest of them is the bound.
        s.of = {
            'pull big (8 layers, 1 GB)': dict(cores=(z / r['sha256'] + t / r['inflate'] + t / r['sha256']) / n, disk=(z + t) / r['disk'], loopback=z / r['loopback']),
            'push big': dict(cores=z / r['sha256'] / n, disk=z / r['disk'], loopback=z / r['loopback']),
            'save big': dict(cores=t / r['sha256'] / n, loopback=t / r['loopback']),
            'load big': dict(cores=t / r['sha256'] / n, disk=t / r['disk'], loopback=t / r['loopback']),
        }
    def show(s, report):
        if not s.rates: return
        r = s.rates
        print(f"\nthis machine: {s.cores} cores, each inflates {r['inflate']:.0f} MB/s and hashes {r['sha256']:.0f}; the disk writes {r['disk']:.0f}, "
              f"loopback carries {r['loopback']:.0f}; big:v1 is {s.packed:.0f} MB, unpacked {s.plain:.0f}")
        print('\n| of the bound | bound | by | ' + ' | '.join(report.engines) + ' |\n|---|---|---|' + '---|' * len(report.engines))
        for name, ways in s.of.items():
            times = report.d.get((name, 's'))
            if not times: continue
            by, bound = max(ways.items(), key=lambda way: way[1])
            share = lambda times, least: ' | '.join(f'{100 * least / min(times[e]):.0f} %' if times.get(e) else '-' for e in report.engines)
            print(f'| {name} | {bound:.2f} s | {by} | {share(times, bound)} |')
            cpu = ways['cores'] * s.cores
            print(f'| {name}, of its processor time | {cpu:.2f} s | inflate, sha256 | {share(report.d.get((name + " [CPU]", "s"), {}), cpu)} |')

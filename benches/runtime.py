"""The part of benches/runtime that measures. Arguments: WORK ROUNDS CYCLES."""
import os, subprocess, sys, time

work, rounds, cycles = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
state = f'{work}/state'
RUNTIMES = {'wharf': [os.environ['WHARF'], 'oci'], 'crun': ['crun'], 'runc': ['runc']}


def once(words):
    """One command to its end: wall time and processor time in ms."""
    start = time.perf_counter()
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f'{" ".join(words)}: exit code {child.returncode}')
    return wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3


def command(name, *words):
    return once([*RUNTIMES[name], '--root', f'{state}/{name}', *words])


def peak(name, *words):
    """Peak resident memory of one command in KiB. A small program starts it: what this one has would count."""
    words = ['busybox', 'time', '-f', '%M', *RUNTIMES[name], '--root', f'{state}/{name}', *words]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    # On 1.35 and later in KiB; the program's own messages come before.
    return int(done.stderr.split()[-1])


def ended(name, ident):
    """Waits for the end of `true`, which nobody here is the parent of."""
    path = f'{work}/pid-{name}'
    pid = int(open(path).read())
    while True:
        try:
            text = open(f'/proc/{pid}/stat').read()
        except OSError:
            return
        if text.rsplit(') ', 1)[1][0] in 'ZX':
            return
        time.sleep(0.0005)


def lifecycle(name):
    ident = f'bench-{name}'
    parts = [command(name, 'create', '--bundle', work, '--pid-file', f'{work}/pid-{name}', ident),
             command(name, 'start', ident)]
    ended(name, ident)
    parts.append(command(name, 'delete', ident))
    return parts


def median(values):
    values = sorted(values)
    return values[len(values) // 2]


def table(title, rows, unit, digits=1):
    base = rows['crun'] if 'crun' in rows else None
    print(f'\n{title}')
    for name, values in rows.items():
        ratio = f'{median(values) / median(base):8.2f}' if base else ''
        print(f'  {name:22} median {median(values):9.{digits}f} {unit}   fastest {min(values):9.{digits}f} {unit}{ratio}')


def leftovers():
    """What a container could leave on the host, as a set of names."""
    found = {f'mount {line.split()[4]}' for line in open('/proc/self/mountinfo')}
    found |= {f'link {name}' for name in os.listdir('/sys/class/net')}
    for base, groups, _ in os.walk('/sys/fs/cgroup'):
        found |= {f'group {base}/{name}' for name in groups if name.startswith('wharf-bench')}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if os.readlink(f'/proc/{pid}/exe').split(' ')[0] == os.path.realpath(os.environ['WHARF']):
                found.add(f'process {pid}')
        except OSError:
            pass
    found |= {f'state {name}' for name in os.listdir(f'{state}/wharf')}
    return found


def main():
    for name in RUNTIMES:
        lifecycle(name)
        command(name, 'run', '--bundle', work, f'bench-{name}')
    wall = {name: [] for name in RUNTIMES}
    cpu, memory, run, steps = ({name: [] for name in RUNTIMES} for _ in range(4))
    floors = {'floor': [], 'floor, network': [], 'floor, network, v1': []}
    for _ in range(rounds):
        for name in RUNTIMES:
            parts = lifecycle(name)
            wall[name].append(sum(part[0] for part in parts))
            cpu[name].append(sum(part[1] for part in parts))
            steps[name].append([part[0] for part in parts])
            run[name].append(command(name, 'run', '--bundle', work, f'bench-{name}')[0])
            memory[name].append(peak(name, 'run', '--bundle', work, f'bench-{name}'))
        for name, words in zip(floors, ([], ['net'], ['net', 'v1'])):
            text = subprocess.run([f'{work}/floor', f'{work}/rootfs', *words], capture_output=True, text=True, check=True)
            floors[name].append(float(text.stdout))
    table('create + start + delete, three commands: wall time', wall, 'ms')
    table('create + start + delete: processor time', cpu, 'ms')
    table('peak resident memory of run', memory, 'KiB', 0)
    table('run, one command: wall time', run, 'ms')
    print('\nthe commands apart, median ms        create   start  delete')
    for name in RUNTIMES:
        print(f'  {name:30}' + ''.join(f'{median([s[i] for s in steps[name]]):9.1f}' for i in range(3)))
    table('the kernel alone, in one program: namespaces, mounts, pivot, exec, end', floors, 'ms', 2)

    before = leftovers()
    for _ in range(cycles):
        lifecycle('wharf')
    after = leftovers()
    left = sorted(after - before)
    print(f'\n{cycles} cycles leave {len(left)} things behind' + ''.join(f'\n  {thing}' for thing in left))
    if left:
        sys.exit(1)


main()

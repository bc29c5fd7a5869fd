"""Creates, starts and deletes many containers, and looks for what they leave on the host.

    cycles.py BUNDLE CYCLES
"""
import json, os, subprocess, sys, time

bundle, cycles = sys.argv[1], int(sys.argv[2])
wharf = os.path.realpath(os.environ['WHARF'])


def left():
    found = {f'mount {line.split()[4]}' for line in open('/proc/self/mountinfo')}
    found |= {f'link {name}' for name in os.listdir('/sys/class/net')}
    for base, groups, _ in os.walk('/sys/fs/cgroup'):
        found |= {f'group {base}/{name}' for name in groups if '/bench' in base or name.startswith('bench')}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if os.readlink(f'/proc/{pid}/exe').split(' ')[0] == wharf:
                found.add(f'process {pid}')
        except OSError:
            pass
    for base, dirs, files in os.walk('/run'):
        found |= {f'file {base}/{name}' for name in dirs + files}
    return found


def oci(*words):
    subprocess.run([wharf, 'oci', *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)


config = json.load(open(f'{bundle}/config.json'))
config['process']['args'] = ['/bin/true']
json.dump(config, open(f'{bundle}/config.json', 'w'))
before = None
for cycle in range(cycles + 1):
    name = f'cycle{cycle}'
    oci('create', '--bundle', bundle, name)
    oci('start', name)
    while True:
        state = subprocess.run([wharf, 'oci', 'state', name], stdout=subprocess.PIPE, check=True).stdout
        if json.loads(state)['status'] == 'stopped':
            break
        time.sleep(0.001)
    oci('delete', name)
    # The first one makes what stays for all: the root of the states.
    before = before or left()
leaked = sorted(left() - before)
print(f'\n{cycles} cycles of create, start, delete leave {len(leaked)} things behind')
for thing in leaked:
    print(f'  {thing}')
sys.exit(bool(leaked))

"""A configuration with a filter of the size and shape of Docker's: most system calls allowed by name, some by argument.

    filter.py CONFIG OUTPUT
"""
import json, re, sys

# What Docker's own never allows without a capability.
REFUSED = {
    'acct', 'add_key', 'bpf', 'clone', 'clone3', 'delete_module', 'finit_module', 'fsconfig', 'fsmount', 'fsopen', 'fspick',
    'init_module', 'io_uring_enter', 'io_uring_register', 'io_uring_setup', 'ioperm', 'iopl', 'kexec_file_load',
    'kexec_load', 'keyctl', 'mount', 'mount_setattr', 'move_mount', 'move_pages', 'migrate_pages', 'open_tree',
    'personality', 'perf_event_open', 'pivot_root', 'quotactl', 'reboot', 'request_key', 'setdomainname', 'sethostname',
    'setns', 'settimeofday', 'socket', 'swapoff', 'swapon', 'syslog', 'umount2', 'unshare', 'userfaultfd', 'ustat',
    'uselib', 'vhangup',
}
header = open('/usr/include/x86_64-linux-gnu/asm/unistd_64.h').read()
names = sorted(set(re.findall(r'#define __NR_(\w+)', header)) - REFUSED)
spec = json.load(open(sys.argv[1]))


def when(name, index, value, op, second=0):
    return {'names': [name], 'action': 'SCMP_ACT_ALLOW',
            'args': [{'index': index, 'value': value, 'valueTwo': second, 'op': op}]}


spec['linux']['seccomp'] = {
    'defaultAction': 'SCMP_ACT_ERRNO', 'defaultErrnoRet': 1, 'architectures': ['SCMP_ARCH_X86_64'],
    'syscalls': [
        {'names': names, 'action': 'SCMP_ACT_ALLOW'},
        *(when('personality', 0, value, 'SCMP_CMP_EQ') for value in (0, 8, 0x20000, 0x20008, 0xffffffff)),
        when('socket', 0, 38, 'SCMP_CMP_LT'), when('socket', 0, 39, 'SCMP_CMP_EQ'), when('socket', 0, 40, 'SCMP_CMP_GT'),
        when('clone', 0, 0x7e020000, 'SCMP_CMP_MASKED_EQ'),
        {'names': ['clone3'], 'action': 'SCMP_ACT_ERRNO', 'errnoRet': 38},
    ],
}
json.dump(spec, open(sys.argv[2], 'w'))

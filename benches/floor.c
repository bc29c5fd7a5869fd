/* What the kernel itself takes for a container of a static `true`, with nothing of a runtime around it: clone into new
 * namespaces, a root, proc, dev, devpts, mqueue and sys on it, pivot_root, exec, wait.
 *
 *   floor ROOT [net] [v1]     prints milliseconds; net: a network namespace too; v1: groups in each v1 hierarchy, made,
 *                             joined and removed
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char groups[32][64];
static int count;

static void must(int result, const char *what) {
    if (result < 0) {
        perror(what);
        _exit(1);
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* The hierarchies of v1: those that are no links. */
static void find(void) {
    DIR *dir = opendir("/sys/fs/cgroup");
    struct dirent *entry;
    struct statfs fs;
    char path[128];
    while (dir && (entry = readdir(dir)) && count < 32) {
        if (entry->d_name[0] == '.' || entry->d_type != DT_DIR) continue;
        snprintf(path, sizeof path, "/sys/fs/cgroup/%.60s", entry->d_name);
        if (statfs(path, &fs) || fs.f_type != 0x27e0eb) continue;
        snprintf(groups[count++], sizeof groups[0], "%.50s", entry->d_name);
    }
}

static void put(const char *group, const char *file, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s/floor-bench/%s", group, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    must(fd, path);
    must(write(fd, text, strlen(text)), path);
    close(fd);
}

static void copy(const char *file) {
    char path[256], text[256];
    snprintf(path, sizeof path, "/sys/fs/cgroup/cpuset/%s", file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd, path);
    ssize_t n = read(fd, text, sizeof text - 1);
    must(n, path);
    text[n] = 0;
    close(fd);
    put("cpuset", file, text);
}

int main(int argc, char **argv) {
    const char *root = argv[1];
    int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP;
    if (argc > 2) flags |= CLONE_NEWNET;
    if (argc > 3) find();
    double start = now();
    for (int i = 0; i < count; i++) {
        char path[256];
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/floor-bench", groups[i]);
        must(mkdir(path, 0755), path);
        if (!strcmp(groups[i], "cpuset")) {
            copy("cpuset.cpus");
            copy("cpuset.mems");
        }
    }
    pid_t pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    must(pid, "clone");
    if (pid == 0) {
        for (int i = 0; i < count; i++) put(groups[i], "tasks", "0");
        must(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0), "private");
        must(mount(root, root, 0, MS_BIND | MS_REC, 0), "bind");
        must(chdir(root), "chdir");
        mkdir("proc", 0755), mkdir("dev", 0755), mkdir("sys", 0755);
        must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0), "proc");
        must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755"), "dev");
        mkdir("dev/pts", 0755), mkdir("dev/mqueue", 0755), mkdir("dev/shm", 0755);
        must(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666"), "devpts");
        must(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0), "mqueue");
        must(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777"), "shm");
        if (argc > 2) must(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, 0), "sys");
        for (int i = 1; i < 7; i++) {
            static const char *names[] = {"", "null", "zero", "full", "random", "urandom", "tty"};
            static const int minors[] = {0, 3, 5, 7, 8, 9, 0};
            char path[32];
            snprintf(path, sizeof path, "dev/%s", names[i]);
            must(mknod(path, S_IFCHR | 0666, i == 6 ? 0x500 : 0x100 | minors[i]), path);
        }
        must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
        must(umount2(".", MNT_DETACH), "umount");
        must(chdir("/"), "chdir");
        execl("/bin/true", "true", (char *)0);
        must(-1, "exec");
    }
    int status;
    must(waitpid(pid, &status, 0), "wait");
    for (int i = 0; i < count; i++) {
        char path[256];
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/floor-bench", groups[i]);
        must(rmdir(path), path);
    }
    printf("%.3f\n", now() - start);
    return status != 0;
}

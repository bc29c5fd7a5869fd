/* What network.py measures with: as little of its own as can be, so that what is seen is the way there and back.
 *   netload serve PORT                      answers each connection with one byte and closes it
 *   netload connect ADDRESS PORT SECONDS    connections one after the other; prints how many a second were answered
 *   netload answer ADDRESS                  a name server that has the same answer for every name, and does nothing else
 *   netload dns ADDRESS NAME SECONDS WINDOW that many queries for an A record on their way at any moment; prints answers
 *                                           a second, and the median and the 99th percentile of their time in us  */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}
static void fail(const char *what) { perror(what); exit(1); }
static socklen_t address(const char *text, const char *port, struct sockaddr_storage *out) {
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found;
  if (getaddrinfo(text, port, &hints, &found)) { fprintf(stderr, "no address: %s\n", text); exit(1); }
  memcpy(out, found->ai_addr, found->ai_addrlen);
  return found->ai_addrlen;
}

static int serve(const char *port) {
  struct sockaddr_storage at;
  socklen_t length = address("::", port, &at);
  int listener = socket(AF_INET6, SOCK_STREAM, 0), one = 1, off = 0;
  if (listener < 0) { /* No IPv6 here. */
    listener = socket(AF_INET, SOCK_STREAM, 0);
    length = address("0.0.0.0", port, &at);
  } else setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void *)&at, length) || listen(listener, 1024)) fail("listen");
  for (;;) {
    int client = accept(listener, 0, 0);
    if (client < 0) continue;
    if (write(client, "x", 1) < 0) {}
    close(client);
  }
  return 0;
}

/* What the kernel alone takes there and back: the floor for `dns`. */
static int answer(const char *at) {
  static const unsigned char record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 192, 0, 2, 1};
  unsigned char message[512 + sizeof record];
  struct sockaddr_storage own, peer;
  socklen_t length = address(at, "53", &own);
  int fd = socket(own.ss_family, SOCK_DGRAM, 0);
  if (fd < 0 || bind(fd, (void *)&own, length)) fail("bind");
  for (;;) {
    socklen_t size = sizeof peer;
    ssize_t got = recvfrom(fd, message, 512, 0, (void *)&peer, &size);
    if (got < 12) continue;
    message[2] |= 0x80, message[3] |= 0x80, message[7] = 1;
    memcpy(message + got, record, sizeof record);
    if (sendto(fd, message, got + sizeof record, 0, (void *)&peer, size) < 0) {}
  }
  return 0;
}

static int connections(const char *to, const char *port, double seconds) {
  struct sockaddr_storage at;
  socklen_t length = address(to, port, &at);
  double start = now(), end = start + seconds, last = start;
  long count = 0, failed = 0;
  while ((last = now()) < end) {
    int fd = socket(at.ss_family, SOCK_STREAM, 0);
    /* No port stays behind waiting: there are only 28,000. */
    struct linger hard = {1, 0};
    char byte;
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    if (connect(fd, (void *)&at, length) == 0 && read(fd, &byte, 1) == 1) count++; else failed++;
    close(fd);
    if (failed > 100) { fprintf(stderr, "no answer from %s port %s: %s\n", to, port, strerror(errno)); return 1; }
  }
  printf("%.0f\n", count / (last - start));
  return 0;
}

static int up(const void *a, const void *b) { double d = *(double *)a - *(double *)b; return (d > 0) - (d < 0); }

static int dns(const char *to, const char *name, double seconds, int window) {
  unsigned char query[300] = {0, 0, 1, 0, 0, 1}, answer[1500];
  size_t length = 12;
  char labels[256];
  snprintf(labels, sizeof labels, "%s", name);
  for (char *label = strtok(labels, "."); label; label = strtok(0, ".")) {
    query[length++] = strlen(label);
    memcpy(query + length, label, strlen(label));
    length += strlen(label);
  }
  query[length + 2] = 1; /* A */
  query[length + 4] = 1; /* IN */
  length += 5;
  static double sent[65536], times[1 << 22];
  struct sockaddr_storage at;
  socklen_t size = address(to, "53", &at);
  int fd = socket(at.ss_family, SOCK_DGRAM, 0);
  if (connect(fd, (void *)&at, size)) fail("connect");
  double start = now(), end = start + seconds, last;
  long count = 0, lost = 0;
  unsigned id = 0;
  int under_way = 0;
  while ((last = now()) < end) {
    for (; under_way < window; under_way++, id++) {
      query[0] = id >> 8 & 255, query[1] = id & 255;
      sent[id & 65535] = now();
      if (send(fd, query, length, 0) < 0) fail("send");
    }
    struct pollfd wait = {fd, POLLIN, 0};
    if (poll(&wait, 1, 1000) == 0) {
      lost += under_way, under_way = 0;
      if (lost > 10 * window) { fprintf(stderr, "no answer\n"); return 1; }
      continue;
    }
    ssize_t got = recv(fd, answer, sizeof answer, 0);
    if (got < 12) fail("recv");
    if ((answer[3] & 15) || !(answer[6] | answer[7])) { fprintf(stderr, "no address of %s\n", name); return 1; }
    if (count < 1 << 22) times[count] = now() - sent[answer[0] << 8 | answer[1]];
    count++, under_way--;
  }
  if (!count) { fprintf(stderr, "no answer from %s\n", to); return 1; }
  long kept = count < 1 << 22 ? count : 1 << 22;
  qsort(times, kept, sizeof *times, up);
  printf("%.0f %.1f %.1f\n", count / (last - start), times[kept / 2] * 1e6, times[kept * 99 / 100] * 1e6);
  return 0;
}

int main(int count, char **words) {
  signal(SIGPIPE, SIG_IGN);
  if (count == 3 && !strcmp(words[1], "serve")) return serve(words[2]);
  if (count == 3 && !strcmp(words[1], "answer")) return answer(words[2]);
  if (count == 5 && !strcmp(words[1], "connect")) return connections(words[2], words[3], atof(words[4]));
  if (count == 6 && !strcmp(words[1], "dns")) return dns(words[2], words[3], atof(words[4]), atoi(words[5]));
  fprintf(stderr, "see network.py\n");
  return 2;
}

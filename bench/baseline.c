/* The baseline: a relay that copies the bytes of a sender to the socket of each receiver, and does nothing else.

   It has no parsing, accounts, history or order of messages, and it waits for slow receivers. Its deliveries a second
   are the maximum for one thread and the sockets of this machine. A server that does more work cannot be faster.

   Usage: baseline PORT. The first byte of a connection is R for a receiver or S for a sender; the answer is a dot. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, PIECE_BYTES = 65536, BACKLOG = 4096 };

struct peer {
  int fd;
  char role;    /* 0 until the first byte has arrived */
  size_t index; /* of a receiver, in receivers */
};

static struct peer **receivers;
static size_t receiver_count, receiver_capacity;
static int epoll;

static void must(int succeeded, const char *call) {
  if (!succeeded) {
    perror(call);
    exit(1);
  }
}

static void raise_descriptor_limit(void) {
  struct rlimit limit;
  must(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
  limit.rlim_cur = limit.rlim_max;
  must(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
}

static int listen_on(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  must(fd >= 0, "socket");
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  must(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind");
  must(listen(fd, BACKLOG) == 0, "listen");
  return fd;
}

static void watch(int fd, void *data) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = data};
  must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void accept_connection(int listener) {
  int on = 1, fd = accept(listener, NULL, NULL);
  if (fd < 0)
    return;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct peer *peer = calloc(1, sizeof *peer);
  must(peer != NULL, "calloc");
  peer->fd = fd;
  watch(fd, peer);
}

static void set_role(struct peer *peer, char role) {
  peer->role = role;
  if (role == 'R') {
    if (receiver_count == receiver_capacity) {
      receiver_capacity = receiver_capacity * 2 + 64;
      receivers = realloc(receivers, receiver_capacity * sizeof *receivers);
      must(receivers != NULL, "realloc");
    }
    peer->index = receiver_count;
    receivers[receiver_count++] = peer;
  }
  send(peer->fd, ".", 1, MSG_NOSIGNAL);
}

static void close_connection(struct peer *peer) {
  if (peer->role == 'R') {
    struct peer *last = receivers[--receiver_count];
    receivers[peer->index] = last;
    last->index = peer->index;
  }
  close(peer->fd);
  free(peer);
}

static void relay(const char *data, ssize_t size) {
  for (size_t i = 0; i < receiver_count; i++)
    for (ssize_t done = 0; done < size;) {
      ssize_t sent = send(receivers[i]->fd, data + done, size - done, MSG_NOSIGNAL);
      if (sent <= 0)
        break;
      done += sent;
    }
}

static void read_from(struct peer *peer) {
  static char piece[PIECE_BYTES];
  ssize_t size = recv(peer->fd, piece, sizeof piece, 0), begin = 0;
  if (size <= 0) {
    close_connection(peer);
    return;
  }
  if (!peer->role)
    set_role(peer, piece[begin++]);
  if (peer->role == 'S' && size > begin)
    relay(piece + begin, size - begin);
}

int main(int count, char **arguments) {
  if (count != 2) {
    fprintf(stderr, "baseline PORT\n");
    return 2;
  }
  raise_descriptor_limit();
  epoll = epoll_create1(0);
  must(epoll >= 0, "epoll_create1");
  int listener = listen_on(atoi(arguments[1]));
  watch(listener, NULL); /* the only event without a peer */
  struct epoll_event events[EVENTS];
  for (;;) {
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      if (events[i].data.ptr)
        read_from(events[i].data.ptr);
      else
        accept_connection(listener);
    }
  }
}

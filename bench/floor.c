/* The floor: the least that a server can do. What a sender writes is copied to the socket of every receiver.

   No parsing, no accounts, no history, no order of its own, no receiver passed over that is slow. What it delivers in a
   second is what this machine's sockets can take from one thread; no server that does more can be faster.

   floor PORT. A connection's first byte says what it is, R a receiver or S a sender, and is answered by a dot. */
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
  char role;    /* 0 until it has said it */
  size_t place; /* of a receiver, among the receivers */
};

static struct peer **receivers;
static size_t receiver_count, receiver_room;
static int poller;

static void must(int is_well, const char *what) {
  if (!is_well) {
    perror(what);
    exit(1);
  }
}

static void allow_descriptors(void) {
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
  must(epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void welcome(int listener) {
  int on = 1, fd = accept(listener, NULL, NULL);
  if (fd < 0)
    return;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct peer *peer = calloc(1, sizeof *peer);
  must(peer != NULL, "calloc");
  peer->fd = fd;
  watch(fd, peer);
}

static void take_role(struct peer *peer, char role) {
  peer->role = role;
  if (role == 'R') {
    if (receiver_count == receiver_room) {
      receiver_room = receiver_room * 2 + 64;
      receivers = realloc(receivers, receiver_room * sizeof *receivers);
      must(receivers != NULL, "realloc");
    }
    peer->place = receiver_count;
    receivers[receiver_count++] = peer;
  }
  send(peer->fd, ".", 1, MSG_NOSIGNAL);
}

static void forget(struct peer *peer) {
  if (peer->role == 'R') {
    struct peer *last = receivers[--receiver_count];
    receivers[peer->place] = last;
    last->place = peer->place;
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

static void hear(struct peer *peer) {
  static char piece[PIECE_BYTES];
  ssize_t size = recv(peer->fd, piece, sizeof piece, 0), begin = 0;
  if (size <= 0) {
    forget(peer);
    return;
  }
  if (!peer->role)
    take_role(peer, piece[begin++]);
  if (peer->role == 'S' && size > begin)
    relay(piece + begin, size - begin);
}

int main(int count, char **arguments) {
  if (count != 2) {
    fprintf(stderr, "floor PORT\n");
    return 2;
  }
  allow_descriptors();
  poller = epoll_create1(0);
  must(poller >= 0, "epoll_create1");
  int listener = listen_on(atoi(arguments[1]));
  watch(listener, NULL); /* the only one without a peer */
  struct epoll_event events[EVENTS];
  for (;;) {
    int ready = epoll_wait(poller, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      if (events[i].data.ptr)
        hear(events[i].data.ptr);
      else
        welcome(listener);
    }
  }
}

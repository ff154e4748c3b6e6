/* An example of a client for the wire format frames, which ../wire/frames.md describes.

   cc -std=c11 -O2 -Wall -Wextra -Wpedantic -o frames_client frames_client.c
   ./frames_client HOST PORT USERNAME

   It asks for one line at a time: the password (which is visible), operations (PM, DM, CH, EX), and their arguments.
   Exit codes: 0 you left (EX, or end of input); 1 no connection, or it was lost; 2 wrong usage; 3 login refused. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER_BYTES = 5, FRAME_MAX_BYTES = 65536, PAYLOAD_MAX_BYTES = FRAME_MAX_BYTES - HEADER_BYTES };
enum { LEFT, LOST, USAGE, REFUSED };

static int server;                          /* the socket */
static int outcome = REFUSED;               /* the exit code if the connection ends now */
static char type;                           /* of the last received frame: C or D */
static char payload[PAYLOAD_MAX_BYTES + 1]; /* its payload as a string, without control characters */

static _Noreturn void end(int code, const char *why) {
  if (code != LEFT)
    fprintf(stderr, "frames_client: %s\n", why);
  exit(code);
}

/* A name may have several addresses: use the first one that answers. */
static void connect_to(const char *host, const char *port) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
  if (getaddrinfo(host, port, &hints, &found) != 0)
    end(LOST, "can't find the server");
  int problem = -1;
  for (struct addrinfo *each = found; each && problem; each = each->ai_next) {
    server = socket(each->ai_family, each->ai_socktype, each->ai_protocol);
    problem = connect(server, each->ai_addr, each->ai_addrlen);
    if (problem)
      close(server);
  }
  freeaddrinfo(found);
  if (problem)
    end(LOST, "can't reach the server");
}

/* One recv() may return less than requested. Never read ahead, so that poll() reports the next frame. */
static void receive_bytes(char *bytes, size_t size) {
  while (size > 0) {
    ssize_t count = recv(server, bytes, size, 0);
    if (count <= 0)
      end(outcome, "the connection has ended");
    bytes += count;
    size -= (size_t)count;
  }
}

static void show_frame(void) {
  char kind[8], from[33], id[21];
  int text = 0; /* its start, after the time, which is not shown */
  if (type == 'D' && sscanf(payload, "%7s %32s %20s %*s%n", kind, from, id, &text) == 3)
    printf("[%s %s] %s:%s\n", kind, id, from, payload + text);
  else
    printf("[%s]\n", payload);
}

/* Receive one frame of either type, and show it. */
static void receive_frame(void) {
  char header[HEADER_BYTES];
  uint32_t size;
  receive_bytes(header, sizeof header);
  type = header[0];
  memcpy(&size, header + 1, sizeof size);
  size = ntohl(size);
  if ((type != 'C' && type != 'D') || size > PAYLOAD_MAX_BYTES)
    end(LOST, "the server sent something that is no frame");
  receive_bytes(payload, size);
  payload[size] = '\0';
  for (char *byte = payload; byte < payload + size; byte++) /* messages must not control the terminal */
    if ((unsigned char)*byte < 0x20 || *byte == 0x7f)
      *byte = *byte == '\n' ? ' ' : '?';
    else if ((unsigned char)byte[0] == 0xc2 && (byte[1] & 0xe0) == 0x80) /* U+0080 to U+009F, in UTF-8 */
      byte[0] = byte[1] = '?';
  show_frame();
}

/* True if the last frame is this command, with or without arguments. */
static bool is(const char *command) {
  size_t size = strlen(command);
  return type == 'C' && strcspn(payload, " ") == size && strncmp(payload, command, size) == 0;
}

static void send_frame(char of_type, const char *text) {
  static char bytes[FRAME_MAX_BYTES];
  size_t size = strnlen(text, PAYLOAD_MAX_BYTES), sent = 0;
  uint32_t length = htonl((uint32_t)size);
  bytes[0] = of_type;
  memcpy(bytes + 1, &length, sizeof length);
  memcpy(bytes + HEADER_BYTES, text, size);
  while (sent < HEADER_BYTES + size) {
    ssize_t count = send(server, bytes + sent, HEADER_BYTES + size - sent, MSG_NOSIGNAL);
    if (count < 0)
      return; /* connection lost; receiving shows the remaining frames, and then ends */
    sent += (size_t)count;
  }
}

/* Send a frame, and wait for the answer. Messages and unknown commands may come before it. */
static void step(char of_type, const char *text) {
  static const char *const answers[] = {"PASSWORD", "WELCOME", "DENIED", "READY", "ONLINE", "SENT",
                                        "STORED", "NOUSER", "HISTORY", "PONG", "ERROR"};
  send_frame(of_type, text);
  for (;;) {
    receive_frame();
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
      if (is(answers[i]))
        return;
  }
}

/* Ask for a line, and show arriving frames in the meantime. The line is valid until the next call.
   It is read byte by byte: further lines stay in the pipe, so that poll() reports them. */
static const char *ask(const char *what) {
  static char line[PAYLOAD_MAX_BYTES + 1];
  printf("%s:\n", what);
  for (size_t size = 0; size < sizeof line;) {
    struct pollfd ends[] = {{.fd = server, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    poll(ends, 2, -1); /* if it fails, nothing is ready, and the loop calls it again */
    if (ends[0].revents)
      receive_frame();
    if (!ends[1].revents)
      continue;
    bool is_ended = read(STDIN_FILENO, line + size, 1) <= 0;
    if (is_ended && size == 0)
      exit(LEFT); /* also between two steps: the server discards an incomplete operation */
    if (is_ended || line[size] == '\n') {
      line[size] = '\0';
      return line;
    }
    size++;
  }
  end(USAGE, "the line is longer than a frame");
}

static void log_in(const char *username) {
  step('C', username);
  if (!is("PASSWORD"))
    end(REFUSED, "you were not let in");
  while (!is("WELCOME"))
    step('C', ask("password"));
  outcome = LOST;
}

/* The server knows the operations; its answer selects the next step. (USERS has the same answer as DM.) */
static void operate(const char *operation) {
  if (strcasecmp(operation, "EX") == 0)
    outcome = LEFT; /* after its BYE the server closes the connection */
  step('C', operation);
  if (is("READY")) {
    step('D', ask("message"));
  } else if (is("ONLINE") && strcasecmp(operation, "USERS") != 0) {
    send_frame('C', ask("recipient")); /* not answered: the answer to the text says if there is no such user */
    step('D', ask("message"));
  } else if (is("HISTORY")) {
    for (long left = strtol(payload + strlen("HISTORY"), NULL, 10); left > 0; left--)
      receive_frame();
  }
}

int main(int count, char **arguments) {
  if (count != 4)
    end(USAGE, "expected arguments: HOST PORT USERNAME");
  setvbuf(stdout, NULL, _IOLBF, 0); /* show lines at once, in a pipe, too */
  connect_to(arguments[1], arguments[2]);
  log_in(arguments[3]);
  for (;;)
    operate(ask("operation"));
}
